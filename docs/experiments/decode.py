"""How fast each pipeline turns files into batches, in alternating passes; and where turbo's time goes.

    python docs/experiments/decode.py [--images 256] [--passes 11] [--batch 32]

For 1 and for 2 threads: images/s of every pipeline, each in a fresh pass (so from empty queues) in turn, ratios to the
reference and to dali with their intervals, and processor time an image of the whole process, which a machine shared
with others disturbs less. Then one thread alone: processor time of each step of an image, with and without the savings.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from rich.console import Console

from bench.analysis.stats import intervals
from bench.run.images import choose_images
from pipelines import names, open_pipeline
from pipelines.base import Pipeline, PipelineUnavailable, PipelineUnsupported, Preprocess
from pipelines.imagenet.find import Image
from pipelines.imagenet.jpeg import plain_size
from pipelines.reference.pipeline import normalise, reference_pixels

PREPROCESS = Preprocess()


def timed_pass(pipeline: Pipeline, n_images: int) -> tuple[float, float]:
    """One pass: nanoseconds of the clock, and of all threads' processor time, an image."""
    gc.collect()
    started, used = time.perf_counter_ns(), time.process_time_ns()
    seen = sum(len(batch.indices) for batch in pipeline)
    took = time.perf_counter_ns() - started, time.process_time_ns() - used
    if seen != n_images:
        raise RuntimeError(f"{pipeline.name} gave {seen} of {n_images} images")
    return took[0] / n_images, took[1] / n_images


def opened(images: Sequence[Image], batch: int, threads: int) -> dict[str, Pipeline]:
    found = {}
    for name in names():
        try:
            found[name] = open_pipeline(name, images, batch, threads, PREPROCESS)
        except (PipelineUnavailable, PipelineUnsupported) as error:
            print(f"{name}: {error}")
    return found


def passes(images: Sequence[Image], batch: int, threads: int, rounds: int) -> None:
    """Prints the comparison with this many threads."""
    pipelines = opened(images, batch, threads)
    clock: dict[str, list[float]] = defaultdict(list)
    used: dict[str, list[float]] = defaultdict(list)
    orders = itertools.cycle(itertools.permutations(pipelines))
    for round_ in range(-1, rounds):  # the first warms the files' cache and the libraries
        for name in next(orders):
            took = timed_pass(pipelines[name], len(images))
            pipelines[name].close()
            if round_ >= 0:
                clock[name].append(took[0])
                used[name].append(took[1])
    print(f"\n{threads} threads, batches of {batch}, {len(images)} images, {rounds} passes each in turn:")
    for name in pipelines:
        line = f"{name:10s} {1e9 / statistics.median(clock[name]):6.0f} images/s"
        line += f"  {statistics.median(used[name]) / 1e6:6.3f} ms of processor time an image"
        for other in ("reference", "dali"):
            if other != name and other in pipelines:
                line += f"; {words(clock[other], clock[name])} x {other}"
                line += f", by processor time {words(used[other], used[name])}"
        print(line, flush=True)


def words(slow: Sequence[float], fast: Sequence[float]) -> str:
    """The ratio with its 95 % interval."""
    found = intervals.ratio_interval(slow, fast)
    return f"{found.ratio:.2f} ({found.low:.2f} to {found.high:.2f})"


def steps(images: Sequence[Image], rounds: int) -> None:
    """Prints the processor time of each step of turbo, and of what would be in its place, on one thread."""
    from pipelines.turbo.image import Scratch, TurboImage, rows_needed, shortened

    turbo, scratch = TurboImage(PREPROCESS), Scratch()
    plain = [image for image in images if plain_size(image.path.read_bytes())]
    files = [image.path.read_bytes() for image in plain]
    sizes = [plain_size(data) or (0, 0) for data in files]
    needed = [rows_needed(*size, PREPROCESS) for size in sizes]
    cut = [
        shortened(data, rows) if rows < size[0] else data for data, rows, size in zip(files, needed, sizes, strict=True)
    ]
    print(f"\n{len(plain)} plain JPEGs; cut files have {mean_share(cut, sizes):.1%} of the rows")
    decoded = [turbo.decode(data) for data in files]
    cropped = [turbo.cropped(pixels, len(pixels), scratch).copy() for pixels in decoded]
    batch = np.empty((len(plain), 3, PREPROCESS.crop, PREPROCESS.crop), np.float32)

    def decode(k: int, data: Sequence[bytes | bytearray]) -> None:
        whole = data[k] is files[k]
        height = sizes[k][0] if whole else needed[k]
        turbo._decoded(data[k], scratch.pixels("decoded", height, sizes[k][1]), strict=whole)

    step: dict[str, Callable[[int], object]] = {
        "read the file": lambda k: plain[k].path.read_bytes(),
        "look at its markers": lambda k: plain_size(files[k]),
        "decode, whole file": lambda k: decode(k, files),
        "decode, cut below the crop": lambda k: decode(k, cut),
        "resize the whole, new memory": lambda k: turbo.resize(decoded[k]),
        "resize what is needed, new memory": lambda k: turbo.cropped(decoded[k], len(decoded[k]), Scratch()),
        "resize what is needed": lambda k: turbo.cropped(decoded[k], len(decoded[k]), scratch),
        "normalise into the batch": lambda k: normalise(cropped[k], PREPROCESS, out=batch[k]),
        "all of the reference but normalise": lambda k: reference_pixels(plain[k].path, PREPROCESS),
    }
    taken: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, run in step.items():
            used = time.thread_time_ns()
            for k in range(len(plain)):
                run(k)
            taken[name].append((time.thread_time_ns() - used) / len(plain))
    for name, times in taken.items():
        print(f"{name:36s} {statistics.median(times) / 1e6:6.3f} ms (least {min(times) / 1e6:.3f})", flush=True)
    for saved, whole, part in (
        ("cutting files", "decode, whole file", "decode, cut below the crop"),
        ("resizing what is needed", "resize the whole, new memory", "resize what is needed, new memory"),
        ("keeping the memory", "resize what is needed, new memory", "resize what is needed"),
    ):
        gained = statistics.median(np.subtract(taken[whole], taken[part])) / 1e6
        print(f"{saved}: {gained:.3f} ms an image, {words(taken[whole], taken[part])} times as fast", flush=True)


def mean_share(cut: Sequence[bytes | bytearray], sizes: Sequence[tuple[int, int]]) -> float:
    heights = [(plain_size(bytes(data)) or (0, 0))[0] for data in cut]
    return statistics.mean(height / size[0] for height, size in zip(heights, sizes, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--passes", type=int, default=11)
    parser.add_argument("--batch", type=int, default=32)
    wanted = parser.parse_args()
    _, images = choose_images(None, None, Console(stderr=True, width=160))
    images = list(images)[: wanted.images]
    for threads in (1, 2):
        passes(images, wanted.batch, threads, wanted.passes)
    with contextlib.suppress(PipelineUnavailable, PipelineUnsupported):
        steps(images, wanted.passes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
