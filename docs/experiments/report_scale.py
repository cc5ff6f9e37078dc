"""How long reports take for a large run: 40 Cases, 50,000 predictions each, remade twice from the raw files.

    python docs/experiments/report_scale.py [--cases 40] [--images 50000]

Half of the Cases are accuracy Cases with 50,000 predictions each, half latency Cases with 2,000 samples each, all
seeded. Prints the seconds of each remake, the size of each file, and whether both remakes gave the same bytes. Exit
code 1 where they did not, where the slower one took more than 5 s or where the page is larger than 15 MB.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.record.case import Case, Status
from bench.record.run_folder import CaseResult, RunFolder

LIMIT_SECONDS = 5.0
LIMIT_PAGE_BYTES = 15_000_000
SAMPLES = 2000


def make(path: Path, n_cases: int, n_images: int) -> RunFolder:
    """A run of seeded data; two in a hundred predictions differ from the reference's."""
    random = np.random.default_rng(0)
    backends = ("pytorch", "onnxruntime", "openvino", "tensorrt")
    half = n_cases // 2
    scored = [
        Case("scarlet_c", "user", backends[place % 4], batch=32 + place // 4, scenario="accuracy")
        for place in range(half)
    ]
    timed = [Case("scarlet_c", "user", backends[place % 4], batch=1 + place // 4) for place in range(n_cases - half)]
    folder = RunFolder.create(path)
    folder.write_run_info({"plan": {"cases": [case.to_dict() for case in [*scored, *timed]]}})
    ids = [f"val/{place:08}.JPEG" for place in range(n_images)]
    label = random.integers(0, 1000, n_images)
    right = random.random(n_images) < 0.75
    first = np.where(right, label, (label + 1) % 1000)
    others = (label[:, None] + np.arange(2, 6)) % 1000
    for case in scored:
        mine = np.where(random.random(n_images) < 0.02, (label + 7) % 1000, first)
        folder.write_predictions_part(
            case.case_id,
            image_id=ids,
            label=label,
            top=np.column_stack([mine, others]),
            margin=random.random(n_images).astype(np.float32),
        )
        folder.append_case(CaseResult(case, Status.OK))
    for place, case in enumerate(timed):
        folder.write_samples_part(
            case.case_id,
            round=np.arange(SAMPLES) // 40,
            stage="compute",
            images=np.full(SAMPLES, case.batch),
            warmup=np.zeros(SAMPLES, bool),
            latency_ns=(1e6 * (1 + place % 4) * np.exp(random.normal(0, 0.05, SAMPLES))).astype(np.int64),
        )
        folder.append_case(CaseResult(case, Status.OK, stage="compute"))
    folder.merge_parts()
    return folder


def remake(run: Path) -> tuple[float, dict[str, str]]:
    """Seconds of the command, start of Python included, and the digest of each file that it wrote."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "bench.cli", "report", str(run)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    raw = {"run.json", "cases.jsonl", "samples.parquet", "predictions.parquet"}
    made = [path for path in sorted(run.rglob("*")) if path.is_file() and path.name not in raw]
    return seconds, {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in made}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--images", type=int, default=50_000)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = make(Path(folder) / "run", wanted.cases, wanted.images).path
        first, digests = remake(run)
        second, again = remake(run)
        sizes = {name: (run / name).stat().st_size for name in digests}
    for name, size in sizes.items():
        print(f"{name}: {size / 1e6:.2f} MB, {'the same bytes' if digests[name] == again[name] else 'OTHER BYTES'}")
    print(f"{wanted.cases} Cases, {wanted.images:,} images: {first:.2f} s and {second:.2f} s")
    page = sizes.get("report.html", 0)
    return int(digests != again or max(first, second) > LIMIT_SECONDS or page > LIMIT_PAGE_BYTES)


if __name__ == "__main__":
    sys.exit(main())
