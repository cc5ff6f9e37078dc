"""Plan files, their rules, and how long a plan takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.record.case import Case, Plan, Status
from bench.record.run_folder import CaseResult, RunFolder
from bench.run import estimate, plan_file
from bench.run.plan_file import Rule
from bench.run.settings import Settings, check
from scarlet.errors import BenchError

FULL = """
model: scarlet_a
checkpoint: weights.pth
data: /images
pipeline: reference
backends: [pytorch, onnxruntime]
devices: cpu
precisions: [fp32]
batches: [1, 8, 64]
threads: [1, 2]
instances: 1
scenarios: [accuracy, latency]
images: all
budget: 120
timeout: 900.5
seed: 7
options:
  pytorch: {form: plain, level: 3}
exclude:
  - {backend: pytorch, batch: 64}
  - {threads: 1, batch: [8, 64]}
"""


def read(tmp_path: Path, text: str) -> plan_file.PlanFile:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    return plan_file.read(path)


def plan_cases(plan: plan_file.PlanFile) -> tuple[Case, ...]:
    settings = Settings(**plan.settings())
    return Plan(
        model=settings.model,
        weights="random",
        backends=tuple(settings.backends.split(",")),
        batches=tuple(map(int, settings.batches.split(","))),
        threads=tuple(map(int, settings.threads.split(","))),
    ).cases()


def test_a_plan_becomes_the_settings_of_the_command_line(tmp_path: Path) -> None:
    assert Settings(**read(tmp_path, FULL).settings()) == Settings(
        model="scarlet_a",
        checkpoint="weights.pth",
        data="/images",
        pipeline="reference",
        backends="pytorch,onnxruntime",
        batches="1,8,64",
        threads="1,2",
        images="all",
        budget_seconds=120.0,
        timeout_seconds=900.5,
        seed=7,
        options=("pytorch.form=plain", "pytorch.level=3"),
        exclude=({"backend": ["pytorch"], "batch": [64]}, {"batch": [8, 64], "threads": [1]}),
    )


def test_a_plan_may_list_pipelines(tmp_path: Path) -> None:
    assert read(tmp_path, "pipeline: [reference, dali]").settings() == {"pipeline": "reference,dali"}
    assert read(tmp_path, "pipeline: reference, dali").settings() == {"pipeline": "reference,dali"}
    assert check(Settings(pipeline="reference,dali")).pipelines == ("reference", "dali")
    with pytest.raises(BenchError, match=r"plan\.yaml: pipeline"):
        read(tmp_path, "pipeline: {dali: 1}")


def test_nothing_is_compared_where_only_the_reference_reads() -> None:
    alone = estimate.estimate([replace(ACCURACY, pipeline="reference"), LATENCY], 400, 60.0)
    both = estimate.estimate([replace(ACCURACY, pipeline="reference"), ACCURACY, LATENCY], 400, 60.0)
    assert (alone.check_seconds, both.check_seconds) == (0.0, estimate.CHECK_SECONDS)
    assert "comparing" not in estimate.text(alone)


def test_keys_that_are_not_given_keep_their_defaults(tmp_path: Path) -> None:
    plan = read(tmp_path, "batches: 1, 4\nimages: 50\ndata:\n")
    assert plan.settings() == {"batches": "1,4", "images": "50"}
    assert (plan.exclude, plan.options) == ([], {})


def test_rules_take_out_what_matches_all_their_keys(tmp_path: Path) -> None:
    plan = read(tmp_path, FULL)
    cases = plan_cases(plan)
    kept = plan_file.exclude(cases, plan.exclude)
    timed = {(case.backend, case.batch, case.threads) for case in kept.cases if case.scenario == "latency"}
    assert timed == {
        *(("pytorch", 1, 1), ("pytorch", 1, 2), ("pytorch", 8, 2)),
        *(("onnxruntime", 1, 1), ("onnxruntime", 1, 2), ("onnxruntime", 8, 2), ("onnxruntime", 64, 2)),
    }
    assert sum(case.scenario == "accuracy" for case in kept.cases) == 4
    assert kept.n_excluded == len(cases) - len(kept.cases) == 5
    assert kept.notes == ()


def test_a_rule_on_batches_leaves_accuracy_alone_unless_it_names_it() -> None:
    case = Case("scarlet_c", "random", "pytorch", batch=32, scenario="accuracy")
    assert not Rule(batch=[32]).matches(case)
    assert Rule(batch=[32], scenario=["accuracy"]).matches(case)
    assert Rule(backend=["pytorch"]).matches(case)
    assert Rule(batch=[32]).matches(replace(case, scenario="latency"))
    assert not Rule().matches(case)


def test_a_rule_that_matches_nothing_is_said_and_one_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    plan = read(tmp_path, "exclude: [{batch: 128}, {backend: [pytorch, onnxruntime], device: cuda}]")
    cases = Plan("scarlet_c", "random", ("pytorch",)).cases()
    kept = plan_file.exclude(cases, plan.exclude)
    assert kept.cases == cases
    assert kept.notes == (
        "exclude: {batch: 128} matches no Case of this plan",
        "exclude: {backend: ['pytorch', 'onnxruntime'], device: cuda} matches no Case of this plan",
    )
    with pytest.raises(BenchError, match=r"takes out all 3 Cases"):
        plan_file.exclude(cases, [Rule(backend=["pytorch"])])
    assert plan_file.exclude((), [Rule(backend=["pytorch"])]).cases == ()


def test_rules_go_through_a_runs_json(tmp_path: Path) -> None:
    rules = read(tmp_path, FULL).exclude
    stored = [rule.model_dump(exclude_none=True) for rule in rules]
    assert stored[0] == {"backend": ["pytorch"], "batch": [64]}
    assert plan_file.rules_from(stored) == rules


@pytest.mark.parametrize(
    ("text", "said", "advised"),
    [
        ("batchs: 1", "unknown key 'batchs'$", "batches"),
        ("quux: 1", "unknown key 'quux'$", "Choose from"),
        ("exclude:\n - {backnd: pytorch, batch: x}", r"'exclude\[0\].backnd' \(and 1 more", "backend"),
        ("exclude:\n - {backend: pytoch}", r"exclude\[0\].backend: unknown backend 'pytoch'", "pytorch"),
        ("exclude:\n - {scenario: speed}", r"exclude\[0\].scenario: unknown scenario", "latency"),
        ("exclude:\n - {}", r"exclude\[0\] names nothing", "backend"),
        ("exclude:\n - {batch: [1, y]}", r"exclude\[0\].batch\[1\] is 'y'", "whole number"),
        ("exclude: {backend: pytorch}", "exclude is {'backend': 'pytorch'}", "a list of combinations"),
        ("batches: [1, x]", r"batches\[1\] is 'x'", "whole number of at least 1"),
        ("batches: [1, -8]", r"batches\[1\] is -8", "whole number of at least 1"),
        ("threads: true", r"threads\[0\] is True", "whole number of at least 1"),
        ("instances: 1.5", r"instances\[0\] is 1.5", "whole number of at least 1"),
        ("backends: []", r"backends is \[\]", "a name"),
        ("model: [a, b]", r"model is \['a', 'b'\]", "one text"),
        ("budget: soon", "budget is 'soon'$", "seconds above 0"),
        ("timeout: 0", "timeout is 0$", "seconds above 0"),
        ("budget: .inf", "budget is inf$", "seconds above 0"),
        ("images: 0", "images is 0$", "or all"),
        ("seed: a", "seed is 'a'$", "whole number"),
        ("options: {pytorch: {form: yes}}", r"options.pytorch.form\[0\] is True$", "quotes"),
        ("options: {pytorch: {form: }}", r"options.pytorch.form\[0\] is no value$", "quotes"),
        ("a: b: c", "line 1: mapping values", "YAML"),
        ("seed: 1\nseed: 2", "line 2: the key 'seed' is given twice", "YAML"),
        ("? [a]\n: 3", "line 1: found unhashable key", "YAML"),
        ("!!python/object/apply:os.getcwd []", "line 1: could not determine a constructor", "YAML"),
        ("", "holds nothing", "backends"),
        ("- 1", "holds no mapping", "backends"),
    ],
)
def test_a_mistake_is_one_clear_line_that_names_the_key(
    tmp_path: Path, text: str, said: str, advised: str
) -> None:
    with pytest.raises(BenchError) as caught:
        read(tmp_path, text)
    assert caught.value.what.startswith(str(tmp_path / "plan.yaml"))
    assert "\n" not in caught.value.what
    with pytest.raises(BenchError, match=said):
        raise BenchError(caught.value.what, "")  # `$` is the end of the line that says what is wrong
    assert advised in caught.value.do


def test_a_file_that_cannot_be_read_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="No such file"):
        plan_file.read(tmp_path / "none.yaml")
    (tmp_path / "plan.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(BenchError, match="not UTF-8"):
        plan_file.read(tmp_path / "plan.yaml")


# --- how long it takes --------------------------------------------------------------------------------------

ACCURACY = Case("scarlet_c", "random", "pytorch", batch=32, threads=2, scenario="accuracy")
LATENCY = Case("scarlet_c", "random", "pytorch", batch=8, threads=2)


def test_without_earlier_runs_assumptions_are_stated() -> None:
    found = estimate.estimate([ACCURACY, LATENCY], n_images=400, budget_seconds=60.0)
    accuracy, latency = found.cases
    assert accuracy.seconds == pytest.approx(estimate.START_SECONDS + 400 / estimate.ASSUMED_IMAGES_PER_S)
    assert "400 images at 40 images/s, assumed" in accuracy.basis
    assert latency.seconds == pytest.approx(estimate.START_SECONDS + 3.0 + 60.0)
    assert "60 s of the budget, a call of 240 ms assumed" in latency.basis
    before = found.prepare_seconds + found.check_seconds
    assert found.seconds == pytest.approx(before + accuracy.seconds + latency.seconds)


def test_timed_cases_share_the_budget_but_a_slow_one_takes_its_round() -> None:
    quick, slow = replace(LATENCY, batch=1), replace(LATENCY, batch=256)
    parts = estimate.estimate([quick, slow], n_images=0, budget_seconds=10.0).cases
    call_s = estimate.ASSUMED_LATENCY_S * 256
    assert [part.seconds - estimate.START_SECONDS for part in parts] == pytest.approx(
        [3 + 5, 5 * call_s + 6 * call_s]
    )


def stored_run(results: Path, name: str, fingerprint: str, seconds: int, latency_ns: int) -> None:
    folder = RunFolder.create(results / "runs" / name)
    folder.write_run_info({"host": {"fingerprint": fingerprint}, "dataset": {"n_images": 100}})
    times = {
        "started_at": "2026-01-01T00:00:00+00:00",
        "ended_at": f"2026-01-01T00:00:{seconds:02}.000+00:00",
    }
    n = 5
    folder.write_samples_part(
        LATENCY.case_id,
        round=np.arange(n),
        stage="compute",
        images=np.full(n, 8),
        warmup=np.array([True, False, False, False, False]),
        latency_ns=np.array([10**9, *[latency_ns] * (n - 1)]),
    )
    folder.append_case(CaseResult(ACCURACY, Status.OK, **times))
    folder.append_case(CaseResult(LATENCY, Status.OK, stage="compute", **times))
    failed = replace(LATENCY, backend="onnxruntime")
    folder.append_case(CaseResult(failed, Status.CRASHED, **times))
    folder.append_case(CaseResult(replace(ACCURACY, backend="onnxruntime"), Status.OK))  # without its times


def test_the_newest_run_of_this_host_tells_the_rates(tmp_path: Path) -> None:
    stored_run(tmp_path, "20260101T000000Z-scarlet_c-1", "here", seconds=10, latency_ns=50_000_000)
    stored_run(tmp_path, "20260102T000000Z-scarlet_c-2", "here", seconds=20, latency_ns=100_000_000)
    stored_run(tmp_path, "20260103T000000Z-scarlet_c-3", "there", seconds=1, latency_ns=1)
    (tmp_path / "runs" / "stray").mkdir()
    measured = estimate.measured_before(tmp_path, "scarlet_c", "here")
    other = replace(ACCURACY, backend="onnxruntime")
    found = estimate.estimate([ACCURACY, LATENCY, other], 400, 60.0, measured)
    assert found.cases[0].seconds == pytest.approx(400 / 5)
    assert "5 images/s, measured in 20260102T000000Z-scarlet_c-2" in found.cases[0].basis
    assert "a call of 100 ms measured in 20260102T000000Z-scarlet_c-2" in found.cases[1].basis
    assert "assumed" in found.cases[2].basis
    assert estimate.measured_before(tmp_path, "scarlet_a") == estimate.Measured()
    assert estimate.measured_before(tmp_path / "none", "scarlet_c") == estimate.Measured()
    anywhere = estimate.measured_before(tmp_path, "scarlet_c")
    assert set(anywhere.runs.values()) == {"20260103T000000Z-scarlet_c-3"}


def test_the_text_has_a_line_a_case_and_one_for_all() -> None:
    found = estimate.estimate([ACCURACY, LATENCY], n_images=400, budget_seconds=60.0)
    lines = estimate.text(found).splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("    15 s  accuracy dali pytorch cpu fp32 batch 32: ")
    assert lines[1].split("  ")[-1].startswith("latency pytorch cpu fp32 batch 8: ")
    assert lines[3] == "     5 s  comparing pixels with the reference's, assumed"
    assert lines[-1] == "   2 min  about, for 2 Cases"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (89, "89 s"), (120, "2 min"), (5399, "90 min"), (9000, "2.5 h")]
)
def test_durations(seconds: float, said: str) -> None:
    assert estimate.duration(seconds) == said
