"""Flips of the HTML report: which images changed sides, each with a small picture and both predictions."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.analysis.accuracy.flips import Flip, FlipLedger
from bench.analysis.accuracy.pairing import LeftOut, against_reference
from bench.analysis.accuracy.predictions import ScoredRun
from bench.analysis.columns import PREDICTIONS
from bench.report import flips
from bench.report.html.tables import PageTable, plain_table
from bench.report.text import one_line

# Of each pair; and of the page, whose file would grow with the number of Cases.
FLIPS_OF_PAIR = 24
FLIPS_OF_PAGE = 240
# A pair that has flips shows some, however many pairs there are.
FLIPS_AT_LEAST = 4

# Twice the size at which they are shown would be sharper on a phone, and four times the bytes.
SIDE_PIXELS = 96
JPEG_QUALITY = 72


@dataclass(frozen=True)
class Card:
    """One flip.

    Attributes:
        image_id: the file.
        picture: a data URI; empty where there is none.
        missing: why there is no picture.
        label: the true class, in words.
        base: what the base predicted.
        base_margin: how far that led.
        other: what the other side predicted.
        other_margin: how far that led.
        kind: one of ``flips.KINDS``; empty where nothing may be scored.
    """

    image_id: str
    picture: str
    missing: str
    label: str
    base: str
    base_margin: str
    other: str
    other_margin: str
    kind: str


@dataclass(frozen=True)
class Pair:
    """A Case against the reference: its name, its id, how many flips there are, and those shown."""

    name: str
    case_id: str
    n_flips: int
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class FlipSection:
    """All that the page says of flips.

    Attributes:
        base: name of the Case that the others are compared with.
        base_id: its id.
        same: a sentence, where no image changed sides; else empty.
        table: a row a Case; None where ``same`` says it all.
        pairs: those that have flips.
        left_out: Cases that could not be compared.
    """

    base: str
    base_id: str
    same: str
    table: PageTable | None
    pairs: tuple[Pair, ...]
    left_out: tuple[LeftOut, ...]


def flip_section(run: ScoredRun) -> FlipSection | None:
    """Every accuracy Case against the reference; None where there is nothing to compare."""
    ledgers, left_out = against_reference(run)
    if run.reference is None or not (ledgers or left_out):
        return None
    reference = run.reference.case
    base, *names = flips.short_names([reference, *(ledger.other.case for ledger in ledgers)])
    same, table = "", None
    if any(ledger.n_flips for ledger in ledgers):
        notes = [*flips.how_to_read(ledgers), *flips.lines(names, ledgers)]
        drawn = flips.ledgers_table("Flips", names, ledgers, flips.REPORT, *notes)
        table = plain_table("flips", drawn, [_whose(ledger) for ledger in ledgers])
    elif ledgers:
        same = flips.all_same(base, names, ledgers)
    return FlipSection(base, reference.case_id, same, table, _pairs(run, names, ledgers), tuple(left_out))


def _whose(ledger: FlipLedger) -> tuple[str, str]:
    other, base = ledger.other.case.case_id, ledger.base.case.case_id
    return other, f"Case {other} against Case {base}, image by image, from {PREDICTIONS}"


def _pairs(run: ScoredRun, names: Sequence[str], ledgers: Sequence[FlipLedger]) -> tuple[Pair, ...]:
    changed = [(name, ledger) for name, ledger in zip(names, ledgers, strict=True) if ledger.n_flips]
    most = max(FLIPS_AT_LEAST, min(FLIPS_OF_PAIR, FLIPS_OF_PAGE // max(1, len(changed))))
    pictures = Pictures((run.info.get("dataset") or {}).get("root"))
    classes = _class_names()
    return tuple(
        Pair(
            name,
            ledger.other.case.case_id,
            ledger.n_flips,
            tuple(_card(flip, pictures, classes) for flip in ledger.flips.first(most)),
        )
        for name, ledger in changed
    )


def _card(flip: Flip, pictures: Pictures, classes: Sequence[str]) -> Card:
    picture, missing = pictures.of(flip.image_id)
    return Card(
        image_id=one_line(flip.image_id),
        picture=picture,
        missing=missing,
        label=_class_text(flip.label, classes),
        base=_class_text(flip.base_top1, classes),
        base_margin=f"{flip.base_margin:.2g}",
        other=_class_text(flip.other_top1, classes),
        other_margin=f"{flip.other_margin:.2g}",
        kind=flip.kind or "",
    )


def _class_names() -> Sequence[str]:
    from pipelines.imagenet.find import wnids

    return wnids()


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

    from pipelines.imagenet.find import read_image
    from pipelines.reference.pipeline import UnreadableImage, opened

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
