"""The waterfall: which Case a step comes from, and what the step lost, on predictions made for it."""

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_run import case, end, make_run

from bench.analysis.accuracy.predictions import ScoredRun
from bench.analysis.accuracy.waterfall import steps, tree
from bench.analysis.table import DEMO_NOTE
from bench.record.case import GRAPH_AS_EXPORTED, Case
from bench.report import flips
from bench.report.charts.accuracy import waterfall
from bench.report.charts.files import write_figure
from bench.report.forms import write_all

N = 200
START = case(scenario="accuracy", pipeline="reference", batch=32)
DALI = replace(START, pipeline="dali")
GRAPH = replace(DALI, **GRAPH_AS_EXPORTED)
ORT = replace(DALI, backend="onnxruntime")
INT8 = replace(ORT, precision="int8", options=(("dialect", "ort"),))
OPENVINO = replace(DALI, backend="openvino")
CASES = (START, DALI, GRAPH, ORT, INT8, OPENVINO)


def run_with(path: Path, wrong: dict[Case, int], planned: tuple[Case, ...] = CASES) -> ScoredRun:
    """A run in which each Case is wrong on its first so many images."""
    folder = make_run(path, planned)
    ids = [f"{place:04}" for place in range(N)]
    for each in planned:
        top = np.tile(np.arange(5, dtype=np.int16), (N, 1))
        top[: wrong.get(each, 0), 0] = 7
        folder.write_predictions_part(
            each.case_id, image_id=ids, label=np.zeros(N, np.int16), top=top, margin=np.full(N, 0.5, np.float32)
        )
        end(folder, each)
    return ScoredRun.open(folder.path)


@pytest.mark.parametrize(
    ("present", "child", "parent", "change"),
    [
        (CASES, DALI, START, "pixels by dali"),
        (CASES, GRAPH, DALI, "the ONNX graph"),
        (CASES, ORT, GRAPH, "onnxruntime's own graph"),
        (CASES, OPENVINO, GRAPH, "openvino's own graph"),
        (CASES, INT8, ORT, "INT8"),
        ((START, DALI, ORT, INT8), ORT, DALI, "the ONNX graph"),
        ((START, ORT), ORT, None, None),
        ((ORT, INT8), INT8, ORT, "INT8"),
        (
            (DALI, replace(DALI, options=(("form", "plain"),))),
            replace(DALI, options=(("form", "plain"),)),
            DALI,
            "form=plain",
        ),
        ((DALI, replace(DALI, device="cuda")), replace(DALI, device="cuda"), DALI, "CUDA"),
        ((ORT, replace(ORT, device="cuda")), replace(ORT, device="cuda"), ORT, "CUDA"),
        ((DALI, replace(DALI, precision="bf16")), replace(DALI, precision="bf16"), DALI, "BF16"),
        ((START, replace(DALI, batch=7, threads=3)), replace(DALI, batch=7, threads=3), START, "pixels by dali"),
    ],
)
def test_a_case_comes_from_the_one_it_differs_from_in_one_thing(present, child, parent, change):
    link = tree(present)[child]
    assert link == (None if parent is None else (parent, change))


def test_each_step_has_its_own_loss_and_the_sum(tmp_path: Path) -> None:
    found = steps(run_with(tmp_path / "run", {INT8: 20, ORT: 2, GRAPH: 2, OPENVINO: 2, DALI: 2}))
    assert [step.case for step in found] == [START, DALI, GRAPH, ORT, INT8, OPENVINO]
    assert [step.depth for step in found] == [0, 1, 2, 3, 4, 3]
    assert found[0].ledger is None
    losses = {step.case: step.ledger.top1.difference_points for step in found if step.ledger and step.ledger.top1}
    assert losses == pytest.approx({DALI: -1.0, GRAPH: 0.0, ORT: 0.0, INT8: -9.0, OPENVINO: 0.0})
    assert found[4].total.top1.difference_points == pytest.approx(-10.0)
    rows = flips.waterfall_table(found).rows
    assert len(rows) == 6
    name, change, top1, step, _, n_flips, total = rows[4]
    assert ("int8" in name, change, top1, n_flips) == (True, "INT8", "90.0", "18")
    assert step.startswith("-9.0 (")
    assert total.startswith("-10.0 (")


def test_random_weights_give_flips_and_no_loss_and_one_case_nothing(tmp_path: Path) -> None:
    random = tuple(replace(each, weights="random") for each in (START, DALI))
    found = steps(run_with(tmp_path / "run", {random[1]: 3}, random))
    table = flips.waterfall_table(found)
    assert table.rows[1][2:] == ("", "", "", "3", "")
    assert waterfall(found, []) == []
    assert flips.waterfall_table(steps(run_with(tmp_path / "one", {}, (START,)))) is None


def test_the_figure_is_drawn_from_the_same_numbers(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", {INT8: 20, ORT: 2, GRAPH: 2, OPENVINO: 2, DALI: 2})
    path = tmp_path / "accuracy-waterfall.svg"
    (chart,) = waterfall(steps(run), [DEMO_NOTE])
    write_figure(chart, path)
    first = path.read_bytes()
    text = "".join(ElementTree.fromstring(first).itertext())
    for word in ("INT8", "lost", "not resolved", "demo data: not ImageNet accuracy"):
        assert word in text
    write_figure(chart, path)
    assert path.read_bytes() == first
    (drawn,) = waterfall(steps(run), [])
    bars = {row["name"]: row for row in drawn.data["rows"]}
    assert (bars["INT8"]["from"], bars["INT8"]["to"]) == pytest.approx((99.0, 90.0))
    assert bars["INT8"]["effect"] == "lost"
    assert bars["pixels by dali"]["effect"] == "not resolved"


def test_the_report_shows_the_waterfall_where_there_are_several_steps(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", {INT8: 20})
    report = write_all(run.path)["markdown"].read_text()
    assert "## Where accuracy was lost" in report
    assert "(figures/accuracy-waterfall.svg)" in report
    assert (run.path / "figures" / "accuracy-waterfall.svg").exists()
    short = run_with(tmp_path / "short", {DALI: 3}, (START, DALI))
    assert "## Where accuracy was lost" not in write_all(short.path)["markdown"].read_text()
