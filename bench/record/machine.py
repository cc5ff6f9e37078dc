"""What is known of a machine from earlier measurements: what difference it resolves, and the peaks that it reached."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import host
from bench.record.files import plain, warn_damaged, write_text
from export.store import default_root
from scarlet.errors import error_text
from scarlet.files import read_json

if TYPE_CHECKING:
    from bench.host.peaks import Peak

# A month: after it the machine has been updated, moved or filled with other work.
MAX_AGE = timedelta(days=30)
# A result holds while other programs keep about as many cores busy: half a core more or less is another machine.
LIKE_CORES = 0.5
# Two results of one machine an hour apart differ: of the newest ones the largest is used.
RESULTS_USED = 3


@dataclass(frozen=True)
class Resolution:
    """What an A/A run's samples say. All figures are shares: 0.01 is 1 %.

    Attributes:
        interleaved: the bound that the difference of two equal Cases stays under 95 % of the time, from one pair of
            processes to the next: exp(t * sqrt(mean of squared log ratios)) - 1 over the lives, with t the 97.5 %
            quantile of Student's distribution with as many degrees of freedom (the expected log ratio is 0, so none is
            lost to a mean). Verdicts of later runs use it.
        largest: difference of the two in a life.
        lives: fresh pairs of processes.
    """

    interleaved: float
    largest: float
    lives: int
    rounds: int


@dataclass(frozen=True)
class NoiseResult:
    """A stored A/A run.

    Attributes:
        measured_at: ISO 8601, UTC.
        load_1m: of the machine before it began, where known.
        others_cores: that other programs kept busy then, where known.
    """

    resolution: Resolution
    host_fingerprint: str
    measured_at: str
    load_1m: float | None
    model: str
    backend: str
    device: str
    precision: str
    batch: int
    threads: int
    others_cores: float | None = None


def machine_facts(packages: Mapping[str, str | None], devices: Sequence[str], threads: int) -> dict[str, Any]:
    """What ``run.json`` has of the machine that measures: host, packages, noise, peaks and warnings.

    To be called before the run's own work begins, which would show as load.
    """
    described = host.describe_host(watch_seconds=host.WATCH_SECONDS)
    described["fingerprint"] = host.fingerprint(described)
    return {
        "host": described,
        "packages": packages,
        "noise": lookup_noise(described),
        "peaks": lookup_peaks(described["fingerprint"]),
        "warnings": host.warnings(described, packages, devices, threads),
    }


def save_noise(result: NoiseResult, folder: Path | None = None) -> Path:
    """Stores a result under its host's fingerprint, beside earlier ones.

    Args:
        folder: ``noise`` in the store of artefacts where None.

    Raises:
        BenchError: the folder cannot be written.
    """
    stamp = "".join(sign for sign in result.measured_at if sign.isalnum())
    path = (folder or default_root() / "noise") / result.host_fingerprint / f"{stamp}-{os.getpid()}.json"
    write_text(path, json.dumps(plain(result), indent=1, allow_nan=False) + "\n")
    return path


def lookup_noise(
    described: Mapping[str, Any], folder: Path | None = None, now: datetime | None = None
) -> dict[str, Any]:
    """What a run keeps of a host's noise: a ``note``, and of the largest of the newest results that still hold, where
    there is one, its ``resolution``, a share, and ``measured_at``.

    A result holds for ``MAX_AGE``, and while other programs keep about as many cores busy as they did then.

    Args:
        described: as returned by ``describe_host``, with its ``fingerprint``.
        folder: ``noise`` in the store of artefacts where None.
    """
    stored = sorted(_stored((folder or default_root() / "noise") / described["fingerprint"]), key=lambda item: item[0])
    advice = "scarlet-bench noise tells what difference it can resolve"
    if not stored:
        return {"note": f"no A/A run of this host is stored: {advice}"}
    now, busy = now or datetime.now(timezone.utc), others_cores(described)
    fresh = [result for measured_at, result in stored if now - measured_at <= MAX_AGE]
    if not fresh:
        age = (now - stored[-1][0]).days
        return {"note": f"the newest A/A run of this host is {age} days old and not used: {advice} today"}
    alike = [result for result in fresh if _is_like(busy, result.others_cores)]
    if not alike:
        what = f"other programs keep {busy:.1f} cores busy, unlike in the A/A runs of this host"
        return {"note": f"{what}, which are not used: {advice} now"}
    largest = max(alike[-RESULTS_USED:], key=lambda result: result.resolution.interleaved)
    resolution, measured_at = largest.resolution.interleaved, largest.measured_at
    found = f"{resolution:.2%} by the A/A run of {measured_at} ({largest.model}, {largest.backend})"
    note = f"difference that this host resolves: {found}"
    return {"resolution": resolution, "measured_at": measured_at, "note": note}


def others_cores(described: Mapping[str, Any]) -> float | None:
    """How many cores other programs kept busy while a host was described; None where nobody watched."""
    value = (described.get("activity") or {}).get("cpu_by_others_cores")
    return None if value is None else float(value)


def _is_like(now: float | None, then: float | None) -> bool:
    return now is None or then is None or abs(now - then) < LIKE_CORES


def _stored(folder: Path) -> Iterator[tuple[datetime, NoiseResult]]:
    """The results of a host; those of one pair of processes, as versions before lives wrote them, hold nothing."""
    from pydantic import TypeAdapter

    for path in sorted(folder.glob("*.json")):
        try:
            data = read_json(path)
            if "repetitions" in data["resolution"]:
                continue
            result = TypeAdapter(NoiseResult).validate_python(data)
            measured_at = datetime.fromisoformat(result.measured_at)
        except (OSError, ValueError, KeyError, TypeError) as error:
            warn_damaged(f"{path} left out: {error_text(error)}")
            continue
        yield measured_at if measured_at.tzinfo else measured_at.replace(tzinfo=timezone.utc), result


def save_peaks(peaks: Sequence[Peak], host_fingerprint: str, folder: Path | None = None) -> Path:
    """Stores what a host reached, in place of what was stored before.

    Args:
        peaks: one for each number of threads.
        folder: ``peaks`` beside the artefacts where None.

    Raises:
        BenchError: the folder cannot be written.
    """
    path = _peaks_path(host_fingerprint, folder)
    write_text(path, json.dumps([asdict(peak) for peak in peaks], indent=1) + "\n")
    return path


def lookup_peaks(host_fingerprint: str, folder: Path | None = None) -> list[dict[str, Any]]:
    """The ``Peak``, as JSON types, of each number of threads that was measured on a host; empty where there is none."""
    path = _peaks_path(host_fingerprint, folder)
    try:
        stored = read_json(path)
        return [{"threads": int(peak["threads"]), "gflop_per_s": dict(peak["gflop_per_s"]), **peak} for peak in stored]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        warn_damaged(f"{path} left out: {error_text(error)}")
        return []


def _peaks_path(host_fingerprint: str, folder: Path | None) -> Path:
    return (folder or default_root() / "peaks") / f"{host_fingerprint}.json"
