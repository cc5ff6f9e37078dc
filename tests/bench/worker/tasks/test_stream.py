"""Slices of a stream: what they count, and that nothing is lost, or computes, between them."""

import itertools
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_fakes import fake_case

from bench.record.run_folder import RunFolder
from bench.worker.tasks.overlap import Overlap
from bench.worker.tasks.stream import LEAST_BATCHES, WARM_UP_BATCHES, Endless, Stream, wait_idle
from bench.worker.tasks.throughput import PARTS_EVERY, ThroughputTask
from pipelines.base import Batch
from tests.bench.worker.tasks.test_hand_over import OnlyHost, context_of
from tests.bench.worker.tasks.test_overlap import Gated, TwoSlots


class Counter:
    """A pipeline without end of batches of two images, each pixel the image's number."""

    def __init__(self) -> None:
        self.n_batches = 0

    def __iter__(self) -> Iterator[Batch]:
        for first in itertools.count(0, 2):
            self.n_batches += 1
            yield Batch(np.arange(first, first + 2), np.full((2, 6), first, np.float32))


@pytest.mark.parametrize("backend", [Gated, TwoSlots])
def test_a_paused_stream_computes_nothing_and_loses_nothing(backend: type[Gated]) -> None:
    made, pipeline, clock = backend(), Counter(), itertools.count()
    made.gate.set()
    computed: list[float] = []
    infer = made.infer
    made.infer = lambda pixels: (computed.append(pixels[0, 0]), infer(pixels))[1]  # type: ignore[method-assign]
    overlap = Overlap(made, clock_ns=clock.__next__)
    paused: list[tuple[int, int]] = []
    stream = Stream(overlap, pipeline, lambda: paused.append((pipeline.n_batches, len(computed))))  # type: ignore[arg-type]
    given: list[int] = []
    finished = stream._finished

    def noted() -> Generator[Any, None, None]:
        for indices, logits in finished:
            given.extend(indices)
            yield indices, logits

    stream._finished = noted()
    warm_up, counted = stream.slice(0)
    assert warm_up[0] >= 2 * (overlap.most + WARM_UP_BATCHES)
    assert counted[0] == 2 * LEAST_BATCHES
    assert paused == [(pipeline.n_batches, len(computed))], "what is on its way is done, and no more is begun"
    assert len(computed) == pipeline.n_batches
    images = stream.slice(200)[1][0]
    assert images > 2 * LEAST_BATCHES, "a slice takes its time"
    assert not images // 2 % overlap.slots
    assert given == list(range(len(given))), "each image once, in order"
    stream.close()
    overlap.close()


def test_what_a_pipeline_made_in_the_pause_is_not_counted() -> None:
    made, pipeline = Gated(), Counter()
    made.gate.set()
    pipeline.ahead = 101  # type: ignore[attr-defined]
    with closing(Overlap(made)) as overlap, closing(Stream(overlap, pipeline, lambda: None)) as stream:  # type: ignore[arg-type]
        assert stream.slice(0)[0][0] == 102


class Ticking(OnlyHost):
    """Ten nanoseconds an image, and a millisecond more while told so."""

    slow_calls = 0

    def infer(self, pixels: Any) -> Any:
        self.slow_calls -= 1
        self.now += 1_000_000 * (self.slow_calls >= 0)
        return super().infer(pixels)


def test_a_task_warms_up_until_slices_agree_and_times_parts_in_every_fifth_turn(image_folder, tmp_path):
    context, backend = context_of(tmp_path / "run", 0, throughput_images=4), Ticking()
    ids = sorted(path.relative_to(image_folder).as_posix() for path in image_folder.rglob("*.JPEG"))
    RunFolder(Path(context.run)).write_images((name, 0) for name in ids)
    object.__setattr__(context, "data", str(image_folder))
    backend.slow_calls = 8
    with closing(ThroughputTask(fake_case("throughput", batch=2), backend, context)) as task:
        warm = 0
        while not task.turn(-1, 0).warm:
            warm += 1
        assert warm == 2, "the first slice had slow calls"
        told = [task.turn(round_, 0) for round_ in range(PARTS_EVERY + 1)]
        outcome = task.finish("budget")
    assert {progress.median_ns for progress in told} == {10}
    assert outcome.metrics["pass"] == "stream"
    rounds = [round_ for round_, stage in zip(task._samples.round, task._stages, strict=True) if stage == "compute"]
    assert rounds == [-1, 0, PARTS_EVERY]
    measured = [not warmup for warmup in task._samples.warmup]
    own = [stage == task.STAGE for stage in task._stages]
    assert sum(a and b for a, b in zip(measured, own, strict=True)) == PARTS_EVERY + 1


def test_an_endless_list_repeats_its_images() -> None:
    endless = Endless("abc")  # type: ignore[arg-type]
    assert "".join([*itertools.islice(endless, 4), endless[10**9], *endless[2:4]]) == "abcabca"  # type: ignore[list-item]


def test_threads_at_work_are_waited_for(tmp_path: Path) -> None:
    state, looks = tmp_path / "123" / "stat", list[float]()
    state.parent.mkdir()
    state.write_text("123 (a) b) R 1")

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            state.write_text("123 (a) b) S 1")

    assert wait_idle(tmp_path, sleep)
    assert len(looks) == 4, "two looks on end"
