"""What a whole check of a large set costs: 8 Cases of 50,000 predictions, read, compared, diagnosed and reported.

    python docs/experiments/gate_scale.py [--images 50000]

Makes two runs whose predictions differ on a few images, a baseline of the first, and checks the second against it in
a process of its own (start of Python included), at once and sequentially. Exit code 1 when a check took 10 s or 1 GB.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.record.case import Case, Status
from bench.record.run_folder import CaseResult, RunFolder
from pipelines.imagenet.find import wnids

BACKENDS = ("pytorch", "onnxruntime", "openvino", "tensorrt")
PRECISIONS = ("fp32", "int8")
SECONDS, BYTES = 10.0, 1e9


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=50_000)
    n = parser.parse_args().images
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for run, seed in (("before", 0), ("now", 1)):
            make_run(folder / run, n, seed)
        _, seconds, peak = measured("baseline", "--run", str(folder / "before"), "--out", str(folder / "b.json"))
        size = (folder / "b.json").stat().st_size
        print(f"baseline of 8 Cases, {n:,} images: {seconds:.1f} s, {peak / 1e6:.0f} MB, file {size / 1e6:.2f} MB")
        dear = False
        for mode in ([], ["--sequential"]):
            words = ["check", "--baseline", str(folder / "b.json"), "--current", str(folder / "now")]
            code, seconds, peak = measured(*words, "--junit", str(folder / "j.xml"), *mode)
            print(
                f"check{' --sequential' if mode else ''}: {seconds:.1f} s, peak {peak / 1e6:.0f} MB, exit code {code}"
            )
            dear |= seconds >= SECONDS or peak >= BYTES or code not in (0, 1, 3)
    return int(dear)


def make_run(path: Path, n: int, seed: int) -> None:
    """A run of 8 Cases; another seed changes 1 in 5,000 predictions in fp32 and 1 in 100 in int8."""
    classes = wnids()
    labels = np.arange(n) * len(classes) // n
    ids = [f"val/{classes[label]}/ILSVRC2012_val_{place:08}.JPEG" for place, label in enumerate(labels)]
    source = np.random.default_rng(0)
    common = np.argsort(source.random((n, 40)), axis=1)[:, :5] + labels[:, None] // 2
    common[:, 0] = np.where(source.random(n) < 0.76, labels, common[:, 0])
    cases = [
        Case("scarlet_c", "official", backend, precision=precision, batch=32, scenario="accuracy")
        for precision in PRECISIONS
        for backend in BACKENDS
    ]
    run = RunFolder.create(path)
    run.write_run_info(
        {
            "plan": {"model": "scarlet_c", "cases": [case.to_dict() for case in cases]},
            "dataset": {"root": str(path), "fingerprint": "f", "n_images": n, "n_images_in_set": n},
            "model_files": {"model": "scarlet_c", "weights": "official", "weights_sha256": "w", "onnx_sha256": "o"},
        }
    )
    run.write_images(zip(ids, map(int, labels), strict=True))
    for number, case in enumerate(cases):
        noise = np.random.default_rng((seed, number))
        top = common.copy()
        changed = noise.random(n) < (0.01 if case.precision == "int8" else 0.0002)
        top[changed, 0] = noise.integers(0, 1000, int(changed.sum()))
        margin = noise.random(n).astype(np.float32)
        run.write_predictions_part(case.case_id, image_id=ids, label=labels, top=top, margin=margin)
        run.append_case(CaseResult(case, Status.OK, metrics={"input_sha256": "p"}))
    run.merge_parts()


def measured(*words: str) -> tuple[int, float, int]:
    """Exit code, seconds and peak memory in bytes of a command in a process of its own."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "bench.cli", *words], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    return os.waitstatus_to_exitcode(status), time.perf_counter() - started, used.ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(main())
