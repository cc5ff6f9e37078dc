"""Which stage of a pipeline makes other pixels than the reference, and what that stage alone does to the result.

Each stage of the pipeline is given what the reference's stage before it made, so that a fault shows in the stage that
makes it and in no other. Its whole path is compared with the same, for faults in how the stages are joined.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines import open_pipeline, open_stages
from pipelines.base import STAGES, PipelineUnsupported, Preprocess, Stages
from pipelines.imagenet.find import Image, first_few, read_image
from pipelines.parity.differences import WHOLE, StageDifference, Tally, tolerances_of
from pipelines.parity.probes import write_probes
from pipelines.reference.pipeline import UnreadableImage

REFERENCE = "reference"

# How a finding begins, by the stage to blame.
VERBS = {"decode": "decodes", "resize": "resizes", "crop": "crops", "normalise": "normalises"}

BATCH_MAX = 16

# A fingerprint is this many values along each side of each channel: enough to tell one image from another.
FINGERPRINT_SIDE = 16

Planes = NDArray[np.float32]
Same = Callable[[Planes, Planes], bool]


@dataclass(frozen=True)
class Comparison:
    """A pipeline against the reference on some images.

    Attributes:
        n_images: images that the reference can read.
        n_bad: files that it cannot.
        n_fallbacks: images that the pipeline hands to the reference: its stages are not compared on them.
        problem: where the whole path loses, repeats or mixes up images: a few words; else empty.
    """

    stages: tuple[StageDifference, ...]
    whole: StageDifference
    n_images: int
    n_bad: int
    n_fallbacks: int
    problem: str = ""

    def of(self, stage: str) -> StageDifference:
        """The difference of one stage, or of the whole path, by name."""
        return {part.stage: part for part in (*self.stages, self.whole)}[stage]

    def agrees(self, stage: str) -> bool:
        """Whether a stage, or the whole path, is within its tolerance."""
        return self.of(stage).within and not (stage == WHOLE and self.problem)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        parts = {"stages": [part.to_dict() for part in self.stages], "whole": self.whole.to_dict()}
        return {**asdict(self), **parts}


@dataclass(frozen=True)
class StageReport:
    """Whether a pipeline may stand in for the reference, and if not, which stage is to blame.

    Attributes:
        probes: the comparison on images made to tell faults apart (``pipelines.parity.probes``).
        blame: the first stage outside its tolerance; ``WHOLE`` where only the whole path is; empty where all is well.
        finding: a sentence on it; empty where all is well.
    """

    pipeline: str
    images: Comparison
    probes: Comparison
    blame: str
    finding: str

    @property
    def within(self) -> bool:
        """Whether all stages and the whole path are within their tolerances."""
        return not self.blame

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: the fields, and ``within``."""
        parts = {"images": self.images.to_dict(), "probes": self.probes.to_dict(), "within": self.within}
        return {**asdict(self), **parts}


def check(images: Sequence[Image], pipeline: str, preprocess: Preprocess, threads: int = 1) -> StageReport:
    """Compares a pipeline with the reference, stage by stage and as a whole, on ``images`` and on probes.

    Args:
        images: some of those that the pipeline is to stand in for the reference on.
        pipeline: a name in ``pipelines.REGISTRY``.

    Raises:
        what ``pipelines.open_pipeline`` raises.
    """
    with tempfile.TemporaryDirectory() as folder:
        probes = write_probes(Path(folder), preprocess)
        on_images, on_probes = (compare(some, pipeline, preprocess, threads) for some in (images, probes))
    unlike = (stage for stage in (*STAGES, WHOLE) if not (on_images.agrees(stage) and on_probes.agrees(stage)))
    blame = next(unlike, "")
    finding = _finding(pipeline, blame, on_images, on_probes) if blame else ""
    return StageReport(pipeline, on_images, on_probes, blame, finding)


def _finding(pipeline: str, blame: str, on_images: Comparison, on_probes: Comparison) -> str:
    telling, which = (on_probes, "images made for this check") if on_images.agrees(blame) else (on_images, "images")
    words = telling.of(blame).words(which)
    if blame == WHOLE:
        return (
            f"the stages of the pipeline {pipeline} agree with the reference's one by one, and its whole path does "
            f"not: {telling.problem or words}; look at how it joins its stages and at its order of images"
        )
    return f"the pipeline {pipeline} differs from the reference where it {VERBS[blame]}: {words}"


def compare(images: Sequence[Image], pipeline: str, preprocess: Preprocess, threads: int) -> Comparison:
    """One pass of a pipeline over ``images`` against the reference: a batch of either is in memory at a time.

    Raises:
        what ``pipelines.open_pipeline`` raises.
    """
    allowed = tolerances_of(pipeline)
    tallies = {stage: Tally(stage, preprocess, allowed[stage]) for stage in (*STAGES, WHOLE)}
    expected: dict[int, Planes | None] = {}  # the reference's fingerprint, by place; None of a file that it cannot read
    passed: list[tuple[int, Planes]] = []
    with ExitStack() as opened:
        reference, other = _both_stages(opened, pipeline, preprocess)
        whole = opened.enter_context(
            closing(open_pipeline(pipeline, images, _uneven_batch(len(images)), threads, preprocess))
        )

        def outputs() -> Iterator[tuple[int, Planes | None]]:
            for batch in whole:
                yield from zip(batch.indices.tolist(), batch.pixels, strict=True)
            yield from ((index, None) for index in range(len(images)) if index not in expected)  # did not come out

        handed_over: set[str] = set()
        for index, planes in outputs():
            if planes is not None:
                passed.append((index, _fingerprint(planes)))
            if index in expected:
                continue
            image_id, steps = images[index].image_id, _steps(images[index], reference)
            expected[index] = _fingerprint(steps["normalise"].made) if steps else None
            if not steps:
                continue
            if planes is not None:
                tallies[WHOLE].add(image_id, steps["normalise"].made, planes)
            if image_id not in whole.report.fallbacks and not _add_stages(tallies, image_id, steps, other):
                handed_over.add(image_id)
        handed_over.update(whole.report.fallbacks)
    readable = {index: made for index, made in expected.items() if made is not None}
    levels_per_unit = np.asarray(preprocess.levels_per_unit).reshape(3, 1, 1)

    def same(one: Planes, two: Planes) -> bool:
        return one.shape == two.shape and bool((np.abs(one - two) * levels_per_unit).max() <= allowed[WHOLE].max_levels)

    return Comparison(
        stages=tuple(tallies[stage].difference() for stage in STAGES),
        whole=tallies[WHOLE].difference(),
        n_images=len(readable),
        n_bad=len(images) - len(readable),
        n_fallbacks=len(handed_over),
        problem=_problem([image.image_id for image in images], readable, passed, same),
    )


def _both_stages(opened: ExitStack, pipeline: str, preprocess: Preprocess) -> tuple[Stages, Stages]:
    reference, other = (opened.enter_context(closing(open_stages(name, preprocess))) for name in (REFERENCE, pipeline))
    return reference, other


def _uneven_batch(n_images: int) -> int:
    """The largest batch up to ``BATCH_MAX`` that leaves a smaller last one: a pipeline may lose just that."""
    return next(batch for batch in range(BATCH_MAX, 1, -1) if n_images % batch or not n_images)


def _fingerprint(planes: Planes) -> Planes:
    """Some values of an image, spread evenly; float32, ``(3, about 16, about 16)``."""
    step = max(1, min(planes.shape[1:]) // FINGERPRINT_SIDE)
    return np.array(planes[:, ::step, ::step])


class _Step(NamedTuple):
    """What goes into a stage of the reference, and what comes out."""

    given: Any
    made: NDArray[Any]


def _steps(image: Image, reference: Stages) -> dict[str, _Step]:
    """The reference's steps of an image by stage; empty where it cannot read the image."""
    steps = {}
    try:
        made: Any = read_image(image.path)
        for stage in STAGES:
            given, made = made, getattr(reference, stage)(made)
            steps[stage] = _Step(given, made)
    except (OSError, UnreadableImage):
        return {}
    return steps


def _add_stages(tallies: Mapping[str, Tally], image_id: str, steps: Mapping[str, _Step], other: Stages) -> bool:
    """Compares the stages on an image; whether the pipeline does not hand it to the reference."""
    for stage, step in steps.items():
        try:
            tallies[stage].add(image_id, step.made, getattr(other, stage)(step.given))
        except PipelineUnsupported:
            return False
        except UnreadableImage as error:
            tallies[stage].fails(image_id, f"it cannot read what the reference can: {error}")
    return True


def _problem(
    ids: Sequence[str], expected: Mapping[int, Planes], passed: Sequence[tuple[int, Planes]], same: Same
) -> str:
    """Where images are lost, repeated or taken for one another: a few words; else empty.

    Args:
        expected: the reference's fingerprint of each readable image, by its place in ``ids``.
        passed: places and fingerprints of what came out.
        same: whether two fingerprints may be of one image.
    """
    times = Counter(index for index, _ in passed)
    mixed = []
    for index, own in passed:
        if index in expected and not same(own, expected[index]):
            others = (ids[other] for other, planes in expected.items() if other != index and same(own, planes))
            mixed += [f"{ids[index]} ({other})" for other in islice(others, 1)]
    said = [
        f"{len(names)} {'image' if len(names) == 1 else 'images'} {words}: {first_few(names)}"
        for names, words in (
            ([ids[index] for index in sorted(expected) if not times[index]], "did not come out"),
            ([ids[index] for index in sorted(expected) if times[index] > 1], "came out more than once"),
            ([ids[index] for index in times if index not in expected], "came out that the reference cannot read"),
            (mixed, "came out with the pixels of another"),
        )
        if names
    ]
    return "; ".join(said)


@dataclass(frozen=True)
class Swapped:
    """One image through the reference with one stage swapped at a time.

    Attributes:
        index: its place in the list of images.
        reference: the reference's own result: float32, ``(3, crop, crop)``.
        by_stage: the result with just this stage taken from the pipeline; the reference's own array where nothing
            changes by it, None where it is of another shape.
    """

    index: int
    reference: Planes
    by_stage: dict[str, Planes | None]


def swapped(images: Sequence[Image], pipeline: str, preprocess: Preprocess) -> Iterator[Swapped]:
    """The ablation: each image that the reference can read, with each stage swapped by itself.

    An image that the pipeline hands to the reference comes with nothing changed.

    Raises:
        what ``pipelines.open_stages`` raises.
    """
    with ExitStack() as opened:
        reference, other = _both_stages(opened, pipeline, preprocess)
        for index, image in enumerate(images):
            if steps := _steps(image, reference):
                own = steps["normalise"].made
                try:
                    by_stage = {stage: _with(stage, steps, reference, other) for stage in STAGES}
                except PipelineUnsupported:
                    by_stage = dict.fromkeys(STAGES, own)
                yield Swapped(index, own, by_stage)


def _with(stage: str, steps: dict[str, _Step], reference: Stages, other: Stages) -> Planes | None:
    """The reference's path with one stage of the other pipeline."""
    own = steps["normalise"].made
    try:
        made = getattr(other, stage)(steps[stage].given)
    except UnreadableImage:
        return None
    if made.dtype == steps[stage].made.dtype and np.array_equal(made, steps[stage].made):
        return own
    for later in STAGES[STAGES.index(stage) + 1 :]:
        made = getattr(reference, later)(made)
    return np.asarray(made, np.float32) if made.shape == own.shape else None
