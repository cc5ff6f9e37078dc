"""Every command, called from a folder of the user's with relative paths: workers start elsewhere."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench_fakes import Answer, tiny_files

from bench.record.case import Status
from bench.record.run_folder import RunFolder
from bench.run import model_files
from bench.worker import channel
from export.precision.recipe import Recipe, write_recipe

Command = Callable[..., int]


@pytest.fixture
def folder(tmp_path: Path, image_folder: Path, tiny_graph: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder, which is the current one: images, weights, a graph and a recipe."""
    home = tmp_path / "home"
    shutil.copytree(image_folder, home / "images")
    for number, image in enumerate(sorted((home / "images").rglob("image_[67].JPEG"))):
        target = home / "calibration" / image.relative_to(home / "images")
        target.parent.mkdir(parents=True, exist_ok=True)
        image.rename(target.with_name(f"{number}.JPEG"))
    shutil.copyfile(tiny_graph, home / "net.onnx")
    (home / "weights.pth").write_bytes(b"")
    write_recipe(home / "recipe.yaml", Recipe("int8", "ort"))
    monkeypatch.chdir(home)
    monkeypatch.setenv("SCARLET_BENCH_STORE", str(tmp_path / "store"))
    return home


@pytest.fixture
def command(scarlet_bench: Callable[..., Answer]) -> Command:
    """Calls a command in this process; gives its exit code."""
    return lambda *words: scarlet_bench(*words).code


class Stopped(channel.WorkerFailed):
    """Ends a command where a worker would have begun."""

    def __init__(self) -> None:
        super().__init__(Status.FAILED, "stopped by the test", "Go on.")


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    return watched(monkeypatch)


def watched(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What workers are asked first; none is started."""
    asked: list[dict[str, Any]] = []

    def ask_once(message: dict[str, Any], *_: Any) -> dict[str, Any]:
        asked.append(message["request"])
        raise Stopped

    monkeypatch.setattr(channel, "ask_once", ask_once)
    return asked


GRAPH = ("--model", "onnx:net.onnx")
WEIGHTS = ("--checkpoint", "weights.pth")
DATA = ("--data", "images")
CALIBRATION = ("--calibration", "calibration")
INT8 = (*GRAPH, *DATA, *CALIBRATION)
RECIPE = ("--option", "onnxruntime.recipe=recipe.yaml")
COMMANDS = {
    "run": ("run", *DATA, "--backends", "fake", "--scenarios", "accuracy,latency"),
    "noise": ("noise", *DATA, "--backends", "fake"),
    "best": ("best", *DATA, "--backends", "fake", "--precisions", "fp32", "--pipeline", "reference"),
    "profile": ("profile", *DATA),
    "export": ("export", *DATA, "--precision", "fp16"),
    "parity": ("parity", *DATA, "--images", "2"),
    "quantize": ("quantize", "--search", *DATA, *CALIBRATION, "--images", "1", "--confirm", "1"),
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_workers_are_told_of_data_a_graph_and_weights_from_the_root(folder, command, requests, words):
    assert command(*words, *GRAPH) == 2
    assert command(*words, *WEIGHTS) == 2
    graph, weights = requests
    assert (graph["model"], graph["checkpoint"]) == (f"onnx:{folder / 'net.onnx'}", None)
    assert weights["checkpoint"] == str(folder / "weights.pth")
    assert graph["data"] == weights["data"] == str(folder / "images")
    assert all((folder / "images" / image_id).is_file() for image_id, _ in graph["images"])


@pytest.mark.parametrize(
    "words",
    [
        ("run", *INT8, "--backends", "onnxruntime", "--precisions", "int8", *RECIPE),
        ("noise", *INT8, "--backends", "onnxruntime", "--precisions", "int8", *RECIPE),
        ("profile", *INT8, "--precision", "int8", *RECIPE),
        ("export", *INT8, "--recipe", "recipe.yaml"),
    ],
    ids=lambda words: words[0],
)
def test_workers_are_told_of_a_recipe_and_of_calibration_images_from_the_root(folder, command, monkeypatch, words):
    asked: list[model_files.Requirements] = []

    def prepare_typed_files(files: Any, required: model_files.Requirements, *_: Any) -> Any:
        asked.append(required)
        raise Stopped

    answer = {"files": tiny_files(folder / "net.onnx").to_dict()}
    monkeypatch.setattr(channel, "ask_once", lambda *_: answer)
    monkeypatch.setattr(model_files, "prepare_typed_files", prepare_typed_files)
    with pytest.raises(Stopped):
        command(*words)
    (required,) = asked
    assert [wanted.recipe for wanted in required.wanted] == [str(folder / "recipe.yaml")]
    assert required.calibration.root.is_absolute()
    assert required.calibration.images


@pytest.mark.parametrize("words", [COMMANDS["run"], COMMANDS["noise"], COMMANDS["best"]])
def test_a_run_lies_where_the_user_says(folder, command, monkeypatch, words):
    def ask_once(*_: Any) -> Any:
        raise channel.dead(-9, "out of luck")

    monkeypatch.setattr(channel, "ask_once", ask_once)
    assert command(*words, *GRAPH, "--out", "runs/mine") == 2
    info = RunFolder.open(folder / "runs" / "mine").read_run_info()
    assert info["dataset"]["root"] == info["settings"]["data"] == str(folder / "images")


def test_a_plan_file_is_run_and_the_run_gone_on_with_from_elsewhere(folder, command, monkeypatch):
    """With real workers: what they are told is what they need."""
    plan = ("model: onnx:net.onnx", "data: images", "backends: fake", "scenarios: accuracy", "threads: 1")
    (folder / "plan.yaml").write_text("\n".join((*plan, "pipeline: reference")))
    assert command("run", "--plan", "plan.yaml", "--out", "mine") == 0
    cases = folder / "mine" / "cases.jsonl"
    first = json.loads(cases.read_text())
    assert first["case"]["model"] == "onnx:net.onnx", "a row keeps the name that the user wrote"
    cases.write_text("")
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert command("run", "--resume", "--out", "../mine") == 0
    assert json.loads(cases.read_text())["case"] == first["case"]


def test_two_models_to_check_or_to_set_beside_each_other_are_told_from_the_root(folder, command, requests):
    shutil.copyfile("net.onnx", "new.onnx")
    what = (*DATA, "--backends", "fake", "--images", "2")
    for models in (("net.onnx", "new.onnx"), ("onnx:net.onnx", "onnx:new.onnx")):
        assert command("check", "--against-model", *models, *what) == 2
    assert command("table", "onnx:new.onnx", "scarlet_c=weights.pth", *what, "--out", "tables") == 0
    new, _, table, weights = requests
    assert new["model"] == table["model"] == f"onnx:{folder / 'new.onnx'}"
    assert weights["checkpoint"] == str(folder / "weights.pth")
    assert {each["data"] for each in requests} == {str(folder / "images")}
    assert (folder / "tables" / "table.csv").is_file()


def test_a_baseline_keeps_relative_paths_and_a_check_repeats_them(folder, command, monkeypatch):
    how = (*INT8, "--backends", "fake", "--scenarios", "accuracy", "--pipeline", "reference", "--threads", "1")
    assert command("run", *how, *RECIPE, "--out", "mine", "--baseline", "kept/b.json") == 0
    kept = (folder / "kept" / "b.json").read_text()
    assert str(folder) not in kept
    assert command("check", "--baseline", "kept/b.json", "--current", "mine", "--junit", "j.xml", "--out", "c.md") == 0
    assert command("report", "mine", "--out", "r.html") == 0
    assert command("baseline", "--run", "mine") == 0
    assert command("check", *GRAPH, *DATA, "--current", "mine") == 0, "that of this model is found by its name"
    assert all((folder / name).is_file() for name in ("j.xml", "c.md", "r.html"))
    asked = watched(monkeypatch)
    assert command("check", "--baseline", "kept/b.json") == 2, "stopped by the test"
    (folder / "images").rename(folder / "moved")
    assert command("check", "--baseline", "kept/b.json", "--data", "moved") == 2
    assert [(each["model"], each["data"]) for each in asked] == [
        (f"onnx:{folder / 'net.onnx'}", str(folder / name)) for name in ("images", "moved")
    ]
