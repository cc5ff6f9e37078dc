"""The command line: what goes in, what comes out, and what a mistake looks like."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from bench_fakes import WNIDS, Answer, Command, make_graph

from bench import cli
from bench.record.case import Status
from bench.run.model_files import PreparationFailed, prepare_files
from bench.run.session import Ended
from bench.worker import channel

pytestmark = pytest.mark.usefixtures("empty_folder")


def expect_mistake(answer: Answer, *words: str) -> None:
    """One line of what, one of what to do, exit code 2, no traceback."""
    assert answer.code == 2, answer.err
    lines = answer.err.rstrip("\n").splitlines()
    assert len(lines) == 2, answer.err
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("       ")
    assert "Traceback" not in answer.out + answer.err
    for word in words:
        assert word.lower() in answer.err.lower(), answer.err


@pytest.mark.usefixtures("workers_here")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--model", "scarlet_d"], ["unknown model 'scarlet_d'", "scarlet_a"]),
        (["--backends", "pytroch"], ["unknown backend 'pytroch'", "pytorch"]),
        (["--devices", "gpu"], ["unknown device 'gpu'", "cpu"]),
        (["--precisions", "fp23"], ["unknown precision 'fp23'", "fp32"]),
        (["--pipeline", "dally"], ["unknown pipeline 'dally'", "dali"]),
        (["--scenarios", "quality"], ["unknown scenario 'quality'", "latency"]),
        (["--batches", "0"], ["--batches 0"]),
        (["--batches", "1,x"], ["--batches x"]),
        (["--threads", "-1"], ["--threads -1"]),
        (["--images", "none"], ["--images none", "all"]),
        (["--images", "0"], ["--images 0"]),
        (["--budget", "0"], ["--budget 0"]),
        (["--timeout", "-3"], ["--timeout -3"]),
        (["--option", "form=plain"], ["form=plain", "backend.name=value"]),
        (["--option", "pytroch.form=plain"], ["unknown backend", "pytorch"]),
        (["--data", "no/such/folder"], ["no/such/folder"]),
        (["--model", "onnx:no/such.onnx", "--data", "{data}"], ["no/such.onnx"]),
        (["--checkpoint", "no/such.pth", "--data", "{data}"], ["no/such.pth"]),
        (["--resume", "--out", "no/such/run"], ["no/such/run"]),
        (["--resume"], ["latest"]),
        (["--retry"], ["--retry", "--resume"]),
        (["--data", "{data}", "--out", "{data}/valid/n01440764/image_0.JPEG/run"], ["cannot", "--out"]),
    ],
)
def test_a_mistake_is_two_lines_and_exit_code_2(scarlet_bench, image_folder, words, expected):
    filled = [word.replace("{data}", str(image_folder)) for word in words]
    expect_mistake(scarlet_bench("run", *filled), *expected)


def run_tiny(scarlet_bench: Command, graph: Path, data: Path, *more: str) -> Answer:
    words = ["--model", f"onnx:{graph}", "--data", str(data), "--pipeline", "reference", "--backends", "fake"]
    words += ["--batches", "1", "--budget", "1", "--lives", "1", "--option", "fake.latency_ns=80000000"]
    return scarlet_bench("run", *words, *more)


def test_a_run_ends_with_a_table_its_files_and_latest(scarlet_bench, image_folder, tiny_graph):
    answer = run_tiny(scarlet_bench, tiny_graph, image_folder)
    assert answer.code == 0, answer.err
    assert "report.html" in answer.out
    latest = Path("results/latest")
    assert latest.is_symlink()
    for name in (
        "run.json",
        "cases.jsonl",
        "samples.parquet",
        "predictions.parquet",
        "table.csv",
        "report.md",
        "report.html",
    ):
        assert (latest / name).stat().st_size > 0, name
    info = json.loads((latest / "run.json").read_text())
    assert info["dataset"]["n_images"] == 8
    assert info["exit_code"] == 0
    assert info["settings"]["backends"] == "fake"


@pytest.mark.usefixtures("workers_here")
def test_a_run_can_answer_in_json(scarlet_bench: Command, image_folder: Path, tiny_graph: Path) -> None:
    answer = run_tiny(scarlet_bench, tiny_graph, image_folder, "--json", "--out", "here")
    whole = json.loads(answer.out)
    assert {case["status"] for case in whole["cases"]} == {"ok"}
    assert {case["scenario"] for case in whole["cases"]} == {"accuracy", "latency", "throughput"}
    assert whole["run"] == str(Path("here").resolve())
    assert not Path("results").exists(), "a run with --out leaves results/latest alone"


@pytest.mark.usefixtures("workers_here")
def test_a_failed_row_is_exit_code_1_and_the_table_is_printed(scarlet_bench, image_folder, tiny_graph):
    fault = ("--backends", "onnxruntime,fake", "--option", "fake.fault=raise", "--scenarios", "latency")
    answer = run_tiny(scarlet_bench, tiny_graph, image_folder, *fault, "--out", "here")
    assert answer.code == 1
    assert "failed" in answer.out
    statuses = {json.loads(line)["status"] for line in Path("here/cases.jsonl").read_text().splitlines()}
    assert statuses == {"failed", "ok"}
    assert json.loads(Path("here/run.json").read_text())["exit_code"] == 1


OK, GONE = Status.OK, Status.UNAVAILABLE


@pytest.mark.parametrize(
    ("statuses", "interrupted", "code", "strict"),
    [
        ((OK, OK), False, 0, 0),
        ((OK, GONE, Status.UNSUPPORTED, Status.FALLBACK, Status.OOM, Status.TIMEOUT), False, 0, 1),
        ((OK, Status.FAILED), False, 1, 1),
        ((OK, Status.CRASHED), False, 1, 1),
        ((GONE, GONE), False, 1, 1),
        ((), False, 1, 1),
        ((OK, Status.FAILED), True, 130, 130),
    ],
)
def test_the_exit_code_of_a_run(statuses: tuple[Status, ...], interrupted: bool, code: int, strict: int) -> None:
    ended = Ended(Path("run"), interrupted, statuses)
    assert (ended.exit_code(), ended.exit_code(strict=True)) == (code, strict)


def test_ctrl_c_keeps_what_finished_and_resume_does_the_rest(scarlet_bench, image_folder, tiny_graph):
    # The accuracy Cases run in this order; the fake one sends the runner a Ctrl-C at its first call.
    words = ["run", "--model", f"onnx:{tiny_graph}", "--data", str(image_folder), "--pipeline", "reference"]
    words += ["--backends", "onnxruntime,fake", "--scenarios", "accuracy", "--out", "stopped"]
    words += ["--option", "fake.fault=interrupt", "--option", f"fake.fault_once={Path('happened').resolve()}"]
    answer = scarlet_bench(*words)
    assert answer.code == 130
    assert "interrupted" in answer.out
    assert "--resume" in answer.out
    assert json.loads(Path("stopped/run.json").read_text())["finished_at"] is None
    first = Path("stopped/cases.jsonl").read_text().splitlines()[0]
    answer = scarlet_bench("run", "--resume", "--out", "stopped")
    assert answer.code == 0, answer.err
    assert Path("stopped/cases.jsonl").read_text().splitlines()[0] == first
    answer = scarlet_bench("report", "stopped", "--json")
    statuses = {case["backend"]: case["status"] for case in json.loads(answer.out)["cases"]}
    assert statuses == {"onnxruntime": "ok", "fake": "ok"}


@pytest.mark.usefixtures("workers_here")
def test_resume_refuses_images_that_have_changed(scarlet_bench: Command, image_folder: Path, tiny_graph: Path) -> None:
    shutil.copytree(image_folder, "data")
    assert run_tiny(scarlet_bench, tiny_graph, Path("data"), "--out", "run").code == 0
    next(Path("data").rglob("*.JPEG")).unlink()
    expect_mistake(scarlet_bench("run", "--resume", "--out", "run"), "changed")


def test_an_output_folder_in_use_is_left_alone(scarlet_bench: Command, image_folder: Path, tiny_graph: Path) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("years of work")
    expect_mistake(run_tiny(scarlet_bench, tiny_graph, image_folder, "--out", "mine"), "mine", "--out")
    assert Path("mine/thesis.tex").read_text() == "years of work"
    assert len(list(Path("mine").iterdir())) == 1


@pytest.mark.usefixtures("workers_here")
def test_a_full_disk_is_a_users_error_and_what_was_written_stays_readable(
    scarlet_bench: Command, image_folder: Path, tiny_graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.record import run_folder

    appended = run_folder.RunFolder.append_case
    calls = []

    def fills_up(self: run_folder.RunFolder, result: run_folder.CaseResult) -> run_folder.CaseResult:
        calls.append(result)
        if len(calls) > 1:
            with run_folder.disk_errors(self.path / "cases.jsonl"):
                raise OSError(28, "No space left on device")
        return appended(self, result)

    monkeypatch.setattr(run_folder.RunFolder, "append_case", fills_up)
    expect_mistake(run_tiny(scarlet_bench, tiny_graph, image_folder, "--out", "full"), "disk is full", "--resume")
    folder = run_folder.RunFolder.open(Path("full"))
    assert [result.status.value for result in folder.case_results()] == ["ok"]


@pytest.mark.usefixtures("workers_here")
def test_a_disk_that_is_full_at_the_first_row_loses_nothing(scarlet_bench, image_folder, tiny_graph, monkeypatch):
    from bench.record import run_folder

    appended = run_folder.RunFolder.append_case

    def full(self: run_folder.RunFolder, result: run_folder.CaseResult) -> run_folder.CaseResult:
        with monkeypatch.context() as patched:
            patched.setattr(run_folder, "CASES", "/dev/full")
            return appended(self, result)

    with monkeypatch.context() as patched:
        patched.setattr(run_folder.RunFolder, "append_case", full)
        expect_mistake(run_tiny(scarlet_bench, tiny_graph, image_folder, "--out", "full"), "disk is full")
    assert list(Path("full/parts").glob("*.parquet")), "what the worker wrote stays"
    answer = scarlet_bench("run", "--resume", "--out", "full")
    assert answer.code == 0, answer.err
    folder = run_folder.RunFolder.open(Path("full"))
    assert [result.status.value for result in folder.case_results()] == ["ok"] * 3


@pytest.mark.usefixtures("workers_here")
def test_a_network_for_other_classes_has_latency_but_no_accuracy(scarlet_bench, image_folder, tmp_path):
    graph = tmp_path / "two.onnx"
    onnx.save(make_graph("batch", classes=2), graph)
    answer = run_tiny(scarlet_bench, graph, image_folder, "--json")
    status = {case["scenario"]: (case["status"], case["reason"]) for case in json.loads(answer.out)["cases"]}
    assert status["latency"][0] == "ok"
    assert status["accuracy"][0] == "unsupported"
    assert "2 classes" in status["accuracy"][1]


@pytest.mark.usefixtures("workers_here")
def test_a_graph_of_fixed_batch_is_scored_and_other_batches_are_unsupported(scarlet_bench, image_folder, tmp_path):
    graph = tmp_path / "fixed.onnx"
    onnx.save(make_graph(3, size=96), graph)
    words = ["run", "--model", f"onnx:{graph}", "--data", str(image_folder), "--pipeline", "reference"]
    words += ["--backends", "onnxruntime,pytorch", "--batches", "1,3", "--budget", "1", "--lives", "1", "--json"]
    cases = json.loads(scarlet_bench(*words).out)["cases"]
    rows = {(case["backend"], case["scenario"], case["batch"]): case for case in cases}
    assert rows["onnxruntime", "accuracy", 3]["status"] == "ok"
    assert rows["onnxruntime", "accuracy", 3]["n_images"] == 8
    assert rows["onnxruntime", "latency", 3]["status"] == "ok"
    assert rows["onnxruntime", "latency", 1]["status"] == "unsupported"
    assert "batches of 3" in rows["onnxruntime", "latency", 1]["reason"]
    assert rows["pytorch", "latency", 3]["status"] == "unsupported"
    assert "no PyTorch module" in rows["pytorch", "latency", 3]["reason"]


@pytest.mark.usefixtures("workers_here")
def test_cuda_on_a_machine_without_one_is_a_row_with_its_reason(scarlet_bench, image_folder, tiny_graph):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    words = ["run", "--model", f"onnx:{tiny_graph}", "--data", str(image_folder), "--pipeline", "reference"]
    answer = scarlet_bench(*words, "--backends", "onnxruntime", "--devices", "cuda", "--batches", "1", "--json")
    assert answer.code == 1, "no row is ok"
    cases = json.loads(answer.out)["cases"]
    assert {case["status"] for case in cases} == {"unavailable"}
    assert all("make" in case["reason"] for case in cases)


@pytest.mark.usefixtures("workers_here")
def test_unreadable_files_are_counted_and_listed(scarlet_bench: Command, image_folder: Path, tiny_graph: Path) -> None:
    shutil.copytree(image_folder, "data")
    (Path("data/valid") / WNIDS[0] / "broken.JPEG").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    answer = run_tiny(scarlet_bench, tiny_graph, Path("data"), "--scenarios", "accuracy", "--json", "--out", "run")
    (case,) = json.loads(answer.out)["cases"]
    assert (case["status"], case["n_images"], case["n_bad_images"]) == ("ok", 8, 1)
    assert "broken.JPEG" in Path("run/report.md").read_text()


def test_plan_shows_what_would_run_and_measures_nothing(scarlet_bench, image_folder, tiny_graph):
    Path("plan.yaml").write_text(
        f"model: 'onnx:{tiny_graph}'\ndata: {image_folder}\nbackends: [onnxruntime, fake]\nbatches: [1, 8, 64]\n"
        "threads: [1]\nexclude:\n  - {backend: fake, batch: 64}\n"
    )
    answer = scarlet_bench("plan", "--plan", "plan.yaml", "--batches", "8,64", "--images", "5")
    assert answer.code == 0, answer.err
    assert "latency onnxruntime cpu fp32 batch 64" in answer.out
    assert "latency fake cpu fp32 batch 8" in answer.out
    assert "latency fake cpu fp32 batch 64" not in answer.out, "the file excludes it"
    assert "batch 1:" not in answer.out, "the command line goes before the file"
    assert "5 images" in answer.out
    assert "for 6 Cases" in answer.out
    assert not Path("results").exists()
    Path("plan.yaml").write_text("modell: scarlet_c\n")
    expect_mistake(scarlet_bench("plan", "--plan", "plan.yaml"), "modell", "model")


@pytest.mark.usefixtures("workers_here")
def test_a_plan_file_runs_without_what_it_excludes(scarlet_bench, image_folder, tiny_graph):
    Path("plan.yaml").write_text("batches: [1, 2]\nscenarios: [latency]\nexclude:\n  - {batch: 1}\n")
    words = ["--model", f"onnx:{tiny_graph}", "--data", str(image_folder), "--backends", "fake", "--budget", "1"]
    words += ["--lives", "1", "--pipeline", "reference", "--plan", "plan.yaml", "--json"]
    cases = json.loads(scarlet_bench("run", *words).out)["cases"]
    assert [(case["scenario"], case["batch"]) for case in cases] == [("latency", 2)]


@pytest.mark.usefixtures("workers_here")
def test_noise_measures_a_case_against_itself_and_later_runs_know(scarlet_bench, image_folder, tiny_graph, monkeypatch):
    # Other tests are at work beside this one, now more and now less.
    monkeypatch.setattr("bench.record.machine._is_like", lambda busy, then: True)
    words = ["--model", f"onnx:{tiny_graph}", "--data", str(image_folder), "--backends", "fake", "--budget", "4"]
    words += ["--pipeline", "reference", "--option", "fake.noise=0.01"]
    answer = scarlet_bench("noise", *words)
    assert answer.code == 0, answer.err
    assert "against itself" in answer.out
    assert "stored: " in answer.out
    assert run_tiny(scarlet_bench, tiny_graph, image_folder, "--out", "run").code == 0
    known = json.loads(Path("run/run.json").read_text())["noise"]
    assert known["resolution"] == 0.0, "two fake copies of one seed are exactly alike"
    assert "note" in known


def test_models_and_doctor_speak_to_people_and_to_machines(scarlet_bench: Command) -> None:
    assert "scarlet_c" in scarlet_bench("models").out
    specs = json.loads(scarlet_bench("models", "--json").out)
    assert [spec["name"] for spec in specs] == ["scarlet_a", "scarlet_b", "scarlet_c"]
    assert "processor" in scarlet_bench("doctor").out
    checks = json.loads(scarlet_bench("doctor", "--json").out)
    assert {check["state"] for check in checks} <= {"ok", "warn", "bad"}


def test_help_imports_nothing_heavy() -> None:
    """The half second that --help may take is mostly imports: so none of the heavy ones may happen."""
    program = (
        "import sys; from bench import cli; sys.argv = ['scarlet-bench', 'run', '--help']\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'numpy', 'pandas', 'pyarrow', 'scipy', 'nvidia'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    root = Path(cli.__file__).parent.parent
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root)
    assert "--checkpoint" in printed.stdout
    assert "HEAVY []" in printed.stdout


def test_export_writes_a_checked_graph(scarlet_bench, image_folder, shared_store, monkeypatch):
    monkeypatch.setenv("SCARLET_BENCH_STORE", str(shared_store))
    words = ("export", "--model", "SCARLET-C", "--data", str(image_folder))
    answer = scarlet_bench(*words, "--out", "deep/net.onnx", "--json")
    assert answer.code == 0, answer.err
    files = json.loads(answer.out)
    assert files["out"] == str(Path("deep/net.onnx").resolve())
    assert files["parity"]["ratio"] < 1e-4
    onnx.checker.check_model("deep/net.onnx")
    again = scarlet_bench(*words)
    assert again.code == 0, again.err
    assert "largest difference of a logit" in again.out
    assert Path("scarlet_c.onnx").read_bytes() == Path("deep/net.onnx").read_bytes()
    expect_mistake(scarlet_bench(*words, "--out", "scarlet_c.onnx/net.onnx"), "cannot be written", "--out")
    expect_mistake(scarlet_bench("export", "--model", "onnx:deep/net.onnx"), "ONNX graph already")


def test_demo_makes_images_that_a_run_finds(scarlet_bench: Command) -> None:
    answer = scarlet_bench("demo", "--out", "images", "--images", "6")
    assert answer.code == 0, answer.err
    assert len(list(Path("images").rglob("*.JPEG"))) == 6
    expect_mistake(scarlet_bench("demo", "--images", "0"), "--images 0")


@pytest.mark.usefixtures("workers_here")
def test_a_mistake_in_the_checkpoint_leaves_no_empty_run_behind(scarlet_bench: Command, image_folder: Path) -> None:
    Path("weights.pth").write_bytes(b"PK but no zip")
    answer = scarlet_bench("run", "--data", str(image_folder), "--checkpoint", "weights.pth")
    expect_mistake(answer, "weights.pth")
    assert list(Path("results/runs").iterdir()) == []


@pytest.mark.parametrize(
    ("death", "expected"),
    [
        (channel.too_slow(5), "longer than 5 s"),
        (channel.dead(-9, "no memory"), "killed by SIGKILL"),
        ({"ok": False, "status": "failed", "reason": "KeyError: a bug"}, "KeyError: a bug"),
    ],
)
def test_preparing_that_breaks_names_its_log(monkeypatch, tmp_path, death, expected):
    def call(*_: object) -> object:
        if isinstance(death, Exception):
            raise death
        return death

    monkeypatch.setattr(channel.LocalWorker, "call", call)
    with pytest.raises(PreparationFailed) as broken:
        prepare_files({}, tmp_path / "prepare.log", threads=1, timeout_seconds=5)
    assert expected in broken.value.what
    assert "prepare.log" in broken.value.do
