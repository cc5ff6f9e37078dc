"""The steps of the GPU check: what they measure, for how long, and what becomes of failures. No GPU is needed."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.record.case import Case
from bench.run.spec import RunSpec, read_plan
from tests.gpu.acceptance import steps
from tests.gpu.acceptance.steps import Record, Runner, Step, allowance, load_steps, read_records

BACKENDS = ("pytorch", "onnxruntime", "tensorrt")
PRECISIONS = ("fp32", "tf32", "fp16")
QUICK = ("fp32", "fp16")


def cases(step: Step) -> tuple[Case, ...]:
    """What `scarlet-bench run --plan` makes of a step's plan."""
    spec = RunSpec(**dict(step.plan or {}))
    assert spec.notes() == (), "every rule of the plan takes something out"
    return spec.cases("demo")


@pytest.fixture(params=[False, True], ids=["whole", "quick"])
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(steps, "_is_installed", lambda backend: True)
    return bool(request.param)


def test_plans_vary_one_thing_at_a_time(tmp_path, quick):
    loaded = {step.name: step for step in load_steps(tmp_path, quick)}
    plans = {name: cases(step) for name, step in loaded.items() if step.plan}
    precisions = QUICK if quick else PRECISIONS
    everything = [(backend, precision) for backend in BACKENDS for precision in precisions]

    def of(name: str, *fields: str, **values: Any) -> list[tuple[Any, ...]]:
        fitting = [case for case in plans[name] if all(getattr(case, key) == values[key] for key in values)]
        return sorted(tuple(getattr(case, field) for field in fields) for case in fitting)

    assert {step.plan["images"] for step in loaded.values() if step.plan} == {64 if quick else 512}
    first = plans["accuracy"][0]
    assert (first.device, first.backend) == ("cpu", "pytorch"), "the first ok row is what reports compare with"
    assert of("accuracy", "backend", "precision", "pipeline", device="cpu") == [("pytorch", "fp32", "reference")]
    on_gpu = of("accuracy", "backend", "precision", device="cuda", pipeline="reference")
    assert on_gpu == sorted(everything)
    assert len(plans["accuracy"]) == 1 + len(everything) + 2
    for pipeline in ("dali_gpu", "dali_gpu_engine"):
        assert of("accuracy", "device", "backend", "precision", pipeline=pipeline) == [("cuda", "pytorch", "fp32")]

    if not quick:
        assert of("lower", "device", "backend", "precision", "pipeline") == sorted(
            ("cuda", backend, precision, "reference") for backend in BACKENDS for precision in ("bf16", "int8")
        )
        assert len(plans["forms"]) == 8
    latencies = {name for name in plans if name.startswith("latency")}
    assert latencies == {f"latency-{batch}" for batch in ((1, 64) if quick else (1, 64, 256, 8))}
    for name in latencies:
        assert of(name, "backend", "precision") == sorted(everything)
        batch = int(name.removeprefix("latency-"))
        assert {(case.scenario, case.device, case.batch) for case in plans[name]} == {("latency", "cuda", batch)}
    assert {(case.scenario, case.device, case.batch) for case in plans["graphs"]} == {("latency", "cuda", 1)}
    assert sorted((case.backend, case.precision, case.option("graph")) for case in plans["graphs"]) == sorted(
        (backend, precision, graph) for backend in BACKENDS for precision in QUICK for graph in ("no", "yes")
    )
    assert {case.scenario for case in plans["throughput"]} == {"throughput"}
    assert of("throughput", "backend", pipeline="dali_gpu") == sorted((name,) for name in BACKENDS)
    for pipeline in ("dali_gpu_engine", "turbo", "dali"):
        assert of("throughput", "backend", pipeline=pipeline) == [("pytorch",)]


def test_a_backend_that_is_not_installed_says_so_once_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "_is_installed", lambda backend: True)
    whole = load_steps(tmp_path)
    monkeypatch.setattr(steps, "_is_installed", lambda backend: backend != "tensorrt")
    for step, before in zip(load_steps(tmp_path), whole, strict=True):
        if step.plan and "tensorrt" in step.plan["backends"]:
            rows = {True: [], False: []}
            for case in cases(step):
                rows[case.backend == "tensorrt"].append(case)
            assert {case.precision for case in rows[True]} == {step.plan["precisions"][0]}
            assert rows[False] == [case for case in cases(before) if case.backend != "tensorrt"]


def test_the_steps_and_their_commands(tmp_path):
    loaded = load_steps(tmp_path)
    assert [step.name for step in loaded] == [
        "doctor", "throughput", "accuracy", "tests", "graphs", "latency-1", "latency-64",
        "forms", "lower", "latency-256", "latency-8",
    ]  # fmt: skip
    assert loaded[-1].command(40.0) == [
        sys.executable, "-m", "bench.cli", "run", "--plan", str(tmp_path / "plans" / "latency-8.yaml"),
        "--out", str(tmp_path / "latency-8"), "--budget", "20", "--lives", "1", "--timeout", "40",
    ]  # fmt: skip
    tests = loaded[3].command(60.0)
    assert f"--junitxml={tmp_path}/tests.xml" in tests
    assert Path(tests[-1], "test_backends.py").exists()


@pytest.mark.parametrize(
    ("left", "minutes", "expected"),
    [
        (480.0, 7.5, 100.0),  # its most
        (60.0, 7.5, 30.0),  # so that the later ones get their least
        (35.0, 7.5, 10.0),  # its own least, at the cost of the last
        (9.0, 7.5, 0.0),  # not begun
        (1200.0, 15.0, 200.0),  # twice the time, twice as long
    ],
)
def test_no_step_takes_the_time_of_those_behind_it(left, minutes, expected):
    todo = [step("a", 10, 100), step("b", 10, 50), step("c", 20, 50)]
    assert allowance(todo, left, minutes) == pytest.approx(expected)


def test_time_is_kept_for_later_steps_but_not_for_extra_ones():
    todo = [step("a", 10, 100), replace(step("b", 50, 50), extra=True), step("c", 20, 50)]
    assert allowance(todo, 60.0) == 40.0


# Seconds on a machine with 16 cores and one H200, by the review of its sources: a worker imports PyTorch beside others,
# and its context, load and search of algorithms go through one GPU; a warm-up takes at most 3 in its turn. A run
# imports, looks at pixels and writes its report; the first makes images and the graph in FP32. None of it is measured.
IMPORT, LOAD, WARM_UP, ROUND, FINISH, RUN = 2.5, 3.5, 2.0, 0.1, 0.7, 8.0
FIRST, LOWER_GRAPH, TENSORRT_PLAN, A_TEST = 20.0, 10.0, 15.0, 1.5


def seconds_of(step: Step, seconds: float, made: set[Any], absent: str) -> float:
    """How long all of a step takes, given so many seconds; ``made`` holds what earlier ones left in the store."""
    if step.name == "doctor":
        return 10.0
    if step.name == "tests":
        return 45 * A_TEST + LOWER_GRAPH + (13 * A_TEST + 3 * TENSORRT_PLAN if not absent else 0.0)
    todo = [case for case in cases(step) if case.backend != absent]
    needed = {"fp32", *(case.precision for case in todo)} - {"tf32"} - made
    plans = {(case.precision, case.batch) for case in todo if case.backend == "tensorrt"} - made
    made |= needed | plans
    taken = RUN + sum(FIRST if name == "fp32" else LOWER_GRAPH for name in needed) + TENSORRT_PLAN * len(plans)
    if todo[0].scenario == "accuracy":
        return taken + (IMPORT + LOAD + 1.0 + FINISH) * len(todo)  # alone, one after the other
    starts = IMPORT + (LOAD + WARM_UP + 6 * ROUND) * len(todo)
    return taken + FINISH * len(todo) + max(starts, steps.MEASURING * seconds)


EXTRA = ["forms", "lower", "latency-256", "latency-8"]


@pytest.mark.parametrize(
    ("absent", "left_out"), [("tensorrt", EXTRA), ("", ["graphs", "latency-1", "latency-64", *EXTRA])]
)
def test_every_step_of_a_check_is_whole_or_left_out(tmp_path, monkeypatch, absent, left_out):
    monkeypatch.setattr(steps, "_is_installed", lambda backend: backend != absent)
    now, made = [0.0], set[Any]()

    class Simulated(Runner):
        def run(self, step: Step, command: list[str], seconds: float) -> Record:
            taken = seconds_of(step, seconds, made, absent)
            now[0] += min(taken, seconds)
            why = f"{step.name} takes {taken:.0f} of {seconds:.0f} s"
            return Record(step.name, "ok" if taken <= seconds else "timeout", why, taken)

    todo = load_steps(tmp_path)
    for call in range(4):  # with the same folder: each goes on where the one before ended
        began = now[0]
        runner = Simulated(tmp_path, steps.MINUTES, lambda text: None, lambda records: None, lambda: now[0])
        records = runner.carry_out(todo)
        assert now[0] - began <= 450.0
        assert [record.reason for record in records if record.status not in ("ok", "not run")] == []
        skipped = [record.name for record in records if record.status == "not run"]
        assert call or skipped == left_out
    assert skipped == []


def step(name: str, least: float = 1, most: float = 10) -> Step:
    return Step(name, name, ("-c", "pass"), least, most)


def carried_out(
    folder: Path, todo: Sequence[Step], endings: dict[str, tuple[str, float]]
) -> tuple[list[Record], list[list[str]], list[list[str]]]:
    """Of a minute: the records, what ``after`` heard, and the commands run, each taking the seconds it is told to."""
    now, heard, commands = [0.0], list[list[str]](), list[list[str]]()

    class Fake(Runner):
        def run(self, step: Step, command: list[str], seconds: float) -> Record:
            status, taken = endings.get(step.name, ("ok", 1.0))
            commands.append(command)
            now[0] += taken
            if status == "interrupted":
                raise KeyboardInterrupt
            return Record(step.name, status, "" if status == "ok" else "why", taken, tuple(command))

    def after(records: Sequence[Record]) -> None:
        heard.append([record.name for record in records])

    runner = Fake(folder, 1.0, lambda text: None, after, lambda: now[0])
    return runner.carry_out(todo), heard, commands


def statuses(records: Sequence[Record]) -> list[tuple[str, str]]:
    return [(record.name, record.status) for record in records]


def test_a_step_that_fails_is_recorded_and_the_rest_goes_on(tmp_path):
    todo = [step("a"), step("b"), step("c")]
    records, heard, _ = carried_out(tmp_path, todo, {"a": ("failed", 1), "b": ("timeout", 10)})
    assert statuses(records) == [("a", "failed"), ("b", "timeout"), ("c", "ok")]
    assert heard == [["a"], ["a", "b"], ["a", "b", "c"]]
    assert read_records(tmp_path) == records


def test_time_that_is_used_up_leaves_steps_not_run(tmp_path):
    todo = [step("a", 10, 50), step("b", 10, 50), step("c", 10, 50)]
    records, _, commands = carried_out(tmp_path, todo, {"a": ("ok", 40), "b": ("ok", 19)})
    assert len(commands) == 2
    assert statuses(records)[-1] == ("c", "not run")
    assert "1 minutes were used up" in records[-1].reason


def test_a_second_call_goes_on_where_the_first_ended(tmp_path):
    todo = [step("a"), step("b"), step("c")]
    with pytest.raises(KeyboardInterrupt):
        carried_out(tmp_path, todo, {"b": ("interrupted", 1)})
    assert statuses(read_records(tmp_path)) == [("a", "ok"), ("b", "interrupted")]
    records, heard, _ = carried_out(tmp_path, todo, {})
    assert heard == [["a", "b"], ["a", "b", "c"]]
    assert statuses(records) == [("a", "ok"), ("b", "ok"), ("c", "ok")]
    assert carried_out(tmp_path, todo, {})[1:] == ([], [])


def test_plans_lie_beside_the_results_and_a_half_done_run_is_gone_on_with(tmp_path):
    latency = load_steps(tmp_path)[-1]
    _, _, (command,) = carried_out(tmp_path, [latency], {"latency-8": ("timeout", 1)})
    plan = command[command.index("--plan") + 1]
    assert RunSpec(**read_plan(Path(plan))).batches == (8,)
    assert yaml.safe_load(Path(plan).read_text()) == latency.plan
    (tmp_path / "latency-8").mkdir()
    (tmp_path / "latency-8" / "run.json").write_text("{}")
    _, _, (command,) = carried_out(tmp_path, [latency], {})
    assert command[3:] == ["run", "--resume", "--out", str(tmp_path / "latency-8")]


@pytest.mark.parametrize(
    ("program", "seconds", "status", "words"),
    [
        ("import sys; print('[1]'); print('noise', file=sys.stderr)", 60.0, "ok", ""),
        ("import sys; print('oh no', file=sys.stderr); sys.exit(3)", 60.0, "failed", "exit code 3: oh no"),
        ("import os; os.abort()", 60.0, "failed", "signal 6"),
        ("import time; time.sleep(600)", 0.2, "timeout", "ended after 0 s"),
    ],
)
def test_a_step_in_a_process(program, seconds, status, words, tmp_path):
    doctor = Step("doctor", "doctor", ("-c", program), 0.1, seconds, stdout="doctor.json")
    runner = Runner(tmp_path, 1.0, print, lambda records: None)
    record = runner.run(doctor, doctor.command(seconds), seconds)
    assert record.status == status
    assert words in record.reason
    log = (tmp_path / "logs" / "doctor.log").read_text()
    if status == "ok":
        assert json.loads((tmp_path / "doctor.json").read_text()) == [1]
        assert log == "noise\n"


def test_a_process_that_does_not_end_is_killed():
    deaf = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: None); print(1, flush=True)"
    command = [sys.executable, "-c", f"{deaf}; time.sleep(600)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        steps.end(process, grace_seconds=0.1)
    assert process.returncode == -9
