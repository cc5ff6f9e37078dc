"""A backend that returns the times and logits it was told. The harness is tested on it."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.backends.base import Facts, ModelFiles, Unavailable, Unsupported, read_options
from bench.record.case import Case

RAISED = {
    "raise": RuntimeError("the fake backend was told to raise"),
    "memory": MemoryError("the fake backend was told to run out of memory"),
    "unavailable": Unavailable("the fake backend was told to be unavailable; nothing to install"),
    "unsupported": Unsupported("the fake backend was told to be unsupported"),
}
FAULTS = ("", *RAISED, "sigkill", "exit", "hang", "interrupt", "fallback")


@dataclass(frozen=True)
class Options:
    """Options of the fake backend, all of them texts.

    Attributes:
        latency_ns: time of one call, on its own clock.
        per_image_ns: added for every image of the batch.
        noise: standard deviation of a log-normal factor on each call.
        seed: of the noise and of the logits' projection.
        warmup_calls: how many calls at the beginning take three times as long.
        flip: share of images whose top-1 and top-2 logits are exchanged.
        fault: one of ``FAULTS``.
        fault_at: ``load`` or ``infer``, where the fault is raised or done.
        fault_call: at which call of ``infer``.
        fault_once: a file that the fault makes first; while it exists there is no fault.
    """

    latency_ns: str = "1000000"
    per_image_ns: str = "0"
    noise: str = "0"
    seed: str = "0"
    warmup_calls: str = "0"
    flip: str = "0"
    fault: str = ""
    fault_at: str = "infer"
    fault_call: str = "1"
    fault_once: str = ""


class Fake:
    """Computes nothing worth knowing; its clock moves by what it was told."""

    FACTS: ClassVar[Facts] = Facts(
        name="fake",
        display_name="fake",
        colour="#999999",
        module="bench.backends.fake",
        packages={"cpu": "scarlet-bench", "cuda": "scarlet-bench"},
        options=Options,
    )

    def __init__(self) -> None:
        self._now_ns = 0
        self._calls = 0

    def load(self, case: Case, files: ModelFiles) -> None:
        self._options = options = read_options(Options, case)
        texts = ("fault", "fault_at", "fault_once")
        self._told = {name: float(value) for name, value in vars(options).items() if name not in texts}
        self._times = np.random.default_rng(int(options.seed))
        # A projection of the pixels' 8 x 8 block means: cheap, and different images get different classes.
        self._projection = np.random.default_rng(12345).standard_normal((3 * 64, files.classes)).astype(np.float32)
        if options.fault_at == "load":
            self._misbehave()

    def clock_ns(self) -> int:
        """The clock that the harness reads instead of the machine's."""
        return self._now_ns

    def infer(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        self._calls += 1
        told = self._told
        if self._options.fault_at == "infer" and self._calls >= told["fault_call"]:
            self._misbehave()
        base = told["latency_ns"] + told["per_image_ns"] * len(pixels)
        warm = 3.0 if self._calls <= told["warmup_calls"] else 1.0
        noise = float(np.exp(self._times.standard_normal() * told["noise"])) if told["noise"] else 1.0
        self._now_ns += round(base * warm * noise)
        return self._logits(pixels)

    def _logits(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        n, channels, height, width = pixels.shape
        blocks = pixels[:, :, : height // 8 * 8, : width // 8 * 8]
        means = blocks.reshape(n, channels, 8, height // 8, 8, width // 8).mean(axis=(3, 5), dtype=np.float64)
        logits: NDArray[np.float32] = (means.reshape(n, -1).astype(np.float32) @ self._projection).astype(np.float32)
        for row in logits:
            # Which images flip depends on the image alone, so that batches of any size flip the same ones.
            if (float(row[0]) * 1e4) % 1.0 < self._told["flip"]:
                first, second = np.argsort(-row, kind="stable")[:2]
                row[[first, second]] = row[[second, first]]
        return logits

    def _misbehave(self) -> None:
        fault = self._options.fault
        if fault not in FAULTS:
            raise Unsupported(f"fake.fault is '{fault}'; it can be one of {', '.join(FAULTS[1:])}")
        once = self._options.fault_once
        if once:
            if Path(once).exists():
                return
            Path(once).touch()
        if fault in RAISED:
            raise RAISED[fault]
        if fault == "sigkill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "exit":
            os._exit(7)
        if fault == "hang":
            time.sleep(3600)
        if fault == "interrupt":
            # As a Ctrl-C in the middle of a run: the signal goes to the process that drives this worker.
            os.kill(os.getppid(), signal.SIGINT)
            time.sleep(30)

    def proof(self) -> dict[str, Any]:
        fallback = "the fake backend was told to fall back" if self._options.fault == "fallback" else ""
        return {"calls": self._calls, "fallback": fallback}

    def close(self) -> None:
        self._calls = 0
