"""Profiles one Case. Runs in a process of its own, where nothing else works while it measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench.backends import facts, load_name, make_backend
from bench.backends.base import ModelFiles, Unsupported
from bench.backends.profiler import Profiler, Recording, measure
from bench.record.case import Case
from bench.worker import channel
from bench.worker.inputs import first_batch
from pipelines.imagenet.find import Image

PROGRAM = "from bench.studies.profile.worker import main; main()"


def record(case: Case, files: ModelFiles, images: Sequence[Image], repeats: int) -> Recording:
    """Loads the backend and its profiler and times both on one batch of real images.

    Raises:
        Unavailable, Unsupported: see ``Backend.load``.
        BenchError: none of the images can be read, or the runtime's profile is not whole.
    """
    if case.device != "cpu":
        # Hooks and counters of the host would time how long kernels take to be launched.
        raise Unsupported("layers are profiled on the CPU only; on a GPU use the vendor's profiler")
    pixels = first_batch(case, files, images)
    backend = make_backend(case.backend)
    backend.load(case, files)
    profiler: Profiler = load_name(facts(case.backend).profiler)(case, files, backend)
    try:
        return measure(backend, profiler, pixels, repeats)
    finally:
        profiler.close()
        backend.close()


def answer(message: channel.Message) -> channel.Message:
    """``{"recording": ...}``."""
    root = Path(message["data"])
    images = [Image(image_id, root / image_id, label) for image_id, label in message["images"]]
    case, files = Case.from_dict(message["case"]), ModelFiles.from_dict(message["files"])
    return {"recording": asdict(record(case, files, images, message["repeats"]))}


def main() -> None:
    """The main loop; the process ends with it."""
    channel.serve(answer)
