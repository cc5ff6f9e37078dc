"""What is known of a machine from earlier measurements: what difference it resolves, and the peaks that it reached."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.record.files import plain, warn_damaged, write_text
from export.store import default_root
from scarlet.errors import error_text
from scarlet.files import read_json

if TYPE_CHECKING:
    from bench.host.peaks import Peak

# A month: after it the machine has been updated, moved or filled with other work.
MAX_AGE = timedelta(days=30)


@dataclass(frozen=True)
class Resolution:
    """What an A/A run's samples say. All figures are shares: 0.01 is 1 %.

    Attributes:
        interleaved: the smallest m such that the 95 % sign-test interval of the log ratio of the two copies, paired by
            round over all rounds, lies within -log(1 + m)..log(1 + m). Verdicts of later runs use it.
        interleaved_short, sequential: the bound that the difference of the two copies stays under 95 % of the time in
            a comparison as short as one repetition: in turns, and one after the other. Both are exp(t * sqrt(mean of
            squared log ratios)) - 1 over the repetitions, with t the 97.5 % quantile of Student's distribution with
            as many degrees of freedom (the true log ratio is 0, so none is lost to a mean). In turns a repetition's
            log ratio is the median over its rounds; one after the other it is of the medians of the copies' blocks.
        interleaved_difference, sequential_difference: largest difference of the two copies in a repetition.
        repetitions: how many there were.
        rounds: interleaved rounds of all of them; the sequential blocks held as many slices.
    """

    interleaved: float
    interleaved_short: float
    interleaved_difference: float
    sequential: float
    sequential_difference: float
    repetitions: int
    rounds: int


@dataclass(frozen=True)
class NoiseResult:
    """A stored A/A run.

    Attributes:
        resolution: what it found.
        host_fingerprint: of the machine.
        measured_at: ISO 8601, UTC.
        load_1m: of the machine before it began, where known.
        model, backend, device, precision, batch, threads: of the Case.
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

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dict(plain(asdict(self)))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NoiseResult:
        """Reads what ``to_dict`` wrote; keys of later versions are ignored.

        Raises:
            KeyError, TypeError, ValueError: it is no such thing.
        """
        known = {item.name: data[item.name] for item in fields(cls)}
        known["resolution"] = Resolution(
            **{item.name: data["resolution"][item.name] for item in fields(Resolution)}
        )
        datetime.fromisoformat(data["measured_at"])
        float(known["resolution"].interleaved)
        return cls(**known)


@dataclass(frozen=True)
class KnownNoise:
    """What is known of a host's noise: a result or None, and a sentence about it."""

    result: NoiseResult | None
    note: str

    def to_dict(self) -> dict[str, Any]:
        """What a run keeps of it: ``resolution``, a share, where one is known, and a ``note``."""
        if self.result is None:
            return {"note": self.note}
        resolution = self.result.resolution.interleaved
        return {"resolution": resolution, "measured_at": self.result.measured_at, "note": self.note}


def save_noise(result: NoiseResult, folder: Path | None = None) -> Path:
    """Stores a result under its host's fingerprint, beside earlier ones.

    Args:
        result: as returned by ``bench.studies.noise.measure``.
        folder: ``noise`` in the store of artefacts where None.

    Raises:
        BenchError: the folder cannot be written.
    """
    stamp = "".join(sign for sign in result.measured_at if sign.isalnum())
    path = (folder or default_root() / "noise") / result.host_fingerprint / f"{stamp}-{os.getpid()}.json"
    write_text(path, json.dumps(result.to_dict(), indent=1, allow_nan=False) + "\n")
    return path


def lookup_noise(
    host_fingerprint: str, folder: Path | None = None, now: datetime | None = None
) -> KnownNoise:
    """The newest result of a host that is no older than ``MAX_AGE``, and a sentence on what was found.

    Args:
        host_fingerprint: of the host.
        folder: ``noise`` in the store of artefacts where None.
        now: the time, with its zone; the current one where None.
    """
    stored = sorted(
        _stored((folder or default_root() / "noise") / host_fingerprint), key=lambda item: item[0]
    )
    advice = "scarlet-bench noise tells what difference it can resolve"
    if not stored:
        return KnownNoise(None, f"no A/A run of this host is stored: {advice}")
    measured_at, newest = stored[-1]
    age = (now or datetime.now(timezone.utc)) - measured_at
    if age > MAX_AGE:
        return KnownNoise(
            None, f"the newest A/A run of this host is {age.days} days old and not used: {advice} today"
        )
    found = f"{newest.resolution.interleaved:.2%} by the A/A run of {newest.measured_at}"
    return KnownNoise(
        newest, f"smallest difference that this host resolves: {found} ({newest.model}, {newest.backend})"
    )


def _stored(folder: Path) -> Iterator[tuple[datetime, NoiseResult]]:
    for path in sorted(folder.glob("*.json")):
        try:
            result = NoiseResult.from_dict(read_json(path))
        except (OSError, ValueError, KeyError, TypeError) as error:
            warn_damaged(f"{path} left out: {error_text(error)}")
            continue
        measured_at = datetime.fromisoformat(result.measured_at)
        yield measured_at if measured_at.tzinfo else measured_at.replace(tzinfo=timezone.utc), result


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
        stored = read_json(path)
        return [
            {"threads": int(peak["threads"]), "gflop_per_s": dict(peak["gflop_per_s"]), **peak}
            for peak in stored
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        warn_damaged(f"{path} left out: {error_text(error)}")
        return []


def _peaks_path(host_fingerprint: str, folder: Path | None) -> Path:
    return (folder or default_root() / "peaks") / f"{host_fingerprint}.json"
