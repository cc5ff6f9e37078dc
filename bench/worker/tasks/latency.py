"""Latency: one call after another on pixels held in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.backends.base import Backend, TimesStages, Unsupported
from bench.record.case import Case
from bench.worker.inputs import pixels_of
from bench.worker.messages import Context, Outcome, Progress
from bench.worker.sampling import STAGE, WHOLE, LatencySampler
from bench.worker.tasks.base import clock_of, write_samples


class LatencyTask:
    """Times one call after another on the first batch of real images, held in memory.

    On the CPU a sample is the stage ``compute``: the call as its caller sees it. On a GPU ``compute`` is the GPU's
    work alone, timed by the backend's events, and it is what rows are compared on; ``h2d``, ``d2h`` and
    ``end_to_end``, the call as its caller sees it, are kept beside. A backend on a GPU that has no such events is
    timed as ``end_to_end``, and so compared with none that has.
    """

    def __init__(self, case: Case, backend: Backend, context: Context) -> None:
        self._case, self._run = case, context.run_folder
        flush = l2_flush(case)
        pixels, self._input_sha256 = pixels_of(case, context)
        call: Callable[[], object] = lambda: backend.infer(pixels)  # noqa: E731
        self._stage, headline = STAGE, ""
        if case.device == "cuda":
            if isinstance(backend, TimesStages):
                headline, call = STAGE, _staged(backend, pixels)
            else:
                self._stage = WHOLE
        self._sampler = LatencySampler(call, clock_of(backend), headline=headline, before=flush)
        self._clock = clock_of(backend)

    def turn(self, round_: int, slice_ns: int) -> Progress:
        """One slice: of warm-up for a negative round, else of measurement."""
        started = self._clock()
        sampler = self._sampler
        if round_ < 0:
            sampler.warm_up_turn(slice_ns)
        else:
            sampler.turn(round_, slice_ns)
        samples = sampler.samples
        return Progress(
            warm=sampler.warm,
            done=False,
            fraction=0.0,
            busy_ns=self._clock() - started,
            median_ns=sampler.turn_median_ns,
            detail=f"{len(samples.latency_ns)} samples, last {samples.latency_ns[-1] / 1e6:.3g} ms",
        )

    def finish(self, stop_reason: str) -> Outcome:
        images = self._case.batch * self._case.instances
        write_samples(self._run, self._case, self._stage, self._sampler.samples, images)
        return Outcome(
            stage=self._stage,
            metrics={
                "n_warmup": self._sampler.n_warmup,
                "warmup_settled": self._sampler.settled,
                "stop_reason": stop_reason,
                "input_sha256": self._input_sha256,
            },
        )

    @property
    def images_worked_on(self) -> int:
        """Images of all calls so far, warm-up included."""
        return len(self._sampler.samples.latency_ns) * self._case.batch * self._case.instances

    def close(self) -> None:
        """Nothing is held open."""


def _staged(backend: TimesStages, pixels: NDArray[np.float32]) -> Callable[[], Mapping[str, int]]:
    def call() -> Mapping[str, int]:
        _, stages = backend.infer_stages(pixels)
        return stages

    return call


def l2_flush(case: Case) -> Callable[[], Any] | None:
    """What to do before each call, by the option ``l2``; nothing where the cache is left as it is.

    Raises:
        Unsupported: a Case on the CPU asks for it.
    """
    if case.option("l2", "warm") == "warm":
        return None
    if case.device != "cuda":
        raise Unsupported(f"{case.backend}.l2 is about the GPU's cache; leave it out on the CPU")
    from bench.backends.cuda import L2Flush

    return L2Flush()
