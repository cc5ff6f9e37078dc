"""Each pipeline's steps one at a time give what its full pass gives."""

import io

import numpy as np
import pytest
from PIL import Image as Pillow

import pipelines
from pipelines.base import PipelineUnsupported, Preprocess
from pipelines.dali import stages as dali_stages
from pipelines.imagenet.find import Image
from pipelines.reference.pipeline import UnreadableImage
from scarlet.errors import BenchError

SMALL = Preprocess(resize=40, crop=32)


def jpeg(height: int, width: int, seed: int, mode: str = "RGB") -> bytes:
    """A photograph-like file: smooth, so that JPEG does not ring."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (max(2, height // 8), max(2, width // 8), 3), np.uint8)
    image = Pillow.fromarray(coarse).resize((width, height), Pillow.Resampling.BICUBIC).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


FILES = [jpeg(75, 56, 0), jpeg(90, 120, 1), jpeg(40, 40, 2), jpeg(333, 500, 3), jpeg(64, 200, 4, "L")]


def one_by_one(stages, data: bytes) -> np.ndarray:
    return stages.normalise(stages.crop(stages.resize(stages.decode(data))))


HERE = [name for name in pipelines.REGISTRY if name not in pipelines.ON_GPU]


@pytest.mark.parametrize("name", HERE)
def test_steps_give_what_the_pass_gives(name, tmp_path):
    images = []
    for place, data in enumerate(FILES):
        path = tmp_path / f"{place}.jpg"
        path.write_bytes(data)
        images.append(Image(path.name, path, 0))
    pipeline = pipelines.open_pipeline(name, images, 2, 2, SMALL)
    full = np.concatenate([batch.pixels for batch in pipeline])
    pipeline.close()
    stages = pipelines.open_stages(name, SMALL, threads=2)
    decoded = stages.decode_all(FILES)
    together = stages.preprocess_all(decoded)
    singly = np.stack([one_by_one(stages, data) for data in FILES])
    stages.close()
    np.testing.assert_array_equal(together, full)
    # A region's edges are fractions of pixels: resizing the whole and cropping may round a tie the other way.
    levels = np.abs(singly - full) * 255 * np.asarray(SMALL.std, np.float32).reshape(3, 1, 1)
    assert levels.max() <= 1.01
    assert (levels > 0.5).mean() < 0.01
    assert [pixels.shape for pixels in decoded] == [(75, 56, 3), (90, 120, 3), (40, 40, 3), (333, 500, 3), (64, 200, 3)]


@pytest.mark.parametrize("name", HERE)
def test_sizes_of_the_steps(name):
    stages = pipelines.open_stages(name, SMALL)
    pixels = stages.decode(FILES[0])
    resized = stages.resize(pixels)
    assert (pixels.shape, resized.shape) == ((75, 56, 3), (53, 40, 3))
    np.testing.assert_array_equal(stages.crop(resized), resized[10:42, 4:36])  # 10.5 goes to the even number
    stages.close()


def test_a_file_on_which_dali_fails_is_the_references_and_the_next_one_is_not(monkeypatch):
    stages = pipelines.open_stages("dali", SMALL)
    expected = stages.decode(FILES[0])
    monkeypatch.setattr(dali_stages, "plain_size", lambda data: (1, 1))  # as if the look at the markers had failed
    with pytest.raises(PipelineUnsupported):
        stages.decode(b"no image at all")
    np.testing.assert_array_equal(stages.decode(FILES[0]), expected)
    stages.close()


@pytest.mark.parametrize("name", ["dali", "turbo"])
def test_what_is_left_to_the_reference_is_refused(name):
    buffer = io.BytesIO()
    Pillow.new("RGB", (50, 50)).save(buffer, "PNG")
    with pytest.raises(PipelineUnsupported, match="no plain JPEG"):
        pipelines.open_stages(name, SMALL).decode(buffer.getvalue())
    assert pipelines.open_stages("reference", SMALL).decode(buffer.getvalue()).shape == (50, 50, 3)


def test_the_reference_says_why_bytes_cannot_be_read():
    stages = pipelines.open_stages("reference", SMALL)
    for data, reason in ((b"", "the file is empty"), (b"no image", "not a JPEG or PNG")):
        with pytest.raises(UnreadableImage, match=reason):
            stages.decode(data)


def test_unknown_names_are_refused():
    with pytest.raises(BenchError, match="unknown pipeline"):
        pipelines.open_stages("dalli", SMALL)
