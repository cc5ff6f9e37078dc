"""What is known of a machine from earlier measurements: the peaks that it reached."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.host.peaks import Peak
from bench.record.files import one_line, warn_damaged, write_text
from export.store import default_root


def save_peaks(peaks: Sequence[Peak], host_fingerprint: str, folder: Path | None = None) -> Path:
    """Stores what a host reached, in place of what was stored before.

    Args:
        peaks: one for each number of threads.
        host_fingerprint: of the host.
        folder: ``peaks`` beside the artefacts where None.

    Raises:
        BenchError: the folder cannot be written.
    """
    path = _peaks_path(host_fingerprint, folder)
    write_text(path, json.dumps([peak.to_dict() for peak in peaks], indent=1) + "\n")
    return path


def lookup_peaks(host_fingerprint: str, folder: Path | None = None) -> list[dict[str, Any]]:
    """``Peak.to_dict()`` of each number of threads that was measured on a host; empty where there is none."""
    path = _peaks_path(host_fingerprint, folder)
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return [
            {"threads": int(peak["threads"]), "gflop_per_s": dict(peak["gflop_per_s"]), **peak}
            for peak in stored
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        warn_damaged(f"{path} left out: {one_line(error)}")
        return []


def _peaks_path(host_fingerprint: str, folder: Path | None) -> Path:
    return (folder or default_root() / "peaks") / f"{host_fingerprint}.json"
