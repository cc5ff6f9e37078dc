"""The INT8 doctor on a network of one layer and twenty small images, from the command to the recipe file."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bench_fakes import WNIDS, tiny_files
from onnx import TensorProto, helper, numpy_helper
from PIL import Image as PilImage
from rich.console import Console
from typer.testing import CliRunner

from bench.cli import app
from bench.report import terminal
from bench.run import session
from bench.run.images import choose_calibration, choose_images
from bench.studies.quantize import document, drive, outcome
from bench.studies.quantize.measured import BOUND, Measured
from bench.studies.quantize.outcome import Asked, Outcome, Row, Speed, best_of, decided, finalists_of
from bench.studies.quantize.search import Found, default_of
from bench.worker.messages import CalibrationImages
from export.precision.recipe import Recipe, read_recipe
from scarlet.errors import BenchError

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
    """Thirty pictures in three classes, half of them to score and to search on, and four to calibrate on."""
    root = tmp_path_factory.mktemp("colours")
    for number in range(30):
        picture(root / "set" / "valid" / WNIDS[number % 3] / f"{number}.JPEG", number % 3, number)
    for number in range(30, 34):
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


def images_of(data: Path, n_search: int = 8, n_confirm: int = 6) -> dict[str, CalibrationImages]:
    image_set, scored = choose_images(str(data / "set"), n_confirm, quiet(), half="first")
    root = image_set.root.resolve()
    calibration = choose_calibration(root, scored, str(data / "calibration"), quiet())
    searching = drive.search_images(image_set, scored, calibration, n_search, quiet())
    return {"scored": CalibrationImages(root, tuple(scored), ""), "calibration": calibration, "search": searching}


def test_what_recipes_are_chosen_and_judged_on_shares_no_image(data: Path) -> None:
    sets = images_of(data)
    _, judged = choose_images(str(data / "set"), 15, quiet(), half="second")
    assert len(judged) == 15
    assert not {image.image_id for image in judged} & {
        image.image_id for side in ("scored", "search") for image in sets[side].images
    }
    ids = {name: {image.image_id for image in images.images} for name, images in sets.items()}
    assert {name: len(each) for name, each in ids.items()} == {"scored": 6, "calibration": 4, "search": 8}
    assert not ids["scored"] & ids["search"]


def test_copies_are_no_other_images(data: Path, tmp_path: Path) -> None:
    for number in range(6):
        picture(tmp_path / "set" / "valid" / WNIDS[0] / f"{number}.JPEG", 0, 0)
    (tmp_path / "calibration").symlink_to(data / "calibration")
    with pytest.raises(BenchError, match="0 images are left to search on"):
        images_of(tmp_path, 2, 3)


def test_demo_images_to_search_on_lie_behind_those_to_calibrate_on(monkeypatch, tmp_path):
    monkeypatch.setattr(drive, "CALIBRATION_IMAGES", 4)
    monkeypatch.setattr("bench.run.images.DEMO_IMAGES", 5)
    image_set, scored = choose_images(None, 5, quiet())
    calibration = choose_calibration(image_set.root, scored, None, quiet(), n=4)
    found = drive.search_images(image_set, scored, calibration, 3, quiet())
    names = [Path(image.image_id).stem for image in found.images]
    assert sorted(names) == ["demo_calib_000004", "demo_calib_000005", "demo_calib_000006"]
    assert all("demo_val" in image.image_id for image in scored)


def one(label: str, losses: int, recipe: Recipe | None = None, **more: Any) -> Measured:
    own = recipe or replace(GOOD, exclude=(label,))
    figures = {"n": 1000, "fp32_right": 900, "wins": 0, "losses": losses, "changed": losses, "margin_shift": 0.1}
    return Measured(label, own, **{**figures, "asked": 1, "layers": 1, **more})


def test_the_fastest_within_the_margin_leads_and_equals_are_told_apart_by_accuracy() -> None:
    fast = Row(one("fast", 8), Speed(0.8, 0.78, 0.82, "faster"))
    equal = Row(one("equal", 1), Speed(0.81, 0.79, 0.83, "faster"))
    slow = Row(one("slow", 0), Speed(0.95, 0.94, 0.96, "faster"))
    out = Row(one("out", 50), Speed(0.5, 0.4, 0.6, "faster"))
    untimed = Row(one("untimed", 2), Speed(reason="failed"))
    assert [best.label for best in best_of([untimed, slow, fast, equal, out], 1.0)] == [
        "equal",
        "fast",
        "slow",
        "untimed",
    ]


def test_what_is_timed_holds_or_is_there_to_be_compared_with() -> None:
    base, default = one("base", 30), one("default", 90, default_of("onnxruntime"))
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
    first = rows[0][0] if rows else None
    whole = Outcome(
        run=Path("run"),
        asked=Asked(),
        rows=tuple(Row(*row) for row in rows),
        chosen=first,
        confirmed=(first,) if first else (),
        within=True,
        why="it keeps",
        interrupted=False,
        found=Found(notes=["a note"]),
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
    floats = one("falls back", 12, not_as_asked=("x/Conv",), asked=3, layers=4)
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
    assert not list((tmp_path / "store").rglob("*.xml"))
    assert read_recipe(tmp_path / "found.yaml") == GOOD
    assert "time_over_fp32" in (tmp_path / "found.yaml").read_text()
    assert len([json.loads(line) for line in (run / "cases.jsonl").read_text().splitlines()]) >= 2


@pytest.mark.usefixtures("two_settings")
def test_ctrl_c_keeps_the_best_so_far(data: Path, graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(drive, "finalists_of", stop)
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
        (["--search", "--backend", "pytorch"], "pytorch"),
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
    about = outcome.about(made, made.chosen)
    assert about["time_over_fp32"]["interval_95"] == [0.78, 0.82]
    assert (about["search"]["images"], about["layers_in_int8"]) == (1000, "1 of 1")
    assert made.asked.to_dict()["margin_percent"] == 1.0
    assert made.chosen.holds(1.0) == BOUND
