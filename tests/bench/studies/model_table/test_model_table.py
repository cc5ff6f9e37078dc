"""The field: rows of several models, each of a run of its own, in four forms."""

from __future__ import annotations

import csv
import io
import json
from functools import partial
from pathlib import Path

import onnx
import pytest
from bench_fakes import Command, make_graph
from folders import golden
from latex_run import HOSTILE, compiled, complaints
from report_run import add_predictions, add_samples, case, end, make_run
from rich.console import Console

from bench.analysis.accuracy.predictions import RANDOM_NOTE
from bench.analysis.table import DEMO_NOTE
from bench.record.case import Status
from bench.record.run_folder import RunFolder
from bench.report import terminal
from bench.report.forms import write_document
from bench.run import session
from bench.run.spec import RunSpec
from bench.studies.model_table import document as text
from bench.studies.model_table import drive, rows
from scarlet.errors import BenchError


def model_run(
    path: Path,
    model: str,
    weights: str,
    right: int = 750,
    slow_ns: int = 20_000_000,
    backends: tuple[str, ...] = ("pytorch", "onnxruntime"),
    is_demo: bool = False,
    files: dict[str, object] | None = None,
) -> RunFolder:
    """A run of one model: so many of 1,000 images right, the second backend twice as fast."""
    common = {"model": model, "weights": weights, "threads": 2, "pipeline": "turbo"}
    scored = case(**common, scenario="accuracy", batch=32)
    timed = [case(**common, backend=name) for name in backends]
    info = {
        "dataset": {"is_demo": is_demo, "n_images": 1000, "fingerprint": "feed" * 16},
        "model_files": {"model": model, "parameters": None, "multiply_adds": None, **(files or {})},
    }
    folder = make_run(path, [scored, *timed], info)
    hits = {f"i{place:04d}": (1, [1 if place < right else 2]) for place in range(1000)}
    add_predictions(folder, scored, hits)
    end(folder, scored)
    for number, one in enumerate(timed):
        times = [slow_ns // (1 + number) + 10_000 * step for step in range(40)]
        add_samples(folder, one, times)
        end(folder, one, stage="compute")
    return folder


@pytest.fixture
def field(tmp_path: Path) -> list[rows.FieldRow]:
    """Official weights that are better than a demo's and a user's; one that is unavailable; one that never ran."""
    counted = {"parameters": 6_073_684, "multiply_adds": 280_082_912}
    model_run(tmp_path / "01-c", "scarlet_c", "official", 760, files=counted)
    model_run(tmp_path / "02-a", "scarlet_a", "random", files={"parameters": 6_707_720, "multiply_adds": 365_000_000})
    model_run(tmp_path / "03-x", "onnx:/home/me/secret/x_1.onnx", "user", 700, 30_000_000)
    common = {"model": "timm/mobilenetv3_large_100", "weights": "random", "threads": 2, "pipeline": "turbo"}
    missing = [case(**common, backend=name) for name in ("pytorch", "onnxruntime")]
    folder = make_run(tmp_path / "04-m", missing)
    for one in missing:
        end(folder, one, Status.UNAVAILABLE, reason="timm does not import")
    made = [rows.row_of_run(path) for path in rows.run_folders([tmp_path])]
    return [*made, rows.failed_row("onnx:gone.onnx", Status.FAILED, "ONNX file 'gone.onnx'\ndoes not exist")]


def test_a_row_holds_what_is_published_counted_and_measured(field: list[rows.FieldRow]) -> None:
    first = field[0]
    assert (first.model, first.status, first.weights) == ("scarlet_c", "ok", "official")
    assert (first.parameters, first.multiply_adds) == (6_073_684, 280_082_912)
    assert first.published.top1_percent == 75.6
    assert first.top1_percent == pytest.approx(76.0)
    assert first.n_images == 1000
    (pytorch, ort) = first.latencies.values()
    assert pytorch["latency_ns_p50"] == pytest.approx(2 * ort["latency_ns_p50"], rel=0.02)


def test_random_weights_have_no_measured_accuracy(field: list[rows.FieldRow]) -> None:
    assert field[1].top1_percent is None
    assert field[1].published is not None
    assert any(RANDOM_NOTE in mark and "scarlet_a" in mark for mark in text.watermarks(field))


def test_what_fails_is_a_row_with_its_reason(field: list[rows.FieldRow]) -> None:
    missing, gone = field[3:]
    assert (missing.status, missing.reason) == ("unavailable", "timm does not import")
    assert missing.published is not None
    drawn = text.table(field)
    by_model = {cells[0]: dict(zip(drawn.header, cells, strict=True)) for cells in drawn.rows}
    assert by_model["timm/mobilenetv3_large_100"]["Status"] == "unavailable"
    assert by_model["timm/mobilenetv3_large_100"]["PyTorch ms"] == "unavailable"
    assert by_model["timm/mobilenetv3_large_100"]["Params M"] == "5.4*"
    assert by_model["onnx:gone.onnx"]["Status"] == "failed"
    assert "timm/mobilenetv3_large_100: unavailable: timm does not import" in drawn.notes
    assert "onnx:gone.onnx: failed: ONNX file 'gone.onnx' does not exist" in drawn.notes
    assert gone.to_dict()["run"] is None


def test_published_and_measured_stand_in_columns_of_their_own(field: list[rows.FieldRow]) -> None:
    drawn = text.table(field)
    cells = dict(zip(drawn.header, drawn.rows[0], strict=True))
    assert cells["Top-1 % published"] == "75.6"
    assert cells["Top-1 % measured"] == "76.0"
    assert cells["Params M"] == "6.07"
    assert cells["Mult-adds M"] == "280.1"
    low, high = cells["ONNX Runtime ms"].partition("(")[2].rstrip(")").split(" to ")
    assert float(low) <= float(cells["ONNX Runtime ms"].partition(" ")[0]) <= float(high)
    joined = "\n".join(drawn.notes)
    assert "SCARLET-C, SCARLET-A: Chu et al., SCARLET-NAS, arXiv 1908.06022, Table 3" in joined
    assert "one after the other" in joined
    assert "n = 40, cpu, fp32, batch 1, 2 threads; stage compute" in joined
    assert "measured on Test CPU" in joined


def written(field: list[rows.FieldRow], path: Path) -> str:
    """The file that the table becomes."""
    write_document(text.document(field), path)
    return path.read_text(encoding="utf-8")


def test_demo_figures_are_watermarked(tmp_path: Path) -> None:
    model_run(tmp_path / "c", "scarlet_c", "demo", is_demo=True)
    made = [rows.row_of_run(tmp_path / "c")]
    assert made[0].is_demo
    drawn = text.table(made)
    assert drawn.rows[0][5] == "75.0 (demo)"
    assert drawn.notes[0] == DEMO_NOTE
    tex = text.latex(made)
    assert rf"\textbf{{{DEMO_NOTE}}}" in tex
    assert DEMO_NOTE in written(made, tmp_path / "table.md")
    line, *_ = csv.DictReader(io.StringIO(written(made, tmp_path / "table.csv")))
    assert line["is_demo"] == "True"


def test_rows_of_other_images_are_told(tmp_path: Path) -> None:
    model_run(tmp_path / "a", "scarlet_a", "user")
    other = model_run(tmp_path / "b", "scarlet_b", "user")
    info = other.read_run_info()
    other.write_run_info({**info, "dataset": {**info["dataset"], "fingerprint": "beef"}})
    made = [rows.row_of_run(tmp_path / name) for name in "ab"]
    assert "measured top-1: the rows were not scored on the same images" in list(text.notes(made))


def test_setups_are_named_by_what_tells_them_apart() -> None:
    one = rows.Setup("pytorch", "cpu", "fp32", 1, 2, 1)
    others = [rows.Setup("onnxruntime", "cpu", "int8", 1, 2, 1), rows.Setup("own", "cpu", "fp32", 8, 2, 1)]
    assert text.setup_names([one, *others]) == ["PyTorch fp32 batch 1", "ONNX Runtime int8 batch 1", "own fp32 batch 8"]
    assert text.setup_names([one]) == ["PyTorch"]
    assert text.shared_setup([one, *others]) == "cpu, 2 threads"
    assert text.shared_setup([]) == ""


def test_csv_has_a_line_for_each_latency_and_runs_no_formula(field: list[rows.FieldRow], tmp_path: Path) -> None:
    evil = rows.failed_row("=cmd()", Status.FAILED, "@SUM(1)")
    lines = list(csv.DictReader(io.StringIO(written([*field, evil], tmp_path / "table.csv"))))
    assert [line["backend"] for line in lines] == [*("pytorch", "onnxruntime") * 4, "", ""]
    assert float(lines[0]["latency_ns_p50"]) == pytest.approx(20e6, rel=0.02)
    assert lines[0]["published_top1_percent"] == "75.6"
    assert lines[0]["measured_top1_percent"] == "76.0"
    assert lines[2]["measured_top1_percent"] == ""
    assert lines[6]["latency_status"] == "unavailable"
    assert (lines[-1]["model"], lines[-1]["reason"]) == ("'=cmd()", "'@SUM(1)")


def test_markdown_is_whole_and_escaped(field: list[rows.FieldRow], tmp_path: Path) -> None:
    evil = rows.failed_row("onnx:<b>|x", Status.FAILED, HOSTILE)
    lines = written([*field, evil], tmp_path / "table.md").splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + len(field) + 1
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert not any("<b>" in line for line in lines)


def test_latex_is_the_golden_one(field: list[rows.FieldRow]) -> None:
    made = [*field, *rows.published_rows(row.model for row in field)]
    tex = text.latex(made)
    assert tex == golden("latex/field.tex", tex)


def test_latex_sets_a_resolved_best_in_bold_and_marks_failures(field: list[rows.FieldRow]) -> None:
    tex = text.latex(field)
    (line,) = [line for line in tex.splitlines() if r"\bfseries" in line]
    assert line.startswith("SCARLET-C & 6.07 & 280.1 & 75.6")
    assert r"\bfseries 76.0" in line
    assert r"unavailable: timm does not import" in tex
    assert r"onnx:gone" not in tex.partition(r"\begin{tablenotes}")[0], "the file's name alone"
    assert "secret" not in tex
    assert text.latex(field, caption="A_b", label="tab:x").count(r"\caption{A\_b}") == 1
    close = [row for row in field if row.model == "scarlet_c"]
    assert r"\bfseries" not in text.latex([*close, *close]), "two runs of one Case cannot be told apart"


def test_a_hostile_field_compiles(tmp_path: Path) -> None:
    model_run(tmp_path / "x", f"onnx:{HOSTILE}", "user")
    made = [rows.row_of_run(tmp_path / "x"), rows.failed_row(HOSTILE, Status.FAILED, HOSTILE)]
    log, _ = compiled(tmp_path / "tex", text.latex(made), text.latex([], label="tab:none"))
    # Codes of signs that no font has are wide; nothing else may be amiss.
    assert [line for line in complaints(log) if "Overfull" not in line] == []


def test_published_models_are_rows_of_their_own(field: list[rows.FieldRow]) -> None:
    added = rows.published_rows(row.model for row in field)
    names = [row.model for row in added]
    assert "SCARLET-B" in names
    assert "EfficientNet-B0" in names
    assert "SCARLET-C" not in names
    drawn = text.table([*field, *added])
    cells = dict(zip(drawn.header, next(row for row in drawn.rows if row[0] == "FairNAS-A"), strict=True))
    assert cells["Top-1 % published"] == "75.3"
    assert cells["Top-1 % measured"] == cells["PyTorch ms"] == ""
    assert not any(note.startswith("FairNAS-A: published") for note in drawn.notes)


def test_a_graphs_cost_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    onnx.save(make_graph("batch"), path)
    assert rows.graph_cost(path) == (3000, 3000)
    files = {"model": f"onnx:{path}", "onnx": str(path)}
    model_run(tmp_path / "run", f"onnx:{path}", "user", files=files)
    assert rows.row_of_run(tmp_path / "run").parameters == 3000
    path.unlink()
    assert rows.row_of_run(tmp_path / "run").parameters is None


def test_folders_of_runs(tmp_path: Path) -> None:
    model_run(tmp_path / "all" / "b", "scarlet_b", "user")
    model_run(tmp_path / "all" / "a", "scarlet_a", "user")
    assert [path.name for path in rows.run_folders([tmp_path / "all" / "b", tmp_path / "all"])] == ["b", "a"]
    with pytest.raises(BenchError, match="holds no run"):
        rows.run_folders([tmp_path])
    stopped = make_run(tmp_path / "stopped", [], {"settings": {"model": "scarlet_a"}})
    row = rows.row_of_run(stopped.path)
    assert (row.model, row.status) == ("scarlet_a", "failed")
    assert "stopped before it had a Case" in row.reason
    stopped.path.rename(tmp_path / "all" / "stopped")
    assert [path.name for path in rows.run_folders([tmp_path / "all"])] == ["a", "b"]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["scarlet_d"], ["unknown model 'scarlet_d'"]),
        (["scarlet_a", "Scarlet-A"], ["'scarlet_a' is named twice"]),
        (["scarlet_a="], ["names no weights"]),
        ([], ["no model was named"]),
    ],
)
def test_models_that_cannot_be_meant(texts: list[str], words: list[str]) -> None:
    with pytest.raises(BenchError) as raised:
        drive.requested_models(texts)
    for word in words:
        assert word in str(raised.value)


def test_models_may_bring_their_weights() -> None:
    assert drive.requested_models(["scarlet_a=A.pth.tar", "onnx:a=b.onnx", "timm/resnet18"]) == {
        "scarlet_a": ("scarlet_a", "A.pth.tar"),
        "onnx:a=b.onnx": ("onnx:a=b.onnx", None),
        "timm/resnet18": ("timm/resnet18", None),
    }


@pytest.fixture
def call(scarlet_bench: Command, empty_folder: Path) -> Command:
    return partial(scarlet_bench, "table")


def test_models_are_measured_one_after_the_other_and_a_failure_is_a_row(
    call: Command, image_folder: Path, tiny_graph: Path
) -> None:
    options = ["--data", str(image_folder), "--pipeline", "reference", "--backends", "fake", "--budget", "1"]
    words = [f"onnx:{tiny_graph}", "onnx:gone.onnx", *options, "--out", "field"]
    code, out, err = call(*words)
    assert code == 0, err
    assert "model 1 of 2" in out
    assert "gone.onnx' does not exist" in out.partition("onnx:gone.onnx: failed: ONNX file")[2]
    for name in ("table.md", "table.tex", "table.csv"):
        assert f"table: field/{name}" in out
        assert Path("field", name).stat().st_size > 0
    lines = list(csv.DictReader(io.StringIO(Path("field/table.csv").read_text())))
    assert [line["status"] for line in lines] == ["ok", "failed"]
    assert float(lines[0]["latency_ns_p50"]) == 1_000_000
    assert lines[0]["parameters"] == "3000"
    assert not Path("results").exists()
    # The same table again from the runs that are there.
    code, out, _ = call("--runs", "field", "--published", "--json")
    again = json.loads(out)
    assert again[0]["latencies"][0]["p50"] == 1_000_000
    assert again[-1]["model"] == "EfficientNet-B0"
    assert {row["status"] for row in again} == {"ok", "published"}


def test_mistakes_end_before_anything_is_measured(call: Command, image_folder: Path) -> None:
    for words, expected in (
        (["scarlet_d"], "unknown model"),
        (["scarlet_a", "--data", "no/such"], "no/such"),
        (["scarlet_a", "--backends", "fack"], "unknown backend"),
        (["scarlet_a", "--runs", str(image_folder)], "both given"),
        (["--runs", str(image_folder)], "holds no run"),
        (["scarlet_a", "--label", "a b"], "label"),
    ):
        code, _, err = call(*words)
        assert code == 2, words
        assert expected in err, err
    assert not Path("results").exists()


def test_ctrl_c_leaves_the_other_models_as_rows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, image_folder: Path
) -> None:
    done = model_run(tmp_path / "done", "scarlet_a", "user")

    def stop(spec: RunSpec, out: Path, console: Console) -> session.Ended:
        if spec.model == "scarlet_b":
            raise KeyboardInterrupt
        return session.Ended(done.path, False, ())

    monkeypatch.setattr(session, "run", stop)
    wanted = drive.requested_models(["scarlet_a", "scarlet_b", "scarlet_c"])
    spec = RunSpec(data=str(image_folder))
    found, interrupted = drive.measure(wanted, spec, tmp_path / "out", Console(file=io.StringIO()))
    assert interrupted
    assert [row.status for row in found] == ["ok", "interrupted", "interrupted"]
    assert found[2].reason == drive.NOT_REACHED


def test_the_terminal_shows_all_of_it(field: list[rows.FieldRow]) -> None:
    stream = io.StringIO()
    terminal.show(text.document(field), Console(file=stream, width=160))
    shown = stream.getvalue()
    assert "timm/mobilenetv3_large_100" in shown
    assert "unavailable" in shown
    assert "76.0" in shown
