"""Calibration sets and ranges: the same whatever the batches, and in bounded memory."""

import numpy as np
import pytest
from precision_graphs import images, saved, small

from export.precision import calibration
from export.precision.calibration import CalibrationSet, chunks, load_ranges, save_ranges, tensor_ranges
from scarlet.errors import BenchError


def test_a_digest_is_of_the_pixels_not_of_their_batches():
    pixels = images(6)
    whole, parts = CalibrationSet.of([pixels]), CalibrationSet.of([pixels[:1], pixels[1:4], pixels[4:]])
    assert (whole.sha256, whole.n_images) == (parts.sha256, 6)
    assert CalibrationSet.of([pixels[::-1]]).sha256 != whole.sha256
    assert CalibrationSet.of([pixels.reshape(6, 3, 8, 32)]).sha256 != whole.sha256
    with pytest.raises(BenchError, match="no images"):
        CalibrationSet.of([])
    with pytest.raises(ValueError, match="not a generator"):
        CalibrationSet.of(iter([pixels]))


def test_chunks_hold_every_image_once():
    pixels = images(7)
    for size, expected in ((2, [2, 2, 2, 1]), (7, [7]), (10, [7])):
        found = list(chunks([pixels[:3], pixels[3:]], size))
        assert [len(chunk) for chunk in found] == expected
        assert np.array_equal(np.concatenate(found), pixels)
    assert [len(chunk) for chunk in chunks([pixels], 4, whole=True)] == [4]


def test_minimum_and_maximum_are_those_of_all_images(tmp_path):
    path, pixels = saved(tmp_path, small()), images(20)
    pixels[0, 0, 0, 0] = 9.5  # the extremes lie in different chunks
    pixels[19, 0, 0, 0] = -7.25
    ranges = tensor_ranges(path, [pixels[:15], pixels[15:]], "minmax")
    assert ranges["input"] == (-7.25, 9.5)
    assert {"first", "active", "second", "sum", "mean", "flat", "logits"} <= set(ranges)
    assert not list(tmp_path.glob("*inferred*"))


def test_a_percentile_cuts_outliers_off(tmp_path):
    pixels = images(8)
    pixels[3, 0, 0, 0] = 50.0
    low, high = tensor_ranges(saved(tmp_path, small()), [pixels], "percentile", percentile=99.0)["input"]
    assert -8 < low < -2
    assert 2 < high < 8


def test_entropy_cuts_outliers_off_in_a_bounded_number_of_bins(tmp_path, monkeypatch):
    from onnxruntime.quantization.calibrate import HistogramCollector

    bins = []
    original = HistogramCollector.get_entropy_threshold

    def spied(self, histogram, levels):
        bins.append((len(histogram[0]), int(histogram[0].sum())))
        return original(self, histogram, levels)

    monkeypatch.setattr(HistogramCollector, "get_entropy_threshold", spied)
    monkeypatch.setattr(calibration, "ENTROPY_BINS", 192)
    pixels = images(8)
    pixels[7, 0, 0, 0] = 50.0  # after the first images have fixed the width of the bins
    low, high = tensor_ranges(saved(tmp_path, small()), [pixels], "entropy")["input"]
    assert low > -8
    assert high < 49.5
    assert {count for count, _ in bins} == {192}
    assert (192, pixels.size) in bins  # merging lost none


def test_a_graph_of_fixed_batch_gets_whole_batches(tmp_path, monkeypatch):
    path, pixels = saved(tmp_path, small(batch=4)), images(6)
    pixels[5, 0, 0, 0] = 9.5  # in the part that fills no batch
    assert tensor_ranges(path, [pixels], "minmax", fixed_batch=4)["input"][1] < 9
    with pytest.raises(BenchError, match="do not fill one batch of 4"):
        tensor_ranges(path, [pixels[:3]], "minmax", fixed_batch=4)


@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_no_more_than_a_chunk_of_outputs_is_held(tmp_path, monkeypatch, method):
    from onnxruntime.quantization.calibrate import HistogramCalibrater, MinMaxCalibrater

    held = []
    for kind in (HistogramCalibrater, MinMaxCalibrater):
        original = kind.collect_data

        def spied(self, reader, original=original):
            held.append(len(self.intermediate_outputs))
            original(self, reader)
            held.append(len(self.intermediate_outputs))

        monkeypatch.setattr(kind, "collect_data", spied)
    tensor_ranges(saved(tmp_path, small()), [images(1)] * 20, method)
    assert len(held) == 2 * -(-20 // calibration.CHUNK[method])
    assert set(held) == {0}


def test_nothing_is_printed(tmp_path, capfd):
    tensor_ranges(saved(tmp_path, small()), [images(2)], "percentile")
    assert capfd.readouterr().out == ""


def test_ranges_come_back_to_the_bit(tmp_path):
    values = np.array([0.1, 1 / 3, 1e-30, 3.4e38], np.float32)
    ranges = {f"t{place}": (float(-value), float(value)) for place, value in enumerate(values)}
    save_ranges(tmp_path / "r.json", dict(reversed(ranges.items())))
    read = load_ranges(tmp_path / "r.json")
    assert read == ranges
    assert np.array([high for _, high in read.values()], np.float32).tobytes() == values.tobytes()
