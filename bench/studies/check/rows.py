"""A run against a baseline, row by row: the verdicts, and which stage is at fault.

A stage is named only where the predictions or digests themselves prove it, by a relation that an unrelated change would
not produce: the baseline's predictions again in another order, labels by the folder's rank, equal digests of what went
in, rows that changed in the same way. ``MIN_EVIDENCE`` images have to speak for a relation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bench.backends import REGISTRY, facts, runs_module
from bench.record.case import Case, Status
from bench.studies.check import rules, sequential
from bench.studies.check.report import Finding, Judged, Report
from bench.studies.check.rules import Decision, Terms, Verdict
from bench.studies.check.snapshot import NOT_SCORED, Labels, Row, Snapshot, Timed
from bench.studies.check.tolerances import Config
from pipelines.parity.digests import first_change
from scarlet.errors import BenchError

# What the reference decodes and resizes with.
LIBRARY = "pillow"
# Images that would have to agree with a relation by chance.
MIN_EVIDENCE = 8
# Rows that changed alike agree on this share of the images; other arithmetic turns a few near ties.
ALIKE = 0.99
OF_REFERENCE = "the reference itself makes other pixels of the same files"


@dataclass(frozen=True)
class Order:
    """In which order a sequential check looks at the images.

    Attributes:
        places: of the images in the baseline's order.
        ends: after how many of them to look; None for each.
    """

    places: NDArray[np.intp]
    ends: NDArray[np.intp] | None = None


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


def judge(
    baseline: Snapshot, current: Snapshot, config: Config, *, latency: bool = False, order: Order | None = None
) -> Report:
    """Compares a run with a baseline.

    Args:
        latency: judge ratios of times too.
        order: decide sequentially over images in this order of the baseline's images.

    Raises:
        BenchError: they are of different models, or of other numbers of images of the same set.
    """
    if len({"onnx" if each.model.startswith("onnx:") else each.model for each in (baseline, current)}) > 1:
        what = f"the baseline is of {baseline.model} and the run of {current.model}"
        raise BenchError(what, "Name the baseline of the same model, or make one.")
    if ground := rules.changed_ground(baseline, current):
        stage, reason = ground
        how = of_labels(baseline.labels, current.labels) if stage == "labels" else ""
        return every_row_failed(baseline, f"{reason}: {how}" if how else reason, stage, current.name)
    accuracy, findings = _accuracy(baseline, current, config, order)
    timed = _timed(baseline, current, config) if latency else []
    notes = _notes(baseline, current, findings)
    return Report(baseline.name, current.name, baseline.n_images, (*accuracy, *timed), findings, notes)


def every_row_failed(baseline: Snapshot, reason: str, stage: str, current: str = "") -> Report:
    """The outcome where the ground is another, or where the model's files cannot be made so that no row can run."""
    rows = tuple(Judged(row.case, Verdict.FAIL, reason, stage) for row in baseline.rows)
    finding = Finding(stage, reason, tuple(row.case.case_id for row in baseline.rows))
    return Report(baseline.name, current, baseline.n_images, rows, (finding,))


def _accuracy(
    baseline: Snapshot, current: Snapshot, config: Config, order: Order | None
) -> tuple[list[Judged], tuple[Finding, ...]]:
    pairs, found = paired(baseline, current)
    n_rows = n_comparisons((pair.current for pair in pairs.values()), config, current)
    changed = first_change(baseline.reference, current.reference)
    # Another Pillow may well round otherwise: under another version only a note tells.
    redefined = changed if baseline.packages.get(LIBRARY) == current.packages.get(LIBRARY) else ""
    judged = [
        _on_other_pixels(judge_row(pair, current, config, n_rows, order), pair, redefined)
        if (pair := pairs.get(row.case))
        else _without_figures(row.case, found.get(row.case))
        for row in baseline.rows
    ]
    findings, stages = _diagnosed(judged, pairs, baseline, current)
    judged = [replace(row, stage=row.stage or stages.get(row.case, "")) for row in judged]
    known = {row.case for row in found.values()}
    for row in current.rows:
        if row.case not in known:
            why = "" if row.top1 is not None else f"; {row.status.value}: {row.reason}"
            judged.append(Judged(row.case, Verdict.NEW, f"not in the baseline{why}", status=row.status.value))
    return judged, findings


def paired(baseline: Snapshot, current: Snapshot) -> tuple[dict[Case, Pair], dict[Case, Row]]:
    """By the baseline's Cases, the rows with predictions on both sides, and the run's rows that there are."""
    rows = {row.case: row for row in current.rows}
    found = {case: rows[other] for case, other in rules.match([row.case for row in baseline.rows], list(rows)).items()}
    pairs = {row.case: Pair(row, found[row.case]) for row in baseline.rows if row.case in found}
    return {case: pair for case, pair in pairs.items() if pair.current.top1 is not None}, found


def _on_other_pixels(row: Judged, pair: Pair, changed: str) -> Judged:
    """Fails a row whose pixels changed with the reference's own, from the stage ``changed`` on: what is right was
    redefined. As with other weights, a baseline is no measure of it then, however few predictions changed.
    """
    if row.verdict is Verdict.FAIL or pair.same_pixels or not changed:
        return row
    reason = f"the reference makes other pixels than when the baseline was made, from the stage {changed} on"
    return replace(row, verdict=Verdict.FAIL, reason=f"{reason}; {row.reason}")


def _without_figures(case: Case, row: Row | Timed | None) -> Judged:
    if row is None:
        return Judged(case, Verdict.FAIL, "the run has no such row", status="missing")
    stage = row.stage if isinstance(row, Row) else ""
    return Judged(case, Verdict.FAIL, f"{row.status.value}: {row.reason}", stage, row.status.value)


def judge_row(pair: Pair, current: Snapshot, config: Config, n_rows: int, order: Order | None) -> Judged:
    """The verdict on one row that has predictions: against the baseline, and where its class says so against FP32 too.

    Args:
        pair: of the baseline and of the run, in the same order of images.
        n_rows: comparisons judged together, as of ``n_comparisons``.
        order: decide sequentially in this order; None for all images at once.
    """
    case, row = pair.baseline.case, pair.current
    name, tolerance = config.of(row.case.precision)
    terms = Terms(tolerance, config, name, n_rows)
    decision = _decided(pair, current, terms, order)
    if decision is None or decision.comparison is None:
        return Judged(case, Verdict.FAIL, "no image could be read", "decode")
    verdict, reason, unreadable = decision.verdict, decision.reason, decision.comparison.newly_unreadable
    stage = "decode" if unreadable and verdict is Verdict.FAIL else ""
    if unreadable:
        reason += f"; {unreadable:,} images that the baseline could read are unreadable"
    if ties := decision.comparison.ties:
        reason += f"; the two first classes of {ties:,} images tie"
    base, fp32 = fp32_row(row, current, config), None
    if base is None:
        reason += "; not compared with FP32: the run has no such row" if tolerance.against_fp32 else ""
    elif not row.no_accuracy:
        fp32 = _decided(Pair(base, row), current, replace(terms, tolerance=tolerance.margin_alone), order)
    if fp32:
        verdict = rules.overall((verdict, fp32.verdict))
        reason += f"; against FP32 in the same run ({fp32.verdict.value}): {fp32.reason}"
    return Judged(case, verdict, reason, stage, decision=decision, fp32=fp32)


def _decided(pair: Pair, current: Snapshot, terms: Terms, order: Order | None) -> Decision | None:
    """One row against another, on the images that both have; None where there is none."""
    (before, row), (was, is_) = (pair.baseline, pair.current), pair.predictions
    whole = bool(((was != NOT_SCORED) & (is_ != NOT_SCORED)).all())
    terms = replace(terms, whole=whole, no_accuracy=before.no_accuracy or row.no_accuracy)
    if order is None:
        compared = rules.compare(before, row, current.labels, terms.tolerance)
        return rules.decide(compared, terms) if compared else None
    seen = rules.looks(before, row, current.labels, terms.tolerance, order.places, order.ends)
    margin = terms.tolerance.margin(before.top1_right / max(1, before.n_images))
    return sequential.decide(seen, terms, margin, len(was)) if seen else None


def fp32_row(row: Row, current: Snapshot, config: Config) -> Row | None:
    """The row in FP32 of the same run that differs least from this one otherwise; None where there is none, or where
    the class of this one's precision does not ask for one.
    """
    if not config.of(row.case.precision)[1].against_fp32:
        return None

    def alike(other: Row) -> tuple[bool, ...]:
        names = ("pipeline", "backend", "device", "options", "batch", "threads")
        return tuple(getattr(other.case, name) == getattr(row.case, name) for name in names)

    scored = [other for other in current.rows if other.top1 is not None and other.case.precision == "fp32"]
    return max(scored, key=alike, default=None)


def n_comparisons(rows: Iterable[Row], config: Config, current: Snapshot) -> int:
    """How many comparisons these rows are judged by together: with the baseline, and some with FP32 besides."""
    return sum(2 if fp32_row(row, current, config) else 1 for row in rows)


def _diagnosed(
    judged: Sequence[Judged], pairs: Mapping[Case, Pair], baseline: Snapshot, current: Snapshot
) -> tuple[tuple[Finding, ...], dict[Case, str]]:
    """What is at fault, and the stage of each row that it explains."""
    findings: dict[tuple[str, str], list[Case]] = {}
    left = []
    for row in (row for row in judged if row.verdict is Verdict.FAIL):
        pair, order = pairs.get(row.case), ""
        if pair and not row.stage:
            before, now = pair.predictions
            order = "" if (now == NOT_SCORED).any() else of_order(before, now, row.case.batch)
            left += [] if order else [pair]
        if row.stage or order:
            findings.setdefault((row.stage, row.reason) if row.stage else ("order", order), []).append(row.case)
    passing = [pairs[row.case] for row in judged if row.verdict is Verdict.PASS and row.case in pairs]
    for key, members in of_rows(left, passing, baseline, current).items():
        findings.setdefault(key, []).extend(pair.baseline.case for pair in members)
    stages = {case: stage for (stage, _), cases in findings.items() if stage for case in cases}
    told = [
        Finding(
            stage,
            f"all {len(judged)} rows: {text}" if len(set(cases)) == len(judged) > 1 else text,
            tuple(case.case_id for case in cases),
        )
        for (stage, text), cases in findings.items()
    ]
    # Where the reference changed, other pipelines may no longer agree with it: that comes of it.
    return tuple(sorted(told, key=lambda finding: OF_REFERENCE not in finding.text)), stages


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


def of_rows(
    failing: Sequence[Pair], passing: Sequence[Pair], baseline: Snapshot, current: Snapshot
) -> dict[tuple[str, str], list[Pair]]:
    """Stage and sentence on what failing rows, which have predictions, have in common, against those that pass."""
    found: dict[tuple[str, str], list[Pair]] = {}
    by_precision: dict[str, list[Pair]] = {}
    shared, blame = first_change(baseline.reference, current.reference), current.info.get("blame") or {}
    for pair in failing:
        case = pair.current.case
        if pair.same_pixels if shared else pair.same_pixels is not False:
            by_precision.setdefault(case.precision, []).append(pair)
            continue
        # Other pixels than the baseline's: of the stage that the gate blames, or that the reference itself shows.
        own = blame.get(case.pipeline, "")
        why = own or "decode, resize, crop or normalise; scarlet-bench parity tells which"
        if shared and not own:
            why = f"{OF_REFERENCE}, from the stage {shared} on"
        text = f"the pixels that went in are not the baseline's (their digests differ): {why}"
        found.setdefault((own or shared, text), []).append(pair)
    for precision, members in by_precision.items():
        others = [pair for pair in passing if pair.current.case.precision == precision]
        if any(told := _common(members, others, baseline, current)):
            found.setdefault(told, []).extend(members)
    return found


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


def _notes(baseline: Snapshot, current: Snapshot, findings: Sequence[Finding]) -> tuple[str, ...]:
    notes = []
    told = any(finding.stage in ("weights", "export") for finding in findings)
    if not told and baseline.weights["onnx_sha256"] != current.weights["onnx_sha256"]:
        notes.append("the exported graph is another than the baseline's (same weights)")
    if any(row.margin is None and row.case.precision == "fp32" for row in baseline.rows):
        notes.append(
            "the baseline holds no leads of its images: FP32 is judged by how many predictions agree; "
            "make baseline to keep them"
        )
    stage = first_change(baseline.reference, current.reference)
    if stage and not any(OF_REFERENCE in finding.text for finding in findings):
        notes.append(
            f"the reference pipeline, by which the others are judged, makes other pixels of the same files than "
            f"when the baseline was made, from the stage {stage} on"
        )
    return tuple(notes)


def _timed(baseline: Snapshot, current: Snapshot, config: Config) -> list[Judged]:
    found = {row.case: row for row in current.timed}
    partner = rules.match([row.case for row in baseline.timed], list(found))
    judged = []
    for row in baseline.timed:
        now = found.get(partner.get(row.case, row.case))
        if now is None or now.status is not Status.OK:
            judged.append(_without_figures(row.case, now))
            continue
        decision = rules.decide_ratio(row, now, config)
        judged.append(Judged(row.case, decision.verdict, decision.reason, baseline_ratio=row.ratio, ratio=now.ratio))
    return judged
