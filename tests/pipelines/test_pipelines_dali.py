"""DALI against the reference, on every oddity, and past every kind of damage."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import odd_images
import pytest

from pipelines import open_pipeline, parity
from pipelines.base import PipelineUnavailable, PipelineUnsupported, Preprocess
from pipelines.imagenet import Image
from pipelines.jpeg import plain_size

pytest.importorskip("nvidia.dali")
from pipelines import dali

DEFAULT = Preprocess()


def listed(paths: dict[str, Path]) -> list[Image]:
    return [Image(name, path, 0) for name, path in sorted(paths.items())]


def left_to_the_reference(name: str) -> bool:
    return name.startswith(("cmyk", "png"))


def test_every_oddity_is_within_one_grey_level_save_ties(odd_paths):
    """A value half-way between two levels may be rounded otherwise, in each of the two passes: then it is 2."""
    images = listed(odd_paths)
    found = parity.compare(images, "reference", "dali", 8, 2, DEFAULT)
    assert found.n_images == len(images)
    assert found.unmatched == ()
    assert {name for name, most in found.max_by_image.items() if most > 1} <= {"size 224x224"}
    assert found.max_level_diff <= 2
    assert {
        name for name, most in found.max_by_image.items() if left_to_the_reference(name) and most
    } == set()
    assert found.mean_level_diff < 0.01


def test_what_dali_would_decode_otherwise_is_left_to_the_reference_and_listed(odd_paths):
    images = listed(odd_paths)
    pipeline = open_pipeline("dali", images, 8, 2, DEFAULT)
    assert sum(len(batch.indices) for batch in pipeline) == len(images)
    assert pipeline.report.fallbacks == [name for name in sorted(odd_paths) if left_to_the_reference(name)]
    assert pipeline.report.bad == []


def test_both_pipelines_agree_on_what_is_bad_and_form_the_same_batches(odd_paths, bad_paths):
    mixed = listed({**odd_paths, **bad_paths})
    one, other = (open_pipeline(name, mixed, 6, 2, DEFAULT) for name in ("reference", "dali"))
    batches = [[batch.indices.tolist() for batch in pipeline] for pipeline in (one, other)]
    assert batches[0] == batches[1]
    assert one.report.bad == other.report.bad
    assert {bad.image_id for bad in one.report.bad} == set(bad_paths)
    assert one.report.fallbacks == []


def test_damage_that_decoders_agree_on_is_decoded_alike(tmp_path):
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
    found = parity.compare(images, "reference", "dali", 16, 2, DEFAULT)
    assert found.unmatched == ()
    assert found.n_images > 45
    assert found.max_level_diff <= 1


@pytest.fixture
def dali_that_fails(monkeypatch):
    """DALI, failing on chosen files as it does on damaged ones: the run raises and the pipeline is dead."""
    faulty: list[bytes] = []
    built: list[int] = []
    build = dali.build_graph

    class Graph:
        def __init__(self, source, *args):
            self.failing: list[bool] = []
            built.append(args[0])
            self.graph = build(self.watched(source), *args)

        def watched(self, source):
            def watching():
                fed = source()
                self.failing.append(any(data.tobytes() in faulty for data in fed.images))
                return fed

            return watching

        def run(self):
            out = self.graph.run()
            if self.failing.pop(0):
                self.failing.insert(0, True)  # dead for good
                raise RuntimeError("Critical error in pipeline")
            return out

    monkeypatch.setattr(dali, "build_graph", Graph)
    return faulty, built


@pytest.mark.parametrize("places", [(0,), (11,), (3, 4), (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)])
def test_a_file_on_which_dali_alone_fails_is_decoded_by_the_reference(small_photos, dali_that_fails, places):
    faulty, built = dali_that_fails
    images = small_photos * 3
    faulty += [small_photos[k].path.read_bytes() for k in places]
    pipeline = open_pipeline("dali", images, 5, 1, DEFAULT)
    batches = list(pipeline)
    assert [index for batch in batches for index in batch.indices.tolist()] == list(range(36))
    assert pipeline.report.bad == []
    expected = [image.image_id for k, image in enumerate(images) if k % 12 in places]
    assert pipeline.report.fallbacks == expected
    assert 1 in built  # images decoded alone
    others = [batch.pixels for batch in open_pipeline("reference", images, 5, 1, DEFAULT)]
    for batch, other in zip(batches, others, strict=True):
        assert np.abs(batch.pixels - other).max() < 0.02  # one grey level


def test_an_error_of_another_kind_is_not_taken_for_a_bad_file(small_photos, monkeypatch):
    class Broken:
        def run(self):
            raise RuntimeError("no memory for threads")

    monkeypatch.setattr(dali, "build_graph", lambda *args: Broken())
    with pytest.raises(RuntimeError, match="no memory for threads"):
        list(open_pipeline("dali", small_photos, 4, 1, DEFAULT))


def test_without_dali_the_text_says_how_to_get_it(monkeypatch):
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(PipelineUnavailable, match=r"No module named 'nvidia\.dali'.*pip install nvidia-dali"):
        dali.DaliPipeline([], 1, 1, DEFAULT)


def test_what_it_cannot_match_is_refused():
    with pytest.raises(PipelineUnsupported, match="bicubic filter"):
        open_pipeline("dali", [], 1, 1, Preprocess(interpolation="bicubic"))
    with pytest.raises(PipelineUnsupported, match="needs padding"):
        open_pipeline("dali", [], 1, 1, Preprocess(resize=200))


def test_only_whole_ordinary_jpegs_are_plain(odd_paths, bad_paths):
    plain = {name for name, path in odd_paths.items() if plain_size(path.read_bytes())}
    assert plain == {name for name in odd_paths if not left_to_the_reference(name)}
    for name, path in bad_paths.items():
        assert not path.exists() or plain_size(path.read_bytes()) is None or name == "without tables"


def test_the_size_comes_from_the_frame_header(odd_paths):
    assert plain_size(odd_paths["size 2400x1600"].read_bytes()) == (1600, 2400)
    assert plain_size(odd_paths["thumbnail and trailing bytes"].read_bytes()) == (375, 500)
    assert plain_size(odd_paths["exif 6"].read_bytes()) == (375, 500)


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (1, 0xC3),  # lossless
        (1, 0xC9),  # arithmetic coding
        (4, 12),  # bits a sample
        (6, 0),  # height, which a later marker would give
        (9, 2),  # components
    ],
)
def test_frames_that_decoders_treat_differently_are_not_plain(offset, value):
    data = bytearray(odd_images.jpeg(odd_images.photo(40, 30)))
    frame = odd_images.segment(data, 0xC0).start
    assert plain_size(bytes(data)) == (30, 40)
    data[frame + offset] = value
    assert plain_size(bytes(data)) is None


def test_fill_bytes_are_skipped_and_damaged_headers_are_not_plain():
    data = odd_images.jpeg(odd_images.photo(40, 30))
    frame = odd_images.segment(data, 0xC0)
    assert plain_size(data[: frame.start] + b"\xff\xff" + data[frame.start :]) == (30, 40)
    assert plain_size(data[: frame.start] + b"junk" + data[frame.start :]) is None
    assert plain_size(data[: frame.start] + data[frame] + data[frame.start :]) is None  # two frames
    assert plain_size(data[: frame.start] + data[frame.stop :]) is None  # none
    assert (
        plain_size(data[: frame.start] + b"\xff\xd0\x00\x02" + data[frame.start :]) is None
    )  # stray restart
    assert (
        plain_size(data[: frame.start] + b"\xff\xfe\x00\x01" + data[frame.start :]) is None
    )  # impossible length


def test_memory_does_not_grow_with_the_number_of_images(small_photos):
    """At most the runs in DALI's queue, one more, and a batch are held, however long the list is."""
    read: list[int] = []

    class Watched(list):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    pipeline = open_pipeline("dali", Watched(small_photos * 50), 4, 1, DEFAULT)
    passing = iter(pipeline)
    next(passing)
    assert max(read) < 8 * 5
    pipeline.close()
