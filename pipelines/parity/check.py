"""Which stage of a pipeline makes other pixels than the reference, and what that stage alone does to the result.

Each stage of the pipeline is given what the reference's stage before it made, so that a fault shows in the stage that
makes it and in no other. Then the whole paths are compared, for faults in how the stages are joined.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines import open_stages
from pipelines.base import STAGES, PipelineUnsupported, Preprocess, Stages
from pipelines.imagenet.find import Image, read_image
from pipelines.parity.differences import WHOLE, StageDifference, Tally, tolerances_of
from pipelines.parity.hints import Example, explain
from pipelines.parity.probes import write_probes
from pipelines.parity.whole_path import REFERENCE, fingerprint, one_pass, problem, whole_difference
from pipelines.reference.pipeline import UnreadableImage

# How a finding begins, by the stage to blame.
VERBS = {"decode": "decodes", "resize": "resizes", "crop": "crops", "normalise": "normalises"}

Planes = NDArray[np.float32]


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
        hint: what that stage does instead, where the pixels prove it; else empty.
        finding: a sentence on both; empty where all is well.
    """

    pipeline: str
    images: Comparison
    probes: Comparison
    blame: str
    hint: str
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
        on_images, examples = _compared(images, pipeline, preprocess, threads)
        on_probes, more = _compared(probes, pipeline, preprocess, threads)
    unlike = [stage for stage in (*STAGES, WHOLE) if not (on_images.agrees(stage) and on_probes.agrees(stage))]
    blame = unlike[0] if unlike else ""
    proof = [*examples.get(blame, ()), *more.get(blame, ())]
    hint = explain(blame, proof, preprocess) if proof else ""
    finding = _finding(pipeline, blame, on_images, on_probes, hint) if blame else ""
    return StageReport(pipeline, on_images, on_probes, blame, hint, finding)


def _finding(pipeline: str, blame: str, on_images: Comparison, on_probes: Comparison, hint: str) -> str:
    telling, which = (on_probes, "images made for this check") if on_images.agrees(blame) else (on_images, "images")
    if blame == WHOLE:
        words = telling.problem or telling.whole.words(which)
        return (
            f"the stages of the pipeline {pipeline} agree with the reference's one by one, and its whole path does "
            f"not: {words}; look at how it joins its stages and at its order of images"
        )
    words = telling.of(blame).words(which)
    words = f"the pipeline {pipeline} differs from the reference where it {VERBS[blame]}: {words}"
    return f"{words}; {hint}" if hint else words


def _compared(
    images: Sequence[Image], pipeline: str, preprocess: Preprocess, threads: int
) -> tuple[Comparison, dict[str, list[Example]]]:
    """The comparison, and for each stage some images on which it is outside its tolerance."""
    passed = one_pass(images, pipeline, preprocess, threads)
    fallbacks = set(passed.fallbacks)
    allowed = tolerances_of(pipeline)
    tallies = {stage: Tally(stage, preprocess, allowed[stage]) for stage in STAGES}
    fingerprints: dict[int, Planes] = {}
    with ExitStack() as opened:
        reference, other = (
            opened.enter_context(closing(open_stages(name, preprocess))) for name in (REFERENCE, pipeline)
        )
        for index, image, steps in _steps(images, reference):
            fingerprints[index] = fingerprint(steps["normalise"].expected)
            if image.image_id in fallbacks:
                continue
            for stage, step in steps.items():
                try:
                    got = getattr(other, stage)(step.given)
                except PipelineUnsupported:
                    fallbacks.add(image.image_id)
                    break
                except UnreadableImage as error:
                    tallies[stage].fails(image.image_id, f"it cannot read what the reference can: {error}")
                else:
                    tallies[stage].add(image.image_id, Example(step.given, step.expected, got))
    comparison = Comparison(
        stages=tuple(tally.difference() for tally in tallies.values()),
        whole=whole_difference(images, pipeline, preprocess, threads, passed),
        n_images=len(fingerprints),
        n_bad=len(images) - len(fingerprints),
        n_fallbacks=len(fallbacks),
        problem=problem(images, fingerprints, passed, preprocess, allowed[WHOLE]),
    )
    return comparison, {stage: tally.examples for stage, tally in tallies.items()}


class _Step(NamedTuple):
    """What goes into a stage of the reference, and what comes out."""

    given: Any
    expected: NDArray[Any]


def _steps(images: Sequence[Image], reference: Stages) -> Iterator[tuple[int, Image, dict[str, _Step]]]:
    """The place, the image and the reference's steps of each image that the reference can read."""
    for index, image in enumerate(images):
        try:
            made: Any = read_image(image.path)
            steps = {}
            for stage in STAGES:
                given, made = made, getattr(reference, stage)(made)
                steps[stage] = _Step(given, made)
        except (OSError, UnreadableImage):
            continue
        yield index, image, steps


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
        reference, other = (
            opened.enter_context(closing(open_stages(name, preprocess))) for name in (REFERENCE, pipeline)
        )
        for index, _, steps in _steps(images, reference):
            own = steps["normalise"].expected
            by_stage: dict[str, Planes | None] = dict.fromkeys(STAGES, own)
            try:
                for stage in STAGES:
                    by_stage[stage] = _with(stage, steps, reference, other)
            except PipelineUnsupported:
                by_stage = dict.fromkeys(STAGES, own)
            yield Swapped(index, own, by_stage)


def _with(stage: str, steps: dict[str, _Step], reference: Stages, other: Stages) -> Planes | None:
    """The reference's path with one stage of the other pipeline."""
    own = steps["normalise"].expected
    try:
        made = getattr(other, stage)(steps[stage].given)
    except UnreadableImage:
        return None
    if made.dtype == steps[stage].expected.dtype and np.array_equal(made, steps[stage].expected):
        return own
    for later in STAGES[STAGES.index(stage) + 1 :]:
        made = getattr(reference, later)(made)
    return np.asarray(made, np.float32) if made.shape == own.shape else None
