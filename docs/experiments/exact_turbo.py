"""What it would cost if `turbo` resized with Pillow, to the reference's very bytes: passes in turns, in one process.

.venv/bin/python docs/experiments/exact_turbo.py --data data/demo/512 [--graph scarlet_c.onnx] [--rounds 8]
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from pipelines import open_pipeline
from pipelines.base import Preprocess
from pipelines.imagenet.find import find_images
from pipelines.reference.pipeline import crop_offset, cut, target_size
from pipelines.turbo.image import Pixels, Scratch, TurboImage

BILINEAR = PillowImage.Resampling.BILINEAR


def exact(self: Any, pixels: Pixels, height: int, scratch: Scratch) -> Pixels:
    """As ``TurboImage.cropped`` by Pillow, for a short side that is scaled by a short binary fraction."""
    preprocess: Preprocess = self._preprocess
    width, side = pixels.shape[1], preprocess.crop
    rows, columns = target_size(height, width, preprocess)
    top, left = crop_offset(rows, columns, side)
    step = height / rows
    if float(np.float32(step)) != step:  # every row, so that the scale is the whole image's
        filled = np.zeros((height, width, 3), np.uint8)
        filled[: len(pixels)] = pixels
        across = PillowImage.fromarray(filled).resize((columns, height), BILINEAR)
        return cut(np.asarray(across.resize((columns, rows), BILINEAR)), top, left, preprocess)
    first = max(0, int(top * step - max(step, 1.0) - 1.0))
    last = min(height, int(np.ceil((top + side) * step + max(step, 1.0) + 1.0)))
    across = PillowImage.fromarray(pixels[first:last]).resize((columns, last - first), BILINEAR)
    kept = across.crop((left, 0, left + side, last - first))
    return np.asarray(
        kept.resize((side, side), BILINEAR, box=(0, top * step - first, side, (top + side) * step - first))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--graph", type=Path)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args()
    images = list(find_images(arguments.data).images)[: arguments.images]
    infer = lambda pixels: None  # noqa: E731
    if arguments.graph:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(arguments.graph), options)
        infer = lambda pixels: session.run(None, {"input": pixels})  # noqa: E731
    ways = {"turbo": TurboImage.cropped, "exact": exact, "reference": None}
    used: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(-1, arguments.rounds):
        for name in list(ways)[:: 1 if round_ % 2 else -1]:
            if ways[name] is not None:
                TurboImage.cropped = ways[name]  # type: ignore[method-assign]
            pipeline = open_pipeline("reference" if name == "reference" else "turbo", images, 8, 1, Preprocess())
            started = time.process_time_ns()
            for batch in pipeline:
                infer(batch.pixels)
            if round_ >= 0:
                used[name].append((time.process_time_ns() - started) / len(images) / 1e6)
    ratio = statistics.median(one / other for one, other in zip(used["exact"], used["turbo"], strict=True))
    for name, taken in used.items():
        print(f"{name:10s} {statistics.median(taken):6.2f} ms of processor time an image")
    print(f"exact / turbo: {ratio:.3f}")


if __name__ == "__main__":
    main()
