"""The right pixels, checked against torchvision's documented arithmetic written out, and the reference's passes."""

import numpy as np
import odd_images
import pytest
from PIL import Image as PillowImage

from pipelines import names, open_pipeline
from pipelines.base import Preprocess
from pipelines.reference.pipeline import (
    ReferencePipeline,
    UnreadableImage,
    crop_offset,
    cut,
    decode,
    normalise,
    reference_pixels,
    resize_size,
)
from scarlet.errors import BenchError

DEFAULT = Preprocess()


@pytest.mark.parametrize(
    ("height", "width", "short", "expected"),
    [
        (375, 500, 256, (256, 341)),  # 341.33
        (500, 375, 256, (341, 256)),
        (333, 500, 256, (256, 384)),  # 384.38
        (334, 500, 256, (256, 383)),  # 383.23
        (300, 257, 256, (298, 256)),  # 298.83: rounding would give 299
        (56, 75, 256, (256, 342)),  # 342.86: rounding would give 343
        (8, 1000, 256, (256, 32000)),
        (1, 1, 256, (256, 256)),
        (256, 256, 256, (256, 256)),
    ],
)
def test_resize_truncates_the_long_side(height, width, short, expected):
    assert resize_size(height, width, short) == expected


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (256, 341, (16, 58)),  # 58.5 goes to the even 58
        (256, 343, (16, 60)),  # 59.5 goes to the even 60
        (256, 342, (16, 59)),
        (298, 256, (37, 16)),
        (224, 225, (0, 0)),  # 0.5 goes to 0
        (224, 227, (0, 2)),  # 1.5 goes to 2
        (200, 221, (-12, -1)),  # padding of (224 - side) // 2 before the image
    ],
)
def test_crop_offset_rounds_half_to_even(height, width, expected):
    assert crop_offset(height, width, 224) == expected


def test_crop_pads_with_black_where_the_image_is_smaller():
    image = np.full((230, 221, 3), (9, 8, 7), np.uint8)
    cropped = cut(image, *crop_offset(230, 221, 224), DEFAULT)
    assert cropped.shape == (224, 224, 3)
    assert (cropped[:, :1] == 0).all()
    assert (cropped[:, 1:222] == (9, 8, 7)).all()
    assert (cropped[:, 222:] == 0).all()


def test_pixels_are_those_of_pillows_resize_and_a_crop(odd_paths):
    image = PillowImage.open(odd_paths["size 501x333"])
    resized = np.asarray(image.resize((385, 256), PillowImage.Resampling.BILINEAR))
    assert np.array_equal(reference_pixels(odd_paths["size 501x333"], DEFAULT), resized[16:240, 80:304])
    resized = np.asarray(image.resize((300, 200), PillowImage.Resampling.BICUBIC))
    small = Preprocess(resize=200, crop=160, interpolation="bicubic")
    assert np.array_equal(reference_pixels(odd_paths["size 501x333"], small), resized[20:180, 70:230])


@pytest.mark.parametrize("orientation", [0, 3, 6, 8])
def test_exif_orientation_is_ignored(odd_paths, orientation):
    plain = reference_pixels(odd_paths["size 500x375"], DEFAULT)
    assert np.array_equal(reference_pixels(odd_paths[f"exif {orientation}"], DEFAULT), plain)


def test_profiles_are_ignored(odd_paths):
    assert np.array_equal(
        decode(odd_paths["adobe rgb profile"].read_bytes()), decode(odd_paths["size 500x375"].read_bytes())
    )
    assert np.array_equal(decode(odd_paths["gray with profile"].read_bytes()), decode(odd_paths["gray"].read_bytes()))


def test_gray_becomes_three_equal_channels_and_alpha_is_dropped(odd_paths):
    gray = decode(odd_paths["gray"].read_bytes())
    assert gray.shape == (375, 500, 3)
    assert (gray == gray[..., :1]).all()
    assert np.array_equal(decode(odd_paths["png alpha"].read_bytes()), odd_images.photo(300, 280, 4)[..., :3])


def test_adobe_cmyk_is_read_as_inverted(odd_paths):
    ink = PillowImage.frombytes("CMYK", (500, 375), odd_images.photo(500, 375, 4).tobytes())
    expected = np.asarray(ink.convert("RGB")).astype(int)
    assert np.abs(decode(odd_paths["cmyk adobe"].read_bytes()) - expected).mean() < 8  # the JPEG's own loss


def test_the_odd_images_are_what_they_say(odd_paths):
    def sampling(name: str) -> tuple[int, int]:
        with PillowImage.open(odd_paths[name]) as image:
            return image.layer[0][1:3]  # type: ignore[attr-defined]

    assert sampling("sampling 422") == (2, 1)
    assert sampling("sampling 420") == (2, 2)
    assert sampling("sampling 440") == (1, 2)
    picture = odd_images.photo(496, 368).astype(int)
    assert np.abs(decode(odd_paths["sampling 440"].read_bytes()) - picture).mean() < 10
    with PillowImage.open(odd_paths["png palette"]) as image:
        assert (image.format, image.mode) == ("PNG", "P")
    with PillowImage.open(odd_paths["cmyk ycck"]) as image:
        assert (image.mode, image.info["adobe_transform"]) == ("CMYK", 2)


def test_normalise_is_bit_equal_to_the_formula_and_to_a_table():
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    unit = pixels.astype(np.float32) / np.float32(255)
    mean, std = np.float32(DEFAULT.mean), np.float32(DEFAULT.std)
    expected = ((unit - mean) / std).transpose(2, 0, 1)
    planes = normalise(pixels, DEFAULT)
    assert planes.dtype == np.float32
    assert planes.flags.c_contiguous
    assert np.array_equal(planes, expected)
    table = ((np.arange(256, dtype=np.float32) / np.float32(255))[:, None] - mean) / std
    assert np.array_equal(planes[1], table[pixels[..., 1], 1])
    out = np.empty((3, 16, 16), np.float32)
    assert normalise(pixels, DEFAULT, out) is out
    assert np.array_equal(out, expected)


def test_normalise_is_bit_equal_to_torchs():
    torch = pytest.importorskip("torch")
    pixels = odd_images.photo(64, 48)
    unit = torch.from_numpy(pixels).permute(2, 0, 1).contiguous().to(torch.float32).div(255)
    mean, std = torch.tensor(DEFAULT.mean).view(3, 1, 1), torch.tensor(DEFAULT.std).view(3, 1, 1)
    assert np.array_equal(normalise(pixels, DEFAULT), unit.sub(mean).div(std).numpy())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("truncated", "image file is truncated"),
        ("without its last marker", "image file is truncated"),
        ("without tables", "broken data stream"),
        ("a foreign marker in the middle", "broken data stream"),
        ("empty", "the file is empty"),
        ("text", "not a JPEG or PNG"),
        ("missing", "no such file or directory"),
    ],
)
def test_unreadable_files_have_a_reason(bad_paths, name, reason):
    with pytest.raises(UnreadableImage) as caught:
        reference_pixels(bad_paths[name], DEFAULT)
    assert str(caught.value).startswith(reason)
    assert str(bad_paths[name].parent) not in str(caught.value)


def test_a_lack_of_memory_is_not_the_files_fault(odd_paths, monkeypatch):
    def exhausted(*args: object) -> None:
        raise MemoryError

    monkeypatch.setattr(PillowImage.Image, "convert", exhausted)
    with pytest.raises(MemoryError):
        decode(odd_paths["gray"].read_bytes())


def test_an_error_without_text_still_has_a_reason(odd_paths, monkeypatch):
    def fail(*args: object) -> None:
        raise KeyError

    monkeypatch.setattr(PillowImage.Image, "convert", fail)
    with pytest.raises(UnreadableImage, match=r"^KeyError$"):
        decode(odd_paths["gray"].read_bytes())


def test_an_image_too_thin_to_resize_is_unreadable(tmp_path):
    path = tmp_path / "thin.png"
    PillowImage.new("L", (60000, 1)).save(path)
    with pytest.raises(UnreadableImage, match="too thin to resize \\(60000 x 1 pixels\\)"):
        reference_pixels(path, DEFAULT)


def test_unknown_interpolation_and_counts_below_one_are_refused():
    with pytest.raises(BenchError, match="unknown interpolation 'bilinaer'"):
        ReferencePipeline([], 1, 1, Preprocess(interpolation="bilinaer"))
    for batch, threads in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            ReferencePipeline([], batch, threads, DEFAULT)


def test_pipelines_open_by_name():
    assert names() == ("reference", "dali", "turbo", "dali_gpu", "dali_gpu_engine")
    with pytest.raises(BenchError, match="unknown pipeline 'referense'\nDid you mean reference"):
        open_pipeline("referense", [], 1, 1, DEFAULT)
