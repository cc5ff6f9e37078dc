"""Measures the demo weights and writes the figures into scarlet/demo/card.json and MODEL_CARD.md.

    python docs/experiments/demo_card.py --data data/demo-card

Top-1 and top-5 on 2,000 validation images with PyTorch and ONNX Runtime fed by all pipelines, and on how many
images they agree; what ONNX Runtime's default static quantisation loses; and what five planted preprocessing
faults change. ``--weights FILE --out FILE`` measures another file (a retrained one) and leaves the card alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from PIL import Image
from safetensors.torch import load
from torch import nn

import pipelines
from bench.analysis.stats.paired import exact_mcnemar, paired_bound
from export.onnx import export_onnx
from pipelines.base import Preprocess
from pipelines.demo.make import QUICK_IMAGES, make_demo, print_progress
from pipelines.imagenet.find import Image as LabelledImage
from pipelines.imagenet.find import find_images
from pipelines.reference.pipeline import crop_offset, cut, decode, normalise, resize_size
from scarlet import demo
from scarlet.networks import fold_batchnorm, scarlet

CALIBRATION_IMAGES = 200
BATCH = 32
THREADS = len(os.sched_getaffinity(0))
PREPROCESS = Preprocess()
BEGIN, END = "<!-- measured: written by docs/experiments/demo_card.py -->", "<!-- end of measured -->"

Batches = Iterable[NDArray[np.float32]]
Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]


# --- planted faults ---------------------------------------------------------------------------------------


def _resized(path: Path, width_height: tuple[int, int] | None, how: Image.Resampling) -> NDArray[np.uint8]:
    image = Image.fromarray(decode(path.read_bytes()))
    height, width = resize_size(image.height, image.width, PREPROCESS.resize)
    return _cropped(np.array(image.resize(width_height or (width, height), how)))


def _cropped(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return cut(pixels, *crop_offset(*pixels.shape[:2], PREPROCESS.crop), PREPROCESS)


def reference(path: Path) -> NDArray[np.uint8]:
    """The right pixels, uint8 ``(224, 224, 3)``."""
    return _resized(path, None, Image.Resampling.BILINEAR)


def bgr(path: Path) -> NDArray[np.uint8]:
    """Red and blue changed over, as OpenCV decodes."""
    return reference(path)[:, :, ::-1]


def no_antialias(path: Path) -> NDArray[np.uint8]:
    """Bilinear from the four nearest pixels whatever the scale, as a tensor's interpolate does by default."""
    pixels = torch.from_numpy(decode(path.read_bytes())).permute(2, 0, 1)[None].float()
    size = resize_size(pixels.shape[2], pixels.shape[3], PREPROCESS.resize)
    resized = torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=False)
    array = resized[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()
    return _cropped(array)


def nearest(path: Path) -> NDArray[np.uint8]:
    """Resized by repeating or leaving out pixels."""
    return _resized(path, None, Image.Resampling.NEAREST)


def squash(path: Path) -> NDArray[np.uint8]:
    """The whole picture forced into 224 x 224, aspect lost, nothing cut off."""
    return _resized(path, (PREPROCESS.crop, PREPROCESS.crop), Image.Resampling.BILINEAR)


def bicubic(path: Path) -> NDArray[np.uint8]:
    """The wrong filter, otherwise right."""
    return _resized(path, None, Image.Resampling.BICUBIC)


FAULTS: dict[str, Callable[[Path], NDArray[np.uint8]]] = {
    "BGR": bgr,
    "no antialias": no_antialias,
    "nearest": nearest,
    "squash to 224": squash,
    "bicubic": bicubic,
}


# --- predictions ------------------------------------------------------------------------------------------


def batches(images: list[LabelledImage], read: Callable[[Path], NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
    """The images, in order, read by ``read`` and normalised."""
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(images), BATCH):
            pixels = pool.map(lambda image: read(image.path), images[start : start + BATCH])
            yield np.stack([normalise(one, PREPROCESS) for one in pixels])


def pipeline_batches(name: str, images: list[LabelledImage]) -> Iterator[NDArray[np.float32]]:
    """The images, in order, through one of the project's pipelines; all must be readable."""
    pipeline = pipelines.open_pipeline(name, images, BATCH, THREADS, PREPROCESS)
    expected = 0
    for batch in pipeline:
        if batch.indices.tolist() != list(range(expected, expected + len(batch.indices))):
            raise RuntimeError(f"{name} lost or reordered images: {pipeline.report.bad}")
        expected += len(batch.indices)
        yield batch.pixels
    pipeline.close()


def top5(predict: Predict, source: Batches) -> NDArray[np.int64]:
    """Five best classes of each image, best first, ``(n, 5)``."""
    found = []
    for pixels in source:
        logits = predict(pixels)
        found.append(np.argsort(-logits, axis=1, kind="stable")[:, :5])
    return np.concatenate(found)


def accuracy(predicted: NDArray[np.int64], labels: NDArray[np.int64]) -> dict[str, float]:
    """Top-1 and top-5 in percent."""
    hits = predicted == labels[:, None]
    return {"top1_percent": round(100 * hits[:, 0].mean(), 3), "top5_percent": round(100 * hits.any(1).mean(), 3)}


def torch_predictor(network: nn.Module) -> Predict:
    """Eager PyTorch, BatchNorm folded, channels_last."""
    folded = fold_batchnorm(network).module
    folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def predict(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            batch = torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last)
            return np.asarray(folded(batch).numpy(), np.float32)

    return predict


def onnx_predictor(path: Path) -> Predict:
    """ONNX Runtime's CPU provider."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: np.asarray(session.run(None, {name: pixels})[0], np.float32)


class Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Calibration images one by one, as quantize_static asks for them."""

    def __init__(self, name: str, source: Batches) -> None:
        self._feeds = ({name: image[None]} for batch in source for image in batch)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._feeds, None)


def quantise(fp32: Path, int8: Path, images: list[LabelledImage]) -> None:
    """``quantize_static`` with every setting at its default."""
    name = onnxruntime.InferenceSession(str(fp32), providers=["CPUExecutionProvider"]).get_inputs()[0].name
    quantize_static(str(fp32), str(int8), Calibration(name, batches(images, reference)))


def paired(
    before: NDArray[np.int64], after: NDArray[np.int64], labels: NDArray[np.int64]
) -> dict[str, float | int | list[float]]:
    """How ``after`` differs from ``before`` on the same images: changed predictions, top-1, McNemar."""
    was, now = before[:, 0] == labels, after[:, 0] == labels
    losses, wins = int((was & ~now).sum()), int((now & ~was).sum())
    difference, low, high = paired_bound(wins, losses, len(labels), 0.025)
    return {
        **accuracy(after, labels),
        "changed_predictions": int((before[:, 0] != after[:, 0]).sum()),
        "lost": losses,
        "won": wins,
        "difference_points": round(100 * difference, 3),
        "difference_interval_points": [round(100 * low, 3), round(100 * high, 3)],
        "mcnemar_p": exact_mcnemar(wins, losses),
    }


# --- the measurement --------------------------------------------------------------------------------------


def measure(state: dict[str, torch.Tensor], model: str, data: Path, only_accuracy: bool) -> dict[str, Any]:
    """The card's figures; with ``only_accuracy``, those of ONNX Runtime and the reference pipeline alone."""
    val = make_demo(data / "val", 2000, "val", on_progress=print_progress)
    images = list(find_images(data / "val").images)
    labels = np.array([image.label for image in images])
    with tempfile.TemporaryDirectory() as folder:
        fp32, int8 = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        network = scarlet(model)
        network.load_state_dict(state, strict=True)
        export_onnx(network.eval(), fp32, 224, {"model": model, "weights": "demo"})
        ort = onnx_predictor(fp32)
        predictors = (
            {"onnxruntime": ort} if only_accuracy else {"onnxruntime": ort, "pytorch": torch_predictor(network)}
        )
        rows = {}
        for pipeline in ("reference",) if only_accuracy else ("reference", "dali", "turbo"):
            for backend, predict in predictors.items():
                started = time.monotonic()
                name = f"{backend}, {pipeline}"
                rows[name] = top5(predict, pipeline_batches(pipeline, images))
                print(f"{name}: {accuracy(rows[name], labels)}, {time.monotonic() - started:.0f} s", flush=True)
        right = rows["onnxruntime, reference"]
        figures: dict[str, Any] = {
            "images": len(images),
            "fingerprint": val.fingerprint,
            "accuracy": {name: accuracy(row, labels) for name, row in rows.items()},
            "quick_subset": {"images": QUICK_IMAGES, **accuracy(*_first(right, labels, images, QUICK_IMAGES))},
            "versions": {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__, "numpy": np.__version__},
        }
        if only_accuracy:
            return figures
        firsts = np.stack([row[:, 0] for row in rows.values()])
        figures["images_not_agreed_on"] = int((firsts != firsts[0]).any(axis=0).sum())
        make_demo(data / "calib", CALIBRATION_IMAGES, "calib")
        quantise(fp32, int8, list(find_images(data / "calib").images))
        figures["int8_default"] = paired(right, top5(onnx_predictor(int8), batches(images, reference)), labels)
        print("INT8", figures["int8_default"], flush=True)
        figures["faults"] = {}
        for name, read in FAULTS.items():
            figures["faults"][name] = paired(right, top5(ort, batches(images, read)), labels)
            print(name, figures["faults"][name], flush=True)
    return figures


def _first(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], images: list[LabelledImage], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The part of the predictions on the quick set, which is the beginning of the full one."""
    quick = [place for place, image in enumerate(images) if int(image.path.stem.rsplit("_", 1)[1]) < count]
    return predicted[quick], labels[quick]


def tables(model: str, sha256: str, figures: dict[str, Any]) -> str:
    """The figures of one model as Markdown."""
    lines = [
        f"### {model.replace('scarlet_', 'SCARLET-').upper()}",
        "",
        f"Weights with SHA-256 `{sha256}`, on {figures['images']:,} validation images (demo data: not ImageNet "
        f"accuracy; fingerprint `{figures['fingerprint'][:16]}`).",
        "",
        "| backend, pipeline | top-1, % | top-5, % |",
        "|---|---|---|",
    ]
    lines += [
        f"| {name} | {row['top1_percent']:.2f} | {row['top5_percent']:.2f} |"
        for name, row in figures["accuracy"].items()
    ]
    quick = figures["quick_subset"]
    lines += [
        "",
        f"They do not all predict the same class on {figures['images_not_agreed_on']} of the images. On the "
        f"quick set, the first {quick['images']} images, top-1 is {quick['top1_percent']:.2f} %.",
        "",
        "What is changed against ONNX Runtime FP32 with the reference pipeline, same images (difference with its "
        "95 % interval, p of the exact McNemar test):",
        "",
        "| change | predictions changed | top-1, % | difference, points | p |",
        "|---|---|---|---|---|",
    ]
    changes = {"INT8, quantize_static with its defaults": figures["int8_default"], **figures["faults"]}
    for name, row in changes.items():
        low, high = row["difference_interval_points"]
        lines.append(
            f"| {name} | {row['changed_predictions']} | {row['top1_percent']:.2f} | "
            f"{row['difference_points']:+.2f} ({low:+.2f} to {high:+.2f}) | {row['mcnemar_p']:.2g} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="scarlet_c")
    parser.add_argument("--data", type=Path, default=Path("data/demo-card"))
    parser.add_argument("--weights", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=None, help="write JSON here instead of to the card")
    parser.add_argument("--only-accuracy", action="store_true", help="ONNX Runtime, reference pipeline; with --out")
    chosen = parser.parse_args()
    if chosen.only_accuracy and not chosen.out:
        parser.error("--only-accuracy needs --out")
    torch.set_num_threads(THREADS)
    content = (chosen.weights or demo.path_of(chosen.model)).read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    state = {key: value.float() if value.is_floating_point() else value for key, value in load(content).items()}
    figures = measure(state, chosen.model, chosen.data, chosen.only_accuracy)
    if chosen.out:
        chosen.out.write_text(json.dumps({"sha256": sha256, **figures}, indent=1) + "\n", encoding="utf-8")
        return
    card_path = demo.FOLDER / "card.json"
    card = json.loads(card_path.read_text("utf-8"))
    card["models"].setdefault(chosen.model, {}).update(sha256=sha256, bytes=len(content), measured=figures)
    card_path.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    text = "\n\n".join(
        tables(name, card["models"][name]["sha256"], card["models"][name]["measured"])
        for name in sorted(card["models"])
    )
    page = demo.FOLDER / "MODEL_CARD.md"
    before, rest = page.read_text("utf-8").split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
