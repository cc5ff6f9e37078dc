"""A backend that returns the times and logits it was told. The harness is tested on it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.backends.base import Choices, ModelFiles, Unavailable, Unsupported
from bench.record.case import Case

FAULTS = (
    "",
    "raise",
    "memory",
    "sigkill",
    "exit",
    "hang",
    "unavailable",
    "unsupported",
    "interrupt",
    "fallback",
)


class Fake:
    """Computes nothing worth knowing; its clock moves by what it was told.

    Options (all text):
        latency_ns: time of one call, on its own clock (default 1,000,000).
        per_image_ns: added for every image of the batch (default 0).
        noise: standard deviation of a log-normal factor on each call (default 0).
        seed: of the noise and of the logits' projection (default 0).
        drift: relative slow-down a second of its own clock (default 0).
        warmup_calls, warmup_factor: the first calls take this many times as long (default 0, 3).
        flip: share of images whose top-1 and top-2 logits are exchanged (default 0).
        fault: one of ``FAULTS``, raised or done at ``fault_at`` (``load`` or ``infer``, default ``infer``)
            at call number ``fault_call`` (default 1).
        fault_once: a file that the fault makes first; while it exists there is no fault.
    """

    name: ClassVar[str] = "fake"
    OPTIONS: ClassVar[Mapping[str, Choices]] = {
        **dict.fromkeys(("latency_ns", "per_image_ns", "noise", "seed", "drift", "flip"), "text"),
        **dict.fromkeys(
            ("warmup_calls", "warmup_factor", "fault", "fault_at", "fault_call", "fault_once"), "text"
        ),
    }

    def __init__(self) -> None:
        self._now_ns = 0
        self._calls = 0

    def load(self, case: Case, files: ModelFiles) -> None:
        self._case = case

        def number(name: str, default: str) -> float:
            return float(case.option(name, default))

        self._latency_ns = number("latency_ns", "1000000")
        self._per_image_ns = number("per_image_ns", "0")
        self._noise = number("noise", "0")
        self._drift = number("drift", "0")
        self._warmup_calls = number("warmup_calls", "0")
        self._warmup_factor = number("warmup_factor", "3")
        self._flip = number("flip", "0")
        self._fault_call = number("fault_call", "1")
        seed = int(case.option("seed", "0"))
        self._times = np.random.default_rng(seed)
        # A projection of the pixels' 8 x 8 block means: cheap, and different images get different classes.
        self._projection = (
            np.random.default_rng(12345).standard_normal((3 * 64, files.classes)).astype(np.float32)
        )
        if case.option("fault_at", "infer") == "load":
            self._misbehave()

    def clock_ns(self) -> int:
        """The clock that the harness reads instead of the machine's."""
        return self._now_ns

    def infer(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        self._calls += 1
        if self._case.option("fault_at", "infer") == "infer" and self._calls >= self._fault_call:
            self._misbehave()
        base = self._latency_ns + self._per_image_ns * len(pixels)
        warm = self._warmup_factor if self._calls <= self._warmup_calls else 1.0
        drift = 1.0 + self._drift * self._now_ns / 1e9
        noise = float(np.exp(self._times.standard_normal() * self._noise)) if self._noise else 1.0
        self._now_ns += round(base * warm * drift * noise)
        return self._logits(pixels)

    def _logits(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        n, channels, height, width = pixels.shape
        blocks = pixels[:, :, : height // 8 * 8, : width // 8 * 8]
        means = blocks.reshape(n, channels, 8, height // 8, 8, width // 8).mean(axis=(3, 5), dtype=np.float64)
        logits: NDArray[np.float32] = (means.reshape(n, -1).astype(np.float32) @ self._projection).astype(
            np.float32
        )
        for row in logits:
            # Which images flip depends on the image alone, so that batches of any size flip the same ones.
            if self._flip and (float(row[0]) * 1e4) % 1.0 < self._flip:
                first, second = np.argsort(-row, kind="stable")[:2]
                row[[first, second]] = row[[second, first]]
        return logits

    def _misbehave(self) -> None:
        fault = self._case.option("fault")
        if fault not in FAULTS:
            raise Unsupported(f"fake.fault is '{fault}'; it can be one of {', '.join(FAULTS[1:])}")
        once = self._case.option("fault_once")
        if once:
            if Path(once).exists():
                return
            Path(once).touch()
        if fault == "raise":
            raise RuntimeError("the fake backend was told to raise")
        if fault == "memory":
            raise MemoryError("the fake backend was told to run out of memory")
        if fault == "sigkill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "exit":
            os._exit(7)
        if fault == "hang":
            time.sleep(3600)
        if fault == "unavailable":
            raise Unavailable("the fake backend was told to be unavailable; nothing to install")
        if fault == "unsupported":
            raise Unsupported("the fake backend was told to be unsupported")
        if fault == "interrupt":
            # As a Ctrl-C in the middle of a run: the signal goes to the process that drives this worker.
            os.kill(os.getppid(), signal.SIGINT)
            time.sleep(30)

    def proof(self) -> dict[str, Any]:
        fallback = (
            "the fake backend was told to fall back" if self._case.option("fault") == "fallback" else ""
        )
        return {"calls": self._calls, "fallback": fallback}

    def close(self) -> None:
        self._calls = 0
