"""What making the HTML report of a large run costs: seconds, and bytes of the file.

    python docs/experiments/html_scale.py [--images 50000] [--cases 40]

Makes a run of seeded predictions (that of flips_scale.py), then in a process of its own makes its page. Exit code 1
when that took 5 s or more, the table that it is made from not counted, or the file has 15 MB or more.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from flips_scale import make_run

MOST_SECONDS, MOST_BYTES = 5.0, 15e6


def make_page(path: Path) -> None:
    """Makes the page; prints figures as JSON."""
    started = time.perf_counter()
    from bench.analysis.table import load
    from bench.record.raw_tables import kept_reads
    from bench.report.html import page

    with kept_reads():  # as write_all makes its formats
        loaded = load(path)
        framed = time.perf_counter()
        page.write(loaded, path / "report.html")
    figures = {
        "frame_seconds": framed - started,
        "page_seconds": time.perf_counter() - framed,
        "bytes": (path / "report.html").stat().st_size,
    }
    print(json.dumps(figures))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--page-of", type=Path, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.page_of:
        make_page(wanted.page_of)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        make_run(path, wanted.images, wanted.cases)
        command = [sys.executable, __file__, "--page-of", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    print(json.dumps(figures, indent=2))
    return int(figures["page_seconds"] >= MOST_SECONDS or figures["bytes"] >= MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
