"""What may be stated of a model's preprocessing, where, and what it makes of the model's own."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from scarlet import zoo
from scarlet.errors import BenchError, ModelUnavailable
from scarlet.preprocess import Preprocess, applied, checked, described, stated

LITE0 = Preprocess(256, 224, "bicubic", (127 / 255,) * 3, (128 / 255,) * 3)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ({"mean": "127", "std": 128, "interpolation": "Bicubic"}, LITE0),
        ({"mean": "127/255", "std": [128 / 255] * 3, "interpolation": "bicubic"}, LITE0),
        ({"std": "1/255", "mean": 0, "channels": "BGR"}, Preprocess(mean=(0,) * 3, std=(1 / 255,) * 3, channels="bgr")),
        ({"mean": "123.675, 116.28, 103.53"}, Preprocess(mean=(0.485, 0.456, 0.406))),
        ({"input-size": "288"}, Preprocess(329, 288)),
        ({"crop": 288, "resize": 300}, Preprocess(300, 288)),
        ({"crop_pct": 0.95}, Preprocess(235, 224)),
        ({"crop_pct": "1", "crop_mode": "squash", "mean": None}, Preprocess(224, 224, crop_mode="squash")),
        ({}, Preprocess()),
    ],
    ids=str,
)
def test_what_is_stated_is_taken_and_the_rest_is_the_models(statement: dict, expected: Preprocess) -> None:
    made = applied(Preprocess(), checked(statement))
    assert made.crop == expected.crop
    assert made.differences(expected).keys() <= {"mean", "std"}
    assert (made.mean, made.std) == (pytest.approx(expected.mean), pytest.approx(expected.std))
    differences = made.differences(Preprocess())
    assert applied(Preprocess(), checked(differences)) == made, "a run keeps them and reads them again"
    assert bool(described(differences)) == bool(differences)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ({"mean": "1,2"}, "mean is '1,2'"),
        ({"std": 0}, "std is 0"),
        ({"mean": 300}, "mean"),
        ({"crop": 0}, "crop is 0"),
        ({"crop_pct": 3}, "crop_pct is 3"),
        ({"interpolation": "cubic"}, "bicubic"),
        ({"chanels": "bgr"}, "channels"),
        ({"crop_pct": 0.9, "resize": 256}, "both given"),
        ({"input_size": "tests"}, "input_size is 'tests'"),
    ],
    ids=str,
)
def test_mistakes_are_told(statement: dict, words: str) -> None:
    with pytest.raises(BenchError) as caught:
        checked(statement)
    assert words in f"{caught.value.what} {caught.value.do}"


def test_a_file_beside_the_model_and_its_metadata_state_it(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    assert stated(path, "") == ({}, "")
    path.with_suffix(".preprocess.yaml").write_text("mean: 127\nstd: 128\ninterpolation: bicubic\n")
    embedded = json.dumps(asdict(LITE0))
    assert applied(Preprocess(), stated(path, "[1]")[0]) == LITE0
    assert applied(Preprocess(), stated(tmp_path / "other.onnx", embedded)[0]) == LITE0
    path.with_suffix(".preprocess.yaml").write_text("means: 127")
    for name, wrong in (("net", ""), ("other", "[1]"), ("other", "{"), ("other", '{"mean": []}')):
        with pytest.raises(BenchError, match=name):
            stated(tmp_path / f"{name}.onnx", wrong)


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("timm/resnet50d", "", Preprocess(256, 224, "bicubic")),
        ("timm/resnet50d", "192", Preprocess(219, 192, "bicubic")),
    ],
)
def test_timms_configurations_are_read_whole(name: str, size: str, expected: Preprocess) -> None:
    try:
        spec = zoo.complete(zoo.resolve(name))
    except ModelUnavailable:
        pytest.skip("timm is not here")
    assert zoo.fed(spec, checked({"input_size": size})).preprocess == expected
