"""Which stage is at fault when rows differ from a baseline: only what the predictions or digests themselves prove.

Every finding rests on a relation that an unrelated change would not produce: the baseline's predictions again in
another order, classes renamed one to one, equal digests of what went in, rows that changed in the same way. Where
nothing of the kind holds there is no finding. ``MIN_EVIDENCE`` images have to speak for a relation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.backends import REGISTRY, facts, runs_module
from bench.studies.check.snapshot import Labels, Row, Snapshot
from pipelines.parity.digests import first_change

STAGES = ("data", "labels", "weights", "decode", "resize", "crop", "normalise", "export", "order", "backend")

# Images that would have to agree with a relation by chance.
MIN_EVIDENCE = 8
# Rows that changed alike agree on this share of the images; other arithmetic turns a few near ties.
ALIKE = 0.99
OF_REFERENCE = "the reference itself makes other pixels of the same files"


@dataclass(frozen=True)
class Finding:
    """One of ``STAGES``, empty where the finding does not tell; a sentence with the proof, and the rows it explains."""

    stage: str
    text: str
    case_ids: tuple[str, ...] = ()


def of_labels(baseline: Labels, current: Labels) -> str:
    """How two label lists of the same images are related, in a sentence; empty where nothing is proven."""
    moved = int(np.count_nonzero(baseline != current))
    if moved < MIN_EVIDENCE:
        return ""
    if np.array_equal(current, folder_rank(baseline, baseline)):
        n = len(np.unique(baseline))
        return (
            f"every label is the rank of its folder among the {n} that are there, not its place among all 1000 classes"
        )
    pairs = np.unique(np.stack([baseline, current]), axis=1)
    # The rank among folders of which these images show only some.
    if (np.diff(pairs) > 0).all() and (pairs[1] <= pairs[0]).all() and len(np.unique(pairs[1] - pairs[0])) > 1:
        return "the labels are in the order of the classes but closer together, as ranks among the folders would be"
    return _renaming(baseline, current, "label")


def folder_rank(classes: Labels, labels: Labels) -> Labels:
    """Each class as its rank among the classes that the labels hold; classes not among them become -1."""
    present = np.unique(labels)
    rank = np.searchsorted(present, classes).astype(np.int16)
    known = np.isin(classes, present)
    return np.where(known, rank, np.int16(-1)).astype(np.int16)


def _renaming(before: Labels, after: Labels, what: str) -> str:
    """The sentence where one list is the other with classes renamed one to one."""
    offsets = np.unique(after.astype(np.int32) - before)
    if len(offsets) == 1 and offsets[0]:
        return f"every {what} is {abs(offsets[0])} {'higher' if offsets[0] > 0 else 'lower'} than in the baseline"
    pairs = np.unique(np.stack([before, after]), axis=1)
    one_to_one = len(np.unique(pairs[0])) == len(pairs[0]) and len(np.unique(pairs[1])) == len(pairs[1])
    renamed = int(np.count_nonzero(pairs[0] != pairs[1]))
    # The first image of a class sets what it is renamed to; the others are what could have contradicted.
    spoke = int(np.count_nonzero(before != after)) - renamed
    if one_to_one and renamed and spoke >= MIN_EVIDENCE:
        return f"the {what}s are the baseline's with {renamed} classes renamed one to one"
    return ""


def of_row(baseline: Labels, current: Labels, labels: Labels, batch: int = 0) -> Finding | None:
    """What a row's predictions prove about the fault, or None.

    Args:
        baseline: top-1 classes, int16, ``(n,)``, in the order of the images.
        current: likewise, all scored.
        batch: images in one call of the backend, 0 where unknown.
    """
    moved = int(np.count_nonzero(baseline != current))
    if moved < MIN_EVIDENCE:
        return None
    if text := _order(baseline, current, batch):
        return Finding("order", text)
    readable = (baseline >= 0) & (current >= 0)
    before, after = baseline[readable], current[readable]
    ranks = folder_rank(before, labels)
    ranked = (ranks >= 0) & (ranks != before)
    if np.count_nonzero(ranked) >= MIN_EVIDENCE and _share_equal(after[ranked], ranks[ranked]) >= ALIKE:
        text = "the predicted classes are ranks of the folders that are there, not places among all 1000 classes"
        return Finding("labels", text)
    if text := _renaming(before, after, "predicted class"):
        return Finding("labels", text)
    classes, counts = np.unique(after, return_counts=True)
    if len(after) and counts.max() > 0.9 * len(after) and len(np.unique(before)) > 1:
        share = 100.0 * counts.max() / len(after)
        return Finding("", f"{share:.3g} % of the images are predicted as class {classes[counts.argmax()]}")
    return None


def _order(before: Labels, after: Labels, batch: int) -> str:
    """How ``after`` is ``before`` in another order, in a sentence; empty where it is not."""
    same = _share_equal(before, after)
    shift = _shift(before, after)
    if shift and same < ALIKE:
        direction = "later" if shift > 0 else "earlier"
        return f"the predictions are the baseline's, {abs(shift)} images {direction}"
    if text := _slip(before, after):
        return text
    if not np.array_equal(np.sort(before), np.sort(after)):
        return ""
    if np.array_equal(before[::-1], after):
        return "the predictions are the baseline's in reverse order"
    whole = len(before) // batch * batch if batch else 0
    if whole > batch:
        first, second = before[:whole].reshape(-1, batch), after[:whole].reshape(-1, batch)
        if np.array_equal(np.sort(first, axis=1), np.sort(second, axis=1)):
            return f"the predictions are the baseline's in another order inside the batches of {batch}"
        if sorted(map(bytes, first)) == sorted(map(bytes, second)):
            return f"the predictions are the baseline's, with the batches of {batch} in another order"
    return "the predictions are the baseline's, each class as often, in another order of the images"


def _shift(before: Labels, after: Labels) -> int:
    """By how many places ``after`` comes later than ``before``; 0 where it is no shift.

    The circular correlation of the lists, with a random direction in the plane for each class, has its peak at the
    shift; the shift found is then checked exactly.
    """
    n = len(before)
    direction = np.exp(2j * np.pi * np.random.default_rng(0).random(int(max(before.max(), after.max())) + 3))
    first, second = (np.fft.fft(direction[values]) for values in (before, after))
    place = int(np.argmax(np.fft.ifft(second * first.conj()).real))
    shift = place if place <= n // 2 else place - n
    if not shift:
        return 0
    early, late = (before, after) if shift > 0 else (after, before)
    head, tail = early[: n - abs(shift)], late[abs(shift) :]
    # Only where neighbours at this distance differ does an agreement say anything.
    telling = head != early[abs(shift) :]
    enough = np.count_nonzero(telling) >= MIN_EVIDENCE
    return shift if enough and _share_equal(head[telling], tail[telling]) >= ALIKE else 0


def _slip(before: Labels, after: Labels) -> str:
    """An image was skipped or counted twice: equal up to a place, and off by a few from there on."""
    start = int(np.argmax(before != after))
    for places in (1, 2, 3, 4):
        for early, late, what in ((before, after, "counted twice"), (after, before, "skipped")):
            head, tail = early[start:-places], late[start + places :]
            telling = head != early[start + places :]
            if np.count_nonzero(telling) >= MIN_EVIDENCE and np.array_equal(head, tail):
                images = "an image was" if places == 1 else f"{places} images were"
                return f"from image {start + 1} on the predictions are off by {places}: {images} {what}"
    return ""


def _share_equal(first: NDArray[np.int16], second: NDArray[np.int16]) -> float:
    return float((first == second).mean()) if len(first) else 0.0


@dataclass(frozen=True)
class Pair:
    """A row of the baseline and of the run."""

    baseline: Row
    current: Row

    @property
    def same_pixels(self) -> bool | None:
        """Whether the same pixels went in; None where that is not known."""
        if not (self.baseline.input_sha256 and self.current.input_sha256):
            return None
        return self.baseline.input_sha256 == self.current.input_sha256


def of_rows(
    failing: Sequence[Pair],
    passing: Sequence[Pair],
    baseline: Snapshot,
    current: Snapshot,
    blame: Mapping[str, str] | None = None,
) -> list[Finding]:
    """What the failing rows, which have predictions, have in common, against those that pass; ``blame`` is the stage
    that the preprocessing gate blames, by pipeline.
    """
    shared = first_change(baseline.reference, current.reference)
    other = [pair for pair in failing if not (pair.same_pixels if shared else pair.same_pixels is not False)]
    found = _other_pixels(other, shared, blame or {})
    left = [pair for pair in failing if pair not in other]
    for precision in dict.fromkeys(pair.current.case.precision for pair in left):
        members = [pair for pair in left if pair.current.case.precision == precision]
        others = [pair for pair in passing if pair.current.case.precision == precision]
        if finding := _common(members, others, baseline, current):
            found.append(finding)
    return found


def _other_pixels(pairs: Sequence[Pair], shared: str, blame: Mapping[str, str]) -> list[Finding]:
    """Which stage made other pixels than the baseline's, by what the gate blames or the reference itself shows;
    ``shared`` is the stage from which on the reference changed, empty where it did not.
    """
    by_stage: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        own = blame.get(pair.current.case.pipeline, "")
        why = own or "decode, resize, crop or normalise; scarlet-bench parity tells which"
        if shared and not own:
            why = f"{OF_REFERENCE}, from the stage {shared} on"
        by_stage.setdefault((own or shared, why), []).append(pair)
    text = "the pixels that went in are not the baseline's (their digests differ): "
    return [Finding(stage, text + why, _ids(members)) for (stage, why), members in by_stage.items()]


def _common(failing: Sequence[Pair], passing: Sequence[Pair], baseline: Snapshot, current: Snapshot) -> Finding | None:
    """What rows of one precision that changed have in common, where the same pixels went in."""
    backends = {pair.current.case.backend for pair in failing}
    whole = {pair.current.case.backend for pair in passing} - backends
    pixels = "the same pixels went in, " if all(pair.same_pixels for pair in failing) else ""
    graph = {name for name in backends if not runs_module(name)}
    graph_changed = baseline.weights["onnx_sha256"] != current.weights["onnx_sha256"]
    if len(backends) > 1 and not _alike(failing):
        return None
    if backends - graph and graph and pixels:
        text = f"{pixels}and {_names(backends)} changed alike: the network itself, its weights or its definition"
        return Finding("weights", text, _ids(failing))
    if whole and all(map(runs_module, whole)) and graph and (graph_changed or len(graph) > 1):
        how = "changed alike" if len(graph) > 1 else "changed"
        digest = ", whose digest is not the baseline's" if graph_changed else ""
        text = f"{pixels}{_names(graph)} {how} and {_names(whole)} did not: the exported graph{digest}"
        return Finding("export", text, _ids(failing))
    if len(backends) == 1 and whole and pixels and (not graph_changed or not all(map(runs_module, whole))):
        text = f"{pixels}and only {_names(backends)} changed, not {_names(whole)}"
        return Finding("backend", text + _updates(backends, baseline, current), _ids(failing))
    return None


def _alike(pairs: Sequence[Pair]) -> bool:
    """The rows' current predictions agree with each other, on images that changed as on all."""
    first = pairs[0].current.top1
    assert first is not None
    changed = np.zeros(len(first), dtype=bool)
    for pair in pairs:
        assert pair.current.top1 is not None
        assert pair.baseline.top1 is not None
        changed |= pair.current.top1 != pair.baseline.top1
    return all(
        pair.current.top1 is not None
        and _share_equal(first[changed], pair.current.top1[changed]) >= 0.9
        and _share_equal(first, pair.current.top1) >= ALIKE
        for pair in pairs
    )


def _updates(backends: set[str], baseline: Snapshot, current: Snapshot) -> str:
    """Packages of these backends whose version changed, in words."""
    changes = [
        f"{name} {baseline.packages.get(name) or 'none'} before, {current.packages.get(name) or 'none'} now"
        for backend in sorted(backends)
        for name in dict.fromkeys(facts(backend).packages.values() if backend in REGISTRY else (backend,))
        if baseline.packages.get(name) != current.packages.get(name)
    ]
    return f" ({'; '.join(changes)})" if changes else ""


def _names(backends: set[str]) -> str:
    return " and ".join(sorted(backends))


def _ids(pairs: Sequence[Pair]) -> tuple[str, ...]:
    return tuple(pair.current.case.case_id for pair in pairs)
