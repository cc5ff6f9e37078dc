"""Two models in turns, by the command: what a change of the model did to predictions and to time."""

import json
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bench_fakes import WNIDS, Clock, HereWorker, make_graph, tiny_files
from PIL import Image

from bench import cli
from bench.backends.base import ModelFiles
from bench.backends.fake import Fake
from bench.record.case import Case
from bench.run import pixel_gate
from bench.run.runner import Workers
from bench.run.session import Session
from bench.studies.check import pairs
from bench.worker import channel, serve

SECONDS_OF_CALL = 0.02


class Model(Fake):
    """Tells red, green and blue images apart. A graph called ``slow`` takes 10 % longer, one called ``wrong`` errs."""

    own = 1.0

    def load(self, case: Case, files: ModelFiles) -> None:
        super().load(case, files)
        self.name = Path(files.onnx).stem
        self._told["latency_ns"] = 1e9 * SECONDS_OF_CALL * self.own * (1.1 if self.name == "slow" else 1.0)

    def _logits(self, pixels: Any) -> Any:
        classes = pixels.mean(axis=(2, 3)).argmax(axis=1)
        return np.eye(1000, dtype=np.float32)[0 * classes + 5 if self.name == "wrong" else classes]


class ModelWorker(HereWorker):
    """A worker without a process of its own, whose backend is slower or faster by something for all its life."""

    source = np.random.default_rng(0)

    def __init__(self, log: Path, threads: int, files: ModelFiles) -> None:
        super().__init__()
        self.files, self.own = files.to_dict(), math.exp(self.source.normal(0, 0.005))

    def ask(self, request: channel.Message, timeout_seconds: float) -> channel.Message:
        with pytest.MonkeyPatch.context() as patch:
            backend = type("Own", (Model,), {"own": self.own})
            patch.setattr("bench.worker.serve.make_backend", lambda name: backend())
            return super().ask(pairs.with_files(request, self.files), timeout_seconds)


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Calls the command in a folder with 48 images and graphs; gives its exit code and what it printed."""
    for number in range(48):
        folder = tmp_path / "images" / WNIDS[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((256, 256, 3), np.uint8)
        pixels[..., number % 3] = 255 - number
        Image.fromarray(pixels).save(folder / f"{number}.JPEG")
    for name in ("old", "same", "slow", "wrong"):
        onnx.save(make_graph("batch"), tmp_path / f"{name}.onnx")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Session, "require", lambda own: tiny_files(own.source.removeprefix("onnx:")))
    monkeypatch.setattr(pixel_gate, "gate", lambda *_: {})
    monkeypatch.setattr(pairs, "ModelWorker", ModelWorker)
    # It would keep pandas out of this process.
    monkeypatch.setattr(serve.WithoutPandas, "find_spec", staticmethod(lambda *_: None))

    def call(*words: str) -> tuple[int, dict[str, Any]]:
        clock = Clock()
        make = partial(Workers, clock=clock)
        monkeypatch.setattr(pairs, "Workers", lambda made: make(lambda case: clock.of(made(case))))
        fixed = ("--data", "images", "--images", "all", "--backends", "fake", "--threads", "1", "--budget", "12")
        fixed = (*fixed, "--pipeline", "reference", "--option", "fake.noise=0.01", "--tolerance", "4", "--json")
        monkeypatch.setattr(sys, "argv", ["scarlet-bench", "check", *words, *fixed])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capfd.readouterr().out
        return int(ended.value.code or 0), json.loads(printed) if printed.startswith("{") else {}

    return call


@pytest.mark.parametrize(
    ("new", "code", "accuracy", "latency"),
    [("same", 0, "pass", "pass"), ("wrong", 1, "fail", "pass"), ("slow", 1, "pass", "fail")],
)
def test_a_fault_fails_with_row_and_stage_and_what_changes_nothing_passes(check, new, code, accuracy, latency):
    ended, said = check("--against-model", "old.onnx", f"{new}.onnx", "--junit", "junit.xml")
    assert ended == code
    rows = [(row["row"].split()[0], row["verdict"], row["stage"]) for row in said["rows"]]
    assert rows == [("accuracy", accuracy, "weights" if accuracy == "fail" else ""), ("latency", latency, "")], said[
        "rows"
    ]
    assert Path("junit.xml").read_text().count("<failure") == code
    assert (Path(said["run"]) / "report.html").is_file()
    info = json.loads((Path(said["run"]) / "run.json").read_text())
    assert info["against"]["notes"] == [f"this: {new}.onnx", "old: old.onnx"]


@pytest.mark.parametrize(
    "words",
    [
        ("--backends", "fake"),
        ("--against-model", "old.onnx", "same.onnx", "--sequential"),
        ("--against-model", "old.onnx", "nothing"),
        ("--against-model", "old.onnx", "same.onnx", "--lives", "1"),
    ],
)
def test_options_that_make_no_sense_together_are_refused(check: Any, words: tuple[str, ...]) -> None:
    assert check(*words)[0] == 2


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("same.onnx", ("onnx:same.onnx", None)),
        ("onnx:same.onnx", ("onnx:same.onnx", "weights.pth")),
        ("scarlet_a", ("scarlet_a", "weights.pth")),
        ("new.pth", ("scarlet_c", "new.pth")),
    ],
)
def test_a_model_is_a_graph_weights_or_a_name(tmp_path, monkeypatch, model, fields):
    monkeypatch.chdir(tmp_path)
    Path("new.pth").touch()
    spec = pairs.of_model(pairs.RunSpec(checkpoint="weights.pth"), model)
    assert (spec.model, spec.checkpoint) == fields
