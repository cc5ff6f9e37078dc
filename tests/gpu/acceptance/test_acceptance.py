"""The GPU check: which steps it takes, for how long, what it makes of failures, how it judges. No GPU is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from bench.record.case import Case
from bench.run.spec import RunSpec, read_plan
from scarlet.errors import BenchError
from tests.gpu.acceptance import __main__, carry_out, figures, machine, plans, steps
from tests.gpu.acceptance.__main__ import app
from tests.gpu.acceptance.carry_out import Record
from tests.gpu.acceptance.figures import Agreement, Evidence, Figure, Graphs, Pass
from tests.gpu.acceptance.steps import Step, allowance

HOME = Path(__file__).resolve().parents[3]


def cases_of(plan: Any, folder: Path) -> tuple[Case, ...]:
    """What `scarlet-bench run --plan` would make of it."""
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(dict(plan)))
    spec = RunSpec(**read_plan(path))
    assert spec.notes() == (), "every rule of the plan takes something out"
    return spec.cases("demo")


# --- plans ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precisions", [plans.PRECISIONS, plans.QUICK_PRECISIONS, ("fp32",)])
def test_accuracy_varies_one_thing_at_a_time(precisions, tmp_path):
    cases = cases_of(plans.accuracy(precisions), tmp_path)
    assert {case.scenario for case in cases} == {"accuracy"}
    on_cpu = [case for case in cases if case.device == "cpu"]
    assert [(case.backend, case.precision, case.pipeline) for case in on_cpu] == [
        ("pytorch", "fp32", "reference")
    ]
    assert cases[0] == on_cpu[0], "the first ok row is what reports compare with"
    reference = [case for case in cases if case.device == "cuda" and case.pipeline == "reference"]
    assert {(case.backend, case.precision) for case in reference} == {
        (backend, precision) for backend in plans.BACKENDS for precision in precisions
    }
    others = [case for case in cases if case.pipeline != "reference"]
    assert [(case.backend, case.precision, case.pipeline) for case in others] == [
        ("pytorch", "fp32", "dali_gpu"),
        ("pytorch", "fp32", "dali_gpu_engine"),
    ]


def test_latency_has_every_backend_and_precision(tmp_path):
    everything = {(backend, precision) for backend in plans.BACKENDS for precision in plans.PRECISIONS}
    for batch in plans.BATCHES:
        cases = cases_of(plans.latency(batch), tmp_path)
        assert {(case.scenario, case.device, case.batch) for case in cases} == {("latency", "cuda", batch)}
        assert {(case.backend, case.precision) for case in cases} == everything
        assert len(cases) == len(everything)
    assert set(plans.BATCHES) == {1, 8, 64, 256}


def test_graphs_are_measured_with_and_without_in_one_run(tmp_path):
    cases = cases_of(plans.graphs(), tmp_path)
    assert {(case.scenario, case.device, case.batch) for case in cases} == {("latency", "cuda", 1)}
    assert sorted(
        (case.backend, case.precision, case.option(plans.GRAPH_OPTION)) for case in cases
    ) == sorted(
        (backend, precision, graph)
        for backend in plans.BACKENDS
        for precision in plans.GRAPH_PRECISIONS
        for graph in ("no", "yes")
    )


def test_throughput_has_all_pipelines_on_one_backend_and_the_gpu_s_on_all(tmp_path):
    cases = cases_of(plans.throughput(), tmp_path)
    assert {case.scenario for case in cases} == {"throughput"}
    by_pipeline = {
        name: [case.backend for case in cases if case.pipeline == name] for name in plans.PIPELINES
    }
    assert by_pipeline == {
        "dali_gpu": list(plans.BACKENDS),
        "dali_gpu_engine": ["pytorch"],
        "turbo": ["pytorch"],
    }


# --- steps ----------------------------------------------------------------------------------------------------


def test_the_steps_and_their_commands(tmp_path):
    found = steps.steps(tmp_path, HOME)
    names = [step.name for step in found]
    assert names == [
        "doctor", "tests", "accuracy", "graphs", "decode", "throughput",
        "latency-1", "latency-64", "latency-256", "latency-8",
    ]  # fmt: skip
    assert sum(step.least_seconds for step in found) < 60 * steps.MINUTES, "all of them can be begun"
    runs = {step.name: step for step in found if step.plan is not None}
    assert set(runs) == {"accuracy", "graphs", "throughput", *(f"latency-{batch}" for batch in plans.BATCHES)}
    command = runs["latency-8"].command(40.0)
    assert command[:3] == [sys.executable, "-m", "bench.cli"]
    assert command[command.index("--budget") + 1] == "10"
    assert command[command.index("--timeout") + 1] == "40"
    assert command[command.index("--out") + 1] == str(tmp_path / "latency-8")
    tests = found[1].command(60.0)
    assert any("test_gpu_pipelines.py" in word for word in tests)
    assert not any("test_acceptance.py" in word for word in tests), "it has no test for a GPU"


def test_quick_does_less_of_the_same(tmp_path):
    quick, whole = steps.steps(tmp_path, HOME, quick=True), steps.steps(tmp_path, HOME)
    assert [step.name for step in quick] == [
        step.name for step in whole if step.name not in ("latency-256", "latency-8")
    ]
    assert all(step.plan["images"] == plans.QUICK_IMAGES for step in quick if step.plan is not None)


def test_a_project_without_tests_has_nothing_to_run_for_them(tmp_path):
    (step,) = [step for step in steps.steps(tmp_path, tmp_path) if step.name == "tests"]
    assert step.argv == ()


def step(name: str, least: float, most: float) -> Step:
    return Step(name, name, ("-c", "pass"), least, most)


@pytest.mark.parametrize(
    ("left", "minutes", "expected"),
    [
        (480.0, 7.5, 100.0),  # what it wants
        (60.0, 7.5, 30.0),  # so that the later ones get their least
        (35.0, 7.5, 10.0),  # its own least, at the cost of the last
        (9.0, 7.5, 0.0),  # not begun
        (1200.0, 15.0, 200.0),  # twice the time, twice as long
    ],
)
def test_no_step_takes_the_time_of_those_behind_it(left, minutes, expected):
    todo = [step("a", 10, 100), step("b", 10, 50), step("c", 20, 50)]
    assert allowance(todo, left, minutes) == pytest.approx(expected)


# --- carrying out ---------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def carried_out(
    folder: Path, todo: Sequence[Step], endings: dict[str, tuple[str, float]], minutes: float = 1.0
) -> tuple[list[Record], list[list[str]], list[str]]:
    """Records, what ``after`` heard, and the steps that were run, each taking the seconds it is told to."""
    clock, heard, ran = Clock(), list[list[str]](), list[str]()

    def run(doing: Step, command: list[str], seconds: float) -> Record:
        status, taken = endings.get(doing.name, ("ok", 1.0))
        ran.append(doing.name)
        clock.now += taken
        if status == "interrupted":
            raise KeyboardInterrupt
        return Record(doing.name, doing.title, status, "" if status == "ok" else "why", taken, tuple(command))

    records = carry_out.carry_out(
        todo,
        folder,
        minutes,
        lambda text: None,
        lambda found: heard.append([record.name for record in found]),
        run,
        clock,
    )
    return records, heard, ran


def test_a_step_that_fails_is_recorded_and_the_rest_goes_on(tmp_path):
    todo = [step("a", 1, 10), step("b", 1, 10), Step("none", "none", (), 1, 10), step("c", 1, 10)]
    records, heard, ran = carried_out(tmp_path, todo, {"a": ("failed", 1), "b": ("timeout", 10)})
    assert [(record.name, record.status) for record in records] == [
        ("a", "failed"), ("b", "timeout"), ("none", "not run"), ("c", "ok"),
    ]  # fmt: skip
    assert ran == ["a", "b", "c"]
    assert heard == [["a"], ["a", "b"], ["a", "b", "none"], ["a", "b", "none", "c"]]
    assert carry_out.read_records(tmp_path) == records


def test_time_that_is_used_up_leaves_steps_not_run(tmp_path):
    todo = [step("a", 10, 50), step("b", 10, 50), step("c", 10, 50)]
    records, _, ran = carried_out(tmp_path, todo, {"a": ("ok", 40), "b": ("ok", 19)})
    assert ran == ["a", "b"]
    assert records[-1].status == "not run"
    assert "1 minutes were used up" in records[-1].reason


def test_a_second_call_goes_on_where_the_first_ended(tmp_path):
    todo = [step("a", 1, 10), step("b", 1, 10), step("c", 1, 10)]
    with pytest.raises(KeyboardInterrupt):
        carried_out(tmp_path, todo, {"b": ("interrupted", 1)})
    assert [(record.name, record.status) for record in carry_out.read_records(tmp_path)] == [
        ("a", "ok"),
        ("b", "interrupted"),
    ]
    records, _, ran = carried_out(tmp_path, todo, {})
    assert ran == ["b", "c"]
    assert [record.status for record in records] == ["ok", "ok", "ok"]
    _, heard, ran = carried_out(tmp_path, todo, {})
    assert (ran, heard) == ([], [])


def test_plans_lie_beside_the_results_and_a_half_done_run_is_gone_on_with(tmp_path):
    plan = plans.latency(8)
    todo = [Step("latency-8", "latency", ("-c", "pass", "--plan", "x", "--out", "y"), 1, 10, plan)]
    carried_out(tmp_path, todo, {})
    stored = tmp_path / "plans" / "latency-8.yaml"
    assert yaml.safe_load(stored.read_text()) == dict(plan)
    command = [sys.executable, "-m", "bench.cli", "run", "--plan", "x", "--budget", "1"]
    assert carry_out._going_on(todo[0], command, tmp_path) == command
    (tmp_path / "latency-8").mkdir()
    (tmp_path / "latency-8" / "run.json").write_text("{}")
    assert carry_out._going_on(todo[0], command, tmp_path)[3:] == [
        "run", "--resume", "--out", str(tmp_path / "latency-8"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("program", "seconds", "status", "words"),
    [
        ("print('to the log')", 60.0, "ok", ""),
        ("import sys; print('oh no'); sys.exit(3)", 60.0, "failed", "exit code 3: oh no"),
        ("import os; os.abort()", 60.0, "failed", "signal 6"),
        ("import time; time.sleep(600)", 0.2, "timeout", "ended after 0 s"),
    ],
)
def test_a_step_in_a_process(program, seconds, status, words, tmp_path):
    doing = Step("one", "one", ("-c", program), 0.1, seconds)
    record = carry_out._in_process(tmp_path)(doing, doing.command(seconds), seconds)
    assert record.status == status
    assert words in record.reason
    assert (tmp_path / "logs" / "one.log").exists()


def test_standard_output_can_be_kept_by_itself(tmp_path):
    program = "import sys; print('[1]'); print('noise', file=sys.stderr)"
    doing = Step("doctor", "doctor", ("-c", program), 1, 60, stdout="doctor.json")
    assert carry_out._in_process(tmp_path)(doing, doing.command(60), 60).status == "ok"
    assert json.loads((tmp_path / "doctor.json").read_text()) == [1]
    assert (tmp_path / "logs" / "doctor.log").read_text() == "noise\n"


def test_a_process_that_does_not_end_is_killed():
    deaf = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: None); print(1, flush=True)"
    program = f"{deaf}; time.sleep(600)"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    carry_out.end(process, grace_seconds=0.1)
    process.stdout.close()
    assert process.returncode == -9


# --- the machine ----------------------------------------------------------------------------------------------


def answering(stdout: str, code: int = 0, stderr: str = "") -> Any:
    return lambda command: subprocess.CompletedProcess(command, code, stdout, stderr)


def test_the_gpu_names_the_folder():
    facts = {"torch": "2.13.0", "cuda": "13.0", "name": "NVIDIA H200", "capability": "9.0"}
    found = machine.find(answering(f"a warning\n{json.dumps(facts)}\n"))
    assert found == machine.GpuMachine("NVIDIA H200", "9.0", "2.13.0", "13.0")
    assert machine.folder_name(found, date(2026, 11, 22)) == "nvidia-h200-2026-11-22"
    assert machine.folder_name(replace(found, name="../???"), date(2026, 1, 2)) == "gpu-2026-01-02"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (answering('{"torch": "2.13.0+cpu", "cuda": null}'), r"PyTorch \(2\.13\.0\+cpu\) is a CPU build"),
        (answering('{"torch": "2.13.0", "cuda": "13.0"}'), "sees no CUDA device"),
        (
            answering("", 1, "Traceback\nModuleNotFoundError: No module named 'torch'"),
            "No module named 'torch'",
        ),
    ],
)
def test_without_a_gpu_one_line_says_why_and_one_what_to_do(answer, words):
    with pytest.raises(BenchError, match=words) as raised:
        machine.find(answer)
    assert "docs/gpu.md" in raised.value.do


def test_the_command_without_a_gpu_writes_nothing(tmp_path, monkeypatch):
    def none(*_: object) -> None:
        raise BenchError("there is no GPU to check: PyTorch sees no CUDA device", machine.DO)

    monkeypatch.setattr(machine, "find", none)
    answer = CliRunner().invoke(app, ["--out", str(tmp_path / "published")])
    assert isinstance(answer.exception, BenchError)
    assert list(tmp_path.iterdir()) == []
    mistake = CliRunner().invoke(app, ["--minutes", "0", "--out", str(tmp_path)])
    assert isinstance(mistake.exception, BenchError)
    assert "--minutes 0" in mistake.exception.what


# --- figures --------------------------------------------------------------------------------------------------

ALL = Evidence(
    backends={
        "pytorch": Agreement(1000, 0),
        "onnxruntime": Agreement(1000, 1),
        "tensorrt": Agreement(why_not="not there"),
    },
    pixels={"dali_gpu": Agreement(1000, 2), "dali_gpu_engine": Agreement(1000, 3)},
    decoding={"dali_gpu": 9000.0, "turbo": 3000.0, "dali": 1500.0},
    not_decoding={"dali_gpu_engine": "no engine"},
    passes=(
        Pass("pytorch", "dali_gpu", 8100.0, 90.0, "decode"),
        Pass("onnxruntime", "dali_gpu", 8000.0, 89.9, "compute"),
        Pass("tensorrt", "dali_gpu", why_not="unavailable: none"),
        Pass("pytorch", "turbo", 2900.0, 99.0, "decode"),
    ),
    graphs=(
        Graphs("pytorch", "fp32", 0.25, 0.24, 0.26),
        Graphs("pytorch", "fp16", 0.99, 0.97, 1.0),
        Graphs("onnxruntime", "fp32", 0.5),
        Graphs("tensorrt", "fp32", why_not="unavailable: none"),
    ),
    tests={"passed": 20, "failed": 0, "skipped": 2},
    reasons={},
)


def test_every_figure_is_judged_against_its_target():
    found = {figure.name: figure for figure in figures.judge(ALL)}
    verdicts = {name: figure.verdict for name, figure in found.items()}
    assert verdicts == {
        "tests that need a GPU": "met",
        "pytorch on the GPU, FP32 (TF32 off)": "met",
        "onnxruntime on the GPU, FP32 (TF32 off)": "met",
        "tensorrt on the GPU, FP32 (TF32 off)": "not run",
        "pixels of dali_gpu": "met",
        "pixels of dali_gpu_engine": "not met",
        "dali_gpu alone against the CPU": "measured",
        "dali_gpu_engine alone against the CPU": "not run",
        "from files to top-5: dali_gpu, pytorch": "met",
        "from files to top-5: dali_gpu, onnxruntime": "not met",
        "from files to top-5: dali_gpu, tensorrt": "not run",
        "CUDA graphs at batch 1: pytorch, fp32": "met",
        "CUDA graphs at batch 1: pytorch, fp16": "not met",
        "CUDA graphs at batch 1: onnxruntime, fp32": "not met",
        "CUDA graphs at batch 1: tensorrt, fp32": "not run",
    }
    assert found["dali_gpu alone against the CPU"].value == "9,000 images/s, turbo 3,000 (3.00 times)"
    assert found["CUDA graphs at batch 1: pytorch, fp32"].value == "4.00 times as fast (3.85 to 4.17)"
    assert found["pixels of dali_gpu"].value == "2 of 1000 images differ (0.20 %)"
    assert all(figure.why for figure in found.values() if figure.verdict in ("not run", "not met"))


def test_what_was_not_run_says_why():
    reasons = dict.fromkeys(("tests", "decode", "throughput", "graphs"), "no time was left")
    nothing = Evidence(
        backends=dict.fromkeys(plans.BACKENDS, Agreement(why_not="no time was left")),
        pixels={"dali_gpu": Agreement(why_not="no time was left")},
        decoding={},
        not_decoding={},
        passes=(),
        graphs=(),
        tests=None,
        reasons=reasons,
    )
    found = figures.judge(nothing)
    assert {figure.verdict for figure in found} == {"not run"}
    assert {figure.why for figure in found} == {"no time was left"}


@pytest.mark.parametrize(
    ("tests", "verdict"),
    [
        ({"passed": 3, "failed": 1, "skipped": 0}, "not met"),
        ({"passed": 0, "failed": 0, "skipped": 9}, "not run"),
    ],
)
def test_tests_that_fail_or_are_all_skipped_are_no_proof(tests, verdict):
    assert figures.judge(replace(ALL, tests=tests))[0].verdict == verdict


def test_decoding_without_a_pipeline_of_the_cpu_is_a_figure_still():
    found = figures.judge(replace(ALL, decoding={"dali_gpu": 9000.0}))
    (figure,) = [figure for figure in found if figure.name.startswith("dali_gpu alone")]
    assert (figure.verdict, figure.value) == ("measured", "9,000 images/s")


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [((), 1), (("not run",), 1), (("met", "not run"), 0), (("measured",), 0), (("met", "not met"), 1)],
)
def test_the_exit_code(verdicts, code):
    assert __main__.exit_code([Figure("a", "b", "c", verdict) for verdict in verdicts]) == code


def test_a_backend_that_is_not_installed_says_so_once_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(plans.importlib.util, "find_spec", lambda name: None if name == "tensorrt" else name)
    absent = plans.absent_backends()
    assert absent == ("tensorrt",)
    monkeypatch.undo()
    for doing in steps.steps(tmp_path, HOME, absent=absent):
        if doing.plan is None:
            continue
        cases = cases_of(doing.plan, tmp_path)
        precisions = {case.precision for case in cases if case.backend == "tensorrt"}
        assert precisions == {doing.plan["precisions"][0]}
        whole = cases_of(
            next(step.plan for step in steps.steps(tmp_path, HOME) if step.name == doing.name), tmp_path
        )
        assert [case for case in cases if case.backend != "tensorrt"] == [
            case for case in whole if case.backend != "tensorrt"
        ]
