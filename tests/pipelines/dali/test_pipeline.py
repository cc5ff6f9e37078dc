"""DALI where it fails on its own, and the GPU's pipeline without a GPU: its graph and hand-over on the CPU.

What ``dali`` shares with other pipelines is in tests/pipelines/test_passes.py and test_matched.py.
"""

import importlib
import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from failing_dali import DEVICE_FAULTS, failing_on

from bench.record.case import Case
from bench.worker.channel import classify
from bench.worker.tasks.base import fallback_sentence
from pipelines import ON_GPU, device, open_pipeline, open_stages
from pipelines.base import PipelineUnavailable, PipelineUnsupported, Preprocess
from pipelines.dali import chunks, stages
from pipelines.dali import pipeline as dali
from pipelines.device import DevicePixels, Filler
from pipelines.imagenet.find import Image
from pipelines.imagenet.jpeg import plain_size
from pipelines.parity.differences import TOLERANCES, WHOLE, Tally, tolerances_of
from pipelines.reference.pipeline import normalise, reference_pixels

pytest.importorskip("nvidia.dali")

DEFAULT = Preprocess()
LEVEL = 1 / (255 * min(DEFAULT.std))


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The very code of the GPU pipeline, with the CPU as its device: other kernels, the same graph and hand-over."""
    for module in (dali, stages):
        monkeypatch.setattr(module, "usable_gpu", lambda: torch.device("cpu"))
    monkeypatch.setattr(dali, "refuse_without_engine", lambda: None)


def check_pass(pipeline, images: Sequence[Image], good: Sequence[int], batch: int) -> None:
    made = list(pipeline)
    assert [index for one in made for index in one.indices.tolist()] == list(good)
    assert all(len(one.indices) == batch for one in made[:-1])
    for one in made:
        assert one.pixels.shape == (len(one.indices), 3, 224, 224)
        if pipeline.name != "dali":
            assert one.on_device.tensor.shape == one.pixels.shape
            assert one.on_device.tensor.is_contiguous()
        assert one.pixels.flags.c_contiguous
        assert one.pixels.flags.owndata
        for index, planes in zip(one.indices, one.pixels, strict=True):
            expected = normalise(reference_pixels(images[index].path, DEFAULT), DEFAULT)
            assert np.abs(planes - expected).max() <= 1.01 * LEVEL
    bad = [images[index].image_id for index in range(len(images)) if index not in set(good)]
    assert [found.image_id for found in pipeline.report.bad] == bad


@pytest.mark.parametrize("name", ON_GPU)
@pytest.mark.parametrize("batch", [1, 5, 12, 100])
def test_each_image_once_in_order_with_the_reference_s_pixels(name, batch, on_cpu, small_photos):
    pipeline = open_pipeline(name, small_photos, batch, 2, DEFAULT)
    assert pipeline.name == name
    check_pass(pipeline, small_photos, range(12), batch)


def test_more_images_than_one_run_of_the_graph(on_cpu, small_photos):
    images = small_photos * 12
    assert len(images) > 2 * dali.CHUNK
    check_pass(open_pipeline("dali_gpu", images, 50, 2, DEFAULT), images, range(144), 50)


@pytest.mark.parametrize("places", [(0,), (5,), (11,), (4, 5, 6), (0, 6, 11), tuple(range(12))])
@pytest.mark.parametrize("fault", ["truncated", "text"])
def test_bad_files_leave_no_gap(places, fault, on_cpu, small_photos, bad_paths):
    images = [
        Image(f"{k} {image.image_id}", bad_paths[fault] if k in places else image.path, 0)
        for k, image in enumerate(small_photos)
    ]
    pipeline = open_pipeline("dali_gpu", images, 4, 1, DEFAULT)
    check_pass(pipeline, images, [k for k in range(12) if k not in places], 4)


def test_odd_files_are_left_to_the_reference(on_cpu, odd_paths, small_photos):
    """Pixels of the reference and of DALI in one batch."""
    odd = [Image(name, path, 0) for name, path in odd_paths.items() if "cmyk" in name or "png" in name]
    assert len(odd) >= 2
    images = [*small_photos[:3], odd[0], *small_photos[3:6], *odd[1:]]
    pipeline = open_pipeline("dali_gpu", images, 16, 2, DEFAULT)
    check_pass(pipeline, images, range(len(images)), 16)
    assert pipeline.report.fallbacks == [image.image_id for image in odd]


def test_batches_that_are_held_are_not_written_to_again(on_cpu, small_photos):
    pipeline = open_pipeline("dali_gpu", small_photos * 8, 8, 2, DEFAULT)
    held, kept = [], []
    for batch in pipeline:
        held.append(batch)
        kept.append(batch.on_device.tensor.clone())
    assert len(held) == 12
    assert len({batch.on_device.tensor.data_ptr() for batch in held}) == 12
    for batch, before in zip(held, kept, strict=True):
        assert torch.equal(batch.on_device.tensor, before)
        assert batch.pixels is batch.pixels, "copied to the host once"


def test_a_new_pass_ends_the_former_and_close_is_no_end(on_cpu, small_photos):
    pipeline = open_pipeline("dali_gpu", small_photos, 5, 2, DEFAULT)
    former = iter(pipeline)
    next(former)
    assert sum(len(batch.indices) for batch in pipeline) == 12
    assert list(former) == []
    passing = iter(pipeline)
    next(passing)
    pipeline.close()
    assert list(passing) == []
    assert sum(len(batch.indices) for batch in pipeline) == 12


@pytest.fixture
def graph_that_fails(monkeypatch: pytest.MonkeyPatch) -> tuple[list[bytes], list[int]]:
    """Graphs that fail on chosen files, as DALI does on damaged ones: the run raises, and the graph is dead."""
    faulty: list[bytes] = []
    chunks: list[int] = []
    monkeypatch.setattr(dali, "graph_of", failing_on(faulty, chunks, dali.graph_of))
    return faulty, chunks


@pytest.mark.parametrize("name", ["dali", "dali_gpu"])
@pytest.mark.parametrize("places", [(0, 11), (3, 4), tuple(range(12))])
def test_a_file_on_which_dali_alone_fails_is_decoded_by_the_reference(
    places, name, on_cpu, small_photos, graph_that_fails
):
    faulty, chunks = graph_that_fails
    faulty += [small_photos[place].path.read_bytes() for place in places]
    images = small_photos * 3
    pipeline = open_pipeline(name, images, 10, 2, DEFAULT)
    check_pass(pipeline, images, range(36), 10)
    assert pipeline.report.fallbacks == [image.image_id for k, image in enumerate(images) if k % 12 in places]
    assert 1 in chunks, "images decoded alone"


@pytest.mark.parametrize("text", DEVICE_FAULTS)
def test_a_fault_of_memory_or_gpu_is_no_bad_file(text, on_cpu, small_photos, monkeypatch):
    faulty = [small_photos[3].path.read_bytes()]
    monkeypatch.setattr(dali, "graph_of", failing_on(faulty, [], dali.graph_of, text))
    with pytest.raises(RuntimeError) as raised:
        list(open_pipeline("dali_gpu", small_photos, 10, 2, DEFAULT))
    assert classify(raised.value)[0].value == DEVICE_FAULTS[text]


def test_an_error_of_another_kind_is_not_taken_for_a_bad_file(small_photos, monkeypatch):
    class Broken:
        def build(self):
            pass

        def run(self):
            raise RuntimeError("no memory for threads")

    monkeypatch.setattr(dali, "graph_of", lambda *args: Broken())
    with pytest.raises(RuntimeError, match="no memory for threads"):
        list(open_pipeline("dali", small_photos, 4, 1, DEFAULT))


def test_a_failure_that_no_file_explains_is_told_of(on_cpu, small_photos, monkeypatch):
    class Once(failing_on([], [], dali.graph_of)):
        failed = False

        def run(self, *stream):
            if not Once.failed:
                Once.failed = True
                self.graph.run()
                raise RuntimeError("Critical error in pipeline")
            return super().run()

    monkeypatch.setattr(dali, "graph_of", Once)
    pipeline = open_pipeline("dali_gpu", small_photos, 10, 2, DEFAULT)
    check_pass(pipeline, small_photos, range(12), 10)
    assert (pipeline.report.fallbacks, pipeline.report.taken_apart) == ([], 1)
    assert "failed 1 times" in fallback_sentence(Case("m", "demo", "pytorch", pipeline="dali_gpu"), pipeline, 12)


def test_large_photographs_make_small_runs(on_cpu, small_photos, monkeypatch):
    n_pixels = math.prod(plain_size(small_photos[0].path.read_bytes()))
    monkeypatch.setattr(chunks, "MOST_PIXELS", 2 * n_pixels)
    runs = []
    fed = chunks.Chunk.fed
    monkeypatch.setattr(chunks.Chunk, "fed", lambda chunk: runs.append(chunk.indices) or fed(chunk))
    images = [small_photos[0]] * 5
    check_pass(open_pipeline("dali_gpu", images, 3, 1, DEFAULT), images, range(5), 3)
    assert runs == [range(2), range(2, 4), range(4, 5)]


@pytest.mark.parametrize("name", ON_GPU)
def test_the_steps_one_by_one_give_the_pass(name, on_cpu, small_photos):
    stages = open_stages(name, DEFAULT, 2)
    files = [image.path.read_bytes() for image in small_photos[:3]]
    together = stages.preprocess_all(stages.decode_all(files))
    singly = np.stack([stages.normalise(stages.crop(stages.resize(stages.decode(data)))) for data in files])
    stages.close()
    pipeline = open_pipeline(name, small_photos[:3], 3, 2, DEFAULT)
    (batch,) = list(pipeline)
    np.testing.assert_array_equal(together, batch.pixels)
    assert np.abs(singly - batch.pixels).max() <= 1.01 * LEVEL


@pytest.mark.parametrize(
    ("cuda", "sees", "words"),
    [(None, False, "CPU build.*make clean setup"), ("13.0", False, "no CUDA device.*scarlet-bench doctor")],
)
def test_without_a_gpu_the_text_says_which_half_is_missing(cuda, sees, words, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: sees)
    for opened in (
        lambda: open_pipeline("dali_gpu", [], 1, 1, DEFAULT),
        lambda: open_stages("dali_gpu_engine", DEFAULT),
    ):
        with pytest.raises(PipelineUnavailable, match=words):
            opened()


def test_without_dali_the_text_says_how_to_get_it(monkeypatch):
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(PipelineUnavailable, match=r"No module named 'nvidia\.dali'.*pip install nvidia-dali"):
        dali.DaliPipeline([], 1, 1, DEFAULT)


def test_what_dali_cannot_match_is_refused_before_a_gpu_is_looked_for():
    with pytest.raises(PipelineUnsupported, match="lanczos"):
        open_pipeline("dali_gpu", [], 1, 1, Preprocess(interpolation="lanczos"))


class Log(list):
    """What was asked of fake streams and events, in order."""


class FakeStream:
    def __init__(self, log: Log) -> None:
        self.log = log

    def wait_event(self, event: object) -> None:
        self.log.append(("waits", event))


class FakeEvent:
    def __init__(self, log: Log) -> None:
        self.log = log

    def synchronize(self) -> None:
        self.log.append(("synchronised", self))


def test_a_reader_s_stream_waits_and_its_host_does_not(monkeypatch):
    log = Log()
    stream, event, tensor = FakeStream(log), FakeEvent(log), torch.ones(1, 3, 2, 2)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, used: log.append(("used on", used)))
    pixels = DevicePixels(tensor, event)
    assert pixels.wait(stream) is tensor
    assert log == [("waits", event), ("used on", stream)]
    log.clear()
    np.testing.assert_array_equal(pixels.to_host(), np.ones((1, 3, 2, 2), np.float32))
    assert log == [("synchronised", event)], "the host waits before it copies"


def counted(n: int, first: int = 0) -> torch.Tensor:
    """Images that are told apart by their value."""
    return torch.arange(first, first + n, dtype=torch.float32).reshape(n, 1, 1, 1).expand(n, 3, 2, 2)


@pytest.mark.parametrize("spans", [(7,), (1,) * 7, (3, 4), (4, 3), (2, 5)])
def test_batches_are_filled_whatever_comes_at_a_time(spans):
    filler = Filler(3, 2, torch.device("cpu"))
    batches: list[device.DeviceBatch] = []
    for first, n in zip(itertools.accumulate((0, *spans)), spans, strict=False):
        batches += filler.add(range(first, first + n), counted(n, first))
    batches += filler.rest()
    assert list(filler.rest()) == []
    assert [batch.indices.tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    for batch in batches:
        assert batch.pixels[:, 0, 0, 0].tolist() == batch.indices.tolist()


def test_what_the_gpu_may_differ_by():
    assert tolerances_of("dali") is TOLERANCES
    for name in ON_GPU:
        allowed = tolerances_of(name)
        assert allowed["decode"].max_levels == 8.0
        assert allowed[WHOLE].max_levels == pytest.approx(10.001)
        assert {stage: allowed[stage] for stage in ("resize", "crop", "normalise")} == {
            stage: TOLERANCES[stage] for stage in ("resize", "crop", "normalise")
        }


@pytest.mark.parametrize(
    ("off", "n_values", "within"), [(8, 1, True), (9, 1, False), (4, 15, True), (4, 16, False), (3, 2000, True)]
)
def test_a_few_values_may_be_further_off_than_most(off, n_values, within):
    """Of the 150,528 values of one image a ten thousandth is 15."""
    right = np.full((224, 224, 3), 100, np.uint8)
    got = right.copy()
    got.reshape(-1)[:n_values] += off
    tally = Tally("decode", DEFAULT, tolerances_of("dali_gpu")["decode"])
    tally.add("image", right, got)
    assert tally.difference().within is within
