"""Three sets of images that share none: to calibrate on, to search on, and to confirm on what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from bench.run.images import CALIBRATION_IMAGES, choose_calibration, demo_split, without_copies
from bench.run.spec import RunSpec
from bench.worker.messages import CalibrationImages
from pipelines.imagenet.find import Image, ImageSet, find_images, subset
from scarlet.errors import BenchError

# Another than that of the images to score and of those to calibrate on.
SEED = 7
# Fewer tell nothing about a per cent.
FEWEST = 50


@dataclass(frozen=True)
class Sets:
    """The images of a search.

    Attributes:
        search: recipes are compared on these.
        confirm: what was found is confirmed on these, which nothing was chosen on. They are those that a run of as
            many images scores.
    """

    calibration: CalibrationImages
    search: CalibrationImages
    confirm: CalibrationImages


def choose_sets(image_set: ImageSet, scored: Sequence[Image], spec: RunSpec, n_search: int, console: Console) -> Sets:
    """Chooses the three sets, seeded and even over the classes.

    Of a demo set, search images come from its split for calibration, from behind those to calibrate on.

    Args:
        scored: those of it that a run scores, to confirm on.
        spec: names the user's folder of calibration images, and how images are labelled.
        n_search: how many to search on.

    Raises:
        BenchError: there are too few images for three sets.
    """
    root = image_set.root.resolve()
    confirm = CalibrationImages(root, tuple(scored), "images that a run scores")
    calibrating = choose_calibration(root, scored, spec.calibration, console, how=spec.labelling)
    if image_set.is_demo:
        root, source = demo_split(CALIBRATION_IMAGES + n_search, console).resolve(), "the demo set's calibration split"
        used = {image.image_id for image in find_images(demo_split(CALIBRATION_IMAGES, console)).images}
    else:
        source = "images of the set that are neither scored nor calibrated on"
        used = {image.image_id for image in scored}
        if calibrating.root == root:
            used |= {image.image_id for image in calibrating.images}
    images = find_images(root).images if image_set.is_demo else image_set.images
    candidates = [image for image in images if image.image_id not in used]
    chosen = subset(candidates, n_search, SEED) if candidates else ()
    searching = without_copies(chosen, (*confirm.images, *calibrating.images))
    if len(searching) < min(FEWEST, n_search):
        raise BenchError(
            f"{len(searching)} images are left to search on, beside {len(confirm.images)} to confirm on and "
            f"{len(calibrating.images)} to calibrate on",
            "Give more images, or fewer --confirm.",
        )
    return Sets(calibrating, CalibrationImages(root, searching, source), confirm)
