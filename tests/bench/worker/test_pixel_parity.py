"""How many predictions each stage of a pipeline changes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from bench_fakes import make_graph

import pipelines
from bench.backends.base import ModelFiles, Unavailable
from bench.worker.pixel_parity import Request, answer, count_flips, predictor
from pipelines.base import Batch, PipelineReport, PipelineUnavailable, Preprocess
from pipelines.imagenet.find import Image, find_images
from pipelines.reference.pipeline import ReferenceStages

SMALL = Preprocess(resize=40, crop=32)


class FlippedCrop(ReferenceStages):
    """Swaps red and blue of every image whose mean is above the middle, in the crop."""

    def crop(self, pixels):
        cropped = super().crop(pixels)
        return np.ascontiguousarray(cropped[:, :, ::-1]) if cropped[:, :, 0].mean() > 127 else cropped


class SmallCrop(ReferenceStages):
    def crop(self, pixels):
        return super().crop(pixels)[1:-1, 1:-1]


class FlippedPath:
    stages = FlippedCrop

    def __init__(self, images, batch, threads, preprocess) -> None:
        self.images, self.batch, self.report = images, batch, PipelineReport()
        self.own = self.stages(preprocess)

    def __iter__(self):
        for first in range(0, len(self.images), self.batch):
            files = [image.path.read_bytes() for image in self.images[first : first + self.batch]]
            made = [self.own.normalise(self.own.crop(self.own.resize(self.own.decode(data)))) for data in files]
            yield Batch(np.arange(first, first + len(made)), np.stack(made))

    def close(self) -> None:
        self.own.close()


class SmallPath(FlippedPath):
    stages = SmallCrop


class AbsentPath:
    def __init__(self, images, batch, threads, preprocess) -> None:
        raise PipelineUnavailable("it is not installed here")


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, whole, stages in (
        ("flipped", "FlippedPath", "FlippedCrop"),
        ("small", "SmallPath", "SmallCrop"),
        ("absent", "AbsentPath", "FlippedCrop"),
    ):
        monkeypatch.setitem(pipelines.REGISTRY, name, f"{__name__}:{whole}")
        monkeypatch.setitem(pipelines.STAGE_REGISTRY, name, f"{__name__}:{stages}")


@pytest.fixture
def images(image_folder: Path) -> list[Image]:
    return list(find_images(image_folder).images)


class RedOrBlue:
    """Class 0 where an image is redder than blue, else class 1; counts what it is given."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        assert (pixels.dtype, pixels.shape[1:], pixels.flags["C_CONTIGUOUS"]) == (np.float32, (3, 32, 32), True)
        self.batches.append(len(pixels))
        means = (pixels * np.array(SMALL.std)[:, None, None] + np.array(SMALL.mean)[:, None, None]).mean((2, 3))
        return np.stack([means[:, 0], means[:, 2]], axis=1).astype(np.float32)


def test_flips_are_counted_for_each_stage_and_the_whole_path(images) -> None:
    predict = RedOrBlue()
    found = count_flips(images, "flipped", SMALL, predict, batch=3)
    stages = ReferenceStages(SMALL)
    cropped = [stages.crop(stages.resize(stages.decode(image.path.read_bytes()))) for image in images]
    swapped = sum(pixels[:, :, 0].mean() > 127 for pixels in cropped)
    assert 0 < swapped < len(images), "the images of this test must not be all alike"
    expected = {"decode": 0, "resize": 0, "crop": swapped, "normalise": 0, "whole path": swapped}
    assert found == {"n_images": len(images), "by_stage": expected}
    touched = sum(any(pixels[:, :, 0].mean() > 127 for pixels in cropped[k : k + 3]) for k in (0, 3, 6))
    assert len(predict.batches) == 3 + touched + 3, "equal batches are not predicted twice"


def test_what_does_not_fit_the_network_has_no_count(images) -> None:
    found = count_flips(images, "small", SMALL, RedOrBlue(), batch=16)
    assert found["by_stage"] == {"decode": 0, "resize": 0, "crop": None, "normalise": 0, "whole path": None}


def test_the_reference_flips_nothing(images) -> None:
    assert set(count_flips(images, "reference", SMALL, RedOrBlue())["by_stage"].values()) == {0}


def files_of(path: Path, **more: object) -> dict[str, object]:
    return {
        "model": "onnx:tiny.onnx",
        "weights": "user",
        "weights_sha256": "0",
        "onnx": str(path),
        "onnx_sha256": "0",
        "classes": 10,
        "preprocess": {"resize": 40, "crop": 32},
        **more,
    }


@pytest.fixture
def graph(tmp_path: Path) -> Callable[[str | int], Path]:
    def saved(batch: str | int) -> Path:
        path = tmp_path / f"{batch}.onnx"
        onnx.save(make_graph(batch, classes=10, size=32), path)
        return path

    return saved


def test_a_graph_of_fixed_batch_gives_the_logits_of_one_that_takes_any(graph) -> None:
    pixels = np.random.default_rng(0).standard_normal((7, 3, 32, 32)).astype(np.float32)
    with predictor(ModelFiles(**files_of(graph("batch"))), 1) as (name, predict):  # type: ignore[arg-type]
        expected = predict(pixels)
    assert name == "onnxruntime"
    assert expected.shape == (7, 10)
    with predictor(ModelFiles(**files_of(graph(3), fixed_batch=3)), 1) as (_, predict):  # type: ignore[arg-type]
        np.testing.assert_allclose(predict(pixels), expected, rtol=1e-5)


def test_without_any_backend_there_is_no_prediction(monkeypatch, graph) -> None:
    monkeypatch.setattr("bench.worker.pixel_parity.default_names", lambda: ("pytorch",))  # a graph is no PyTorch module
    with pytest.raises(Unavailable), predictor(ModelFiles(**files_of(graph("batch"))), 1):  # type: ignore[arg-type]
        raise AssertionError("it must not come so far")


def test_an_answer_holds_the_report_and_where_asked_the_flips(image_folder, images, graph) -> None:
    request = Request(
        pipeline="flipped",
        data=str(image_folder),
        images=[(image.image_id, image.label) for image in images],
        preprocess={"resize": 40, "crop": 32, "mean": [0.5, 0.5, 0.5]},
    )
    alone = answer(request)
    assert alone["flips"] is None
    assert alone["report"]["blame"] == "crop"
    assert alone["report"]["images"]["n_images"] == 8
    both = answer(Request(**{**request.__dict__, "files": ModelFiles(**files_of(graph("batch")))}))
    assert both["report"] == alone["report"]
    assert both["flips"]["backend"] == "onnxruntime"
    assert both["flips"]["n_images"] == 8
    assert set(both["flips"]["by_stage"]) == {"decode", "resize", "crop", "normalise", "whole path"}


def test_a_pipeline_that_is_not_there_says_so(image_folder) -> None:
    with pytest.raises(PipelineUnavailable, match="not installed here"):
        answer(Request("absent", str(image_folder), []))
