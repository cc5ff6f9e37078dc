"""Which images a run scores: the user's, or the demo set, made first where it is missing."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from bench.report.terminal import printer
from pipelines.demo.make import make_demo
from pipelines.imagenet.find import Image, ImageSet, find_images, first_few, subset
from pipelines.imagenet.labels import Labelling

# A folder for each size of the set: making one set removes what belongs to another from its folder.
DEMO_DATA = Path("data") / "demo"
DEMO_IMAGES = 512

# How many images a run scores when nobody says: a user's first answer should come in minutes, not hours.
DEFAULT_IMAGES = 1000


def working(console: Console, text: str) -> AbstractContextManager[object]:
    """Says that something takes a while: a spinner on a terminal, a line elsewhere."""
    if console.is_terminal:
        return console.status(Text(text))
    printer(console)(text)
    return nullcontext()


def choose_images(
    data: str | None, n_images: int | None, console: Console, how: Labelling | None = None
) -> tuple[ImageSet, list[Image]]:
    """The set and the images of it to score: the user's, or the demo set, made first where it is missing. Says how the
    user's were labelled.

    Args:
        data: the user's folder, or None for the demo set.
        n_images: how many; 0 for all; None for the default.
        how: the user's images are labelled.

    Raises:
        BenchError: the folder holds no labelled images.
    """
    if data is None:
        count = max(n_images or 0, DEMO_IMAGES)
        image_set = find_images(make_demo_set(DEMO_DATA / str(count), count, console), how)
        default = DEMO_IMAGES
    else:
        image_set = find_images(Path(os.path.expanduser(data)), how)
        default = DEFAULT_IMAGES
        for sentence in image_set.reading():
            printer(console)(sentence)
    if image_set.passed_over:
        printer(console)(f"passed over, because they may not be entered: {first_few(image_set.passed_over)}")
    wanted = default if n_images is None else n_images or len(image_set.images)
    chosen = list(subset(image_set.images, wanted))
    if len(chosen) < len(image_set.images):
        printer(console)(
            f"scoring {len(chosen):,} of {len(image_set.images):,} images, evenly over the classes "
            "(--images all for all of them)"
        )
    return image_set, chosen


def make_demo_set(out: Path, n_images: int, console: Console) -> Path:
    """Makes the demo images, or finds them made; shows progress."""
    if not console.is_terminal:
        printer(console)(f"making sure of {n_images} demo images in {out}")
        make_demo(out, n_images)
        return out
    with Progress(console=console, transient=True) as bars:
        task = bars.add_task("demo images", total=n_images)
        make_demo(out, n_images, on_progress=lambda done, total: bars.update(task, completed=done, total=total))
    return out
