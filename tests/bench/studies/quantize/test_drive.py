"""The INT8 doctor on a network of one layer and twenty small images, from the command to the recipe file."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bench_fakes import WNIDS, Scripted, tiny_files
from onnx import TensorProto, helper, numpy_helper
from PIL import Image as PilImage
from rich.console import Console
from typer.testing import CliRunner

from bench.cli import app
from bench.report import terminal
from bench.run import session
from bench.run.images import choose_images
from bench.run.spec import RunSpec
from bench.studies.quantize import candidates, document, drive, outcome, timing
from bench.studies.quantize import images as quantize_images
from bench.studies.quantize.images import choose_sets
from bench.studies.quantize.measured import BOUND, Evaluator, Measured
from bench.studies.quantize.outcome import Asked, Outcome, Row, decided, finalists_of
from bench.studies.quantize.search import Found
from bench.studies.quantize.timing import Speed, best_of
from bench.studies.quantize.worker import Pixels, QuantizeWorker
from bench.worker import channel as wire
from export.precision.recipe import Recipe, read_recipe
from pipelines.base import Preprocess
from pipelines.imagenet.find import Image
from pipelines.reference.pipeline import reference_pixels
from scarlet.errors import BenchError
from scarlet.files import file_sha256

GOOD = Recipe("int8", "ort", activation_type="uint8")
OTHER = Recipe("int8", "ort", activation_type="uint8", per_channel=True)


def picture(path: Path, channel: int, seed: int) -> None:
    """A noisy picture in which one colour leads."""
    pixels = np.random.default_rng(seed).integers(0, 120, (64, 64, 3), dtype=np.uint8)
    pixels[:, :, channel] += 100
    path.parent.mkdir(parents=True, exist_ok=True)
    PilImage.fromarray(pixels).save(path, quality=95)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen pictures to score and to search on, in three classes, and four to calibrate on."""
    root = tmp_path_factory.mktemp("colours")
    for number in range(16):
        picture(root / "set" / "valid" / WNIDS[number % 3] / f"{number}.JPEG", number % 3, number)
    for number in range(16, 20):
        picture(root / "calibration" / WNIDS[number % 3] / f"{number}.JPEG", number % 3, number)
    return root


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Says which colour leads, as class 0, 1 or 2 of 1000."""
    weight = np.zeros((3, 1000), np.float32)
    weight[:, :3] = np.eye(3)
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["pooled"], name="pool/GlobalAveragePool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flat/Flatten"),
        helper.make_node("MatMul", ["flat", "weight"], ["logits"], name="head/MatMul"),
    ]
    shapes = ([("input", ["batch", 3, 224, 224])], [("logits", ["batch", 1000])])
    ends = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in side] for side in shapes]
    made = helper.make_graph(nodes, "colours", *ends, [numpy_helper.from_array(weight, "weight")])
    path = tmp_path_factory.mktemp("graph") / "colours.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCARLET_BENCH_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)


def quiet() -> Console:
    return Console(file=StringIO(), width=200)


def sets_of(data: Path, **changes: Any) -> quantize_images.Sets:
    given = {"n_search": 8, "n_confirm": 6, **changes}
    image_set, scored = choose_images(str(data / "set"), given["n_confirm"], quiet())
    return choose_sets(image_set, scored, RunSpec(calibration=str(data / "calibration")), given["n_search"], quiet())


def request_of(data: Path, graph: Path, tmp_path: Path) -> dict[str, Any]:
    sets = sets_of(data)
    files = replace(tiny_files(graph), model=f"onnx:{graph}", onnx_sha256=file_sha256(graph))
    chosen = {"search": sets.search, "confirm": sets.confirm}
    return {
        "do": "open",
        "files": files.to_dict(),
        "backend": "onnxruntime",
        "threads": 1,
        "batch": 3,
        "pipeline": "reference",
        "calibration": sets.calibration.to_dict(),
        "sets": {
            name: {"images": images.to_dict(), "pixels": str(tmp_path / f"{name}.npy")}
            for name, images in chosen.items()
        },
    }


def test_the_three_sets_share_no_image(data: Path) -> None:
    sets = sets_of(data)
    ids = [{image.image_id for image in side.images} for side in (sets.search, sets.confirm)]
    assert [len(side) for side in ids] == [8, 6]
    assert not ids[0] & ids[1]
    assert len(sets.calibration.images) == 4


def test_copies_are_no_other_images(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copied" / "valid" / WNIDS[0]
    for number in range(6):
        picture(folder / f"{number}.JPEG", 0, 0)
    image_set, scored = choose_images(str(tmp_path / "copied"), 3, quiet())
    with pytest.raises(BenchError, match="0 images are left to search on"):
        choose_sets(image_set, scored, RunSpec(calibration=str(data / "calibration")), 2, quiet())


def test_demo_images_to_search_on_lie_behind_those_to_calibrate_on(monkeypatch, tmp_path):
    monkeypatch.setattr(quantize_images, "CALIBRATION_IMAGES", 4)
    monkeypatch.setattr("bench.run.images.CALIBRATION_IMAGES", 4)
    monkeypatch.setattr("bench.run.images.DEMO_IMAGES", 5)
    original = quantize_images.choose_calibration
    monkeypatch.setattr(quantize_images, "choose_calibration", lambda *given, how: original(*given, n=4, how=how))
    sets = choose_sets(*choose_images(None, 5, quiet()), RunSpec(), 3, quiet())
    assert sorted(Path(image.image_id).stem for image in sets.search.images) == [
        "demo_calib_000004",
        "demo_calib_000005",
        "demo_calib_000006",
    ]
    assert len(sets.calibration.images) == 4
    assert all("demo_val" in image.image_id for image in sets.confirm.images)


def test_pixels_are_kept_as_the_bytes_that_the_reference_makes(data: Path, tmp_path: Path) -> None:
    chosen, preprocess = sets_of(data).search, Preprocess()
    broken = Image("broken.JPEG", tmp_path / "broken.JPEG", 1)
    with_broken = replace(chosen, images=(broken, *chosen.images))
    pixels = Pixels(tmp_path / "pixels.npy", with_broken, "reference", 1, preprocess)
    assert list(pixels.labels) == [image.label for image in chosen.images], "the unreadable one is left out"
    stored = np.load(tmp_path / "pixels.npy")
    assert stored.dtype == np.uint8
    for place, image in enumerate(chosen.images):
        assert (stored[place].transpose(1, 2, 0) == reference_pixels(image.path, preprocess)).all()
    batch = pixels.batch(6, 4)
    assert batch.shape == (4, 3, 224, 224)
    assert (batch[3] == batch[1]).all(), "the last one fills the batch"
    with pytest.raises(BenchError, match="no image"):
        Pixels(tmp_path / "none.npy", replace(chosen, images=(broken,)), "reference", 1, preprocess)


def test_a_worker_measures_recipes_against_fp32(data: Path, graph: Path, tmp_path: Path) -> None:
    worker = QuantizeWorker()
    opened = wire.reply(worker.answer, json.loads(json.dumps(request_of(data, graph, tmp_path))))
    assert opened["images"] == {"search": 8, "confirm": 6}
    assert [node["name"] for node in opened["nodes"]][-1] == "head/MatMul"
    answer = wire.reply(worker.answer, {"do": "evaluate", "recipe": GOOD.to_dict(), "set": "search"})
    figures = answer["figures"]
    assert (figures["n"], figures["fp32_right"], figures["losses"], figures["changed"]) == (8, 8, 0, 0)
    assert (figures["asked"], figures["layers"], figures["not_as_asked"]) == (1, 1, [])
    assert 0 < figures["margin_shift"] < 0.1
    stored = [path.name for path in (tmp_path / "store").rglob("*.*") if path.suffix in (".onnx", ".json")]
    assert any(name.endswith(".ranges.json") for name in stored)
    assert not any(name.endswith(".onnx") for name in stored), "candidates fill no store"
    everything = replace(GOOD, exclude=("*",))
    answer = wire.reply(worker.answer, {"do": "evaluate", "recipe": everything.to_dict(), "set": "search"})
    assert (answer["ok"], "no convolution and no matrix product" in answer["reason"]) == (False, True)
    answer = wire.reply(worker.answer, {"do": "evaluate", "recipe": GOOD.to_dict(), "set": "none"})
    assert answer["reason"].startswith("KeyError")


OPENED = {"ok": True, "nodes": [{"name": "a/Conv", "kind": "Conv", "depthwise": False}], "images": {}}
FIGURES = {
    "n": 10,
    "fp32_right": 9,
    "wins": 0,
    "losses": 1,
    "changed": 1,
    "margin_shift": 0.1,
    "asked": 1,
    "layers": 1,
    "not_as_asked": [],
    "seconds": 1.0,
}


def test_a_recipe_that_kills_the_worker_is_passed_over_and_each_is_measured_once() -> None:
    said: list[str] = []
    measured = {"ok": True, "figures": FIGURES}
    handles = [
        Scripted([OPENED, wire.dead(-9, "out of memory")]),
        Scripted([OPENED, measured, wire.too_slow(5)]),
        Scripted([OPENED, {"ok": False, "status": "failed", "reason": "no"}]),
    ]
    waiting = list(handles)
    evaluator = Evaluator({}, lambda: waiting.pop(0), 5.0, said.append)
    assert [node.name for node in evaluator.open()] == ["a/Conv"]
    assert evaluator.measure("kills", OTHER) is None
    found = evaluator.measure("good", GOOD)
    assert (found.label, found.right) == ("good", 8)
    again = evaluator.measure("again", GOOD)
    assert again.label == "again"
    assert evaluator.measure("slow", GOOD, "confirm") is None
    assert evaluator.measure("refused", OTHER, "confirm") is None
    assert said == [
        "kills: no such graph: the worker was killed by SIGKILL; its last words: out of memory",
        "slow: no such graph: it took longer than 5 s",
        "refused: no such graph: no",
    ]
    evaluator.close()
    assert handles[-1].ended == "killed"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"ok": False, "status": "failed", "reason": "no image", "do": "Check."}, "no image"),
        (wire.too_slow(5), "longer than 5 s"),
    ],
)
def test_a_worker_that_cannot_open_ends_the_search(answer: Any, reason: str) -> None:
    evaluator = Evaluator({}, lambda: Scripted([answer]), 5.0, lambda line: None)
    with pytest.raises(BenchError, match=reason):
        evaluator.open()


def one(label: str, losses: int, recipe: Recipe | None = None, **more: Any) -> Measured:
    own = recipe or replace(GOOD, exclude=(label,))
    figures = {**FIGURES, "n": 1000, "fp32_right": 900, "losses": losses, "changed": losses, **more}
    return Measured(label, own, **{**figures, "not_as_asked": tuple(figures["not_as_asked"])})


def test_the_fastest_within_the_margin_leads_and_equals_are_told_apart_by_accuracy() -> None:
    fast = (one("fast", 8), Speed(0.8, 0.78, 0.82, "faster"))
    equal = (one("equal", 1), Speed(0.81, 0.79, 0.83, "faster"))
    slow = (one("slow", 0), Speed(0.95, 0.94, 0.96, "faster"))
    out = (one("out", 50), Speed(0.5, 0.4, 0.6, "faster"))
    untimed = (one("untimed", 2), Speed(reason="failed"))
    assert [best.label for best in best_of([untimed, slow, fast, equal, out], 1.0)] == [
        "equal",
        "fast",
        "slow",
        "untimed",
    ]


def test_what_is_timed_holds_or_is_there_to_be_compared_with() -> None:
    base, default = one("base", 30), one("default", 90, candidates.default_of("onnxruntime"))
    tried = [base, default, *(one(f"step {n}", 12 - n) for n in range(12))]
    chosen = finalists_of(Found(tried, base=base), default.recipe, 1.0)
    assert [each.label for each in chosen] == ["base", "step 11", "default", "step 3", "step 4", "step 5"]
    assert finalists_of(Found(), default.recipe, 1.0) == []


def test_what_was_not_confirmed_is_not_within_the_margin() -> None:
    near, far = one("near", 5), one("far", 40)
    found = Found([near, far])
    assert decided(found, [far, near], 1.0, False)[:2] == (near, True)
    chosen, within, why = decided(found, [far], 1.0, False)
    assert (chosen, within) == (far, False)
    assert "does not on images that nothing was chosen on" in why
    assert decided(found, [], 1.0, True)[:2] == (near, False)
    assert "not even by its estimate" in decided(Found([far]), [], 1.0, False)[2]
    assert decided(Found(), [], 1.0, False)[0] is None


def ended(rows: list[tuple[Measured, Speed]], **changes: Any) -> Outcome:
    made = [Row(measured, speed, measured.holds(1.0)) for measured, speed in rows]
    first = rows[0][0] if rows else None
    whole = Outcome(
        run=Path("run"),
        asked=Asked(),
        rows=tuple(made),
        chosen=first,
        confirmed=(first,) if first else (),
        within=True,
        why="it keeps",
        speed=rows[0][1] if rows else Speed(),
        interrupted=False,
        notes=("a note",),
        alone={"stem": (3, 0.1)},
        images={"search": 1000},
    )
    return replace(whole, **changes)


@pytest.mark.parametrize(
    ("speeds", "expected"),
    [
        ([Speed(0.8, 0.78, 0.82, "faster", 8.0, 10.0)], "is faster than FP32 on onnxruntime: 0.800 (0.780 to 0.820)"),
        ([Speed(1.2, 1.1, 1.3, "slower")], "gains no speed on onnxruntime: at best 1.200"),
        ([Speed(0.99, 0.9, 1.1, "unresolved")], "is unresolved: at best 0.990"),
        ([Speed(reason="crashed")], "nothing was timed"),
    ],
)
def test_the_sentence_on_speed_says_what_the_verdicts_say(speeds: list[Speed], expected: str) -> None:
    assert expected in document.speed_sentence(ended([(one("a", 5), speed) for speed in speeds]))


def test_speed_outside_the_margin_is_no_gain() -> None:
    sentence = document.speed_sentence(ended([(one("a", 90), Speed(1.0, 0.99, 1.01, "same"))]))
    assert sentence.startswith("INT8 of any of these recipes gains no speed")
    fast_but_wrong = (one("wrong", 90), Speed(0.5, 0.4, 0.6, "faster"))
    sentence = document.speed_sentence(ended([(one("a", 2), Speed(1.0, 0.99, 1.01, "same")), fast_but_wrong]))
    assert sentence.startswith("INT8 within 1 % gains no speed")


def test_the_frontier_is_printed_with_what_stayed_in_float() -> None:
    console = Console(file=StringIO(), width=220)
    floats = one("falls back", 12, not_as_asked=["x/Conv"], asked=3, layers=4)
    rows = [(one("good", 2), Speed(0.8, 0.78, 0.82, "faster", 8.0, 10.0)), (floats, Speed(reason="x"))]
    terminal.show(document.document(ended(rows)), console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    for words in ("2/4", "-0.20 (", "0.800 (0.780 to 0.820) faster", "a note", "1 of 3 layers", "recipe: good"):
        assert words in printed, printed
    beyond = document.lines(ended(rows, within=False, why="too far"))
    assert beyond[-1] == "no recipe within 1 % of FP32's top-1: too far; the closest: good"
    assert document.lines(ended([], chosen=None, within=False, why="none"))[-1] == "no recipe: none"


@pytest.fixture
def two_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive, "settings_to_try", lambda backend: (GOOD,))
    monkeypatch.setattr("bench.studies.quantize.search.variants_of", lambda recipe: ())


def arguments(data: Path, graph: Path, *more: str) -> list[str]:
    given = {
        "model": f"onnx:{graph}",
        "data": str(data / "set"),
        "calibration": str(data / "calibration"),
        "images": "8",
        "confirm": "6",
        "budget": "4",
        "margin": "90",
        "threads": "1",
        "pipeline": "reference",
    }
    return ["quantize", "--search", *more, *(part for key, value in given.items() for part in (f"--{key}", value))]


@pytest.mark.usefixtures("two_settings")
def test_the_command_finds_a_recipe_times_it_and_writes_it(data: Path, graph: Path, tmp_path: Path) -> None:
    """Over ten seconds on a busy machine: it starts five worker processes, as a user's search does."""
    done = CliRunner().invoke(app, arguments(data, graph, "--json", "--out", "found.yaml"))
    assert done.exit_code == 0, done.output
    kept = json.loads(done.stdout.splitlines()[-1])
    assert kept["within_margin"] is True
    assert kept["confirmed"][0]["n"] == 6
    assert kept["speed"]["verdict"] in ("faster", "slower", "same", "unresolved")
    assert kept["speed"]["median_ms"] > 0
    assert kept["frontier"][0]["top1_percent"] == 100.0
    run = Path(kept["run"])
    assert json.loads((run / "search.json").read_text())["tried"][0]["asked"] == 1
    assert not (run / "pixels").exists()
    assert read_recipe(tmp_path / "found.yaml") == GOOD
    assert "time_over_fp32" in (tmp_path / "found.yaml").read_text()
    assert len([json.loads(line) for line in (run / "cases.jsonl").read_text().splitlines()]) >= 2


@pytest.mark.usefixtures("two_settings")
def test_ctrl_c_keeps_the_best_so_far(data: Path, graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(timing, "time_recipes", stop)
    done = CliRunner().invoke(app, arguments(data, graph, "--out", "found.yaml"))
    assert done.exit_code == 130, done.output
    assert "stopped before anything was confirmed" in done.output
    assert read_recipe(Path("found.yaml")) == GOOD


@pytest.mark.parametrize(("within", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_says_whether_there_is_a_recipe(within, code, monkeypatch, tmp_path):
    made = ended([(one("a", 2, GOOD), Speed(0.8, 0.78, 0.82, "faster"))], within=within)
    monkeypatch.setattr(drive, "search", lambda asked, console: made)
    done = CliRunner().invoke(app, ["quantize", "--search"])
    assert done.exit_code == code
    assert "replay: scarlet-bench run" in done.output
    written = (tmp_path / "scarlet_c-onnxruntime.yaml").read_text()
    assert f"within_margin: {str(within).lower()}" in written


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ([], "does nothing by itself"),
        (["--search", "--images", "0"], "--images 0"),
        (["--search", "--backend", "pytorch"], "pytorch"),
        (["--search", "--margin", "0"], "--margin 0"),
        (["--search", "--out", "/dev/null/recipe.yaml"], "cannot be written"),
        (["--search", "--out", "."], "is a folder"),
    ],
)
def test_mistakes_are_told_before_anything_slow(given: list[str], what: str) -> None:
    done = CliRunner().invoke(app, ["quantize", *given])
    assert isinstance(done.exception, BenchError)
    assert what in done.exception.what


def test_weights_without_accuracy_are_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = replace(tiny_files(), model="scarlet_c", weights="random")
    monkeypatch.setattr(session, "prepare_files", lambda *_, **__: files)
    folders = {"data": str(data / "set"), "calibration": str(data / "calibration")}
    asked = Asked(Asked().spec.but(**folders, images="6", checkpoint="random"), images=8)
    with pytest.raises(BenchError, match="no accuracy to keep"):
        drive.search(asked, quiet())


def test_a_recipe_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    made = ended([(one("a", 2, GOOD), Speed(0.8, 0.78, 0.82, "faster"))])
    with pytest.raises(BenchError, match=r"found\.yaml cannot be written"):
        outcome.write_chosen(made, tmp_path / "gone" / "found.yaml")
    about = outcome.about(made)
    assert about["time_over_fp32"]["interval_95"] == [0.78, 0.82]
    assert (about["search"]["images"], about["layers_in_int8"]) == (1000, "1 of 1")
    assert made.asked.to_dict()["margin_percent"] == 1.0
    assert made.chosen.holds(1.0) == BOUND
