"""How many images a second each pipeline makes by itself, from files to the network's input, in turns.

A step of the GPU check: ``python -m tests.gpu.acceptance.decode --out decode.json``. Raw samples are written after each
round.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pipelines
from bench import host
from bench.record.files import one_line, write_text
from pipelines.base import Batch, PipelineUnavailable, PipelineUnsupported, Preprocess
from pipelines.imagenet.find import Image

BATCH = 64

# A pass is as long as it takes for what its ends cost to weigh little, or so many images.
PASS_SECONDS = 0.5
MOST_IMAGES = 16_384
LEAST_ROUNDS = 3

Open = Callable[[str, Sequence[Image]], Any]


def one_pass(pipeline: Iterable[Batch]) -> int:
    """Images of a pass, all of them made when this returns: on the host, or on the GPU where they are made there."""
    n_images, last = 0, None
    for batch in pipeline:
        n_images += len(batch.indices)
        last = batch
    if last is not None and last.on_device is not None:
        last.on_device.synchronize()
    return n_images


def measure(
    names: Sequence[str],
    images: Sequence[Image],
    seconds: float,
    write: Callable[[Mapping[str, Any]], None],
    open_pipeline: Open,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Passes of all pipelines in turns, at least ``LEAST_ROUNDS`` of each.

    Args:
        names: of the pipelines.
        images: of a pass; repeated where it is to be longer.
        seconds: for the rounds, after warm-up.
        write: takes what was measured so far, after each round.
        open_pipeline: opens one by its name over some images.
        clock: seconds.

    Returns:
        ``samples`` (pipeline, round, images, seconds of each pass), ``images_per_s`` (the median over rounds, by
        pipeline) and ``missing`` (why pipelines could not be opened).
    """
    samples: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        opened: dict[str, Any] = {}
        for name in names:
            try:
                opened[name] = stack.enter_context(closing(_warm(name, images, open_pipeline, clock)))
            except (PipelineUnavailable, PipelineUnsupported, RuntimeError) as reason:
                missing[name] = one_line(reason)
        started = clock()
        for round_ in itertools.count():
            # Who goes first takes turns too.
            first = round_ % max(1, len(opened))
            order = [*opened][first:] + [*opened][:first]
            for name in order:
                before = clock()
                n_images = one_pass(opened[name])
                samples.append(
                    {"pipeline": name, "round": round_, "images": n_images, "seconds": clock() - before}
                )
            found = {"samples": samples, "images_per_s": rates(samples), "missing": missing}
            write(found)
            if not opened or (round_ + 1 >= LEAST_ROUNDS and clock() - started >= seconds):
                return found
    raise AssertionError("unreachable: the rounds return")


def _warm(name: str, images: Sequence[Image], open_pipeline: Open, clock: Callable[[], float]) -> Any:
    """A pipeline after its first passes, over as many images as take about ``PASS_SECONDS``."""
    with closing(open_pipeline(name, images)) as first:
        one_pass(first)
        before = clock()
        n_images = one_pass(first)
        taken = clock() - before
    wanted = n_images * max(1, round(PASS_SECONDS / taken)) if taken > 0 else n_images
    repeated = list(itertools.islice(itertools.cycle(images), min(max(wanted, len(images)), MOST_IMAGES)))
    pipeline = open_pipeline(name, repeated)
    one_pass(pipeline)
    return pipeline


def rates(samples: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Images a second of each pipeline, the median over its passes."""
    by_name: dict[str, list[float]] = {}
    for sample in samples:
        by_name.setdefault(sample["pipeline"], []).append(sample["images"] / sample["seconds"])
    return {name: statistics.median(values) for name, values in by_name.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of the step."""
    from rich.console import Console

    from bench.run.images import choose_images

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--data")
    parser.add_argument("--pipelines", default="dali_gpu,dali_gpu_engine,turbo,dali")
    given = parser.parse_args(arguments)
    threads = host.allowed_cores()
    image_set, images = choose_images(given.data, given.images, Console())

    def opened(name: str, some: Sequence[Image]) -> Any:
        return pipelines.open_pipeline(name, some, BATCH, threads, Preprocess())

    about = {
        "what": "passes from files to the network's input, of each pipeline by itself",
        "batch": BATCH,
        "threads": threads,
        "data": image_set.fingerprint,
        "is_demo": image_set.is_demo,
    }

    def write(found: Mapping[str, Any]) -> None:
        write_text(given.out, json.dumps({**about, **found}, indent=1) + "\n")

    measure(given.pipelines.split(","), images, given.seconds, write, opened)


if __name__ == "__main__":
    main()
