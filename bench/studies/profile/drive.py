"""`profile` from options to rows: prepares the model, has a worker measure, joins."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import TypeAdapter
from rich.console import Console

from bench import host
from bench.backends import REGISTRY, facts, runs_module
from bench.backends.base import ModelFiles
from bench.backends.profiler import CALLS_PER_TURN, Recording
from bench.record.case import Case, checked_names
from bench.record.files import plain, write_text
from bench.record.machine import lookup_peaks
from bench.report.data import write_csv
from bench.run.images import working
from bench.run.model_files import CHECK_IMAGES
from bench.run.session import Session
from bench.run.spec import RunSpec
from bench.studies.profile.document import BY, Profile, document, ridge_of, rows_of, totals_of
from bench.studies.profile.layers import Joined
from bench.studies.profile.worker import PROGRAM
from bench.worker import channel
from scarlet.errors import BenchError

# Each call leaves as many samples as the network has nodes, all of which are held in memory.
MOST_REPEATS = 5000


def run(spec: RunSpec, repeats: int, by: str, console: Console) -> Profile:
    """Profiles one Case.

    Args:
        spec: of one backend, precision, batch and number of threads.
        repeats: calls with profiling, and as many without.

    Raises:
        BenchError: options, data or checkpoint are at fault, or the backend cannot run such a Case.
    """
    (by,) = checked_names("grouping", [by], BY)
    if not CALLS_PER_TURN <= repeats <= MOST_REPEATS:
        raise BenchError(
            f"--repeats {repeats} is not from {CALLS_PER_TURN} to {MOST_REPEATS}", "Write for example --repeats 50."
        )
    checked_names("backend to profile", spec.backends, [name for name in REGISTRY if facts(name).profiler])
    spec.only_case()  # several values are told before anything slow begins
    with Session.scratch(spec.but(images=CHECK_IMAGES), console) as session:
        files = session.require()
        case = session.spec.only_case()
        with working(console, f"profiling {case.backend}"):
            recording = record(session, case, files, repeats)
    joined = join_recording(case, files, recording)
    ridge = ridge_of(lookup_peaks(host.fingerprint(host.describe_host())), case.precision, case.threads)
    rows = tuple(rows_of(joined, case.batch, ridge, by))
    return Profile(case, rows, totals_of(recording, rows), ridge, recording, by)


def record(session: Session, case: Case, files: ModelFiles, repeats: int) -> Recording:
    """Has a worker of its own measure, while this process waits.

    Raises:
        BenchError: the backend cannot run the Case, or the worker died or took too long.
    """
    message = {
        "case": case.to_dict(),
        "files": files.to_dict(),
        "data": str(session.root),
        "images": [(image.image_id, image.label) for image in session.images],
        "repeats": repeats,
    }
    try:
        answer = channel.ask_once(
            message, session.folder.log_path("profile"), case.threads, session.spec.timeout_seconds, PROGRAM
        )
    except channel.WorkerFailed as failure:
        do = failure.do or "Try a smaller --batch or another backend, change the options or install what is missing."
        raise BenchError(f"{case.backend} cannot be profiled: {failure.reason}", do) from None
    return TypeAdapter(Recording).validate_python(answer["recording"])


def join_recording(case: Case, files: ModelFiles, recording: Recording) -> list[Joined]:
    """The recording's nodes with the layers they belong to. Imports torch: after the measurement, not before."""
    from bench.studies.profile import layers, model

    if runs_module(case.backend):
        return layers.join_modules(recording.nodes, model.modules_of(case, files))
    return layers.join(recording.nodes, model.nodes_of(files))


def write(profile: Profile, out: Path) -> None:
    """Writes ``profile.json`` (with every sample) and ``profile.csv`` (the rows) into a folder.

    Raises:
        BenchError: the folder cannot be written.
    """
    content = {**profile.to_dict(), "recording": plain(profile.recording)}
    write_text(out / "profile.json", json.dumps(content) + "\n")
    write_csv(document(profile, 0).frames["rows"], out / "profile.csv")
