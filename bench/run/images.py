"""Which images a run scores, and which INT8 graphs are calibrated on: the user's, or the demo set.

The demo set is made first where it is missing. Images to calibrate on are even over the classes, and never among those
that are scored.
"""

from __future__ import annotations

import functools
import os
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from bench.report.terminal import printer
from bench.worker.messages import CalibrationImages
from pipelines.demo.make import make_demo
from pipelines.imagenet.find import Image, ImageSet, find_images, size_bytes, subset
from pipelines.imagenet.labels import Labelling
from scarlet.errors import BenchError
from scarlet.files import file_sha256

# A folder for each size of the set: making one set removes what belongs to another from its folder.
DEMO_DATA = Path("data") / "demo"
DEMO_IMAGES = 512

# How many images a run scores when nobody says: a user's first answer should come in minutes, not hours.
DEFAULT_IMAGES = 1000

# Ranges settle after a few hundred images; 256 is also the size of the demo set's published calibration split.
CALIBRATION_IMAGES = 256
FEW = 100
# Another seed than that of the images to score, so that a user who scores part of a set finds other images here.
SEED = 6


def working(console: Console, text: str) -> AbstractContextManager[object]:
    """Says that something takes a while: a spinner on a terminal, a line elsewhere."""
    if console.is_terminal:
        return console.status(Text(text))
    printer(console)(text)
    return nullcontext()


def choose_images(
    data: str | None, n_images: int | None, console: Console, how: Labelling | None = None, half: str = ""
) -> tuple[ImageSet, list[Image]]:
    """The set and the images of it to score: the user's, or the demo set, made first where it is missing. Says how the
    user's were labelled.

    Args:
        data: the user's folder, or None for the demo set.
        n_images: how many; 0 for all; None for the default.
        how: the user's images are labelled.
        half: of the set alone: a search for recipes looks at the ``first``, even over the classes, and what it chose
            is judged on the ``second``. Demo images to judge on are a split of their own.

    Raises:
        BenchError: the folder holds no labelled images.
    """
    if data is None:
        count = max(n_images or 0, DEMO_IMAGES)
        split, folder = ("judge", f"judge-{count}") if half == "second" else ("val", str(count))
        image_set = find_images(make_demo_set(DEMO_DATA / folder, count, console, split), how)
        default = DEMO_IMAGES
    else:
        image_set = find_images(Path(os.path.expanduser(data)), how)
        default = DEFAULT_IMAGES
        for sentence in image_set.reading():
            printer(console)(sentence)
        if half:
            first = subset(image_set.images, max(1, len(image_set.images) // 2))
            seen = set(first)
            second = tuple(image for image in image_set.images if image not in seen)
            image_set = replace(image_set, images=first if half == "first" else second)
    wanted = default if n_images is None else n_images or len(image_set.images)
    chosen = list(subset(image_set.images, wanted))
    if len(chosen) < len(image_set.images):
        printer(console)(
            f"scoring {len(chosen):,} of {len(image_set.images):,} images, evenly over the classes "
            "(--images all for all of them)"
        )
    return image_set, chosen


def make_demo_set(out: Path, n_images: int, console: Console, split: str = "val") -> Path:
    """Makes the demo images of a split, or finds them made; shows progress."""
    if not console.is_terminal:
        printer(console)(f"making sure of {n_images} demo images in {out}")
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("demo images", total=n_images)
        make_demo(out, n_images, split, on_progress=lambda done, total: bars.update(task, completed=done, total=total))
    return out


def demo_split(n: int, console: Console) -> Path:
    """The folder with the first images of the demo set's split for calibration, made where they are missing."""
    return make_demo_set(DEMO_DATA / f"calib-{n}", n, console, "calib")


def choose_calibration(
    data: Path,
    scored: Sequence[Image],
    folder: str | None,
    console: Console,
    n: int = CALIBRATION_IMAGES,
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
        by_size[size_bytes(image.path)].append(image.path)
    by_size.pop(-1, None)  # of files that are not there
    digest = functools.cache(file_sha256)

    def is_scored(path: Path) -> bool:
        return any(digest(other) == digest(path) for other in by_size.get(size_bytes(path), ()))

    return tuple(image for image in candidates if not is_scored(image.path))
