"""What to deploy: who is judged and tried, who leaves, how they are ranked, and what is left to deploy."""

import itertools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bench_fakes import WNIDS, Clock, HereWorker, Recorder, fake_case, run_on, tiny_files
from PIL import Image as PilImage
from typer.testing import CliRunner

from bench.analysis.table import load
from bench.cli import app
from bench.record.case import Case, Status
from bench.record.run_folder import CaseResult, RunFolder
from bench.run import schedule
from bench.run.runner import Limits, Runner, Workers
from bench.run.spec import RunSpec, read_plan
from bench.studies.best import drive, search
from bench.studies.best.document import tuning_table
from bench.worker.messages import Context
from export.precision.recipe import Recipe, read_recipe, write_recipe
from pipelines import open_pipeline
from pipelines.base import Preprocess
from pipelines.imagenet.find import Image

BASE = Case("m", "demo", "openvino", pipeline="turbo", options=(("hint", "latency"), ("keep", "1")))


def described(cases: Sequence[Case]) -> list[tuple[int, int, dict[str, str]]]:
    return [(case.instances, case.threads, dict(case.options)) for case in cases]


def test_candidates_on_two_cores() -> None:
    found = search.candidates(BASE, 2, batches=(8,))
    latency, streams = {"keep": "1", "hint": "latency"}, {"keep": "1", "hint": "throughput", "streams": "2"}
    assert described(found) == [
        (1, 2, latency),
        (1, 2, streams),
        (1, 2, {**streams, "decode_threads": "1"}),
        (1, 1, latency),  # a core for each side
    ]
    assert {case.scenario for case in found} == {"throughput"}


def test_candidates_on_many_cores() -> None:
    found = search.ways(Case("m", "demo", "onnxruntime"), 16)
    assert described(found) == [
        (1, 16, {}),
        (2, 8, {"decode_threads": "16"}),
        (16, 1, {"decode_threads": "16"}),
        (2, 8, {}),
        (16, 1, {"decode_threads": "8"}),
        (8, 1, {"decode_threads": "8"}),  # half of the cores read
        (14, 1, {"decode_threads": "2"}),  # an eighth of them
    ]
    streams = {dict(case.options).get("streams") for case in search.ways(BASE, 16)}
    assert streams == {None, "2", "16", "8", "14"}
    assert {case.threads for case in search.ways(BASE, 16)} == {16, 8, 14}


@pytest.mark.parametrize("cores", [1, 2, 3, 4, 6, 7, 64])
def test_no_candidate_has_more_threads_than_cores_on_either_side(cores: int) -> None:
    for backend in ("openvino", "onnxruntime"):
        found = search.candidates(Case("m", "demo", backend), cores, (8, 16, 32))
        assert len({case.case_id for case in found}) == len(found) >= 2, "once each, and for each batch"
        for case in found:
            assert case.threads * case.instances <= cores
            assert 1 <= int(case.option("decode_threads", str(case.threads))) <= cores


def field(*times: float) -> dict[Case, float]:
    return {fake_case("throughput", batch=place + 1): ns for place, ns in enumerate(times)}


def orders(alive: Sequence[Case]) -> Iterator[Sequence[Case]]:
    return schedule.rounds(list(alive), 0)


class Field:
    """Candidates whose passes take what they are told."""

    def __init__(self, one_pass: Callable[[Case, int], Any], left: list[Case] | None = None) -> None:
        self.one_pass = one_pass
        self.left = [] if left is None else left
        self.rounds: list[int] = []

    def end_of_round(self, round_: int) -> None:
        self.rounds.append(round_)

    def leave(self, case: Case) -> None:
        self.left.append(case)

    def say(self, case: Case, fraction: float, detail: str) -> None:
        assert 0.0 < fraction <= 1.0


def searched(
    true_ns: dict[Case, float], budget: float, drift: float = 0.0, noise: float = 0.0
) -> tuple[search.Times, list[Case], int]:
    """A search among candidates of known times; each turn takes a second."""
    source, turns, dropped = random.Random(1), itertools.count(), list[Case]()

    def one_pass(case: Case, round_: int) -> tuple[float, float]:
        slower = 1.0 + drift * next(turns)
        return true_ns[case] * slower * source.lognormvariate(0.0, noise), 1.0

    times = search.search(list(true_ns), Field(one_pass, dropped), orders, budget)
    return times, dropped, next(turns)


def test_the_slower_half_leaves_and_the_finalists_use_up_the_budget() -> None:
    true_ns = field(*range(100, 112))
    times, dropped, turns = searched(true_ns, budget=150)
    cases = list(true_ns)
    assert set(dropped[:6]) == set(cases[6:]), "the slower six of twelve"
    assert set(dropped[6:]) == set(cases[4:6]), "then all but four"
    assert [len(times[case.case_id]) for case in (cases[11], cases[5])] == [2, 6]
    assert len(times[cases[0].case_id]) >= 6
    assert 150 <= turns <= 154, "no more than the round that was on its way"
    found = search.standings(cases, times, {})
    assert [standing.case for standing in found] == cases
    assert (found[0].ratio, found[0].ratio_low) == (1.0, None)
    assert found[1].ratio == pytest.approx(100 / 101)
    assert search.unsettled(found) == ""


def test_drift_does_not_choose_the_best() -> None:
    # The machine slows down by half over the search; candidates differ by 3 % each.
    true_ns = field(*(100 * 1.03**place for place in range(8)))
    times, _, _ = searched(true_ns, budget=120, drift=0.004, noise=0.003)
    assert search.standings(list(true_ns), times, {})[0].case == next(iter(true_ns))


def test_a_tiny_budget_still_compares_all() -> None:
    true_ns = field(3, 1, 2, 4)
    times, dropped, turns = searched(true_ns, budget=0.5)
    assert (turns, dropped) == (8, []), "two rounds of four"
    found = search.standings(list(true_ns), times, {})
    assert [standing.case.batch for standing in found] == [2, 3, 1, 4]
    assert "2 rounds are too few" in search.unsettled(found)
    assert search.unsettled(found[:1]) == ""


def test_equals_are_said_to_be_equal() -> None:
    true_ns = field(100, 100)
    times, _, _ = searched(true_ns, budget=80, noise=0.05)
    assert "as fast as each other" in search.unsettled(search.standings(list(true_ns), times, {}))


def test_who_fails_on_the_way_is_out_and_last() -> None:
    true_ns = field(1, 2, 3, 4)
    cases = list(true_ns)

    def one_pass(case: Case, round_: int) -> tuple[float, float] | None:
        return None if case is cases[0] and round_ == 1 else (true_ns[case], 1.0)

    at_work = Field(one_pass)
    times = search.search(cases, at_work, orders, 40)
    assert at_work.rounds == list(range(len(times[cases[1].case_id]))), "each round ends once"
    found = search.standings(cases, times, {cases[0].case_id: "it broke"})
    assert [standing.case.batch for standing in found] == [2, 3, 4, 1]
    assert (found[3].why_not, found[3].images_per_s) == ("it broke", None)
    assert search.search([], at_work, orders, 1.0) == {}


def test_calls_that_are_timed_have_all_copies_at_work() -> None:
    (one, streams, own_cores, halves) = map(search.latency_case, search.candidates(BASE, 2, batches=(8,)))
    assert described([one, streams, halves]) == [
        (1, 2, {"keep": "1", "hint": "latency"}),
        (2, 1, {"keep": "1", "hint": "throughput"}),
        (1, 1, {"keep": "1", "hint": "latency"}),
    ]
    assert (own_cores, one.scenario, one.batch) == (streams, "latency", 8)


Driven = Callable[..., tuple[drive.Found, RunFolder]]


@pytest.fixture
def driven(tmp_path: Path, image_folder: Path, tiny_graph: Path) -> Driven:
    def race(
        cases: Sequence[Case], workers: Workers | None = None, limit_ms: float | None = None
    ) -> tuple[drive.Found, RunFolder]:
        folder, files = run_on(tmp_path / "run", image_folder, cases), tiny_files(tiny_graph)
        context = Context(str(folder.path), str(image_folder), files, time_parts=False)
        runner = Runner(folder, context, Recorder(), Limits(60.0, 6.0 if limit_ms else 0.2), workers)
        limit = drive.Limit(runner, limit_ms) if limit_ms else None
        halving = drive.Halving(runner, lambda case: cases if limit else [case], limit=limit)
        runner.execute(cases[:1] if limit else cases, halving)
        folder.merge_parts()
        return drive._found(runner, halving, (), 1.0, files), folder

    return race


def test_candidates_leave_rows_and_samples(driven: Driven) -> None:
    fast, slow = (fake_case("throughput", batch=4, latency_ns=text) for text in ("80000000", "240000000"))
    broken = fake_case("throughput", batch=4, latency_ns="80000000", fault="raise", fault_call="30")
    dead = fake_case("throughput", batch=4, fault="sigkill", fault_at="load")
    found, folder = driven([slow, fast, broken, dead])
    assert [standing.case for standing in found.standings[:2]] == [fast, slow]
    assert found.best.ratio == 1.0
    assert found.best.n_rounds > found.standings[1].n_rounds, "what is much slower leaves after the first race"
    assert found.standings[1].ratio == pytest.approx(1 / 3)
    reasons = {standing.case: standing.why_not for standing in found.standings[2:]}
    assert "told to raise" in reasons[broken]
    assert "killed by SIGKILL" in reasons[dead]
    statuses = {result.case: result.status for result in folder.case_results()}
    assert statuses == {slow: Status.OK, fast: Status.OK, broken: Status.FAILED, dead: Status.CRASHED}
    samples = folder.samples()
    assert set(folder.rounds()["round"]) == set(samples["round"]) - {-1}, "every round is watched"
    assert set(samples["stage"]) == {"end_to_end"}, "no parts: they would take time from the search"
    assert Path(found.deploy["file"]).read_bytes()
    json.dumps(found.to_dict(), allow_nan=False)
    table = tuning_table(found.standings, {})
    rate = next(number for number, head in enumerate(table.columns) if head.text == "Images/s")
    assert table.cells[0][rate].value == pytest.approx(50.0)
    report = load(folder.path).frame.set_index("case_id")["throughput_images_per_s"]
    assert {each.case.case_id: each.images_per_s for each in found.standings[:2]} == dict(report.dropna())


def test_only_what_keeps_the_limit_of_latency_can_win(driven: Driven) -> None:
    big, small = (fake_case("throughput", batch=n, latency_ns=ns) for n, ns in ((8, "80000000"), (1, "30000000")))
    found, folder = driven([big, small], limit_ms=50.0)
    assert found.best.case == small
    assert found.best.latency_ms == pytest.approx(30.0)
    assert (found.standings[1].latency_ms, found.standings[1].latency_is) == (80.0, "median, a short look")
    assert found.standings[1].why_not == "a call takes longer than the limit"
    assert [row.case.batch for row in folder.case_results() if row.case.scenario == "latency"] == [1]
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_limit_is_of_the_99th_percentile_where_there_is_one(
    tmp_path: Path, image_folder: Path, tiny_graph: Path
) -> None:
    jittery, steady = (fake_case("throughput", latency_ns="10000000", noise=noise) for noise in ("1", "0"))
    folder, clock = run_on(tmp_path / "run", image_folder, [jittery, steady]), Clock()
    workers = Workers(lambda case: clock.of(HereWorker()), clock=clock)
    context = Context(str(folder.path), str(image_folder), tiny_files(tiny_graph))
    runner = Runner(folder, context, Recorder(), Limits(60.0), workers)
    limit = drive.Limit(runner, 50.0)
    runner.execute([jittery, steady], lambda runner, cases: limit.settle(cases, 40.0))
    (noisy, what), still = (limit.known[search.latency_case(case)] for case in (jittery, steady))
    assert what == "p99"
    assert 80.0 < noisy < 250.0, "10 ms times exp(2.33), and more by chance"
    assert still == (pytest.approx(10.0), "median, at most"), "calls that are all alike count as few"
    assert list(limit.refusals([jittery, steady])) == [jittery.case_id]


def test_where_nothing_keeps_the_limit_the_best_found_is_told(driven: Driven) -> None:
    cases = [fake_case("throughput", batch=batch, latency_ns=f"{batch}0000000") for batch in (4, 8)]
    found, _ = driven(cases, limit_ms=5.0)
    assert found.best is None
    assert "keeps a call within 5 ms; the best takes 40 ms (median, a short look): latency" in found.notes[-1]


def test_where_memory_is_full_the_rest_is_not_tried(driven: Driven) -> None:
    cases = [fake_case("throughput", batch=batch, latency_ns="80000000") for batch in (1, 2, 4, 8)]
    found, folder = driven(cases, Workers(lambda case: HereWorker(), has_room=lambda pids, more: len(pids) + more <= 2))
    assert [standing.why_not == "" for standing in found.standings] == [True, True, False, False]
    assert found.notes == ("memory had no room for 2 of 4 candidates; give fewer --batches", *found.notes[1:])
    assert [result.status for result in folder.case_results()].count(Status.UNAVAILABLE) == 2


def test_forms_are_kept_by_the_bound_on_their_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n, forms = 2000, [fake_case("accuracy", seed=str(number)) for number in range(4)]
    folder = RunFolder.create(tmp_path / "run")
    folder.write_run_info({"plan": {"cases": [form.to_dict() for form in forms]}})
    names = [f"{number}.JPEG" for number in range(n)]
    folder.write_images((name, 0) for name in names)
    for form, n_wrong in zip(forms, (200, 202, 220), strict=False):
        top = np.zeros((n, 5), np.int16)
        top[:n_wrong, 0] = 1
        same = {"label": np.zeros(n, np.int16), "margin": np.ones(n, np.float32)}
        folder.write_predictions_part(form.case_id, image_id=names, top=top, **same)
        folder.append_case(CaseResult(form, Status.OK))
    folder.append_case(CaseResult(forms[3], Status.UNAVAILABLE, "no such package"))
    folder.merge_parts()
    monkeypatch.setattr(schedule, "alone", lambda runner, case: None)
    runner = SimpleNamespace(run=folder, ended={row.case.case_id: row for row in folder.case_results()})
    judging = drive.Judging(runner, forms, 1.0)  # type: ignore[arg-type]
    assert [judging.keeps(replace(form, scenario="throughput")) for form in forms] == [True, True, False, False]
    judged = judging.judged
    assert [form.difference_points for form in judged[:3]] == pytest.approx([0.0, -0.1, -1.0])
    assert -0.9 < judged[1].low_points < -0.1, "0.9 points are 1 % of 90 %"
    assert "no such package" in judged[3].why_not
    assert not judging.too_few
    assert not drive.Judging(runner, forms[3:], 1.0).keeps(forms[3]), "nothing to hold it against"  # type: ignore[arg-type]


def test_the_command_judges_races_and_leaves_what_is_to_be_deployed(
    tmp_path: Path, image_folder: Path, tiny_graph: Path, monkeypatch: pytest.MonkeyPatch, workers_here: None
) -> None:
    monkeypatch.setenv("SCARLET_BENCH_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(search, "ways", lambda base, cores: [replace(base, scenario="throughput", threads=1)])
    given = ["best", "--model", f"onnx:{tiny_graph}", "--data", str(image_folder), "--backends", "fake"]
    given += ["--pipeline", "reference", "--batches", "4,8", "--precisions", "fp32", "--budget", "0.1"]
    given += [
        "--option",
        "fake.latency_ns=80000000",
        "--option",
        "fake.flip=0",
        "--option",
        "fake.flip=1",
        "--out",
        str(tmp_path / "run"),
    ]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    stored = json.loads((tmp_path / "run" / drive.FILE).read_text())
    assert [form["within"] for form in stored["forms"]] == [True, False], "no loss can be excluded on eight images"
    assert [each["case"]["batch"] for each in stored["candidates"]] == [8, 4, 4], (
        "the form that does not keep it leaves"
    )
    assert stored["best"]["case"]["batch"] == 8
    assert stored["notes"][0].startswith("8 images are too few")
    assert (tmp_path / "run" / "deploy").is_dir()
    assert Path(stored["deploy"]["file"]).read_bytes() == tiny_graph.read_bytes()
    (repeated,) = (case for case in RunSpec(**read_plan(tmp_path / "run" / drive.PLAN)).cases() if case.batch == 8)
    assert repeated.to_dict() == stored["best"]["case"]
    assert RunFolder.open(tmp_path / "run").read_run_info()["finished_at"]


def plain_logits(backend: str, file: Path, session: dict[str, Any], pixels: np.ndarray) -> np.ndarray:
    """What a file says in a program of one's own, with the settings that lie beside it."""
    runtime = pytest.importorskip(backend)
    if backend == "openvino":
        device = session.pop("device")
        return np.asarray(runtime.Core().compile_model(file, device, session)(pixels)[0])
    options, providers = runtime.SessionOptions(), session.pop("providers")
    for name, value in session.items():
        known = {**runtime.ExecutionMode.__members__, **runtime.GraphOptimizationLevel.__members__}
        options.add_session_config_entry(name, value) if "." in name else setattr(
            options, name, known.get(value, value)
        )
    return np.asarray(runtime.InferenceSession(str(file), options, providers).run(None, {"input": pixels})[0])


@pytest.mark.parametrize("form", ["onnxruntime int8", "openvino int8", "openvino fp32"])
def test_what_is_left_to_deploy_gives_the_predictions_of_the_row(
    form: str, tmp_path: Path, image_folder: Path, tiny_graph: Path, monkeypatch: pytest.MonkeyPatch, workers_here: None
) -> None:
    backend, precision = form.split()
    monkeypatch.setenv("SCARLET_BENCH_STORE", str(tmp_path / "store"))
    judge = drive.Judging.keeps
    monkeypatch.setattr(drive.Judging, "keeps", lambda own, case: (judge(own, case), case.precision == precision)[1])
    monkeypatch.setattr(search, "ways", lambda base, cores: [replace(base, scenario="throughput", threads=1)])
    write_recipe(tmp_path / "mine.yaml", Recipe("int8", "ort", activation_type="uint8"))
    for number in range(4):
        pixels = np.random.default_rng(9 + number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        (tmp_path / "others" / WNIDS[0]).mkdir(parents=True, exist_ok=True)
        PilImage.fromarray(pixels).save(tmp_path / "others" / WNIDS[0] / f"{number}.JPEG")
    given = [
        "best",
        "--model",
        f"onnx:{tiny_graph}",
        "--data",
        str(image_folder),
        "--calibration",
        str(tmp_path / "others"),
    ]
    given += ["--backends", backend, "--option", f"{backend}.recipe={tmp_path / 'mine.yaml'}", "--batches", "4"]
    given += ["--pipeline", "reference", "--precisions", "fp32,int8", "--budget", "0.1", "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output

    moved = (tmp_path / "run").rename(tmp_path / "moved")
    stored = json.loads((moved / drive.FILE).read_text())
    (judged,) = (one for one in stored["forms"] if one["case"]["precision"] == precision)
    (told,) = (json.loads(path.read_text()) for path in (moved / "deploy").glob("*.json"))
    file = moved / "deploy" / told["file"]
    assert file.suffix == (".xml" if backend == "openvino" else ".onnx")
    folder = RunFolder.open(moved)
    rows = folder.predictions()
    rows = rows[rows["case_id"] == Case.from_dict(judged["case"]).case_id].set_index("image_id")["top1"]
    assert len(rows) == 4, "half of the images: a recipe may have been chosen on the others"
    images = [Image(str(name), image_folder / str(name), 0) for name in rows.index]
    with closing(open_pipeline("reference", images, 4, 1, Preprocess.from_dict(told["preprocess"]))) as pipeline:
        (batch,) = pipeline
    assert list(batch.pixels.shape) == told["input"]
    logits = plain_logits(backend, file, dict(told["session"]), batch.pixels)
    assert logits.argmax(axis=1).tolist() == rows.tolist()

    plan = read_plan(moved / drive.PLAN)
    if precision == "int8":
        (recipe,) = plan["options"][backend]["recipe"]
        assert read_recipe(Path(recipe)) == read_recipe(tmp_path / "mine.yaml")
        assert Path(recipe).is_relative_to(moved)


@pytest.mark.parametrize(
    ("proof", "expected"),
    [
        ({"layer_counts": {"Convolution brgconv_avx512_amx_i8 i8": 3}}, ("AMX", "AVX-512", "INT8")),
        ({"layer_counts": {"Convolution brgconv_avx512_1x1_bf16 bf16": 3}}, ("AVX-512", "BF16")),
        ({"layer_counts": {"Convolution brgconv_avx512_1x1_I8 u8": 3}}, ("AVX-512", "INT8")),
        ({"layer_counts": {"Convolution brgconv_avx512_f32 f32": 3, "Reorder jit_uni_I8 u8": 1}}, ("AVX-512",)),
        ({"layer_counts": {"Conv2d bfloat16": 3}, "instruction_set": "AVX512"}, ("AVX-512", "BF16")),
        ({"layer_counts": {"QLinearConv int8": 3, "Conv float32": 1}}, ("INT8",)),
        ({"version": "1"}, ()),
    ],
)
def test_features_of_the_cpu_are_those_of_the_kernels_of_layers(
    proof: dict[str, Any], expected: tuple[str, ...]
) -> None:
    assert search.cpu_features(proof) == expected
