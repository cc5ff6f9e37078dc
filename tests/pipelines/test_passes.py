"""What every pipeline promises about its passes, for all: the same batches, each image once, none lost."""

import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from pipelines import ON_GPU, names, open_pipeline
from pipelines.base import Batch, Passes, Pipeline, Preprocess, UnreadableImage
from pipelines.imagenet.find import IMAGE_BYTES_MAX, Image
from pipelines.reference.pipeline import normalise, reference_pixels

DEFAULT = Preprocess()
BAD_REASONS = 12
NEEDS = {"dali": "nvidia.dali", "turbo": "simplejpeg"}


# Those on a GPU: tests/pipelines/dali/test_gpu.py, and tests/gpu.
@pytest.fixture(params=[name for name in names() if name not in ON_GPU])
def name(request: pytest.FixtureRequest) -> str:
    if request.param in NEEDS:
        pytest.importorskip(NEEDS[request.param])
    return str(request.param)


def listed(paths: Sequence[Path]) -> list[Image]:
    return [Image(f"{k:03d} {path.name}", path, 0) for k, path in enumerate(paths)]


def indices(batches: Sequence[Batch]) -> list[int]:
    return [index for batch in batches for index in batch.indices.tolist()]


def check_pass(pipeline: Pipeline, images: Sequence[Image], good: Sequence[int], batch: int) -> list[Batch]:
    batches = list(pipeline)
    assert indices(batches) == list(good)
    sizes = [len(made.indices) for made in batches]
    assert all(size == batch for size in sizes[:-1])
    for made in batches:
        assert made.indices.dtype == np.int64
        assert made.pixels.dtype == np.float32
        assert made.pixels.shape == (len(made.indices), 3, 224, 224)
        assert made.pixels.flags.c_contiguous
        assert made.pixels.flags.owndata
        for index, planes in zip(made.indices, made.pixels, strict=True):
            expected = normalise(reference_pixels(images[index].path, DEFAULT), DEFAULT)
            assert np.abs(planes - expected).max() * 255 * max(DEFAULT.std) <= 1.2
    bad = [index for index in range(len(images)) if index not in set(good)]
    assert [found.image_id for found in pipeline.report.bad] == [images[index].image_id for index in bad]
    assert all(found.reason for found in pipeline.report.bad)
    return batches


@pytest.mark.parametrize("batch", [1, 4, 5, 12, 64])
def test_each_image_exactly_once_in_order(name, small_photos, batch):
    check_pass(open_pipeline(name, small_photos, batch, 2, DEFAULT), small_photos, range(12), batch)


def test_more_images_than_one_run_of_the_graph(name, small_photos):
    images = small_photos * 5
    check_pass(open_pipeline(name, images, 7, 1, DEFAULT), images, range(60), 7)


def test_two_passes_are_equal_and_their_batches_are_the_receivers_own(name, small_photos):
    pipeline = open_pipeline(name, small_photos, 5, 2, DEFAULT)
    first = list(pipeline)
    kept = [batch.pixels.copy() for batch in first]
    second = list(pipeline)
    for batch, again, before in zip(first, second, kept, strict=True):
        assert np.array_equal(batch.indices, again.indices)
        assert np.array_equal(batch.pixels, again.pixels)
        assert np.array_equal(batch.pixels, before)
        assert not np.shares_memory(batch.pixels, again.pixels)


def test_a_new_pass_starts_at_the_beginning_and_ends_the_former(name, small_photos):
    pipeline = open_pipeline(name, small_photos, 2, 2, DEFAULT)
    former = iter(pipeline)
    next(former)
    assert indices(list(pipeline)) == list(range(12))
    assert list(former) == []


def test_close_ends_a_pass_and_is_no_end_of_the_pipeline(name, small_photos):
    pipeline = open_pipeline(name, small_photos, 2, 1, DEFAULT)
    passing = iter(pipeline)
    next(passing)
    pipeline.close()
    pipeline.close()
    assert list(passing) == []
    assert indices(list(pipeline)) == list(range(12))


def test_no_images_no_batches(name):
    pipeline = open_pipeline(name, [], 4, 1, DEFAULT)
    assert list(pipeline) == []
    assert pipeline.report.bad == []


@pytest.mark.parametrize("places", [(0,), (5,), (11,), (4, 5, 6), (0, 1, 2, 3), (8, 9, 10, 11), (0, 6, 11)])
@pytest.mark.parametrize("fault", ["truncated", "without tables"])
def test_bad_files_leave_no_gap(name, small_photos, bad_paths, places, fault):
    paths = [bad_paths[fault] if k in places else image.path for k, image in enumerate(small_photos)]
    images = listed(paths)
    check_pass(open_pipeline(name, images, 4, 1, DEFAULT), images, [k for k in range(12) if k not in places], 4)


@pytest.mark.parametrize("batch", [1, 5, 32])
def test_only_bad_files_end_without_a_batch(name, bad_paths, batch):
    images = listed(list(bad_paths.values()) * 2)
    pipeline = open_pipeline(name, images, batch, 2, DEFAULT)
    check_pass(pipeline, images, [], batch)
    assert len(pipeline.report.bad) == 2 * BAD_REASONS


def test_special_files_are_bad_and_nobody_waits_for_them(name, small_photos, tmp_path):
    fifo, zero, loop, huge = (tmp_path / f"{kind}.JPEG" for kind in ("fifo", "zero", "loop", "huge"))
    os.mkfifo(fifo)
    zero.symlink_to("/dev/zero")
    loop.symlink_to(loop)
    with huge.open("wb") as file:
        file.truncate(IMAGE_BYTES_MAX + 1)
    images = listed([small_photos[0].path, fifo, zero, loop, huge, small_photos[1].path])
    pipeline = open_pipeline(name, images, 2, 1, DEFAULT)
    check_pass(pipeline, images, [0, 5], 2)


def test_other_formats_are_bad_and_no_other_program_is_started(name, small_photos, tmp_path):
    (tmp_path / "eps.JPEG").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    PillowImage.new("RGB", (9, 9)).save(tmp_path / "gif.JPEG", "GIF")
    images = listed([small_photos[0].path, tmp_path / "eps.JPEG", tmp_path / "gif.JPEG"])
    pipeline = open_pipeline(name, images, 2, 1, DEFAULT)
    check_pass(pipeline, images, [0], 2)
    assert {bad.reason for bad in pipeline.report.bad} == {"not a JPEG or PNG"}


def test_an_image_of_more_pixels_than_memory_is_planned_for_is_bad(name, tmp_path, monkeypatch):
    PillowImage.new("RGB", (300, 200)).save(tmp_path / "x.JPEG")
    monkeypatch.setattr("pipelines.reference.pipeline.PIXELS_MAX", 300 * 200 - 1)
    images = listed([tmp_path / "x.JPEG"])
    pipeline = open_pipeline(name, images, 2, 1, DEFAULT)
    check_pass(pipeline, images, [], 2)
    assert "pixels" in pipeline.report.bad[0].reason


def test_a_bad_file_is_listed_once_a_pass(name, small_photos, bad_paths):
    images = listed([small_photos[0].path, bad_paths["text"], small_photos[1].path])
    pipeline = open_pipeline(name, images, 2, 1, DEFAULT)
    list(pipeline)
    first = pipeline.report
    list(pipeline)
    assert [found.reason for found in first.bad] == ["not a JPEG or PNG"]
    assert pipeline.report is not first
    assert pipeline.report.bad == first.bad


def test_other_crops_and_statistics(name, small_photos):
    preprocess = Preprocess(resize=180, crop=160, mean=(0.5, 0.4, 0.3), std=(0.5, 0.25, 0.2))
    (batch,) = open_pipeline(name, small_photos[:3], 8, 1, preprocess)
    assert batch.pixels.shape == (3, 3, 160, 160)
    expected = normalise(reference_pixels(small_photos[2].path, preprocess), preprocess)
    levels = np.abs(batch.pixels[2] - expected) * 255 * np.reshape(preprocess.std, (3, 1, 1))
    assert levels.max() <= 2.01
    assert levels.mean() < 0.02


def numbered(n: int) -> list[Image]:
    return [Image(f"{k:02d}", Path(f"{k:02d}"), 0) for k in range(n)]


class Numbered(Passes):
    """Images that are their number, but for those whose label is 1: these are bad."""

    name = "numbered"

    def _make(self, image: Image, planes: np.ndarray) -> bool:
        if image.label:
            raise UnreadableImage("bad")
        planes[...] = int(image.image_id)
        return False


@pytest.mark.parametrize("bad", [(), (0,), (5,), (0, 1, 2, 3, 4), (3, 4, 9), (2, 7, 8, 15, 16, 22), tuple(range(23))])
@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("batch", [1, 4, 23, 50])
def test_rows_stay_with_their_images_whatever_is_bad(batch, threads, bad):
    images = [replace(image, label=int(k in bad)) for k, image in enumerate(numbered(23))]
    pipeline = Numbered(images, batch, threads, Preprocess(2, 2))
    batches = list(pipeline)
    good = [index for index in range(23) if index not in bad]
    assert [made.indices.tolist() for made in batches] == [
        good[first : first + batch] for first in range(0, len(good), batch)
    ]
    assert [each.image_id for each in pipeline.report.bad] == [f"{k:02d}" for k in bad]
    for made in batches:
        assert made.pixels.flags.owndata
        assert made.pixels[:, 0, 0, 0].tolist() == made.indices.tolist()


def test_without_bad_images_nothing_is_copied(monkeypatch):
    rows: list[np.ndarray] = []
    make = Numbered._make
    monkeypatch.setattr(Numbered, "_make", lambda self, image, planes: rows.append(planes) or make(self, image, planes))
    batches = list(Numbered(numbered(10), 4, 1, Preprocess(2, 2)))
    assert all(np.shares_memory(row, batches[k // 4].pixels) for k, row in enumerate(rows))


def test_work_is_done_on_the_threads_asked_for_and_a_batch_ahead(monkeypatch):
    seen: set[str] = set()
    both = threading.Barrier(2, timeout=20)
    done = threading.Semaphore(0)

    def make(self, image, planes):
        if len(seen) < 2 and threading.current_thread().name not in seen:
            seen.add(threading.current_thread().name)
            both.wait()  # passes only if two threads are at work at once
        done.release()
        return False

    monkeypatch.setattr(Numbered, "_make", make)
    pipeline = Numbered(numbered(40), 4, 2, Preprocess(2, 2))
    next(iter(pipeline))
    # The first batch is out; of the 4 + 2 * 2 images ahead one place refills with each image taken.
    for _ in range(4 + 8 - 1):
        assert done.acquire(timeout=20)
    assert len(seen) == 2
    pipeline.close()
    assert not any(thread.name in seen for thread in threading.enumerate())
