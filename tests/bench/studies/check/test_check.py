"""Checks from end to end: what is judged, what is at fault, what the reports say, and the commands."""

import io
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_fakes import Command
from report_run import case
from rich.console import Console
from snapshots import accuracy_case, row, snapshot

from bench.record.case import Status
from bench.record.run_folder import RunFolder
from bench.run import session
from bench.run.model_files import PreparationFailed
from bench.studies.check import baseline, drive
from bench.studies.check.report import Report, summary, workflow_commands, write, write_junit
from bench.studies.check.rows import Order, fp32_row, judge, n_comparisons
from bench.studies.check.rules import Verdict
from bench.studies.check.snapshot import UNREADABLE, Row, Snapshot, Timed
from bench.studies.check.tolerances import load
from scarlet.errors import BenchError

CONFIG = load()
N = 320
LABELS = np.sort(np.random.default_rng(0).choice(1000, N, replace=False)).astype(np.int16)
TOP1 = np.where(np.arange(N) % 10 == 0, 3, LABELS).astype(np.int16)
WORSE = np.where(np.arange(N) % 4 == 1, 999, TOP1).astype(np.int16)


def known(*rows: Row, **more: Any) -> Snapshot:
    return snapshot(LABELS, rows or [row(TOP1, LABELS), row(TOP1, LABELS, "onnxruntime")], **more)


def verdicts(report: Report) -> dict[str, tuple[str, str]]:
    return {judged.case.backend: (judged.verdict.value, judged.stage) for judged in report.rows}


def test_a_lost_row_a_failed_row_and_a_new_row() -> None:
    failed = Row(accuracy_case("onnxruntime"), Status.FALLBACK, "it ran on the CPU")
    new = row(TOP1, LABELS, "openvino")
    report = judge(known(), known(failed, new), CONFIG)
    rows = {judged.case.backend: judged for judged in report.rows}
    assert (rows["pytorch"].verdict, rows["pytorch"].status) == (Verdict.FAIL, "missing")
    assert rows["onnxruntime"].reason == "fallback: it ran on the CPU"
    assert rows["openvino"].verdict is Verdict.NEW
    assert report.verdict is Verdict.FAIL
    broken = Row(accuracy_case("openvino"), Status.FAILED, "it broke")
    assert (
        "failed: it broke" in judge(known(row(TOP1, LABELS)), known(row(TOP1, LABELS), broken), CONFIG).rows[1].reason
    )


SHUFFLED = np.random.default_rng(1).permutation(TOP1)
TORN = np.where(np.arange(N) < 5, UNREADABLE, TOP1).astype(np.int16)
BLIND = np.full(N, UNREADABLE, dtype=np.int16)
OTHER_GRAPH = {"label": "official", "sha256": "w" * 64, "onnx_sha256": "n" * 64}
INVALID = Row(accuracy_case("onnxruntime"), Status.INVALID, "the pipeline dali crops otherwise", "crop")
PASSES = ("pass", "")


@pytest.mark.parametrize(
    ("pytorch", "other", "more", "expected", "finding", "note"),
    [
        (TOP1, row(TOP1, LABELS, "onnxruntime"), {}, (PASSES, PASSES), "", ""),
        # The stage of an invalid row is that of the preprocessing gate.
        (TOP1, INVALID, {}, (PASSES, ("fail", "crop")), "dali crops otherwise", ""),
        (SHUFFLED, row(SHUFFLED, LABELS, "onnxruntime"), {}, (("fail", "order"),) * 2, "all 2 rows: the predict", ""),
        (TOP1, row(WORSE, LABELS, "onnxruntime"), {}, (PASSES, ("fail", "backend")), "only onnxruntime changed", ""),
        (
            TOP1,
            row(WORSE, LABELS, "onnxruntime"),
            {"weights": OTHER_GRAPH},
            (PASSES, ("fail", "export")),
            "whose digest is not the baseline's",
            "",
        ),
        (TOP1, row(TOP1, LABELS, "onnxruntime"), {"weights": OTHER_GRAPH}, (PASSES, PASSES), "", "graph is another"),
        (TOP1, row(TORN, LABELS, "onnxruntime"), {}, (PASSES, ("fail", "decode")), "could read are unreadable", ""),
    ],
)
def test_rows_that_fail_and_the_stage_at_fault(pytorch, other, more, expected, finding, note):
    report = judge(known(), known(row(pytorch, LABELS), other, **more), CONFIG)
    assert tuple(verdicts(report).values()) == expected
    assert report.verdict is (Verdict.PASS if expected == (PASSES, PASSES) else Verdict.FAIL)
    assert bool(report.findings) == bool(finding)
    assert all(finding in each.text for each in report.findings)
    assert [note in each for each in report.notes] == [True] * bool(note)


def test_nothing_readable_on_either_side_fails() -> None:
    report = judge(known(row(BLIND, LABELS)), known(row(BLIND, LABELS)), CONFIG)
    assert verdicts(report) == {"pytorch": ("fail", "decode")}
    assert report.findings[0].case_ids == (accuracy_case().case_id,)


def test_changed_ground_fails_every_row_before_any_statistics() -> None:
    rank = np.arange(N).astype(np.int16)
    relabelled = snapshot(rank, [row(TOP1, rank), row(TOP1, rank, "onnxruntime")])
    report = judge(known(), relabelled, CONFIG)
    assert set(verdicts(report).values()) == {("fail", "labels")}
    assert "rank of its folder" in report.findings[0].text
    fewer = snapshot(LABELS[:9], [], dataset={"fingerprint": "g"})
    assert set(verdicts(judge(known(), fewer, CONFIG)).values()) == {("fail", "data")}


def test_a_changed_reference_fails_even_where_no_prediction_changed() -> None:
    before = {"probes": {"files": "f", "decode": "d", "resize": "r", "crop": "c", "normalise": "n"}}
    cut = {"probes": {**before["probes"], "crop": "x", "normalise": "y"}}
    # A run of other images, or in blocks, has no digest of its pixels to compare.
    for pixels in ("q", ""):
        now = known(row(TOP1, LABELS, pixels=pixels), row(TOP1, LABELS, "onnxruntime"), reference=cut)
        report = judge(known(reference=before), now, CONFIG)
        assert verdicts(report) == {"pytorch": ("fail", "crop"), "onnxruntime": ("pass", "")}
        assert "from the stage crop on; none of 320 predictions changed" in report.rows[0].reason
        assert "from the stage crop on" in report.findings[0].text
        assert report.notes == ()
    updated = known(row(TOP1, LABELS, pixels="q"), reference=cut, packages={"pillow": "99"})
    report = judge(known(row(TOP1, LABELS), reference=before), updated, CONFIG)
    assert verdicts(report) == {"pytorch": ("pass", "")}
    assert "from the stage crop on" in report.notes[0]


def test_another_model_is_the_users_mistake() -> None:
    with pytest.raises(BenchError, match="scarlet_c and the run of scarlet_a"):
        judge(known(), known(model="scarlet_a"), CONFIG)


def test_unresolved_rows_make_the_check_unresolved() -> None:
    changed = TOP1.copy()
    changed[1] = 999
    rows = [row(TOP1, LABELS, precision="fp16")], [row(changed, LABELS, precision="fp16")]
    report = judge(known(*rows[0]), known(*rows[1]), CONFIG)
    assert report.verdict is Verdict.UNRESOLVED
    order = Order(np.random.default_rng(0).permutation(N))
    assert judge(known(*rows[0]), known(*rows[1]), CONFIG, order=order).verdict is Verdict.UNRESOLVED


INT8 = np.where(np.arange(N) % 50 == 1, 999, TOP1).astype(np.int16)  # 2 % of the images, all for the worse


@pytest.mark.parametrize("sequentially", [False, True])
def test_int8_may_not_lose_from_baseline_to_baseline(sequentially: bool) -> None:
    """INT8 as it was in the baseline, where it was 8 % below FP32 of the same run: that is no pass."""
    low = np.where(np.arange(N) % 8 == 1, 999, TOP1).astype(np.int16)
    both = known(row(TOP1, LABELS), row(low, LABELS, precision="int8"))
    order = Order(np.random.default_rng(0).permutation(N)) if sequentially else None
    rows = {judged.case.precision: judged for judged in judge(both, both, CONFIG, order=order).rows}
    assert rows["fp32"].verdict is Verdict.PASS
    assert rows["int8"].verdict is Verdict.FAIL
    assert rows["int8"].decision
    assert rows["int8"].decision.verdict is Verdict.PASS
    assert rows["int8"].fp32
    comparison = rows["int8"].fp32.comparison
    assert (comparison.wins, comparison.losses) == (0, int(np.count_nonzero(low != TOP1)))
    assert rows["int8"].to_dict()["fp32"]["verdict"] == "fail"


def test_what_int8_is_compared_with_is_scored_on_with_it() -> None:
    both = known(row(TOP1, LABELS), row(TOP1, LABELS, precision="int8"))
    one = np.where(np.arange(N) == 1, 999, TOP1).astype(np.int16)
    now = known(row(TOP1, LABELS), row(one, LABELS, precision="int8"))
    left = drive._undecided(both, now, CONFIG, Order(np.arange(N)))
    assert [case.precision for case in left] == ["int8", "fp32"]
    assert drive._undecided(both, both, CONFIG, Order(np.arange(N))) == []


def test_int8_without_fp32_in_the_run_says_so() -> None:
    alone = known(row(INT8, LABELS, precision="int8"))
    (judged,) = judge(alone, alone, CONFIG).rows
    assert (judged.verdict, judged.fp32) == (Verdict.PASS, None)
    assert "no such row" in judged.reason


def test_int8_is_compared_with_the_row_in_fp32_that_is_most_like_it() -> None:
    int8 = row(INT8, LABELS, "onnxruntime", "int8")
    here, there = row(TOP1, LABELS), row(TOP1, LABELS, "onnxruntime")
    now = known(here, there, int8)
    assert fp32_row(int8, now, CONFIG) is there
    assert fp32_row(int8, known(here, int8), CONFIG) is here
    # FP32 twice, and INT8 against the baseline and against FP32.
    assert n_comparisons(now.rows, CONFIG, now) == 4


def test_ties_are_told() -> None:
    lead = np.where(np.arange(N) < 7, 0, 0.5).astype(np.float32)
    tied = known(row(TOP1, LABELS, precision="int8", margin=lead))
    (judged,) = judge(tied, tied, CONFIG).rows
    assert judged.to_dict()["ties"] == 7
    assert "7 images tie" in judged.reason


def test_a_baseline_without_leads_is_named_as_such() -> None:
    (note,) = judge(known(row(TOP1, LABELS, margin=None)), known(), CONFIG).notes
    assert "holds no leads" in note
    assert judge(known(), known(), CONFIG).notes == ()


def test_sequentially_a_plain_fault_is_found_after_some_of_the_images() -> None:
    order = Order(np.random.default_rng(0).permutation(N))
    report = judge(known(), known(row(WORSE, LABELS), row(WORSE, LABELS, "onnxruntime")), CONFIG, order=order)
    assert report.verdict is Verdict.FAIL
    assert all(judged.decision.comparison.n < 60 for judged in report.rows)


def test_latency_is_judged_only_when_asked_and_by_its_ratio() -> None:
    slow, fast = case(batch=8), case(backend="onnxruntime", batch=8)
    before = known(timed=(Timed(fast, slow, 0.5, 0.49, 0.51), Timed(case(backend="openvino"), slow, 0.3, 0.2, 0.4)))
    now = known(
        timed=(Timed(fast, slow, 0.7, 0.69, 0.71), Timed(case(backend="openvino"), status=Status.OOM, reason="memory"))
    )
    assert judge(before, now, CONFIG).verdict is Verdict.PASS
    report = judge(before, now, CONFIG, latency=True)
    timed = [judged for judged in report.rows if judged.case.scenario == "latency"]
    assert [judged.verdict for judged in timed] == [Verdict.FAIL, Verdict.FAIL]
    assert timed[1].reason == "oom: memory"
    assert (timed[0].baseline_ratio, timed[0].ratio) == (0.5, 0.7)
    lost = judge(before, known(), CONFIG, latency=True).rows[-1]
    assert lost.status == "missing"
    assert "0.5 → 0.7" in summary(report)


def mixed() -> Report:
    """A row of each kind, with text that every format has to escape."""
    changed = TOP1.copy()
    changed[1] = 999
    before = known(row(TOP1, LABELS), row(TOP1, LABELS, "onnxruntime"), row(TOP1, LABELS, precision="fp16"))
    now = known(
        row(TOP1, LABELS),
        Row(accuracy_case("onnxruntime"), Status.CRASHED, "100 %: <b>|\x00 killed,\nend"),
        row(changed, LABELS, precision="fp16"),
        row(TOP1, LABELS, "openvino"),
    )
    return judge(before, now, CONFIG)


def test_junit_has_a_test_case_a_row(tmp_path: Path) -> None:
    write_junit(mixed(), tmp_path / "out" / "junit.xml")
    root = ElementTree.parse(tmp_path / "out" / "junit.xml").getroot()
    suite = root.find("testsuite")
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["4", "0", "1", "2"]
    error = suite.find(".//error")
    assert "100 %: <b>|\ufffd killed," in (error.get("message") or "")
    failing = judge(known(), known(row(TOP1, LABELS), row(WORSE, LABELS, "onnxruntime")), CONFIG)
    write_junit(failing, tmp_path / "fail.xml")
    failure = ElementTree.parse(tmp_path / "fail.xml").getroot().find(".//failure")
    assert failure.get("type") == "backend"
    assert ElementTree.parse(tmp_path / "fail.xml").getroot().find(".//property[@name='finding']") is not None


def test_the_summary_is_appended_as_markdown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    write(mixed(), None, path, io.StringIO())
    text = path.read_text()
    assert text.startswith("before\n## scarlet-bench check: fail: 1 pass, 1 fail, 1 unresolved, 1 new")
    assert "&lt;b&gt;\\|" in text
    table = [line for line in text.splitlines() if line.startswith("| accuracy")]
    assert len(table) == 4
    failing = judge(known(), known(row(TOP1, LABELS), row(WORSE, LABELS, "onnxruntime")), CONFIG)
    assert "- at fault: backend: " in summary(failing)


def test_annotations_are_escaped_as_github_wants() -> None:
    error, warning = workflow_commands(mixed().rows)
    assert error.startswith("::error title=accuracy ")
    assert "%3A fail::" in error.replace(",", "")
    assert "100 %25: <b>|" in error
    assert "\n" not in error
    assert warning.startswith("::warning title=")


def test_the_report_as_plain_data_is_json() -> None:
    data = json.loads(json.dumps(mixed().to_dict()))
    assert data["verdict"] == "fail"
    unresolved = next(each for each in data["rows"] if each["verdict"] == "unresolved")
    assert unresolved["losses"] == 1
    assert unresolved["margin_points"] == pytest.approx(0.1)


@pytest.fixture
def command(scarlet_bench: Command, empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    return scarlet_bench


def test_a_baseline_is_made_checked_and_broken(command, image_folder, tiny_graph, tmp_path, monkeypatch, workers_here):
    words = ["--model", f"onnx:{tiny_graph}", "--data", str(image_folder), "--pipeline", "reference"]
    code, _, err = command("run", *words, "--backends", "fake", "--scenarios", "accuracy")
    assert code == 0, err
    code, out, err = command("baseline", "--out", "b.json")
    assert code == 0, err
    assert "8 images" in out

    code, out, err = command("check", "--baseline", "b.json", "--current", "results/latest", "--sequential")
    assert code == 0, err
    assert "none of 8 predictions changed" in out

    # In blocks of 3, 6 and 8 images, each with new images only.
    Path("tight.yaml").write_text("sequential: {first_block: 3}\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))
    code, out, err = command(
        "check", "--baseline", "b.json", "--sequential", "--config", "tight.yaml", "--json", "--junit", "j.xml"
    )
    assert code == 0, err
    answer = json.loads(out)
    assert answer["rows"][0]["n_images"] == 8
    run = Path(answer["run"])
    sizes = [len(RunFolder.open(each).read_images()) for each in (run, run / "blocks/6", run / "blocks/8")]
    assert sizes == [3, 3, 2]
    assert "scarlet-bench check: pass" in (tmp_path / "step.md").read_text()
    assert Path("j.xml").exists()

    # Other images are named before anything runs.
    moved = tmp_path / "moved"
    (moved / "valid" / "n01440764").mkdir(parents=True)
    for place, source in enumerate(sorted(image_folder.rglob("*.JPEG"))):
        (moved / "valid" / "n01440764" / f"{place}.JPEG").write_bytes(source.read_bytes())
    code, out, err = command("check", "--baseline", "b.json", "--data", str(moved), "--json")
    assert code == 1
    assert json.loads(out)["rows"][0]["stage"] == "data"
    assert json.loads(out)["run"] is None
    assert "::error title=" in err

    code, _, err = command("check", "--baseline", "nothing.json")
    assert code == 2
    assert "scarlet-bench baseline" in err


def test_images_that_a_list_labels_are_labelled_by_it_in_the_check_too(command, image_folder, tiny_graph, workers_here):
    lines = []
    Path("flat").mkdir()
    for place, source in enumerate(sorted(image_folder.rglob("*.JPEG"))):
        Path("flat", f"{place}.JPEG").write_bytes(source.read_bytes())
        lines.append(f"{place}.JPEG {7 * place}\n")
    Path("labels.txt").write_text("".join(lines))
    words = ["--model", f"onnx:{tiny_graph}", "--data", "flat", "--labels", "labels.txt", "--first-label", "0"]
    words += ["--pipeline", "reference", "--backends", "fake", "--scenarios", "accuracy", "--baseline", "b.json"]
    code, _, err = command("run", *words)
    assert code == 0, err
    code, out, err = command("check", "--baseline", "b.json")
    assert (code, "none of 8 predictions changed" in out) == (0, True), out + err


def test_check_prints_a_table_and_exits_with_1_where_a_row_fails(command, tmp_path, monkeypatch):
    from baseline_run import ORT, PYTORCH, made_run

    made_run(tmp_path / "before", {PYTORCH: [0, 1, 2, 3, 4, 5], ORT: [0, 1, 2, 3, 4, 5]})
    made_run(tmp_path / "now", {PYTORCH: [0, 1, 2, 3, 4, 5], ORT: [9, 1, 2, 3, 4, 5]})
    code, out, _ = command("baseline", "--run", str(tmp_path / "before"))
    assert "results/baselines/scarlet_c.json" in out
    code, out, _ = command(
        "check", "--baseline", "results/baselines/scarlet_c.json", "--current", str(tmp_path / "now")
    )
    assert code == 1
    assert "1 of 6 predictions changed" in out
    assert "at fault: backend" in out
    Path("wide.yaml").write_text("classes: {identity: {margin_points: 50}}\nunchanged_passes: false\n")
    words = ["check", "--baseline", "results/baselines/scarlet_c.json", "--current", str(tmp_path / "now")]
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    for more, expected in (([], 0), (["--strict"], 3)):
        code, out, _ = command(*words, "--config", "wide.yaml", *more)
        assert code == expected
        assert "unresolved: 1 pass, 1 unresolved" in out
        assert "::warning title=" in out


@pytest.mark.parametrize(
    ("broken", "code", "said"),
    [
        (BenchError("the ONNX graph differs from PyTorch: by up to 3", "Look.", stage="export"), 1, "at fault: export"),
        (PreparationFailed("preparing the model failed: oops", "See log."), 1, "oops. See log."),
        (BenchError("there is no folder data", "Give one."), 2, "error: there is no folder data"),
    ],
)
def test_a_model_that_the_change_broke_fails_the_check(command, tmp_path, monkeypatch, broken, code, said):
    from baseline_run import ORT, PYTORCH, made_run

    made_run(tmp_path / "before", {PYTORCH: [0, 1, 2, 3, 4, 5], ORT: [0, 1, 2, 3, 4, 5]})
    command("baseline", "--run", str(tmp_path / "before"), "--out", "b.json")

    def score(*_: object) -> None:
        raise broken

    monkeypatch.setattr(drive, "score", score)
    found, out, err = command("check", "--baseline", "b.json", "--junit", "j.xml")
    assert found == code
    assert said in out + err
    assert Path("j.xml").exists() == (code == 1)
    if code == 1:
        assert "fail: 2 fail against b.json" in out


def test_an_interrupted_run_interrupts_the_check(monkeypatch, tmp_path, image_folder, tiny_graph):
    ended = session.Ended(tmp_path, True, ())
    monkeypatch.setattr(session, "run", lambda *_: ended)
    with pytest.raises(KeyboardInterrupt):
        drive._run(baseline.RunSpec(), Console())
