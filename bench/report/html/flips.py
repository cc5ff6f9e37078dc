"""Flips of the HTML report: which images changed sides, each with a small picture and both predictions."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.analysis.accuracy.flips import FlipLedger
from bench.analysis.accuracy.predictions import ScoredRun
from bench.report import flips
from bench.report.text import one_line
from pipelines.imagenet.find import read_image, wnids
from pipelines.reference.pipeline import UnreadableImage, opened

View = dict[str, Any]

# Of each pair; and of the page, whose file would grow with the number of Cases.
FLIPS_OF_PAIR = 24
FLIPS_OF_PAGE = 240
# A pair that has flips shows some, however many pairs there are.
FLIPS_AT_LEAST = 4

# Twice the size at which they are shown would be sharper on a phone, and four times the bytes.
SIDE_PIXELS = 96
JPEG_QUALITY = 72


def flip_cards(run: ScoredRun, ledgers: Sequence[FlipLedger]) -> list[View]:
    """Of each Case that has flips its name, ids, number of flips, and a card for each one shown, for the template."""
    changed = [
        (name, ledger) for name, ledger in zip(flips.names_of(ledgers)[1:], ledgers, strict=True) if ledger.n_flips
    ]
    most = max(FLIPS_AT_LEAST, min(FLIPS_OF_PAIR, FLIPS_OF_PAGE // max(1, len(changed))))
    pictures = Pictures((run.info.get("dataset") or {}).get("root"))
    classes = wnids()
    return [
        {
            "name": name,
            "case_id": ledger.other.case.case_id,
            "base_id": ledger.base.case.case_id,
            "n_flips": ledger.n_flips,
            "cards": [_card(flip, pictures, classes) for flip in ledger.flips.iloc[:most].itertuples()],
        }
        for name, ledger in changed
    ]


def _card(flip: Any, pictures: Pictures, classes: Sequence[str]) -> View:
    """One flip: a picture as a data URI or why there is none, the true class, both predictions with their margins."""
    picture, missing = pictures.of(flip.image_id)
    return {
        "image_id": one_line(flip.image_id),
        "picture": picture,
        "missing": missing,
        "label": _class_text(flip.label, classes),
        "base": _class_text(flip.base_top1, classes),
        "base_margin": f"{flip.base_margin:.2g}",
        "other": _class_text(flip.other_top1, classes),
        "other_margin": f"{flip.other_margin:.2g}",
        "kind": flip.kind or "",
    }


def _class_text(label: int, classes: Sequence[str]) -> str:
    return f"{label} ({classes[label]})" if 0 <= label < len(classes) else str(label)


class Pictures:
    """Small pictures of a run's images, each made once.

    The same file gives the same picture: orientation that EXIF asks for is ignored, as the pipelines ignore it.
    """

    def __init__(self, root: str | None) -> None:
        self._root = Path(os.path.abspath(root)) if root else None
        self._made: dict[str, tuple[str, str]] = {}

    def of(self, image_id: str) -> tuple[str, str]:
        """A data URI and nothing; or nothing, and why there is no picture."""
        if image_id not in self._made:
            self._made[image_id] = self._make(image_id)
        return self._made[image_id]

    def _make(self, image_id: str) -> tuple[str, str]:
        if self._root is None:
            return "", "the run does not say where its images were"
        if not self._root.is_dir():
            return "", "the data folder of the run is not on this machine"
        path = Path(os.path.normpath(self._root / image_id))
        if not path.is_relative_to(self._root) or "\0" in image_id:
            return "", "its name leads out of the data folder"
        if not path.is_file():
            return "", "the file is no longer in the data folder"
        return _small(path)


def _small(path: Path) -> tuple[str, str]:
    from PIL import Image

    try:
        with opened(read_image(path)) as image:
            image.draft("RGB", (2 * SIDE_PIXELS, 2 * SIDE_PIXELS))  # JPEG: decodes only what is needed
            small = image.convert("RGB")
            small.thumbnail((SIDE_PIXELS, SIDE_PIXELS), Image.Resampling.BILINEAR)
            stream = io.BytesIO()
            small.save(stream, "JPEG", quality=JPEG_QUALITY, optimize=True, comment=b"")
    except (
        OSError,
        ValueError,
        SyntaxError,
        UnreadableImage,
        Image.DecompressionBombError,
    ):  # what Pillow raises for a torn file
        return "", "the file cannot be decoded"
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}", ""
