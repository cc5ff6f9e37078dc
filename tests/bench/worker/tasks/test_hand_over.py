"""Batches that lie on a device: who is handed them there, who gets them on the host, what is timed of such a pass."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from bench_fakes import fake_case, tiny_files
from numpy.typing import NDArray

import pipelines
from bench.analysis.time.quantiles import limit_of_parts, threads_of_parts
from bench.backends.base import Facts, ModelFiles
from bench.backends.cuda import infer
from bench.backends.instances import Instances
from bench.record.case import Case, Status
from bench.record.run_folder import CaseResult, RunFolder
from bench.worker.messages import Context
from bench.worker.tasks import throughput
from bench.worker.tasks.accuracy import AccuracyTask
from bench.worker.tasks.device_parts import DeviceParts
from bench.worker.tasks.overlap import Overlap, work_for
from bench.worker.tasks.throughput import ThroughputTask
from pipelines.base import Batch, PipelineReport, Preprocess
from pipelines.device import DeviceBatch, DevicePixels
from pipelines.imagenet.find import Image
from scarlet.errors import BenchError

Pixels = NDArray[np.float32]


class Event:
    """Counts who waited for it."""

    def __init__(self) -> None:
        self.synchronised = 0

    def synchronize(self) -> None:
        self.synchronised += 1


class OnlyHost:
    """A backend that remembers what it was handed."""

    FACTS: ClassVar[Facts] = Facts("only-host", "", "", "", {})

    def __init__(self) -> None:
        self.by_host: list[int] = []
        self.threads: list[str] = []
        self.by_device: list[int] = []
        self.now = 0

    def clock_ns(self) -> int:
        return self.now

    def load(self, case: Case, files: ModelFiles) -> None:
        """Nothing to load."""

    def infer(self, pixels: Pixels) -> Pixels:
        self.by_host.append(len(pixels))
        self.threads.append(threading.current_thread().name)
        self.now += 10 * len(pixels)
        return np.tile(pixels[:, 0, 0, :1], (1, 1000)) + np.arange(1000, dtype=np.float32)

    def proof(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        """Nothing is open."""


class Both(OnlyHost):
    def infer_on_device(self, pixels: DevicePixels) -> Pixels:
        self.by_device.append(len(pixels.tensor))
        logits = self.infer(pixels.tensor.numpy())
        self.by_host.pop()
        return logits


def there(n: int, value: float = 1.0) -> DeviceBatch:
    """A batch on the device, which the CPU plays here."""
    return DeviceBatch(np.arange(n), DevicePixels(torch.full((n, 3, 2, 2), value)))


def test_pixels_stay_where_they_are_for_those_who_take_them_there():
    batch, host = there(2), Batch(np.arange(2), np.ones((2, 3, 2, 2), np.float32))
    for backend, device, made, expected in (
        (Both(), "cuda", batch, DevicePixels),
        (Both(), "cpu", batch, np.ndarray),  # the same class on its other device
        (OnlyHost(), "cuda", batch, np.ndarray),
        (Both(), "cuda", host, np.ndarray),
        (copies(Both), "cuda", batch, DevicePixels),
        (copies(OnlyHost), "cuda", batch, np.ndarray),
    ):
        work = work_for(backend, device, made)
        assert isinstance(work, expected)
        logits = backend.submit(work).result() if isinstance(backend, Instances) else infer(backend, work)
        assert logits.shape == (2, 1000)
        assert bool(getattr(backend, "first", backend).by_device) is (expected is DevicePixels)
        backend.close()
    assert host.on_device is None


def copies(backend: type[OnlyHost]) -> Instances:
    both = Instances(backend)
    both.load(cuda_case(instances=2), tiny_files())
    return both


class Made:
    """A pipeline whose batches lie on a device, and whose clock it moves."""

    name: ClassVar[str] = "made"
    opened: ClassVar[list[int]] = []
    backend: ClassVar[Any] = None
    ns_per_image: ClassVar[int] = 30

    def __init__(self, images: list[Image], batch: int, threads: int, preprocess: Preprocess) -> None:
        self.report, self._n, self._batch = PipelineReport(), len(images), batch
        Made.opened.append(self._n)
        self.events: list[Event] = []

    def __iter__(self) -> Iterator[Batch]:
        for first in range(0, self._n, self._batch):
            n = min(self._batch, self._n - first)
            self.events.append(Event())
            if Made.backend is not None:
                Made.backend.now += self.ns_per_image * n
            planes = torch.full((n, 3, 2, 2), float(first))
            yield DeviceBatch(np.arange(first, first + n), DevicePixels(planes, self.events[-1]))

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> type[Made]:
    monkeypatch.setitem(pipelines.REGISTRY, "made", f"{__name__}:Made")
    monkeypatch.setattr(pipelines, "ON_GPU", ("made",))
    Made.opened, Made.backend = [], None
    return Made


def test_a_pass_hands_batches_over_in_order_without_the_host(made, monkeypatch):
    monkeypatch.setattr(DevicePixels, "to_host", lambda self: pytest.fail("copied to the host"))
    backend = Both()
    overlap = Overlap(backend, device="cuda", clock_ns=backend.clock_ns)
    found = list(overlap.whole_pass(made([None] * 7, 3, 1, Preprocess())))
    overlap.close()
    assert [indices.tolist() for indices, _ in found] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [float(logits[0, 0]) for _, logits in found] == [0.0, 3.0, 6.0]
    assert (backend.by_device, backend.by_host) == ([3, 3, 1], [])


def test_both_sides_of_a_pass_are_timed_over_as_many_images(made):
    backend = Made.backend = Both()
    overlap = Overlap(backend, device="cuda", clock_ns=backend.clock_ns)
    pipeline = made([None] * 10, 4, 1, Preprocess())
    parts = DeviceParts(pipeline, overlap)
    # Three batches of 4, 4 and 2 images; whole ones stand in for the last.
    assert parts.measure() == {"decode": 10 * 30, "compute": 12 * 10}
    assert parts.n_images == 10
    assert [event.synchronised for event in pipeline.events] == [0, 0, 1], "only the last batch is waited for"
    assert backend.by_device == [4, 4, 4]
    nothing = DeviceParts(made([], 4, 1, Preprocess()), overlap)
    assert (nothing.measure(), nothing.n_images) == ({}, 0)
    # Beside a stream the first batch, and what is done before it, are left out.
    steady = DeviceParts(made([None] * 10, 4, 1, Preprocess()), overlap, steady=True)
    assert (steady.measure(), steady.n_images) == ({"decode": 6 * 30, "compute": 8 * 10}, 6)
    overlap.close()


def context_of(folder: Path, n: int, **more: Any) -> Context:
    run = RunFolder.create(folder)
    run.write_run_info({"plan": {"cases": []}})
    run.write_images((f"{number}.JPEG", 0) for number in range(n))
    return Context(run=str(run.path), data=str(folder), files=tiny_files(), **more)


@pytest.mark.parametrize("pipeline", ["reference", "turbo", "dali"])
@pytest.mark.parametrize("scenario", ["accuracy", "throughput"])
def test_no_case_is_measured_where_no_image_can_be_read(tmp_path, scenario, pipeline):
    """As with the pointers that Git LFS leaves in place of files: `context_of` has none of its images."""
    case = replace(fake_case(scenario, batch=2), pipeline=pipeline)
    kind = AccuracyTask if scenario == "accuracy" else ThroughputTask
    task = kind(case, OnlyHost(), context_of(tmp_path / "run", 5, throughput_images=4, time_parts=False))
    with closing(task), pytest.raises(BenchError, match=r"none of the .* images could be read .*0\.JPEG"):
        _ = task.turn(0, 10**9), task.finish("done")


def cuda_case(**fields: Any) -> Case:
    return Case(
        **{**fake_case("throughput", batch=4).to_dict(), "pipeline": "made", "device": "cuda", **fields, "options": ()}
    )


@pytest.mark.parametrize(("device", "count"), [("cuda", 16 * throughput.GPU_PASS_FACTOR), ("cpu", 16)])
def test_whole_passes_are_longer_on_a_gpu(made, device, count, tmp_path, monkeypatch):
    monkeypatch.setattr(pipelines, "ON_GPU", ("made",) if device == "cuda" else ())
    Made.backend = Both()
    case = replace(cuda_case(device=device), options=(("pass", "whole"),))
    context = context_of(tmp_path / "run", 5, throughput_images=16, time_parts=device == "cuda")
    with closing(ThroughputTask(case, Made.backend, context)) as task:
        assert [task.turn(round_, 0).warm for round_ in (-1, -1, 0)] == [False, True, True]
        assert made.opened == [count]
        outcome = task.finish("budget")
    assert outcome.metrics["pass"] == "whole"
    assert outcome.metrics["n_warmup"] == 2
    parts = ["end_to_end", "decode", "compute"]
    assert task._stages == ([*parts, "end_to_end", *parts] if device == "cuda" else ["end_to_end"] * 3)
    assert set(task._counts) == {count}


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_the_inferring_thread_of_a_gpu_has_called_before_a_pipeline_is_open(made, device, tmp_path, monkeypatch):
    backend, calls = Both(), list[list[int]]()
    opened = Context.open_pipeline
    monkeypatch.setattr(Context, "open_pipeline", lambda *given: calls.append([*backend.by_host]) or opened(*given))
    context = context_of(tmp_path / "run", 5, throughput_images=8, time_parts=False)
    task = ThroughputTask(cuda_case(device=device), backend, context)
    assert calls == [[4] if device == "cuda" else []]
    task.turn(0, 0)
    task.close()
    assert len(set(backend.threads)) == 1
    assert backend.threads[0].startswith("infer")


@pytest.mark.parametrize(("backend", "by_device"), [(Both, [4, 4]), (OnlyHost, [])])
def test_accuracy_is_measured_through_the_hand_over_of_a_timed_pass(made, backend, by_device, tmp_path):
    used = backend()
    task = AccuracyTask(cuda_case(scenario="accuracy"), used, context_of(tmp_path / "run", 8))
    assert task.turn(0, 10**12).done
    outcome = task.finish("")
    task.close()
    assert used.by_device == by_device
    assert used.by_host == ([] if by_device else [4, 4])
    # A digest of the pixels themselves, wherever they lay.
    planes = np.concatenate([np.full((4, 3, 2, 2), first, np.float32) for first in (0, 4)])
    assert outcome.metrics["input_sha256"] == hashlib.sha256(planes.data).hexdigest()


def test_the_limit_of_sides_on_their_own_hardware_is_the_smaller_rate():
    case = cuda_case(threads=8)
    on_gpu = CaseResult(case, Status.OK, metrics={"decodes_on_gpu": True, "decode_threads": 8})
    assert threads_of_parts(on_gpu) == {"decode": 0, "preprocess": 0, "compute": 0}
    for decode, compute, expected in ((4.0, 6.0, (6.0, "compute")), (6.0, 4.0, (6.0, "decode"))):
        ns = {"decode": decode, "compute": compute}
        assert limit_of_parts(ns, threads_of_parts(on_gpu), 8) == expected
    # Decoded by the CPU for a GPU: reading is one side, with both of its steps.
    by_cpu = CaseResult(case, Status.OK, metrics={"decode_threads": 8})
    ns = {"decode": 3.0, "preprocess": 2.0, "compute": 4.0}
    assert limit_of_parts(ns, threads_of_parts(by_cpu), 8) == (5.0, "decode")
    assert limit_of_parts({**ns, "compute": 5.5}, threads_of_parts(by_cpu), 8) == (5.5, "compute")
