"""The path of pixels from DALI to logits, its own code unchanged, under a checker of what comes before what."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from happens_before import Checker
from numpy.typing import NDArray

from bench.backends import cuda
from bench.worker.tasks.overlap import Overlap
from pipelines.base import Batch, DevicePixels
from pipelines.dali.pipeline import handed_over
from pipelines.device import Filler

PASSES, CHUNKS, CHUNK, BATCH = 34, 5, 3, 4


class OnLane(cuda.OnLane):
    """A backend that is nothing but a lane."""

    def __init__(self, any_address: bool, least: int) -> None:
        self._lane = cuda.Lane(lambda pixels: pixels.flatten(1)[:, :2] * 2, any_address, least)

    def infer(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        assert self._lane is not None
        return self._lane.infer(pixels)


class Graph:
    """As DALI's: written on a stream of its own, and bound to the reader's (``Pipeline.run(stream)``)."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._next = stream, 0

    def run(self, stream: Any) -> tuple[Any]:
        with torch.cuda.stream(self._stream):
            planes = torch.zeros(CHUNK, 3, 2, 2)
            planes += torch.arange(self._next, self._next + CHUNK, dtype=torch.float32).reshape(-1, 1, 1, 1)
        self._next += CHUNK
        written = torch.cuda.Event()
        written.record(self._stream)
        stream.wait_event(written)
        return (type("Result", (), {"as_tensor": lambda result: planes})(),)


class Pixels:
    """A pipeline of these pieces, as ``DaliGpuPipeline`` puts them together."""

    def __init__(self) -> None:
        self.stream, self.stream_of_dali = torch.cuda.Stream(), torch.cuda.Stream()

    def __iter__(self) -> Iterator[Batch]:
        filler = Filler(BATCH, 2, torch.device("cpu"), self.stream)
        graph = Graph(self.stream_of_dali)
        for first in range(0, CHUNKS * CHUNK, CHUNK):
            yield from filler.add(range(first, first + CHUNK), handed_over(graph, self.stream))
        yield from filler.rest()


def checked(
    monkeypatch: pytest.MonkeyPatch,
    plant: Callable[[pytest.MonkeyPatch], None] = lambda patch: None,
    any_address: bool = True,
    least: int = 0,
) -> tuple[list[str], list[float]]:
    """Faults of some passes, and the logits of the last."""
    checker = Checker()
    with monkeypatch.context() as patch:
        checker.install(patch)
        plant(patch)
        backend = OnLane(any_address, least)
        overlap = Overlap(backend, device="cuda", blank=np.zeros((BATCH, 3, 2, 2), np.float32))
        pipeline = Pixels()
        for _ in range(PASSES):
            logits = [part[:, 0].tolist() for _, part in overlap.whole_pass(pipeline)]
        overlap.close()
        checker.unwatch()
    return checker.faults, [value for part in logits for value in part]


@pytest.mark.parametrize(("any_address", "least"), [(True, 0), (False, 0), (False, BATCH)])
def test_nothing_is_read_or_written_out_of_order(monkeypatch, any_address, least):
    faults, logits = checked(monkeypatch, any_address=any_address, least=least)
    assert faults == []
    assert logits == [2.0 * index for index in range(CHUNKS * CHUNK)]


def nobody_waits_for_the_pixels(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DevicePixels, "wait", lambda pixels, stream: pixels.tensor)


def one_buffer_for_all_batches(patch: pytest.MonkeyPatch) -> None:
    filled, first = Filler._filled, []

    def same_again(filler: Filler) -> Any:
        first.append(filler._planes)
        batch = filled(filler)
        filler._planes = first[0]
        return batch

    patch.setattr(Filler, "_filled", same_again)


def logits_are_taken_before_they_are_there(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch.cuda.Stream, "synchronize", lambda stream: None)


def the_current_stream_waits(patch: pytest.MonkeyPatch) -> None:
    wait = DevicePixels.wait
    patch.setattr(DevicePixels, "wait", lambda pixels, stream: wait(pixels, torch.cuda.current_stream()))


def a_stream_for_each_pass(patch: pytest.MonkeyPatch) -> None:
    begin = Pixels.__iter__

    def anew(pipeline: Pixels) -> Iterator[Batch]:
        pipeline.stream = torch.cuda.Stream()
        return begin(pipeline)

    patch.setattr(Pixels, "__iter__", anew)


@pytest.mark.parametrize(
    ("plant", "fault"),
    [
        (nobody_waits_for_the_pixels, "memory is used without a path from what writes it"),
        (one_buffer_for_all_batches, "memory is "),  # which of both depends on who comes first
        (logits_are_taken_before_they_are_there, "memory is used without a path from what writes it"),
        (the_current_stream_waits, "the legacy default stream is used"),
        (a_stream_for_each_pass, "a stream of PyTorch's pool is given out twice"),
    ],
)
def test_each_planted_fault_is_found(monkeypatch, plant, fault):
    faults, _ = checked(monkeypatch, plant)
    assert any(text.startswith(fault) for text in faults)
