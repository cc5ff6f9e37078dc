"""Decoding on a real GPU: pixels within the tolerance, every image once, batches that stay as they are."""

import numpy as np
import pytest
import torch
from gpu_here import needs_gpu

from bench.backends import make_backend
from bench.record.case import Case
from bench.worker.tasks.overlap import Overlap
from pipelines import ON_GPU, open_pipeline
from pipelines.base import Preprocess
from pipelines.imagenet.find import Image
from pipelines.parity.check import check
from pipelines.parity.differences import WHOLE, tolerances_of

pytestmark = needs_gpu
pytest.importorskip("nvidia.dali")

DEFAULT = Preprocess()


def test_the_pixels_are_the_reference_s_within_the_tolerance(demo_images):
    report = check(demo_images, "dali_gpu", DEFAULT, threads=4)
    for stage in report.images.stages:
        print(stage.stage, stage.max_level_diff, stage.mean_level_diff, stage.share_of_pixels_differing)
    print(WHOLE, report.images.whole.max_level_diff, report.images.whole.mean_level_diff)
    assert report.within, report.finding


def test_the_engine_s_pixels_are_judged_by_the_same_tolerance(demo_images):
    """Whether the engine interpolates chroma is not documented: this says what it does, and fails where it does not."""
    report = check(demo_images, "dali_gpu_engine", DEFAULT, threads=4)
    assert report.within, report.finding


@pytest.mark.parametrize("name", ON_GPU)
@pytest.mark.parametrize("batch", [1, 7, 64, 100])
def test_each_image_comes_once_in_order_and_twice_the_same(name, batch, demo_images):
    images = demo_images * 3  # more than one run of the graph
    pipeline = open_pipeline(name, images, batch, 4, DEFAULT)
    first, second = list(pipeline), list(pipeline)
    pipeline.close()
    for made in (first, second):
        assert [index for one in made for index in one.indices.tolist()] == list(range(len(images)))
    for one, again in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.pixels, again.pixels)


@pytest.mark.parametrize("name", ON_GPU)
def test_odd_and_bad_files_are_left_to_the_reference(name, demo_images, tmp_path):
    (tmp_path / "text.JPEG").write_text("no image")
    cut = demo_images[0].path.read_bytes()
    (tmp_path / "cut.JPEG").write_bytes(cut[: len(cut) // 2])
    bad = [Image(path.name, path, 0) for path in sorted(tmp_path.iterdir())]
    images = [*demo_images[:5], bad[0], *demo_images[5:9], bad[1], *demo_images[9:12]]
    pipeline = open_pipeline(name, images, 4, 2, DEFAULT)
    batches = list(pipeline)
    assert [index for one in batches for index in one.indices.tolist()] == [
        index for index in range(len(images)) if index not in (5, 10)
    ]
    assert [found.image_id for found in pipeline.report.bad] == ["cut.JPEG", "text.JPEG"]
    reference = open_pipeline("reference", images, 4, 2, DEFAULT)
    levels = tolerances_of(name)[WHOLE].max_levels
    for one, other in zip(batches, reference, strict=True):
        assert np.abs(one.pixels - other.pixels).max() * 255 * max(DEFAULT.std) <= levels


def test_batches_that_are_held_stay_as_they_are(demo_images):
    pipeline = open_pipeline("dali_gpu", demo_images * 4, 16, 4, DEFAULT)
    held = []
    for batch in pipeline:
        assert batch.on_device is not None
        held.append((batch, batch.on_device.wait(torch.cuda.current_stream()).sum().item()))
    for batch, total in held:
        assert batch.on_device.wait(torch.cuda.current_stream()).sum().item() == total
        assert batch.on_device.tensor.is_cuda
        assert float(batch.pixels.astype(np.float64).sum()) == pytest.approx(total, rel=1e-3, abs=1.0)
    pointers = {batch.on_device.tensor.data_ptr() for batch, _ in held}
    assert len(pointers) == len(held)


def test_a_reader_on_another_stream_waits_for_the_pixels(demo_images):
    pipeline = open_pipeline("dali_gpu", demo_images, 16, 4, DEFAULT)
    for batch in pipeline:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            copied = batch.on_device.wait(stream).clone()
        stream.synchronize()
        np.testing.assert_array_equal(copied.cpu().numpy(), batch.pixels)


def test_a_pass_hands_over_without_the_host(demo_images, scarlet, monkeypatch):
    from pipelines.device import DevicePixels

    def forbidden(self: DevicePixels) -> None:
        raise AssertionError("the pixels were copied to the host")

    case = Case("scarlet_c", "demo", "pytorch", device="cuda", pipeline="dali_gpu", batch=16)
    backend = make_backend("pytorch")
    backend.load(case, scarlet)
    overlap = Overlap(backend, device="cuda")
    pipeline = open_pipeline("dali_gpu", demo_images, 16, 4, DEFAULT)
    by_host = np.concatenate([backend.infer(batch.pixels) for batch in pipeline])
    monkeypatch.setattr(DevicePixels, "to_host", forbidden)
    by_device = np.concatenate([logits for _, logits in overlap.whole_pass(pipeline)])
    overlap.close()
    backend.close()
    np.testing.assert_allclose(by_device, by_host, rtol=1e-4, atol=1e-4)
