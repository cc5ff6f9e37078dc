"""The A/A run: the same Case measured twice as if it were two, to learn what difference this machine can resolve today.

Both copies are measured in turns (as every run does) and one after the other (as most tools do), in repetitions that
follow one another, so that both ways meet the same conditions. What is found is stored with the host's fingerprint;
verdicts of later runs on that host call no smaller difference material.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.record.case import Case
from bench.record.files import one_line, plain, warn_damaged, write_text
from export.store import default_root

if TYPE_CHECKING:
    import pandas as pd

OPTION = "aa"

# Round numbers tell where a sample belongs: repetition * REPETITION + place, with SEQUENTIAL added in the arm that
# measures one copy after the other.
REPETITION, SEQUENTIAL = 1_000_000, 500_000

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


class Known(NamedTuple):
    """What is known of a host's noise: a result or None, and a sentence about it."""

    result: NoiseResult | None
    note: str


def noise_cases(base: Case) -> tuple[Case, Case]:
    """The two copies: latency Cases that differ in nothing but a label that every backend ignores."""
    first, second = (
        replace(base, scenario="latency", options=tuple(sorted({**dict(base.options), OPTION: name}.items())))
        for name in ("a", "b")
    )
    return first, second


# --- the figures ------------------------------------------------------------------------------------------------------


def resolution_of(samples: pd.DataFrame, cases: tuple[Case, Case]) -> Resolution:
    """What difference of two Cases the samples of an A/A run could have told from noise.

    Args:
        samples: as of ``RunFolder.samples``, of a run that ``noise_run.measure`` made.
        cases: the two copies.

    Raises:
        ValueError: a repetition lacks a copy, or there are fewer than six rounds.
    """
    import numpy as np

    from bench.analysis.stats import intervals

    kept = samples[~samples["warmup"] & (samples["round"] >= 0)]
    numbers = kept["round"].to_numpy()
    kept = kept.assign(
        repetition=numbers // REPETITION,
        sequential=numbers % REPETITION >= SEQUENTIAL,
        case_id=kept["case_id"].astype(str),
    )
    first_id, second_id = (case.case_id for case in cases)
    paired: list[list[float]] = []
    blocks: list[float] = []
    for _, part in kept.groupby("repetition"):
        in_turns = part[~part["sequential"]].groupby(["round", "case_id"])["latency_ns"].median()
        rounds = in_turns.unstack("case_id").dropna()
        medians = part[part["sequential"]].groupby("case_id")["latency_ns"].median()
        if not {first_id, second_id} <= set(rounds.columns) & set(medians.index):
            raise ValueError("a repetition lacks one of the two copies")
        paired.append(np.log(rounds[first_id] / rounds[second_id]).tolist())
        blocks.append(math.log(medians[first_id] / medians[second_id]))
    logs = [log for repetition in paired for log in repetition]
    interval = intervals.sign_test_interval(logs) if logs else None
    if interval is None:
        raise ValueError(f"{len(logs)} rounds are too few for an interval")
    in_turns_logs = [float(np.median(repetition)) for repetition in paired]
    return Resolution(
        interleaved=math.expm1(max(abs(interval.low), abs(interval.high))),
        interleaved_short=_bound(in_turns_logs),
        interleaved_difference=math.expm1(max(map(abs, in_turns_logs))),
        sequential=_bound(blocks),
        sequential_difference=math.expm1(max(map(abs, blocks))),
        repetitions=len(paired),
        rounds=len(logs),
    )


def _bound(logs: Sequence[float]) -> float:
    """What log ratios whose true mean is 0 stay under 95 % of the time, as a difference: see ``Resolution``."""
    from scipy.special import stdtrit

    t = float(stdtrit(len(logs), 0.975))
    return math.expm1(t * math.sqrt(sum(log * log for log in logs) / len(logs)))


def text(result: NoiseResult) -> str:
    """Some lines for people."""
    found = result.resolution
    load = "" if result.load_1m is None else f", load {result.load_1m:.2f}"
    many = "s" if result.threads > 1 else ""
    return (
        f"{result.model} on {result.backend} against itself: {result.device} {result.precision} batch {result.batch}, "
        f"{result.threads} thread{many}{load}\n"
        f"{found.interleaved:.2%} is the smallest difference that this machine tells from noise in "
        f"{found.rounds} rounds of taking turns\n"
        f"in comparisons of a {found.repetitions}th of that time, 95 % of differences between equals stay under\n"
        f"  {found.interleaved_short:.2%} in turns (the largest seen: {found.interleaved_difference:.2%})\n"
        f"  {found.sequential:.2%} one after the other (the largest seen: {found.sequential_difference:.2%})"
    )


# --- the store --------------------------------------------------------------------------------------------------------


def default_folder() -> Path:
    """Where results are kept: ``noise`` in the store of artefacts."""
    return default_root() / "noise"


def save(result: NoiseResult, folder: Path | None = None) -> Path:
    """Stores a result under its host's fingerprint, beside earlier ones.

    Args:
        result: what ``noise_run.measure`` gave.
        folder: ``default_folder()`` where None.

    Raises:
        BenchError: the folder cannot be written.
    """
    stamp = "".join(sign for sign in result.measured_at if sign.isalnum())
    path = (folder or default_folder()) / result.host_fingerprint / f"{stamp}-{os.getpid()}.json"
    write_text(path, json.dumps(result.to_dict(), indent=1, allow_nan=False) + "\n")
    return path


def lookup(host_fingerprint: str, folder: Path | None = None, now: datetime | None = None) -> Known:
    """The newest result of a host that is no older than ``MAX_AGE``, and a sentence on what was found.

    Args:
        host_fingerprint: of the host.
        folder: ``default_folder()`` where None.
        now: the time, with its zone; the current one where None.
    """
    stored = sorted(_stored((folder or default_folder()) / host_fingerprint), key=lambda item: item[0])
    advice = "scarlet-bench noise tells what difference it can resolve"
    if not stored:
        return Known(None, f"no A/A run of this host is stored: {advice}")
    measured_at, newest = stored[-1]
    age = (now or datetime.now(timezone.utc)) - measured_at
    if age > MAX_AGE:
        return Known(
            None, f"the newest A/A run of this host is {age.days} days old and not used: {advice} today"
        )
    found = f"{newest.resolution.interleaved:.2%} by the A/A run of {newest.measured_at}"
    return Known(
        newest, f"smallest difference that this host resolves: {found} ({newest.model}, {newest.backend})"
    )


def _stored(folder: Path) -> Iterator[tuple[datetime, NoiseResult]]:
    for path in sorted(folder.glob("*.json")):
        try:
            result = NoiseResult.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            warn_damaged(f"{path} left out: {one_line(error)}")
            continue
        measured_at = datetime.fromisoformat(result.measured_at)
        yield measured_at if measured_at.tzinfo else measured_at.replace(tzinfo=timezone.utc), result
