"""Warm-up and sampling of a latency Case.

A sampler takes turns. How long a turn is, and when the run ends, the runner decides from what the sampler reports,
so that all Cases of a run are treated alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import NDArray

STAGE = "compute"
# A call as its caller sees it: with the copies to the device and back, and the host's own work.
WHOLE = "end_to_end"

# A turn takes at least so many samples, however slow they are: the median of a round needs a few.
MIN_SAMPLES_PER_TURN = 5


@dataclass(frozen=True)
class WarmUpRule:
    """Warm-up ends when two adjacent windows of samples agree in their first and third quartiles.

    A cold cache or a rising clock shows as a shift of both. What it lets pass is told by docs/method.md: a slow
    change that the scatter of so few samples hides.

    Attributes:
        window: samples in each of the two windows.
        tolerance: largest relative difference of the first and third quartiles.
        max_ns: give up waiting after this much time; the Case then says that it did not settle.
    """

    window: int = 20
    tolerance: float = 0.05
    max_ns: int = 3_000_000_000

    def settled(self, latency_ns: NDArray[np.int64]) -> bool:
        """True when the last two windows agree."""
        if len(latency_ns) < 2 * self.window:
            return False
        before, after = np.percentile(latency_ns[-2 * self.window :].reshape(2, -1), [25, 75], axis=1).T
        return bool((np.abs(after - before) <= self.tolerance * before).all())


@dataclass
class Samples:
    """Columns of every timed sample, warm-up included.

    Attributes:
        round, warmup: when it was taken, and whether it counts.
        latency_ns: what verdicts look at.
        stages: of a call that times its stages, the time of each but that one, by the stage's name.
    """

    round: list[int] = field(default_factory=list)
    warmup: list[bool] = field(default_factory=list)
    latency_ns: list[int] = field(default_factory=list)
    stages: dict[str, list[int]] = field(default_factory=dict)


class LatencySampler:
    """Times single calls, turn by turn.

    Args:
        call: runs the thing once; it is complete when ``call`` returns.
        clock_ns: a monotonic clock in nanoseconds.
        headline: empty where the clock times the call. Else the name of the stage whose time is a sample's: the call
            then returns nanoseconds by stage, and what the clock says of the whole call is the stage ``WHOLE``.
        before: done before each call, outside of what is timed.
    """

    min_samples_per_turn = MIN_SAMPLES_PER_TURN

    def __init__(
        self,
        call: Callable[[], object],
        clock_ns: Callable[[], int],
        warm_up: WarmUpRule | None = None,
        headline: str = "",
        before: Callable[[], object] | None = None,
    ) -> None:
        self._call = call
        self._headline, self._before = headline, before
        self._clock_ns = clock_ns
        self._warm_up = warm_up or WarmUpRule()
        self.samples = Samples()
        self._warm_up_ns: list[int] = []
        self._warming_ns = 0
        self._n_measured = 0
        self.settled = False
        self.warm = False
        self.turn_median_ns = 0.0

    @property
    def n_warmup(self) -> int:
        return len(self.samples.latency_ns) - self._n_measured

    def warm_up_turn(self, slice_ns: int) -> None:
        """One slice of warm-up. ``warm`` turns True when it settled or took too long."""
        self._warm_up_ns += self._take(-1, True, slice_ns)
        self.settled = self._warm_up.settled(np.asarray(self._warm_up_ns, dtype=np.int64))
        self.warm = self.settled or self._warming_ns >= self._warm_up.max_ns

    def turn(self, round_: int, slice_ns: int) -> None:
        """One slice of measurement.

        The first call of a turn finds the caches as another worker left them: it is kept as a warm-up sample.
        """
        self._record(round_, warmup=True)
        taken = self._take(round_, False, slice_ns)
        self.turn_median_ns = float(np.median(taken))
        self._n_measured += len(taken)

    def _take(self, round_: int, warmup: bool, slice_ns: int) -> list[int]:
        started = self._clock_ns()
        taken: list[int] = []
        while len(taken) < self.min_samples_per_turn or self._clock_ns() - started < slice_ns:
            taken.append(self._record(round_, warmup))
        return taken

    def _record(self, round_: int, warmup: bool) -> int:
        if self._before is not None:
            self._before()
        before = self._clock_ns()
        result = self._call()
        latency_ns = self._clock_ns() - before
        if round_ < 0:
            self._warming_ns += latency_ns
        if self._headline:
            latency_ns = self._record_stages(dict(cast("Mapping[str, int]", result)), latency_ns)
        self.samples.round.append(round_)
        self.samples.warmup.append(warmup)
        self.samples.latency_ns.append(latency_ns)
        return latency_ns

    def _record_stages(self, stages: dict[str, int], whole_ns: int) -> int:
        """Keeps the other stages of a call, and gives the headline's time."""
        headline_ns = stages.pop(self._headline)
        for name, stage_ns in {**stages, WHOLE: whole_ns}.items():
            self.samples.stages.setdefault(name, []).append(stage_ns)
        return headline_ns
