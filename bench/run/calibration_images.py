"""Which images INT8 graphs are calibrated on: seeded, even over the classes, never among those that are scored."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bench.report.terminal import printer
from bench.run.images import DEMO_DATA, working
from bench.worker.messages import CalibrationImages
from pipelines.demo.make import make_demo
from pipelines.imagenet.find import Image, find_images, subset
from pipelines.imagenet.labels import Labelling
from scarlet.errors import BenchError
from scarlet.files import file_sha256

# Ranges settle after a few hundred images; 256 is also the size of the demo set's published calibration split.
IMAGES = 256
FEW = 100
# Another seed than that of the images to score, so that a user who scores part of a set finds other images here.
SEED = 6


def choose_calibration(
    data: Path,
    scored: Sequence[Image],
    folder: str | None,
    console: Console,
    n: int = IMAGES,
    how: Labelling | None = None,
) -> CalibrationImages:
    """Chooses calibration images that are not scored.

    From ``folder`` where one is given; for a demo set its own split for calibration, made first where it is missing;
    else from the images of the set that are not scored.

    Args:
        data: the folder of the images that are scored.
        scored: those images; may be empty.
        folder: the user's folder of calibration images, laid out as ``data`` is, or None.
        n: how many at most.
        how: images are labelled.

    Raises:
        BenchError: there is no image that is not scored.
    """
    if folder is not None:
        image_set = find_images(Path(os.path.expanduser(folder)), how)
        root, candidates, source = image_set.root, image_set.images, f"--calibration {folder}"
    else:
        image_set = find_images(data, how)
        if image_set.is_demo:
            root = demo_split(n, console).resolve()
            candidates, source = find_images(root).images, "the demo set's calibration split"
        else:
            scored_ids = {image.image_id for image in scored}
            root, source = image_set.root, "images of the set that are not scored"
            candidates = tuple(image for image in image_set.images if image.image_id not in scored_ids)
    chosen = subset(candidates, n, SEED) if candidates else ()
    apart, say = without_copies(chosen, scored), printer(console)
    if not apart:
        raise BenchError(
            "INT8 needs images to calibrate on, and "
            + (f"all images of {folder} are scored" if folder else f"all {len(scored):,} images of the set are scored"),
            "Name a folder of other images with --calibration, or score fewer with --images.",
        )
    if len(apart) < len(chosen):
        say(f"{len(chosen) - len(apart)} calibration images are copies of scored ones and were left out")
    if len(apart) < FEW:
        say(f"calibrating on {len(apart)} images only, from {source}; {FEW} or more are usual")
    return CalibrationImages(root.resolve(), apart, source)


def without_copies(candidates: Sequence[Image], scored: Sequence[Image]) -> tuple[Image, ...]:
    """The candidates that are no copies of scored images, by content; of files of equal size digests are compared."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for image in scored:
        by_size[_size_bytes(image.path)].append(image.path)
    digests: dict[Path, str] = {}

    def digest(path: Path) -> str:
        if path not in digests:
            digests[path] = file_sha256(path)
        return digests[path]

    def is_scored(path: Path) -> bool:
        size = _size_bytes(path)
        return size >= 0 and any(digest(other) == digest(path) for other in by_size.get(size, ()))

    return tuple(image for image in candidates if not is_scored(image.path))


def _size_bytes(path: Path) -> int:
    """The file's size, -1 where there is none: pipelines list it as unreadable."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def demo_split(n: int, console: Console) -> Path:
    """The folder with the first images of the demo set's split for calibration, made where they are missing."""
    out = DEMO_DATA / f"calib-{n}"
    with working(console, f"making sure of {n} demo images to calibrate on in {out}"):
        make_demo(out, n, "calib")
    return out
