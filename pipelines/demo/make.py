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
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import PIL
from filelock import FileLock

from pipelines.demo.picture import SPLITS, class_of, image_bytes, relative_path
from pipelines.imagenet.find import wnids
from scarlet.errors import BenchError, unknown_name
from scarlet.processes import tie

REVISION = 1  # of the generator: raised whenever the bytes it makes change
PINNED = {"pillow": "13.0.0", "numpy": "2.4.6"}  # what the published fingerprints were made with
QUICK_IMAGES = 512
DEFAULT_SEED = 2026
CHUNK = 16  # images per task of a worker process

LOCK = ".scarlet-demo.lock"
IMAGES = "valid"


@dataclass(frozen=True)
class How:
    """How a set is made; none of it changes what is made.

    Attributes:
        processes: worker processes; None for the number of cores allowed.
        accept_other_bytes: keep a set whose bytes differ from the published ones, and say so in its marker.
        on_progress: called with (images done, images) as the files are written.
    """

    processes: int | None = None
    accept_other_bytes: bool = False
    on_progress: Callable[[int, int], None] = lambda done, total: None


def make_demo(
    out: Path, images: int = QUICK_IMAGES, split: str = "val", seed: int = DEFAULT_SEED, how: How | None = None
) -> DemoSet:
    """Makes ``out`` hold exactly this set; a complete one is left alone, any other is made anew.

    Image number i depends on the seed, the split and i alone, so a smaller set is the beginning of a larger
    one, and the number of processes does not matter. The marker is written last.

    Args:
        out: the folder; images go to ``out/valid/<wnid>/``. It must be empty, absent or a demo set.
        images: how many, at least 1. Each run of 1000 holds every class once.
        split: one of ``SPLITS``; no image is in two splits.

    Raises:
        BenchError: an argument is out of range, the folder holds something else or cannot be written, or the
            bytes made here are not the published ones.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    if images < 1:
        raise BenchError(f"a demo set of {images} images was requested", "Ask for at least 1.")
    wanted = DemoSet(REVISION, split, seed, images, "", "", PIL.__version__, np.__version__)
    how = how or How()
    try:
        _check_folder(out)
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / LOCK):
            return _complete(out, wanted, how) or _make(out, wanted, how)
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


def image_paths(split: str, images: int) -> list[str]:
    """Where the first images of a split lie under the set's folder, in the order of making."""
    return [relative_path(wnids()[class_of(index)], split, index) for index in range(images)]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_folder(out: Path) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise BenchError(f"{out} is not a folder", "Name another place for the demo set.")
    names = {path.name for path in out.iterdir()}
    if names and not names & {MARKER, LOCK}:
        raise BenchError(
            f"{out} holds something that is not a demo set", "Name an empty or a new folder for the demo set."
        )


def _complete(out: Path, wanted: DemoSet, how: How) -> DemoSet | None:
    """The set in ``out`` if it is the one wanted, whole, and byte for byte as its marker says."""
    found = read_set(out / MARKER)
    if found is None:
        return None
    verdict = _verdict(found, found.fingerprint)  # anew: the table may have grown since
    same = all(getattr(found, name) == getattr(wanted, name) for name in ("revision", "split", "seed", "images"))
    paths = image_paths(wanted.split, wanted.images)
    if not same or (verdict == "differs" and not how.accept_other_bytes):
        return None
    if set(_present(out)) != set(paths) or fingerprint_of(out, paths) != found.fingerprint:
        return None
    return replace(found, verdict=verdict)


def _verdict(demo_set: DemoSet, fingerprint: str) -> str:
    published = published_fingerprint(demo_set.split, demo_set.seed, demo_set.images)
    if published is None:
        return "not published"
    return "as published" if fingerprint == published else "differs"


def _present(out: Path) -> list[str]:
    return [path.relative_to(out).as_posix() for path in (out / IMAGES).glob("*/*.JPEG")]


def _make(out: Path, wanted: DemoSet, how: How) -> DemoSet:
    paths = image_paths(wanted.split, wanted.images)
    (out / MARKER).unlink(missing_ok=True)
    for path in _present(out):
        (out / path).unlink()
    _draw(out, wanted, paths, how)
    fingerprint = fingerprint_of(out, paths)
    verdict = _verdict(wanted, fingerprint)
    if verdict == "differs" and not how.accept_other_bytes:
        raise BenchError(
            f"the demo images made here differ from the published ones (found Pillow {wanted.pillow} and "
            f"NumPy {wanted.numpy}, published with {PINNED['pillow']} and {PINNED['numpy']})",
            "Install the pinned versions, or accept other bytes (accuracy is then not the model card's).",
        )
    made = replace(wanted, fingerprint=fingerprint, verdict=verdict)
    (out / MARKER).write_text(json.dumps(asdict(made), indent=2) + "\n", encoding="utf-8")
    return made


def _draw(out: Path, wanted: DemoSet, paths: list[str], how: How) -> None:
    processes = how.processes or _cores()
    chunks = [range(start, min(start + CHUNK, len(paths))) for start in range(0, len(paths), CHUNK)]
    done = 0
    how.on_progress(done, len(paths))
    if processes == 1 or len(chunks) < 2:
        for chunk in chunks:
            done += _draw_chunk(out, wanted, [paths[i] for i in chunk], chunk)
            how.on_progress(done, len(paths))
        return
    # Not fork: the caller may have torch's threads running, which a forked child would wait for for ever.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(chunks)), spawn, tie, (os.getpid(),)) as pool:
        jobs = [pool.submit(_draw_chunk, out, wanted, [paths[i] for i in chunk], chunk) for chunk in chunks]
        try:
            for job in as_completed(jobs):
                done += job.result()
                how.on_progress(done, len(paths))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _draw_chunk(out: Path, wanted: DemoSet, paths: Sequence[str], indices: Sequence[int]) -> int:
    """Writes some images; returns how many. Runs in a worker process."""
    for path, index in zip(paths, indices, strict=True):
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
    parser.add_argument("--processes", type=int, default=None)
    parser.add_argument("--accept-other-bytes", action="store_true")
    chosen = parser.parse_args(arguments)
    try:
        made = make_demo(
            chosen.out,
            chosen.images,
            chosen.split,
            chosen.seed,
            How(chosen.processes, chosen.accept_other_bytes, print_progress),
        )
    except BenchError as error:
        print(f"error: {error.what}\n{error.do}", file=sys.stderr)
        return 2
    print(f"{made.images} {made.split} images in {chosen.out}, fingerprint {made.fingerprint[:16]} ({made.verdict})")
    return 0


def print_progress(done: int, total: int) -> None:
    """A line at each tenth of the way."""
    if done == total or done * 10 // total != max(0, done - CHUNK) * 10 // total:
        print(f"{done} of {total} images", flush=True)


MARKER = ".scarlet-demo.json"


@dataclass(frozen=True)
class DemoSet:
    """What a demo set's folder holds; also the content of its marker file.

    Attributes:
        split: ``val``, ``train`` (small pictures), ``tune`` (for training, sizes as in val) or ``calib``.
        fingerprint: SHA-256 over every file's place and SHA-256, in the order of making.
        verdict: ``as published``, ``not published`` (no fingerprint is known for this set) or ``differs``
            (from the published one, and the caller accepted that).
        pillow, numpy: versions that the files were made with.
    """

    revision: int
    split: str
    seed: int
    images: int
    fingerprint: str
    verdict: str
    pillow: str
    numpy: str


def fingerprint_of(out: Path, paths: Sequence[str]) -> str:
    """SHA-256 over the lines "path, SHA-256 of the file" of ``paths``, which are relative to ``out``.

    Raises:
        OSError: a file is missing or cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path} {hashlib.sha256((out / path).read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def read_set(path: Path) -> DemoSet | None:
    """A marker's content; None if the file is missing or is not one of ours."""
    try:
        return DemoSet(**json.loads(path.read_text("utf-8")))
    except (FileNotFoundError, TypeError, ValueError):
        return None


if __name__ == "__main__":
    sys.exit(main())
