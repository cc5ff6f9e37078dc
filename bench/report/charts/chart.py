"""A chart, and what all charts of a run are drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.analysis.accuracy.waterfall import Step
from bench.record.run_folder import CaseResult

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Chart:
    """A drawing of a run.

    Attributes:
        name: fit for the name of a file.
        title: a short sentence for people.
        alt: what is to be seen, with figures, for screen readers.
        spec: a whole Vega-Lite spec with its data, in light colours; ``themed`` makes others of it.
        case_ids: whose rows it draws.
    """

    name: str
    title: str
    alt: str
    spec: Mapping[str, Any]
    case_ids: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Source:
    """What a run has to draw.

    Attributes:
        rows: of the frame, of Cases that are ok, unknown values as None.
        results: how the Cases of these rows ended.
        samples: as of ``RunFolder.samples``.
        rounds: as of ``RunFolder.rounds``.
        steps: of the accuracy waterfall.
        materiality: the least difference of times that counts, as a share.
        marks: what must be said wherever an accuracy stands.
    """

    rows: Sequence[Row]
    results: Sequence[CaseResult]
    samples: pd.DataFrame
    rounds: pd.DataFrame
    steps: Sequence[Step]
    materiality: float
    marks: Sequence[str]

    def of(self, scenario: str) -> list[Row]:
        """The rows of a scenario."""
        return [row for row in self.rows if row["scenario"] == scenario]
