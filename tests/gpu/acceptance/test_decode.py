"""Pipelines timed by themselves, in turns: on pipelines that take the time they are told to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.base import Batch, PipelineUnavailable
from pipelines.device import DeviceBatch, DevicePixels
from tests.gpu.acceptance import decode

BATCH = 4


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Told:
    """Takes so many seconds an image."""

    def __init__(
        self, images: Sequence[Any], seconds: float, clock: Clock, log: list[str], name: str
    ) -> None:
        self.n, self.seconds, self.clock, self.log, self.name = len(images), seconds, clock, log, name
        self.closed = 0

    def __iter__(self) -> Iterator[Batch]:
        self.log.append(f"{self.name} {self.n}")
        for first in range(0, self.n, BATCH):
            n = min(BATCH, self.n - first)
            self.clock.now += self.seconds * n
            yield Batch(np.arange(first, first + n), np.zeros((n, 3, 1, 1), np.float32))

    def close(self) -> None:
        self.closed += 1


def test_pipelines_take_turns_over_passes_of_half_a_second():
    clock, log = Clock(), list[str]()
    pace = {"fast": 0.001, "slow": 0.01}
    opened: list[Told] = []
    written: list[int] = []

    def open_pipeline(name: str, images: Sequence[Any]) -> Told:
        if name == "none":
            raise PipelineUnavailable("no device")
        if name == "broken":
            raise RuntimeError("DALI is out of order")
        opened.append(Told(images, pace[name], clock, log, name))
        return opened[-1]

    names = ("fast", "none", "slow", "broken")
    images: Any = [None] * 10
    found = decode.measure(
        names, images, 3.9, lambda made: written.append(len(made["samples"])), open_pipeline, clock
    )
    assert found["missing"] == {"none": "no device", "broken": "DALI is out of order"}
    assert found["images_per_s"] == {"fast": pytest.approx(1000.0), "slow": pytest.approx(100.0)}
    assert {sample["images"] for sample in found["samples"]} == {500, 50}
    order = [sample["pipeline"] for sample in found["samples"]]
    assert order[:6] == ["fast", "slow", "slow", "fast", "fast", "slow"], "who leads changes"
    assert written == [2 * (round_ + 1) for round_ in range(len(order) // 2)], "after every round"
    assert len(order) // 2 == 4, "until the time is over"
    assert all(pipeline.closed for pipeline in opened)


def test_pixels_on_a_device_are_waited_for_and_not_copied(monkeypatch):
    class Event:
        waited = 0

        def synchronize(self) -> None:
            self.waited += 1

    monkeypatch.setattr(DevicePixels, "to_host", lambda self: pytest.fail("copied"))
    events = [Event(), Event()]
    batches = [DeviceBatch(np.arange(3), DevicePixels(torch.zeros(3, 3, 1, 1), event)) for event in events]
    assert decode.one_pass(batches) == 6
    assert [event.waited for event in events] == [0, 1]
    assert decode.one_pass([]) == 0


def test_without_any_pipeline_it_says_so_and_ends():
    def none(name: str, images: Sequence[Any]) -> Any:
        raise PipelineUnavailable("no device")

    written: list[Any] = []
    found = decode.measure(("a",), [], 1.0, written.append, none, Clock())
    assert found == {"samples": [], "images_per_s": {}, "missing": {"a": "no device"}}
    assert written == [found]


def test_the_program_times_a_real_pipeline(tmp_path, image_folder, monkeypatch):
    monkeypatch.setattr(decode, "PASS_SECONDS", 1e-9)
    monkeypatch.setattr(decode, "LEAST_ROUNDS", 1)
    out = tmp_path / "decode.json"
    decode.main(
        [
            "--out",
            str(out),
            "--seconds",
            "0",
            "--images",
            "8",
            "--data",
            str(image_folder),
            "--pipelines",
            "reference",
        ]
    )
    stored = json.loads(out.read_text())
    assert stored["images_per_s"]["reference"] > 0
    assert stored["samples"][0]["images"] == 8
    assert stored["is_demo"] is False
