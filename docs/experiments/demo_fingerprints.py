"""Makes the standard demo sets and writes pipelines/demo/fingerprints.json: run it when demo.REVISION is raised.

python docs/experiments/demo_fingerprints.py --data data/demo-standard

Needs the pinned Pillow and NumPy, and about five minutes on two cores. The small sets of ``FIRST`` are for tests.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import PIL

from pipelines.demo import make
from pipelines.demo.make import fingerprint_of

# The largest first: the smaller ones are its beginning.
STANDARD = {"val": (2000, 512, 10), "train": (16000, 20), "tune": (3000, 5), "calib": (256, 200, 5)}


def main() -> None:
    """Writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder for the sets, one subfolder each")
    data = parser.parse_args().data
    found = {"pillow": PIL.__version__, "numpy": np.__version__}
    if found != make.PINNED:
        raise SystemExit(f"found {found}, but the published sets are made with {make.PINNED}")
    table = {}
    make.published_fingerprint = lambda *_: None  # type: ignore[assignment]  # what was published is made anew
    for split, counts in STANDARD.items():
        make.make_demo(data / split, counts[0], split, on_progress=make.print_progress)
        for count in sorted(counts):
            paths = make.image_paths(split, range(count))
            table[make.fingerprint_key(split, make.DEFAULT_SEED, count)] = fingerprint_of(data / split, paths)
    path = Path(make.__file__).with_name("fingerprints.json")
    path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    print(path.read_text("utf-8"))


if __name__ == "__main__":
    main()
