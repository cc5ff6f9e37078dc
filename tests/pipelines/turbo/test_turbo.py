"""What the turbo pipeline leaves out changes no pixel, and threads, memory and places are as promised."""

import importlib
import os
import sys
import threading

import numpy as np
import odd_images
import pytest
import torch
from PIL import Image as PillowImage

from pipelines import open_pipeline
from pipelines.base import PipelineUnavailable, PipelineUnsupported, Preprocess
from pipelines.imagenet.jpeg import plain_size
from pipelines.reference.pipeline import UnreadableImage, crop_offset, cut, decode, target_size

pytest.importorskip("simplejpeg")
from pipelines.turbo import image as turbo_image
from pipelines.turbo.image import CHROMA_ROWS, Scratch, TurboImage, rows_needed, shortened

DEFAULT = Preprocess()
SHAPES = [Preprocess(), Preprocess(180, 160), Preprocess(64, 64), Preprocess(40, 32), Preprocess(40, 32, "bicubic")]
SHAPES += [
    Preprocess(40, 32, crop_mode="squash"),
    Preprocess(40, 32, "bicubic", crop_mode="border"),
    Preprocess(30, 32),
]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng([height, width]).integers(0, 256, (height, width, 3), np.uint8)


def resized_by_torch(pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    size = target_size(*pixels.shape[:2], preprocess)
    planes = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)
    planes = torch.nn.functional.interpolate(planes, size=size, mode=preprocess.interpolation, antialias=True)
    return planes[0].permute(1, 2, 0).numpy()


def centre(resized: np.ndarray, preprocess: Preprocess = DEFAULT) -> np.ndarray:
    return cut(resized, *crop_offset(*resized.shape[:2], preprocess.crop), preprocess)


@pytest.mark.parametrize("preprocess", SHAPES, ids=str)
def test_resizing_only_what_the_crop_needs_changes_no_pixel(preprocess):
    """Noise, of many sizes; small differences of the sides are where a part could be taken for the whole."""
    rng = np.random.default_rng(preprocess.resize)
    near = preprocess.resize + rng.integers(-8, 30, (40, 2))
    any_size = rng.integers(preprocess.resize // 4, 3 * preprocess.resize, (20, 2))
    fixed = [(preprocess.resize, preprocess.resize), (preprocess.crop, preprocess.crop), (1, 30), (30, 1), (1, 1)]
    # The part that is read, or written, is as long as the whole.
    fixed += [(260, 253), (111, 424), (59, 69), (57, 36), (68, 36), (36, 68)]
    turbo_one, scratch = TurboImage(preprocess), Scratch()
    for height, width in [*near, *any_size, *fixed]:
        pixels = noise(height, width)
        whole = resized_by_torch(pixels, preprocess)
        rows = rows_needed(height, width, preprocess)
        cropped = turbo_one.cropped(pixels[:rows].copy(), height, scratch)
        np.testing.assert_array_equal(cropped, centre(whole, preprocess), err_msg=f"{height} x {width}")
        np.testing.assert_array_equal(turbo_one.resize(pixels), whole)


@pytest.mark.parametrize("size", [(375, 500), (500, 375), (400, 267), (272, 269), (100, 80), (512, 512), (1000, 700)])
def test_noise_is_within_two_levels_of_pillow_and_seldom_differs(size):
    """Noise meets every weight; weights of 16 bits make 2 levels in single pixels where a pass hardly shrinks."""
    pixels = noise(*size)
    height, width = target_size(*size, DEFAULT)
    picture = PillowImage.fromarray(pixels).resize((width, height), PillowImage.Resampling.BILINEAR)
    expected = centre(np.asarray(picture)).astype(int)
    found = np.abs(TurboImage(DEFAULT).cropped(pixels, size[0], Scratch()) - expected)
    assert found.max() <= (2 if size == (272, 269) else 1)
    assert found.mean() < 0.03


def test_tall_noise_is_within_one_level_where_pillow_may_begin_with_the_other_pass():
    """From Pillow 13 on, an image more than twice as tall as wide is resized along columns first."""
    pixels = noise(900, 300)
    picture = PillowImage.fromarray(pixels).resize((256, 768), PillowImage.Resampling.BILINEAR)
    found = TurboImage(DEFAULT).cropped(pixels, 900, Scratch()) - centre(np.asarray(picture)).astype(int)
    assert np.abs(found).max() <= 1
    assert abs(found.mean()) < 0.01


def test_decoded_pixels_are_pillows_to_the_bit(odd_paths):
    turbo_one = TurboImage(DEFAULT)
    checked = 0
    for path in odd_paths.values():
        data = path.read_bytes()
        if plain_size(data):
            np.testing.assert_array_equal(turbo_one.decode(data), decode(path.read_bytes()), err_msg=path.name)
            checked += 1
    assert checked > 30


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0", "4:1:1", "4:4:0", "gray", "restarts"])
def test_rows_above_the_cut_are_those_of_the_whole_file(sampling):
    picture = odd_images.photo(96, 176)
    options = {"gray": {}, "restarts": {"restart_marker_rows": 1}}.get(sampling, {"subsampling": sampling})
    if sampling == "4:4:0":
        data = odd_images.jpeg_440(96, 176)
    else:
        data = odd_images.jpeg(picture[..., 0] if sampling == "gray" else picture, **options)
    whole = decode(data)
    turbo_one = TurboImage(DEFAULT)
    for height in range(60, 176):
        cut = turbo_one._decoded(shortened(data, height), None, strict=False)
        assert cut.shape == (height, 96, 3)
        np.testing.assert_array_equal(cut[:-CHROMA_ROWS], whole[: height - CHROMA_ROWS])


def test_only_files_of_one_scan_are_cut():
    progressive = odd_images.jpeg(odd_images.photo(40, 90), progressive=True)
    assert shortened(progressive, 60) is progressive
    plain = odd_images.jpeg(odd_images.photo(40, 90))
    frame = odd_images.segment(plain, 0xC0)
    filled = plain[: frame.start] + b"\xff\xff" + plain[frame.start :]
    assert plain_size(bytes(shortened(plain, 60))) == (60, 40)
    assert plain_size(bytes(shortened(filled, 60))) == (60, 40)
    scan = plain.index(b"\xff\xda")
    several = plain[: scan + 4] + b"\x01" + plain[scan + 5 :]  # says that this scan holds one component of three
    assert shortened(several, 60) is several


def test_tall_images_are_decoded_no_further_than_the_crop(monkeypatch):
    """224 of 341 rows, around the middle: the last 59 of them, 82 of the image's 500, are not needed."""
    turbo_one, sizes = TurboImage(DEFAULT), []
    decoded = turbo_one._decoded

    def watched(data, out, strict):
        sizes.append((plain_size(bytes(data)), strict))
        return decoded(data, out, strict)

    monkeypatch.setattr(turbo_one, "_decoded", watched)
    for width, height in ((375, 500), (375, 375)):
        data = odd_images.jpeg(odd_images.photo(width, height))
        turbo_one.crop(data, (height, width), Scratch())
    assert rows_needed(500, 375, DEFAULT) == 418
    assert sizes == [((418, 375), False), ((357, 375), False)]


def test_files_that_simplejpeg_refuses_are_read_by_the_reference(small_photos, monkeypatch):
    refused = {small_photos[k].path.read_bytes() for k in (0, 4, 11)}
    make = TurboImage.crop

    def failing(self, data, size, scratch):
        if data in refused:
            raise UnreadableImage("Corrupt JPEG data")
        return make(self, data, size, scratch)

    monkeypatch.setattr(TurboImage, "crop", failing)
    pipeline = open_pipeline("turbo", small_photos, 5, 2, DEFAULT)
    batches = list(pipeline)
    assert [index for batch in batches for index in batch.indices.tolist()] == list(range(12))
    assert pipeline.report.fallbacks == [small_photos[k].image_id for k in (0, 4, 11)]
    assert pipeline.report.bad == []
    reference = next(iter(open_pipeline("reference", small_photos, 5, 1, DEFAULT)))
    np.testing.assert_array_equal(batches[0].pixels[[0, 4]], reference.pixels[[0, 4]])


def test_what_simplejpeg_finds_wrong_is_unreadable(bad_paths):
    data = bad_paths["without tables"].read_bytes()
    assert plain_size(data) == (375, 500)
    with pytest.raises(UnreadableImage, match="uantization table"):
        TurboImage(DEFAULT).crop(data, (375, 500), Scratch())


def test_another_error_ends_the_pass_and_its_threads(small_photos, monkeypatch):
    def exhausted(*args: object) -> None:
        raise MemoryError

    monkeypatch.setattr(TurboImage, "crop", exhausted)
    with pytest.raises(MemoryError):
        list(open_pipeline("turbo", small_photos, 4, 2, DEFAULT))
    assert not any(thread.name.startswith("turbo") for thread in threading.enumerate())


def test_memory_is_reused_save_for_huge_pictures(monkeypatch):
    scratch = Scratch()
    first = scratch.pixels("decoded", 30, 40)
    assert np.shares_memory(first, scratch.pixels("decoded", 20, 30))
    assert not np.shares_memory(first, scratch.pixels("resized", 20, 30))
    monkeypatch.setattr(turbo_image, "SCRATCH_BYTES_MAX", 100 * 100 * 3)
    assert not np.shares_memory(scratch.pixels("decoded", 101, 100), scratch.pixels("decoded", 101, 100))


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_the_resize_starts_no_threads_of_pytorchs_own():
    """PyTorch's OpenMP threads come with the first parallel loop of a thread, and stay."""
    sizes = [(375, 500), (1600, 2400), (256, 256), (256, 400), (400, 256), (260, 253), (1, 300), (300, 1), (2, 900)]
    turbo_one, counts = TurboImage(DEFAULT), []
    before = torch.get_num_threads()

    def work() -> None:
        counts.append(len(os.listdir("/proc/self/task")))
        for height, width in sizes:
            turbo_one.cropped(np.zeros((height, width, 3), np.uint8), height, Scratch())
        counts.append(len(os.listdir("/proc/self/task")))
        torch.ones(1_000_000).add(1)
        counts.append(len(os.listdir("/proc/self/task")))

    try:
        torch.set_num_threads(3)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert counts[0] == counts[1]
    assert counts[2] == counts[1] + 2  # so that the count can tell


@pytest.mark.parametrize("missing", ["simplejpeg", "torch"])
def test_what_is_missing_is_named_with_how_to_get_it(monkeypatch, missing):
    load = importlib.import_module

    def without(name: str) -> object:
        if name == missing:
            raise ModuleNotFoundError(f"No module named '{name}'")
        return load(name)

    monkeypatch.setattr(turbo_image.importlib, "import_module", without)
    with pytest.raises(PipelineUnavailable, match=rf"No module named '{missing}'.*pip install simplejpeg torch"):
        TurboImage(DEFAULT)


def test_without_avx2_it_is_refused(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    with pytest.raises(PipelineUnsupported, match="needs AVX2, and PyTorch finds DEFAULT"):
        TurboImage(DEFAULT)
