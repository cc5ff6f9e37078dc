"""What a run on many images costs in memory and on disk.

    python docs/experiments/run_memory.py [--images 5000] [--pipelines turbo dali reference]

Makes small JPEGs, scores them with ONNX Runtime through each pipeline, once a tenth of them and once all,
and prints the runner's peak memory, each worker's, and the size of the predictions. Exit code 1 when the runner took
400 MB or more, the predictions 5 MB or more, or a worker's memory grew by more than 5 % with ten times the images.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from bench.host.memory import peak_rss_bytes
from bench.record.run_folder import RunFolder
from bench.run import session
from bench.run.spec import RunSpec
from pipelines.imagenet.find import wnids

MB = 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--pipelines", nargs="+", default=["turbo", "dali", "reference"])
    wanted = parser.parse_args()
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder / "data" / "valid", wanted.images)
        workers: dict[tuple[str, int], float] = {}
        for pipeline in wanted.pipelines:
            for count in (wanted.images // 10, wanted.images):
                spec = RunSpec(
                    data=str(folder / "data"),
                    pipeline=pipeline,
                    backends="onnxruntime",
                    scenarios="accuracy",
                    images=str(count),
                )
                ended = session.run(spec, folder / f"{pipeline}-{count}", console)
                (result,) = RunFolder.open(ended.run).case_results()
                assert result.status.value == "ok", result.reason
                workers[pipeline, count] = result.metrics["peak_rss_bytes"] / MB
                predictions = (ended.run / "predictions.parquet").stat().st_size / MB
    runner = (peak_rss_bytes() or 0) / MB
    print(f"runner's peak: {runner:.0f} MB; predictions of {wanted.images} images: {predictions:.2f} MB")
    grown = []
    for pipeline in wanted.pipelines:
        few, many = workers[pipeline, wanted.images // 10], workers[pipeline, wanted.images]
        grown.append(many / few - 1)
        print(
            f"worker with {pipeline}: {few:.0f} MB for {wanted.images // 10} images, {many:.0f} MB for {wanted.images}"
        )
    return int(runner >= 400 or predictions >= 5 or max(grown) > 0.05)


def make_images(folder: Path, count: int) -> None:
    source = np.random.default_rng(0)
    classes = wnids()
    for number in range(count):
        target = folder / classes[number % len(classes)]
        target.mkdir(parents=True, exist_ok=True)
        coarse = source.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((320, 256)).save(target / f"{number:05}.JPEG", quality=80)


if __name__ == "__main__":
    sys.exit(main())
