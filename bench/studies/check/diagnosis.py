"""Which stage is at fault when rows differ from a baseline: only what the predictions or digests themselves prove.

Every finding rests on a relation that an unrelated change would not produce: the baseline's predictions again in
another order, labels by the folder's rank, equal digests of what went in, rows that changed in the same way. Where
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


@dataclass(frozen=True)
class Pair:
    """A row of the baseline and of the run."""

    baseline: Row
    current: Row

    @property
    def predictions(self) -> tuple[Labels, Labels]:
        """The top-1 classes of both, which have some."""
        before, now = self.baseline.top1, self.current.top1
        assert before is not None
        assert now is not None
        return before, now

    @property
    def same_pixels(self) -> bool | None:
        """Whether the same pixels went in; None where that is not known."""
        if not (self.baseline.input_sha256 and self.current.input_sha256):
            return None
        return self.baseline.input_sha256 == self.current.input_sha256


def of_labels(baseline: Labels, current: Labels) -> str:
    """How two label lists of the same images are related, in a sentence; empty where nothing is proven."""
    present, ranks = np.unique(baseline, return_inverse=True)
    if np.count_nonzero(baseline != current) < MIN_EVIDENCE or not np.array_equal(current, ranks):
        return ""
    few = f"the {len(present)} that are there, not its place among all 1000 classes"
    return f"every label is the rank of its folder among {few}"


def of_order(before: Labels, after: Labels, batch: int = 0) -> str:
    """How predictions are the baseline's in another order, in a sentence; empty where they are not.

    Args:
        before: top-1 classes, int16, ``(n,)``, in the order of the images.
        after: likewise, all scored.
        batch: images in one call of the backend, 0 where unknown.
    """
    if np.count_nonzero(before != after) < MIN_EVIDENCE:
        return ""
    if text := _slip(before, after):
        return text
    if not np.array_equal(np.sort(before), np.sort(after)):
        return ""
    whole = len(before) // batch * batch if batch else 0
    if whole > batch:
        first, second = before[:whole].reshape(-1, batch), after[:whole].reshape(-1, batch)
        if sorted(map(bytes, first)) == sorted(map(bytes, second)):
            return f"the predictions are the baseline's, with the batches of {batch} in another order"
    return "the predictions are the baseline's, each class as often, in another order of the images"


def _slip(before: Labels, after: Labels) -> str:
    """An image was skipped or counted twice: equal up to a place, and off by a few from there on."""
    start = int(np.argmax(before != after))
    for places in (1, 2, 3, 4):
        for early, late, what in ((before, after, "counted twice"), (after, before, "skipped")):
            head, tail = early[start:-places], late[start + places :]
            # Only where neighbours at this distance differ does an agreement say anything.
            telling = head != early[start + places :]
            if np.count_nonzero(telling) >= MIN_EVIDENCE and np.array_equal(head, tail):
                images = "an image was" if places == 1 else f"{places} images were"
                return f"from image {start + 1} on the predictions are off by {places}: {images} {what}"
    return ""


def of_rows(failing: Sequence[Pair], passing: Sequence[Pair], baseline: Snapshot, current: Snapshot) -> list[Finding]:
    """What the failing rows, which have predictions, have in common, against those that pass."""
    shared = first_change(baseline.reference, current.reference)
    other = [pair for pair in failing if not (pair.same_pixels if shared else pair.same_pixels is not False)]
    found = _other_pixels(other, shared, current.info.get("blame") or {})
    left = [pair for pair in failing if pair not in other]
    for precision in dict.fromkeys(pair.current.case.precision for pair in left):
        members, others = (
            [pair for pair in pairs if pair.current.case.precision == precision] for pairs in (left, passing)
        )
        stage, text = _common(members, others, baseline, current)
        found += [Finding(stage, text, _ids(members))] if stage else []
    return found


def _other_pixels(pairs: Sequence[Pair], shared: str, blame: Mapping[str, str]) -> list[Finding]:
    """Which stage made other pixels than the baseline's, by what the gate blames (by pipeline) or the reference itself
    shows; ``shared`` is the stage from which on the reference changed, empty where it did not.
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


def _common(failing: Sequence[Pair], passing: Sequence[Pair], baseline: Snapshot, current: Snapshot) -> tuple[str, str]:
    """Stage and sentence on what rows of one precision that changed have in common; empty where nothing is proven."""
    backends = {pair.current.case.backend for pair in failing}
    whole = {pair.current.case.backend for pair in passing} - backends
    pixels = "the same pixels went in, " if all(pair.same_pixels for pair in failing) else ""
    graph = {name for name in backends if not runs_module(name)}
    graph_changed = baseline.weights["onnx_sha256"] != current.weights["onnx_sha256"]
    names, unchanged = (" and ".join(sorted(each)) for each in (backends, whole))
    if len(backends) > 1 and not _alike(failing):
        return "", ""
    if backends - graph and graph and pixels:
        return "weights", f"{pixels}and {names} changed alike: the network itself, its weights or its definition"
    if whole and all(map(runs_module, whole)) and graph and (graph_changed or len(graph) > 1):
        how = "changed alike" if len(graph) > 1 else "changed"
        digest = ", whose digest is not the baseline's" if graph_changed else ""
        return "export", f"{pixels}{names} {how} and {unchanged} did not: the exported graph{digest}"
    if len(backends) == 1 and whole and pixels and (not graph_changed or not all(map(runs_module, whole))):
        return "backend", f"{pixels}and only {names} changed, not {unchanged}{_updates(names, baseline, current)}"
    return "", ""


def _alike(pairs: Sequence[Pair]) -> bool:
    """The rows' current predictions agree with each other, on images that changed as on all."""
    current = [pair.predictions[1] for pair in pairs]
    changed = np.any([before != now for before, now in (pair.predictions for pair in pairs)], axis=0)
    return all(
        _share_equal(current[0][changed], each[changed]) >= 0.9 and _share_equal(current[0], each) >= ALIKE
        for each in current
    )


def _share_equal(first: NDArray[np.int16], second: NDArray[np.int16]) -> float:
    return float((first == second).mean()) if len(first) else 0.0


def _updates(backend: str, baseline: Snapshot, current: Snapshot) -> str:
    """The backend's packages whose version changed, in words."""
    packages = facts(backend).packages.values() if backend in REGISTRY else (backend,)
    versions = {name: [each.packages.get(name) or "none" for each in (baseline, current)] for name in packages}
    changes = [f"{name} {old} before, {new} now" for name, (old, new) in versions.items() if old != new]
    return f" ({'; '.join(changes)})" if changes else ""


def _ids(pairs: Sequence[Pair]) -> tuple[str, ...]:
    return tuple(pair.current.case.case_id for pair in pairs)
