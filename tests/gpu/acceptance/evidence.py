"""Reads what the steps of a GPU check left in its folder. A step that is missing leaves gaps, and no error."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.record.case import Case, Status
from bench.record.run_folder import RUN_INFO, CaseResult, RunFolder
from tests.gpu.acceptance import plans
from tests.gpu.acceptance.carry_out import Record
from tests.gpu.acceptance.figures import Agreement, Evidence, Graphs, Pass
from tests.gpu.acceptance.steps import ACCURACY, DECODED, GRAPHS, TESTED, THROUGHPUT

if TYPE_CHECKING:
    import pandas as pd

MISSING = "there is no such row"


def run_folders(folder: Path) -> dict[str, Path]:
    """The runs of a check, by the names of their steps."""
    return {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{RUN_INFO}"))}


def gather(folder: Path, records: Sequence[Record]) -> Evidence:
    """All that there is so far.

    Args:
        folder: of the check.
        records: how its steps ended.
    """
    runs = {name: RunFolder(path) for name, path in run_folders(folder).items()}
    reasons = {record.name: record.reason for record in records if record.status != "ok"}
    decoded = _json(folder / DECODED)
    accuracy = runs.get(ACCURACY)
    return Evidence(
        backends=dict(_backends(accuracy, reasons.get(ACCURACY, ""))),
        pixels=dict(_pixels(accuracy, reasons.get(ACCURACY, ""))),
        decoding=decoded.get("images_per_s") or {},
        not_decoding=decoded.get("missing") or {},
        passes=tuple(_passes(runs.get(THROUGHPUT))),
        graphs=tuple(_graphs(runs.get(GRAPHS))),
        tests=_tests(folder / TESTED),
        reasons=reasons,
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found


def _tests(path: Path) -> dict[str, int] | None:
    """The counts of a JUnit report."""
    try:
        suites = list(ElementTree.parse(path).getroot().iter("testsuite"))
    except (FileNotFoundError, ElementTree.ParseError):
        return None
    names = ("tests", "failures", "errors", "skipped")
    total = {name: sum(int(suite.get(name, 0)) for suite in suites) for name in names}
    failed = total["failures"] + total["errors"]
    return {
        "passed": total["tests"] - failed - total["skipped"],
        "failed": failed,
        "skipped": total["skipped"],
    }


# --- accuracy -------------------------------------------------------------------------------------------------


def _backends(run: RunFolder | None, why_not: str) -> Iterator[tuple[str, Agreement]]:
    """Each backend on the GPU in FP32 against PyTorch on the CPU, all on the reference's pixels."""
    seen = _Seen(run, why_not)
    for backend in plans.BACKENDS:
        yield (
            backend,
            seen.compare(
                {"backend": "pytorch", "device": "cpu", "precision": "fp32", "pipeline": "reference"},
                {"backend": backend, "device": "cuda", "precision": "fp32", "pipeline": "reference"},
            ),
        )


def _pixels(run: RunFolder | None, why_not: str) -> Iterator[tuple[str, Agreement]]:
    """PyTorch on the GPU in FP32, on the pixels of each GPU pipeline against the reference's."""
    seen = _Seen(run, why_not)
    for pipeline in (name for name in plans.PIPELINES if name.startswith("dali_gpu")):
        yield (
            pipeline,
            seen.compare(
                {"backend": "pytorch", "device": "cuda", "precision": "fp32", "pipeline": "reference"},
                {"backend": "pytorch", "device": "cuda", "precision": "fp32", "pipeline": pipeline},
            ),
        )


class _Seen:
    """The rows of a run that may or may not be there, with their predictions."""

    def __init__(self, run: RunFolder | None, why_not: str) -> None:
        self._results = run.case_results() if run is not None else []
        self._predictions = run.predictions() if run is not None else None
        self._why_not = why_not

    def compare(self, base: Mapping[str, str], other: Mapping[str, str]) -> Agreement:
        """Two accuracy rows on the images that both predicted."""
        found = [find(self._results, scenario="accuracy", **wanted) for wanted in (base, other)]
        for result in found:
            if result is None:
                return Agreement(why_not=self._why_not or MISSING)
            # A row is invalid where its pixels are outside of their tolerance: how many predictions that changes is
            # what is asked here.
            if result.status not in (Status.OK, Status.INVALID):
                return Agreement(why_not=f"{result.case.label}: {result.status.value}: {result.reason}")
        assert self._predictions is not None
        return agreement(self._predictions, *(result.case.case_id for result in found if result is not None))


def find(results: Sequence[CaseResult], **wanted: str) -> CaseResult | None:
    """The first row whose Case has these values, without options; None where there is none."""

    def fits(case: Case) -> bool:
        return not case.options and all(getattr(case, name) == value for name, value in wanted.items())

    return next((result for result in results if fits(result.case)), None)


def agreement(predictions: pd.DataFrame, base: str, other: str) -> Agreement:
    """How many images two Cases, by their ids, give another top-1 class.

    Args:
        predictions: as of ``RunFolder.predictions``.
        base: id of one Case.
        other: of the other.
    """
    case_ids = predictions["case_id"].astype(str)
    sides = [
        predictions.loc[case_ids == case_id].set_index(
            predictions.loc[case_ids == case_id, "image_id"].astype(str)
        )
        for case_id in (base, other)
    ]
    both = sides[0][["top1"]].join(sides[1][["top1"]], how="inner", rsuffix="_other")
    if both.empty:
        return Agreement(why_not="the two rows have no image in common")
    return Agreement(len(both), int((both["top1"] != both["top1_other"]).sum()))


# --- time -----------------------------------------------------------------------------------------------------


def _passes(run: RunFolder | None) -> Iterator[Pass]:
    if run is None:
        return
    from bench.analysis.table import load_frame

    for row in load_frame(run.path).to_dict("records"):
        if row["scenario"] == "throughput":
            yield Pass(
                backend=row["backend"],
                pipeline=row["pipeline"],
                images_per_s=_number(row["throughput_images_per_s"]),
                percent_of_limit=_number(row["sum_of_parts_percent"]),
                bound_by=row["bound_by"],
                why_not="" if row["status"] == Status.OK.value else f"{row['status']}: {row['reason']}",
            )


def _number(value: Any) -> float | None:
    import pandas as pd

    return None if pd.isna(value) else float(value)


def _graphs(run: RunFolder | None) -> Iterator[Graphs]:
    """The ratio of each pair of rows that differ in the option for CUDA graphs alone."""
    if run is None:
        return
    from bench.analysis.stats import intervals
    from bench.analysis.time import verdict

    results = [result for result in run.case_results() if result.case.scenario == "latency"]
    times = verdict.round_times([result for result in results if result.status is Status.OK], run.samples())
    pairs = [(result, _twin(result, results)) for result in results]
    compared = [(without, with_) for without, with_ in pairs if with_ is not None]
    for without, with_ in compared:
        case = without.case
        bad = next((result for result in (without, with_) if result.status is not Status.OK), None)
        if bad is not None:
            why = f"{bad.case.label}: {bad.status.value}: {bad.reason}"
            yield Graphs(case.backend, case.precision, why_not=why)
            continue
        own, other = times[with_.case.case_id], times[case.case_id]
        common = sorted(own.keys() & other.keys())
        if not common:
            yield Graphs(
                case.backend, case.precision, why_not="there is no round in which both were measured"
            )
            continue
        found = intervals.ratio_interval(
            [own[round_] for round_ in common],
            [other[round_] for round_ in common],
            comparisons=len(compared),
        )
        yield Graphs(case.backend, case.precision, found.ratio, found.low, found.high)


def _twin(result: CaseResult, results: Sequence[CaseResult]) -> CaseResult | None:
    """The row with CUDA graphs to one without them; None for all others."""
    case = result.case
    if case.option(plans.GRAPH_OPTION) != "no":
        return None
    others = dict(case.options) | {plans.GRAPH_OPTION: "yes"}
    wanted = Case.from_dict({**case.to_dict(), "options": others})
    return next((other for other in results if other.case == wanted), None)
