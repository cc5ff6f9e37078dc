"""What the check is to show, and whether it does: met, not met, or not run with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

MET, NOT_MET, NOT_RUN, MEASURED = "met", "not met", "not run", "measured"

# Shares of images, in percent.
LEAST_AGREEMENT = 99.9
MOST_FLIPS = 0.2
LEAST_OVERLAP = 90.0

ON_CPU = ("turbo", "dali")


@dataclass(frozen=True)
class Agreement:
    """Two rows' top-1 classes on the same images.

    Attributes:
        n_images: that both predicted.
        n_different: of them with another class.
        why_not: why there is nothing to compare; else empty.
    """

    n_images: int = 0
    n_different: int = 0
    why_not: str = ""

    @property
    def percent_equal(self) -> float:
        """Share of images with the same class, 0..100."""
        return 100.0 * (1.0 - self.n_different / self.n_images)


@dataclass(frozen=True)
class Pass:
    """A throughput row: passes from files to top-5.

    Attributes:
        backend, pipeline: of the row.
        images_per_s: of the pass.
        percent_of_limit: relative to the slower of decoding and computing alone; None where it is not known.
        bound_by: the slower of the two.
        why_not: why there is no figure; else empty.
    """

    backend: str
    pipeline: str
    images_per_s: float | None = None
    percent_of_limit: float | None = None
    bound_by: str = ""
    why_not: str = ""


@dataclass(frozen=True)
class Graphs:
    """Batch 1 with CUDA graphs over batch 1 without, paired by round.

    Attributes:
        backend, precision: of both rows.
        ratio: of times; below 1 graphs are faster. None where there are not both rows.
        low, high: of its interval; None with too few rounds.
        why_not: why there is no ratio; else empty.
    """

    backend: str
    precision: str
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    why_not: str = ""


@dataclass(frozen=True)
class Evidence:
    """What the steps left.

    Attributes:
        backends: agreement of each backend on the GPU in FP32 with PyTorch on the CPU, on the reference's pixels.
        pixels: agreement of PyTorch on the GPU with itself, on the pixels of each GPU pipeline and of the reference.
        decoding: images a second of each pipeline by itself.
        not_decoding: why others have no such figure.
        passes: throughput rows.
        graphs: pairs of rows at batch 1.
        tests: counts of GPU tests: ``passed``, ``failed``, ``skipped``; None where they did not run to their end.
        reasons: why steps are missing, by their names.
    """

    backends: Mapping[str, Agreement]
    pixels: Mapping[str, Agreement]
    decoding: Mapping[str, float]
    not_decoding: Mapping[str, str]
    passes: Sequence[Pass]
    graphs: Sequence[Graphs]
    tests: Mapping[str, int] | None
    reasons: Mapping[str, str]


@dataclass(frozen=True)
class Figure:
    """One thing that the check is to show.

    Attributes:
        name: what it is about.
        target: what it should be.
        value: what was measured, for people; empty where nothing was.
        verdict: ``met``, ``not met``, ``not run``, or ``measured`` where there is no target.
        why: the reason where it is not met or not run; else empty, or what else must be known.
    """

    name: str
    target: str
    value: str
    verdict: str
    why: str = ""


def judge(evidence: Evidence) -> tuple[Figure, ...]:
    """Every figure, in order."""
    return (
        _tests(evidence),
        *_agreements(evidence),
        *_pixels(evidence),
        *_decoding(evidence),
        *_passes(evidence),
        *_graphs(evidence),
    )


def _tests(evidence: Evidence) -> Figure:
    name, target = "tests that need a GPU", "all pass"
    counts = evidence.tests
    if counts is None:
        return Figure(name, target, "", NOT_RUN, evidence.reasons.get("tests", "they left no report"))
    value = f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped"
    if not counts["passed"] and not counts["failed"]:
        return Figure(name, target, value, NOT_RUN, "none of them ran")
    return Figure(
        name, target, value, NOT_MET if counts["failed"] else MET, "see tests.xml" if counts["failed"] else ""
    )


def _agreements(evidence: Evidence) -> Iterator[Figure]:
    target = f"same top-1 as PyTorch on the CPU on at least {LEAST_AGREEMENT:g} % of images"
    for backend, found in evidence.backends.items():
        name = f"{backend} on the GPU, FP32 (TF32 off)"
        yield _agreement(name, target, found, found.why_not or found.percent_equal >= LEAST_AGREEMENT)


def _pixels(evidence: Evidence) -> Iterator[Figure]:
    target = f"other top-1 than with the reference's pixels on at most {MOST_FLIPS:g} % of images"
    for pipeline, found in evidence.pixels.items():
        is_met = found.why_not or 100.0 * found.n_different / found.n_images <= MOST_FLIPS
        yield _agreement(f"pixels of {pipeline}", target, found, is_met)


def _agreement(name: str, target: str, found: Agreement, is_met: bool | str) -> Figure:
    if isinstance(is_met, str):
        return Figure(name, target, "", NOT_RUN, is_met)
    share = 100.0 * found.n_different / found.n_images
    value = f"{found.n_different} of {found.n_images} images differ ({share:.2f} %)"
    return Figure(name, target, value, MET if is_met else NOT_MET, "" if is_met else "too many images differ")


def _decoding(evidence: Evidence) -> Iterator[Figure]:
    """The GPU's pipelines against the fastest on the CPU; there is no target for it."""
    on_cpu = {name: evidence.decoding[name] for name in ON_CPU if name in evidence.decoding}
    best = max(on_cpu, key=lambda name: on_cpu[name], default=None)
    for name in ("dali_gpu", "dali_gpu_engine"):
        title, target = f"{name} alone against the CPU", "images a second of both"
        if name not in evidence.decoding:
            why = evidence.not_decoding.get(name) or evidence.reasons.get("decode", "it was not measured")
            yield Figure(title, target, "", NOT_RUN, why)
        elif best is None:
            value = f"{evidence.decoding[name]:,.0f} images/s"
            yield Figure(title, target, value, MEASURED, "there is no pipeline of the CPU to compare with")
        else:
            rate, other = evidence.decoding[name], on_cpu[best]
            value = f"{rate:,.0f} images/s, {best} {other:,.0f} ({rate / other:.2f} times)"
            yield Figure(title, target, value, MEASURED)


def _passes(evidence: Evidence) -> Iterator[Figure]:
    target = f"at least {LEAST_OVERLAP:g} % of the smaller of decoding and computing alone"
    rows = [row for row in evidence.passes if row.pipeline.startswith("dali_gpu")]
    if not rows:
        why = evidence.reasons.get("throughput", "there is no such row")
        yield Figure("from files to top-5, decoded on the GPU", target, "", NOT_RUN, why)
    for row in rows:
        name = f"from files to top-5: {row.pipeline}, {row.backend}"
        if row.images_per_s is None or row.percent_of_limit is None:
            yield Figure(name, target, "", NOT_RUN, row.why_not or "its parts were not timed")
            continue
        value = f"{row.images_per_s:,.0f} images/s, {row.percent_of_limit:.0f} % of what {row.bound_by} alone reaches"
        is_met = row.percent_of_limit >= LEAST_OVERLAP
        yield Figure(
            name,
            target,
            value,
            MET if is_met else NOT_MET,
            "" if is_met else "the sides do not overlap enough",
        )


def _graphs(evidence: Evidence) -> Iterator[Figure]:
    target = "CUDA graphs make batch 1 faster"
    if not evidence.graphs:
        why = evidence.reasons.get("graphs", "there is no such row")
        yield Figure("CUDA graphs at batch 1", target, "", NOT_RUN, why)
    for pair in evidence.graphs:
        name = f"CUDA graphs at batch 1: {pair.backend}, {pair.precision}"
        if pair.ratio is None:
            yield Figure(name, target, "", NOT_RUN, pair.why_not)
            continue
        value = f"{1 / pair.ratio:.2f} times as fast"
        if pair.low is None or pair.high is None:
            yield Figure(name, target, value, NOT_MET, "too few rounds to tell it from noise")
            continue
        value += f" ({1 / pair.high:.2f} to {1 / pair.low:.2f})"
        is_met = pair.high < 1.0
        yield Figure(
            name,
            target,
            value,
            MET if is_met else NOT_MET,
            "" if is_met else "no faster, or too close to tell",
        )
