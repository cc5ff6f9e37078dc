"""The fast pipelines against the reference, on every oddity, and past every kind of damage."""

import itertools
import re
from contextlib import closing
from pathlib import Path

import numpy as np
import odd_images
import pytest

from pipelines import open_pipeline, refusal
from pipelines.base import PipelineUnsupported, Preprocess
from pipelines.imagenet.find import Image
from pipelines.parity.check import compare
from pipelines.parity.differences import WHOLE, level_differences

DEFAULT = Preprocess()
NEEDS = {"dali": "nvidia.dali", "turbo": "simplejpeg"}

# Where a value lies half-way between two levels, in each of the two passes, rounding otherwise twice makes 2 levels.
BORDERS = (Preprocess(240, 224, "bicubic", crop_mode="border"), Preprocess(200))
TWO_LEVELS = {"dali": {"size 224x224"}, "turbo": set()}


@pytest.fixture(params=NEEDS)
def name(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(NEEDS[request.param])
    return str(request.param)


def listed(paths: dict[str, Path]) -> list[Image]:
    return [Image(name, path, 0) for name, path in sorted(paths.items())]


def came_out(name: str, images: list[Image]) -> list[int]:
    with closing(open_pipeline(name, images, 16, 2, DEFAULT)) as pipeline:
        return [index for batch in pipeline for index in batch.indices.tolist()]


def left_to_the_reference(image_id: str) -> bool:
    return image_id.startswith(("cmyk", "png"))


def test_every_oddity_is_within_one_grey_level_save_ties(name, odd_paths):
    images = listed(odd_paths)
    pipelines = [open_pipeline(each, images, 8, 2, DEFAULT) for each in ("reference", name)]
    apart = {}
    for right, got in zip(*pipelines, strict=True):
        assert right.indices.tolist() == got.indices.tolist()
        for index, *pair in zip(right.indices, right.pixels, got.pixels, strict=True):
            apart[images[index].image_id] = level_differences(WHOLE, *pair, DEFAULT)
    assert len(apart) == len(images)
    most = {image_id: levels.max() for image_id, levels in apart.items()}
    assert {image_id for image_id in most if most[image_id] > 1} <= TWO_LEVELS[name]
    assert max(most.values()) <= 2
    assert not any(most[image_id] for image_id in most if left_to_the_reference(image_id))
    assert np.mean([levels.mean() for levels in apart.values()]) < 0.01


def test_what_it_would_decode_otherwise_is_left_to_the_reference_and_listed(name, odd_paths):
    images = listed(odd_paths)
    pipeline = open_pipeline(name, images, 8, 2, DEFAULT)
    assert sum(len(batch.indices) for batch in pipeline) == len(images)
    assert pipeline.report.fallbacks == [image_id for image_id in sorted(odd_paths) if left_to_the_reference(image_id)]
    assert pipeline.report.bad == []


def test_it_agrees_on_what_is_bad_and_forms_the_same_batches(name, odd_paths, bad_paths):
    mixed = listed({**odd_paths, **bad_paths})
    one, other = (open_pipeline(each, mixed, 6, 2, DEFAULT) for each in ("reference", name))
    batches = [[made.indices.tolist() for made in pipeline] for pipeline in (one, other)]
    assert batches[0] == batches[1]
    assert one.report.bad == other.report.bad
    assert {bad.image_id for bad in one.report.bad} == set(bad_paths)
    assert one.report.fallbacks == []


def test_damage_that_decoders_agree_on_is_decoded_alike(name, tmp_path):
    """Damaged bytes at random places: neither a different verdict nor different pixels."""
    rng = np.random.default_rng(0)
    sources = [
        odd_images.jpeg(odd_images.photo(120, 90)),
        odd_images.jpeg(odd_images.photo(90, 120), progressive=True),
        odd_images.jpeg(odd_images.photo(120, 90)[..., 0]),
    ]
    images = []
    for k in range(90):
        data = bytearray(sources[k % 3])
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(2, len(data))] = rng.integers(0, 256)
        path = tmp_path / f"{k:02d}.JPEG"
        path.write_bytes(data)
        images.append(Image(path.name, path, 0))
    found = compare(images, name, DEFAULT, 2).whole
    assert came_out(name, images) == came_out("reference", images)
    assert found.n_images > 45
    assert found.max_level_diff <= 1


def test_what_it_cannot_match_is_refused(name):
    for preprocess in (Preprocess(interpolation="lanczos"), Preprocess(resize=200), Preprocess(crop_mode="border")):
        reason = refusal(name, preprocess)
        assert bool(reason) == (name == "dali" or preprocess.interpolation == "lanczos")
        if reason:
            with pytest.raises(PipelineUnsupported, match=re.escape(reason)):
                open_pipeline(name, [], 1, 1, preprocess)


OTHERS = (Preprocess(235, 224, "bicubic"), Preprocess(249, crop_mode="squash", channels="bgr"))


@pytest.mark.parametrize(
    ("name", "preprocess"),
    [*itertools.product(NEEDS, OTHERS), *(("turbo", border) for border in BORDERS)],
    indirect=["name"],
    ids=str,
)
def test_other_filters_and_crops_are_matched_too(name, preprocess, odd_paths):
    paths = {each: path for each, path in odd_paths.items() if not left_to_the_reference(each)}
    found = compare(listed(paths), name, preprocess, 2).whole
    assert found.n_images == len(paths)
    assert found.within
    assert found.mean_level_diff < 0.02


def test_memory_does_not_grow_with_the_number_of_images(name, small_photos):
    """At most the images in the making and a batch are held, however long the list is."""
    read: list[int] = []

    class Watched(list):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

        def __iter__(self):
            return (self[index] for index in range(len(self)))

    pipeline = open_pipeline(name, Watched(small_photos * 50), 4, 1, DEFAULT)
    passing = iter(pipeline)
    next(passing)
    assert max(read) < 8 * 5
    pipeline.close()
