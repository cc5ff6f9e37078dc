"""The first batch of a run's images as pixels: decoded once in a run, then read from a file by every worker.

A decoder leaves traces in its process: libraries (turbo takes PyTorch's resize), threads, a peak of memory. So it works
in a process of its own, and no worker that is timed differs from another by having decoded.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import filelock
import numpy as np
from numpy.typing import NDArray

import pipelines
from bench.backends.base import ModelFiles
from bench.record.case import LOAD, Case
from bench.record.files import atomic_file
from bench.worker.messages import Context, decode_threads
from pipelines.imagenet.find import Image
from scarlet.errors import BenchError
from scarlet.processes import tie

# Of the images at hand, so many stand in for unreadable ones.
SPARE_IMAGES = 16
FOLDER = "inputs"  # in the run's folder, while the run goes on

LIBRARY = 64  # images that LoadGen's queries are of

Pixels = NDArray[np.float32]


def library(case: Case) -> Case:
    """The Case as far as its pixels go: a Case of LoadGen's has a library of them, of which queries name some."""
    return replace(case, batch=LIBRARY) if case.scenario in LOAD else case


def first_batch(case: Case, files: ModelFiles, images: Sequence[Image]) -> Pixels:
    """The first ``case.batch`` readable images as pixels, the same for every backend; repeated where there are fewer.

    Returns:
        float32, ``(case.batch, 3, size, size)``, C-contiguous.

    Raises:
        BenchError: none of the images can be read.
    """
    # Decoding the whole set for one batch would be a waste.
    some, threads = images[: case.batch + SPARE_IMAGES], decode_threads(case)
    with closing(pipelines.open_pipeline(case.pipeline, some, case.batch, threads, files.preprocessing)) as pipeline:
        batch = next(iter(pipeline), None)
    if batch is None:
        raise BenchError("none of the first images could be read", "Name another folder with --data.")
    repeats = -(-case.batch // len(batch.pixels))
    tiled = np.concatenate([batch.pixels] * repeats)[: case.batch]
    return np.ascontiguousarray(tiled, dtype=np.float32)


def decode_ahead(case: Case, context: Context) -> None:
    """Has another process write the Case's first batch, where no worker of this run has yet. To be called before
    threads are at work: the other process is a copy of this one.

    Whatever goes wrong there, ``pixels_of`` meets again, and says so.
    """
    others = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
    if not hasattr(os, "fork") or not all(thread.daemon for thread in others):
        return
    stem = _stem(case, context)
    stem.parent.mkdir(exist_ok=True)
    with filelock.FileLock(f"{stem}.lock"):
        if _found(stem) is None:
            parent = os.getpid()
            if child := os.fork():
                os.waitpid(child, 0)
                return
            try:
                with suppress(Exception):
                    tie(parent)
                    _keep(stem, first_batch(case, context.files, context.images()))
            finally:
                os._exit(0)


def pixels_of(case: Case, context: Context) -> tuple[Pixels, str]:
    """The Case's first batch, from its file or decoded here, and the sha256 of its bytes.

    Raises:
        what ``first_batch`` raises.
    """
    found = _found(_stem(case, context))
    if found is not None:
        return found
    pixels = first_batch(case, context.files, context.images())
    return pixels, _sha256(pixels)


def drop(run: Path) -> None:
    """Removes the files of a run that is over."""
    shutil.rmtree(run / FOLDER, ignore_errors=True)


def _stem(case: Case, context: Context) -> Path:
    """The file's path but for the digest of its pixels and the suffix: what the pixels are made of, and how."""
    described = [case.pipeline, case.batch, repr(context.files.preprocessing), context.data]
    for image in context.images()[: case.batch + SPARE_IMAGES]:
        with suppress(OSError):  # a file that is gone is as good as unreadable
            state = image.path.stat()
            described += [image.image_id, state.st_size, state.st_mtime_ns]
    return Path(context.run) / FOLDER / hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]


def _keep(stem: Path, pixels: Pixels) -> None:
    with atomic_file(stem.with_name(f"{stem.name}-{_sha256(pixels)}.npy")) as stream:
        np.save(stream, pixels)


def _found(stem: Path) -> tuple[Pixels, str] | None:
    """What ``_keep`` wrote; None where there is nothing, or not what its name says."""
    for path in stem.parent.glob(f"{stem.name}-*.npy"):
        with suppress(OSError, ValueError, EOFError):
            pixels = np.load(path)
            digest = _sha256(pixels)
            if path.stem.endswith(digest):
                return pixels, digest
    return None


def _sha256(pixels: Pixels) -> str:
    return hashlib.sha256(pixels.data).hexdigest()
