"""A small, procedural, labelled ImageNet-layout set, for machines without ImageNet.

A class is a shape, a ground's pattern and a hue: class ``100 * shape + 10 * texture + hue`` has the wnid of
that place among the 1000 sorted wnids. Images are made by seed and never committed. The same bytes come out
on every machine with the pinned Pillow and NumPy; fingerprints of the standard sets are in
``fingerprints.json``, and ``make_demo`` checks them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import PIL
from filelock import FileLock

from pipelines.demo.picture import SPLITS, class_of, image_bytes, relative_path
from pipelines.imagenet.find import DEMO_MARKER as MARKER
from pipelines.imagenet.find import wnids
from scarlet.errors import BenchError, unknown_name
from scarlet.processes import tie

REVISION = 1  # of the generator: raised whenever the bytes it makes change
PINNED = {"pillow": "13.0.0", "numpy": "2.4.6"}  # what the published fingerprints were made with
QUICK_IMAGES = 512
DEFAULT_SEED = 2026
CHUNK = 16  # images per task of a worker process

_cores = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))  # Linux knows those that are allowed
LOCK = ".scarlet-demo.lock"
IMAGES = "valid"


@dataclass(frozen=True)
class DemoSet:
    """What a demo set's folder holds; also the content of its marker file.

    Attributes:
        split: ``val``, ``train`` (small pictures), ``tune`` (for training, sizes as in val), ``calib`` or
            ``judge`` (as val, that no recipe was chosen on).
        fingerprint: SHA-256 over every file's place and SHA-256, in the order of making.
        pillow, numpy: versions that the files were made with.
        verdict: ``as published``, or ``not published``: no fingerprint is known for this set.
    """

    revision: int
    split: str
    seed: int
    images: int
    fingerprint: str = ""
    verdict: str = ""
    pillow: str = PIL.__version__
    numpy: str = np.__version__


def make_demo(
    out: Path,
    images: int = QUICK_IMAGES,
    split: str = "val",
    seed: int = DEFAULT_SEED,
    processes: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> DemoSet:
    """Makes ``out`` hold exactly this set; a complete one is left alone, any other is made anew.

    Image number i depends on the seed, the split and i alone, so a smaller set is the beginning of a larger
    one, and the number of processes does not matter. The marker is written last.

    Args:
        out: the folder; images go to ``out/valid/<wnid>/``. It must be empty, absent or a demo set.
        images: how many, at least 1. Each run of 1000 holds every class once.
        split: one of ``SPLITS``; no image is in two splits.
        processes: that draw; None for the number of cores allowed.
        on_progress: called with (images done, images) as the files are written.

    Raises:
        BenchError: an argument is out of range, the folder holds something else or cannot be written, or the
            bytes made here are not the published ones.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    if images < 1:
        raise BenchError(f"a demo set of {images} images was requested", "Ask for at least 1.")
    wanted = DemoSet(REVISION, split, seed, images)
    try:
        if out.exists() and not out.is_dir():
            raise BenchError(f"{out} is not a folder", "Name another place for the demo set.")
        out.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in out.iterdir()}
        if names and not names & {MARKER, LOCK}:
            what = f"{out} holds something that is not a demo set"
            raise BenchError(what, "Name an empty or a new folder for the demo set.")
        with FileLock(out / LOCK):
            return _complete(out, wanted) or _make(out, wanted, processes, on_progress)
    except OSError as error:
        raise BenchError(
            f"the demo set cannot be written to {out}: {error.strerror or error}",
            "Free some space (512 images take about 60 MB) or name a folder that can be written.",
        ) from error


def published_fingerprint(split: str, seed: int, images: int) -> str | None:
    """The fingerprint committed for a set of this revision, or None if there is none."""
    table: dict[str, str] = json.loads(Path(__file__).with_name("fingerprints.json").read_text("utf-8"))
    return table.get(fingerprint_key(split, seed, images))


def fingerprint_key(split: str, seed: int, images: int) -> str:
    """A set's name in the table of published fingerprints."""
    return f"revision {REVISION}, {split}, seed {seed}, {images} images"


def fingerprint_of(out: Path, paths: Sequence[str]) -> str:
    """SHA-256 over the lines "path, SHA-256 of the file" of ``paths``, which are relative to ``out``.

    Raises:
        OSError: a file is missing or cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path} {hashlib.sha256((out / path).read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def image_paths(split: str, indices: Sequence[int]) -> list[str]:
    """Where images of a split lie under the set's folder."""
    names = wnids()
    return [relative_path(names[class_of(index)], split, index) for index in indices]


def _complete(out: Path, wanted: DemoSet) -> DemoSet | None:
    """The set in ``out`` if it is the one wanted, whole, and byte for byte as its marker says."""
    try:
        found = DemoSet(**json.loads((out / MARKER).read_text("utf-8")))
    except (FileNotFoundError, TypeError, ValueError):
        return None
    paths = image_paths(wanted.split, range(wanted.images))
    same = all(getattr(found, name) == getattr(wanted, name) for name in ("revision", "split", "seed", "images"))
    if not same or set(_present(out)) != set(paths) or fingerprint_of(out, paths) != found.fingerprint:
        return None
    return _judged(found)


def _judged(made: DemoSet) -> DemoSet | None:
    """The set with its verdict, or None where the published one has other bytes."""
    published = published_fingerprint(made.split, made.seed, made.images)
    if published not in (None, made.fingerprint):
        return None
    return replace(made, verdict="as published" if published else "not published")


def _present(out: Path) -> list[str]:
    return [path.relative_to(out).as_posix() for path in (out / IMAGES).glob("*/*.JPEG")]


def _make(out: Path, wanted: DemoSet, processes: int | None, on_progress: Callable[[int, int], None]) -> DemoSet:
    (out / MARKER).unlink(missing_ok=True)
    for path in _present(out):
        (out / path).unlink()
    done = 0
    on_progress(done, wanted.images)
    for n in _drawn(out, wanted, processes or len(_cores(0))):
        done += n
        on_progress(done, wanted.images)
    made = _judged(replace(wanted, fingerprint=fingerprint_of(out, image_paths(wanted.split, range(wanted.images)))))
    if made is None:
        raise BenchError(
            f"the demo images made here differ from the published ones (found Pillow {wanted.pillow} and "
            f"NumPy {wanted.numpy}, published with {PINNED['pillow']} and {PINNED['numpy']})",
            "Install the pinned versions: accuracy on other images is not the model card's.",
        )
    (out / MARKER).write_text(json.dumps(asdict(made), indent=2) + "\n", encoding="utf-8")
    return made


def _drawn(out: Path, wanted: DemoSet, processes: int) -> Iterator[int]:
    """Writes the images; gives how many, some at a time."""
    chunks = [range(start, min(start + CHUNK, wanted.images)) for start in range(0, wanted.images, CHUNK)]
    draw = partial(_draw_chunk, out, wanted)
    if processes == 1 or len(chunks) < 2:
        yield from map(draw, chunks)
        return
    with ExitStack() as stack:
        # Not fork: the caller may have torch's threads running, which a forked child would wait for for ever.
        spawn = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(min(processes, len(chunks)), spawn, tie, (os.getpid(),))
        drawing = stack.enter_context(pool).map(draw, chunks)
        yield from stack.enter_context(closing(drawing))  # type: ignore[type-var]  # a generator; ended, it cancels


def _draw_chunk(out: Path, wanted: DemoSet, indices: Sequence[int]) -> int:
    """Writes some images; returns how many. Runs in a worker process."""
    for path, index in zip(image_paths(wanted.split, indices), indices, strict=True):
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(image_bytes(wanted.split, wanted.seed, index))
    return len(indices)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of ``python -m pipelines.demo.make``; returns the exit code (2 for a user's mistake)."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.demo.make", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=QUICK_IMAGES)
    parser.add_argument("--split", default="val", help="val, train, tune or calib")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    chosen = parser.parse_args(arguments)
    try:
        made = make_demo(**vars(chosen), on_progress=print_progress)
    except BenchError as error:
        print(f"error: {error.what}\n{error.do}", file=sys.stderr)
        return 2
    print(f"{made.images} {made.split} images in {chosen.out}, fingerprint {made.fingerprint[:16]} ({made.verdict})")
    return 0


def print_progress(done: int, total: int) -> None:
    """A line at each tenth of the way."""
    if done == total or done * 10 // total != max(0, done - CHUNK) * 10 // total:
        print(f"{done} of {total} images", flush=True)


if __name__ == "__main__":
    sys.exit(main())
