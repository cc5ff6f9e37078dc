"""What each stage of the reference makes of the same files, as digests, so that a later change in it can be told.

The preprocessing gate compares pipelines with the reference of the same code. A fault in the reference, or in what
all pipelines share, is no difference there: only an earlier state can show it. A run keeps these digests, a baseline
too, and where a check finds other pixels than the baseline's they say from which stage on.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pipelines import open_stages
from pipelines.base import STAGES, Preprocess
from pipelines.imagenet.find import Image, read_image, subset
from pipelines.parity.probes import write_probes
from pipelines.reference.pipeline import UnreadableImage

# Some of the run's own images, which are the baseline's too, and probes, on which faults show that hardly any image
# tells (``pipelines.parity.probes``).
SAMPLE_IMAGES = 8

FILES = "files"

Digests = Mapping[str, Mapping[str, str]]


def of_reference(images: Sequence[Image], preprocess: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Digests of ``files`` and of what each stage makes of them, for ``images`` and for ``probes``.

    Args:
        images: of a run; a few are taken, the same whenever a run holds the same ones or more.
        preprocess: keywords of ``pipelines.base.Preprocess``.
    """
    numbers = Preprocess.from_dict(preprocess)
    with tempfile.TemporaryDirectory() as folder:
        probes = write_probes(Path(folder), numbers)
        return {"images": _digests(subset(images, SAMPLE_IMAGES), numbers), "probes": _digests(probes, numbers)}


def _digests(images: Sequence[Image], preprocess: Any) -> dict[str, str]:
    found = {name: hashlib.sha256() for name in (FILES, *STAGES)}
    with closing(open_stages("reference", preprocess)) as stages:
        for image in images:
            made: Any = b""
            for name in (FILES, *STAGES):
                try:
                    made = read_image(image.path) if name == FILES else getattr(stages, name)(made)
                except (OSError, UnreadableImage):
                    found[name].update(b"unreadable")
                    break
                found[name].update(made if name == FILES else f"{made.shape}".encode() + made.tobytes())
    return {name: digest.hexdigest()[:16] for name, digest in found.items()}


def first_change(before: Digests, now: Digests) -> str:
    """The first stage that makes something else of the same files; empty where none does, or none can be told."""
    changed = {
        name
        for group, known in before.items()
        if known.get(FILES) and known.get(FILES) == (now.get(group) or {}).get(FILES)
        for name in STAGES
        if known.get(name) != now[group].get(name)
    }
    return next((name for name in STAGES if name in changed), "")
