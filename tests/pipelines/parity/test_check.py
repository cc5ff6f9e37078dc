"""A planted fault is blamed on its stage, and on no other; what is right passes."""

import json
from pathlib import Path

import numpy as np
import odd_images
import planted_faults
import pytest

import pipelines
from pipelines.base import STAGES, Preprocess
from pipelines.imagenet.find import Image
from pipelines.parity.check import check, swapped
from pipelines.parity.differences import WHOLE
from pipelines.parity.probes import write_probes

SMALL = Preprocess(resize=48, crop=40)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Image]:
    """Five photographs of the usual shape, on which few faults show: no EXIF, and crops that begin on a pixel."""
    folder = tmp_path_factory.mktemp("images")
    made = []
    for k in range(5):
        path = folder / f"{k}.JPEG"
        path.write_bytes(odd_images.jpeg(odd_images.photo(96, 72, seed=k)))
        made.append(Image(path.name, path, k))
    return made


@pytest.mark.parametrize("pipeline", ["turbo", "dali"])
def test_a_damaged_image_that_the_reference_reads_is_left_to_it_and_no_fault(images, tmp_path, pipeline):
    if pipeline == "dali":
        pytest.importorskip("nvidia.dali")
    data = odd_images.jpeg(odd_images.photo(96, 72, seed=9))
    (tmp_path / "cut.JPEG").write_bytes(data[: len(data) * 2 // 3] + b"\xff\xd9")
    report = check([*images, Image("cut", tmp_path / "cut.JPEG", 0)], pipeline, SMALL)
    assert report.within, report.finding
    assert (report.images.n_images, report.images.n_bad) == (6, 0)
    assert report.images.n_fallbacks == (pipeline == "turbo"), "simplejpeg decodes strictly, DALI does not"


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        *[(name, "decode") for name in ("Bgr", "ExifApplied", "Brighter")],
        *[(name, "resize") for name in ("Bicubic", "RoundedSize", "Square", "CutOff")],
        *[(name, "crop") for name in ("FlooredCrop", "CeiledCrop", "SmallCrop")],
        *[(name, "normalise") for name in ("MeanOnly", "ChannelsLast")],
    ],
)
def test_a_planted_fault_is_blamed_on_its_stage_alone(monkeypatch, images, name, stage) -> None:
    planted = planted_faults.plant(monkeypatch, name)
    found = check(images, planted, SMALL)
    assert found.blame == stage
    assert not found.within
    assert f"the pipeline {planted} differs from the reference where it {stage[:5]}" in found.finding
    assert not found.images.agrees(WHOLE) or not found.probes.agrees(WHOLE)
    for other in STAGES:
        assert found.images.agrees(other) or other == stage
        assert found.probes.agrees(other) or other == stage
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_crop_that_only_probes_betray_is_said_to_be_so(monkeypatch, images) -> None:
    found = check(images, planted_faults.plant(monkeypatch, "FlooredCrop"), SMALL)
    assert found.images.agrees("crop")
    assert not found.probes.agrees("crop")
    assert "images made for this check" in found.finding


@pytest.mark.parametrize("name", ["reference", "dali"])
def test_a_pipeline_that_is_right_passes(images, name) -> None:
    if name == "dali":
        pytest.importorskip("nvidia.dali")
    found = check(images, name, SMALL, threads=2)
    assert found.within, found.finding
    assert (found.blame, found.finding) == ("", "")
    assert [part.stage for part in found.images.stages] == list(STAGES)
    assert found.images.of("decode").max_level_diff == 0
    assert found.images.of(WHOLE).n_images == found.images.n_images == 5
    assert found.probes.n_images == 7


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("LostLast", "1 image did not come out: 4.JPEG"),
        ("Repeats", "1 image came out more than once: 1.JPEG"),
        ("Shuffles", "2 images came out with the pixels of another: 0.JPEG (1.JPEG), 1.JPEG (0.JPEG)"),
        ("Darkens", "5 of 5 images differ by more than 2 grey levels, by up to 5.8"),
    ],
)
def test_a_fault_between_the_stages_is_told_from_one_in_them(monkeypatch, images, name, words) -> None:
    found = check(images, planted_faults.plant(monkeypatch, name), SMALL)
    assert found.blame == WHOLE
    assert words in found.finding
    assert "one by one" in found.finding
    assert all(found.images.agrees(stage) for stage in STAGES)


def test_figures_are_in_grey_levels_whatever_the_stage(monkeypatch, images) -> None:
    found = check(images, planted_faults.plant(monkeypatch, "MeanOnly"), SMALL)
    part = found.images.of("normalise")
    # (0.45 - mean) of 255 levels, for each channel; std undone.
    moved = [255 * abs(0.45 - mean) for mean in SMALL.mean]
    assert part.max_level_diff == pytest.approx(max(moved), abs=1e-3)
    assert part.mean_level_diff == pytest.approx(np.mean(moved), abs=1e-3)
    assert (part.share_of_pixels_differing, part.n_outside, part.n_images) == (1.0, 5, 5)
    assert part.worst_image_id in {image.image_id for image in images}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("SmallCrop", "it gives 32 x 32 x 3, not 40 x 40 x 3"),
        ("Square", "it gives 48 x 48 x 3, not 48 x 64 x 3"),
        ("NotFinite", "it gives values that are not finite"),
        ("DoublePrecision", "it gives float64, not float32"),
        ("Refusing", "it cannot read what the reference can: one channel only (probe gray)"),
    ],
)
def test_what_cannot_be_compared_is_outside_with_a_text(monkeypatch, images, name, words) -> None:
    found = check(images, planted_faults.plant(monkeypatch, name), SMALL)
    assert not found.within
    assert words in found.finding
    assert "nan" not in found.finding
    json.dumps(found.to_dict(), allow_nan=False)


def test_images_handed_to_the_reference_are_counted_and_left_out(monkeypatch, images, tmp_path) -> None:
    bad = tmp_path / "bad.JPEG"
    bad.write_bytes(b"no image")
    gray = tmp_path / "gray.JPEG"
    gray.write_bytes(odd_images.jpeg(odd_images.photo(96, 72)[:, :, 0]))
    more = [*images, Image("bad", bad, 0), Image("gray", gray, 0), Image("missing", tmp_path / "none", 0)]
    found = check(more[:7], planted_faults.plant(monkeypatch, "HandsOver"), SMALL)
    assert found.within, found.finding
    assert (found.images.n_images, found.images.n_bad, found.images.n_fallbacks) == (6, 1, 1)
    assert found.images.of("decode").n_images == 5
    assert check(more, "reference", SMALL).images.n_bad == 2


def test_no_images_leave_the_probes(images) -> None:
    found = check([], "reference", SMALL)
    assert found.within
    assert found.images.of("crop").max_level_diff is None
    assert found.images.of(WHOLE).max_level_diff is None


@pytest.mark.parametrize("preprocess", [Preprocess(), SMALL, Preprocess(resize=235), Preprocess(resize=240, crop=240)])
def test_probes_hold_a_crop_that_rounds_up_and_one_that_rounds_down(tmp_path: Path, preprocess) -> None:
    from pipelines.reference.pipeline import decode, resize_size

    probes = {probe.image_id: decode(probe.path.read_bytes()) for probe in write_probes(tmp_path, preprocess)}

    def margin(name: str) -> int:
        return resize_size(*probes[f"probe {name}"].shape[:2], preprocess.resize)[1] - preprocess.crop

    assert margin("offset_down") % 4 == 1
    assert margin("offset_up") % 4 == 3
    assert {pixels.shape[0] < pixels.shape[1] for pixels in probes.values()} == {True, False}
    height, width, _ = probes["probe truncated"].shape
    assert round(preprocess.resize * width / height) == resize_size(height, width, preprocess.resize)[1] + 1


def test_only_the_faulty_stage_changes_the_result(monkeypatch, images) -> None:
    reference = pipelines.open_pipeline("reference", images, 8, 1, SMALL)
    (batch,) = list(reference)
    found = list(swapped(images, planted_faults.plant(monkeypatch, "Bicubic"), SMALL))
    assert [item.index for item in found] == [0, 1, 2, 3, 4]
    for item, planes in zip(found, batch.pixels, strict=True):
        np.testing.assert_array_equal(item.reference, planes)
        assert all(item.by_stage[stage] is item.reference for stage in ("decode", "crop", "normalise"))
        assert np.abs(item.by_stage["resize"] - planes).max() > 0.05


def test_a_stage_of_the_ablation_is_followed_by_the_references(monkeypatch, images) -> None:
    (item, *_) = swapped(images, planted_faults.plant(monkeypatch, "Bgr"), SMALL)
    stages = pipelines.open_stages("reference", SMALL)
    pixels = stages.decode(images[0].path.read_bytes())[:, :, ::-1]
    expected = stages.normalise(stages.crop(stages.resize(np.ascontiguousarray(pixels))))
    np.testing.assert_array_equal(item.by_stage["decode"], expected)


def test_what_does_not_fit_the_network_is_none_and_what_is_handed_over_is_unchanged(monkeypatch, tmp_path) -> None:
    path = tmp_path / "gray.JPEG"
    path.write_bytes(odd_images.jpeg(odd_images.photo(96, 72)[:, :, 0]))
    gray = [Image("gray", path, 0)]
    (small,) = swapped(gray, planted_faults.plant(monkeypatch, "SmallCrop"), SMALL)
    assert small.by_stage["crop"] is None
    assert small.by_stage["resize"] is small.reference
    (refused,) = swapped(gray, planted_faults.plant(monkeypatch, "Refusing"), SMALL)
    assert refused.by_stage["decode"] is None
    (handed,) = swapped(gray, planted_faults.plant(monkeypatch, "HandsOver"), SMALL)
    assert all(planes is handed.reference for planes in handed.by_stage.values())
