"""What papers state of models that are measured here, and of those that they are compared with.

The figures are data, ``published.yaml``, each row with its source. They are never mixed with what was measured: a
table has a column for either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

DATA = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True)
class PublishedRow:
    """One row: millions as printed, accuracies in percent on ILSVRC2012's validation images.

    Attributes:
        name: as papers print it.
        multiply_adds_millions: for one image.
        parameters_millions: of the network.
        top1_percent: one crop.
        top5_percent: likewise; None where the source does not tell.
        source: paper and table.
        model: name under which ``scarlet.zoo`` knows it; empty where it does not.
    """

    name: str
    multiply_adds_millions: float
    parameters_millions: float
    top1_percent: float
    source: str
    top5_percent: float | None = None
    model: str = ""


@lru_cache(maxsize=1)
def rows() -> tuple[PublishedRow, ...]:
    """All rows, in the order of the file."""
    import yaml

    data: Mapping[str, Any] = yaml.safe_load(DATA.read_text(encoding="utf-8"))
    return tuple(PublishedRow(**row) for row in data["published"])


def published(model: str) -> PublishedRow | None:
    """What is published of a model by its canonical name, such as ``scarlet_c``; None where nothing is known."""
    return next((row for row in rows() if row.model and row.model == model), None)
