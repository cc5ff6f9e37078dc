"""A run against a baseline, row by row: the verdicts, and what is at fault."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bench.record.case import Case, Status
from bench.studies.check import diagnosis, rules, sequential
from bench.studies.check.diagnosis import OF_REFERENCE, Finding, Pair
from bench.studies.check.report import Judged, Report
from bench.studies.check.rules import Decision, Terms, Verdict
from bench.studies.check.snapshot import NOT_SCORED, Row, Snapshot, Timed
from bench.studies.check.tolerances import Config
from pipelines.parity.digests import first_change
from scarlet.errors import BenchError

# What the reference decodes and resizes with.
LIBRARY = "pillow"


@dataclass(frozen=True)
class Order:
    """In which order a sequential check looks at the images.

    Attributes:
        places: of the images in the baseline's order.
        ends: after how many of them to look; None for each.
    """

    places: NDArray[np.intp]
    ends: NDArray[np.intp] | None = None


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
        how = diagnosis.of_labels(baseline.labels, current.labels) if stage == "labels" else ""
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
        pair = pairs.get(row.case)
        if row.stage:
            findings.setdefault((row.stage, row.reason), []).append(row.case)
        elif pair:
            before, now = pair.predictions
            order = "" if (now == NOT_SCORED).any() else diagnosis.of_order(before, now, row.case.batch)
            if order:
                findings.setdefault(("order", order), []).append(row.case)
            else:
                left.append(row.case)
    passing = [pairs[row.case] for row in judged if row.verdict is Verdict.PASS and row.case in pairs]
    by_id = {pairs[case].current.case.case_id: case for case in left}
    for found in diagnosis.of_rows([pairs[case] for case in left], passing, baseline, current):
        findings.setdefault((found.stage, found.text), []).extend(by_id[id_] for id_ in found.case_ids)
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
