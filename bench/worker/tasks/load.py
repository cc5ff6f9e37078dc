"""MLPerf's load scenarios: LoadGen sends queries to the backend, images in memory, and says whether a test is valid."""

from __future__ import annotations

import hashlib
import json
import math
import queue
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.backends.base import Backend, Unavailable, Unsupported
from bench.record.case import LOAD, Case
from bench.record.run_folder import LOGS
from bench.worker.inputs import LIBRARY, library, pixels_of
from bench.worker.messages import Context, Outcome, Progress
from bench.worker.sampling import LatencySampler, Samples
from bench.worker.tasks.base import write_samples
from bench.worker.tasks.overlap import Overlap

QUERY = 8  # images, in MultiStream by MLPerf's rules
# Early stopping judges a 90th percentile by 64 queries at least, a 99th by 662 (459 where none is late).
LEAST_QUERIES, LEAST_QUERIES_P99 = 64, 662
# Offline sends so much more than is expected to take the time: a turn on a machine that was busy before is faster.
MARGIN = 2.0
# Those of mlperf.conf in LoadGen 6.0. Every test sees the same arrivals, scaled by its rate.
SEEDS = {"qsl": 2085463073848966840, "sample_index": 2747215439041700203, "schedule": 16159082839903944936}

Pixels = NDArray[np.float32]


@dataclass
class RateSearch:
    """The highest valid rate, queries a second: between the highest valid and the lowest invalid one so far.

    It gives up where three halvings find none: a test at a low rate takes long.
    """

    rate: float
    low: float = 0.0
    high: float = math.inf
    tried: int = 0
    most: int = 20
    narrow: float = 1.03

    def judge(self, is_valid: bool) -> None:
        """Takes the verdict on ``rate``, and chooses the next one."""
        self.tried += 1
        self.low, self.high = (self.rate, self.high) if is_valid else (self.low, self.rate)
        enclosed = self.low and math.isfinite(self.high)
        self.rate = math.sqrt(self.low * self.high) if enclosed else self.low * 1.5 or self.high / 2.0

    @property
    def is_done(self) -> bool:
        return self.high <= self.low * self.narrow or self.tried >= (self.most if self.low else 4)


class LoadTask:
    """Turns of one LoadGen test each, on ``LIBRARY`` images of the run in memory.

    SingleStream sends an image when the one before is answered, MultiStream eight, Offline all at once: a test is one
    sample of the stage ``query`` for each query. Server sends single images at random times; up to ``case.batch`` of
    those that wait are answered in one call, which the option ``delay_us`` has wait for more. Each turn tries a rate,
    until the highest valid one is known within 3 %: whose p99 is within the limit (option ``limit_us``, else three
    times the median latency of one image) by LoadGen's early stopping. ``queue`` and ``service`` are of each query the
    times before and since its call. All times are the machine's, as LoadGen's are.
    """

    STAGE = "query"

    def __init__(self, case: Case, backend: Backend, context: Context) -> None:
        try:
            import mlperf_loadgen
        except ImportError as missing:
            lacks = "the package mlcommons-loadgen is not installed; run: pip install mlcommons-loadgen"
            raise Unavailable(lacks) from missing
        if case.scenario == "singlestream" and case.instances > 1:
            raise Unsupported("SingleStream sends one query at a time, which copies of a backend cannot share")
        self._lg, self._case, self._run, self._context = mlperf_loadgen, case, context.run_folder, context
        self._limit_ns, self._delay_ns = (1000 * int(case.option(name, "0")) for name in ("limit_us", "delay_us"))
        self._pixels, self._input_sha256 = pixels_of(library(case), context)
        blank = np.zeros((case.batch, *self._pixels.shape[1:]), np.float32)
        self._backend, self._overlap = backend, Overlap(backend, device=case.device, blank=blank)
        self._buffers = [blank, *(np.zeros_like(blank) for _ in range(self._overlap.most))]
        first = blank[: context.files.fixed_batch or (1 if case.scenario == "server" else case.batch)]
        self._sampler = LatencySampler(lambda: backend.infer(first), time.perf_counter_ns)
        self._samples, self._stages, self._counts = Samples(), list[str](), list[int]()
        self._queue: queue.SimpleQueue[tuple[Any, int] | None] = queue.SimpleQueue()
        self._errors: list[Exception] = []
        self._answered: list[tuple[int, int, int, int]] = []  # of each query: images, and when it came, began, ended
        self._tests: list[dict[str, Any]] = []
        self._logs: dict[str, str] = {}
        self._search: RateSearch | None = None
        self._rate = 0.0  # images a second that Offline expects

    def _gather(self, indices: Sequence[int], buffer: Pixels) -> Pixels:
        """The pixels of these images, in as many places as a graph of fixed batch wants."""
        np.take(self._pixels, indices, axis=0, out=buffer[: len(indices)], mode="clip")
        return buffer[: self._context.files.fixed_batch or len(indices)]

    def _infer(self, indices: Sequence[int], buffers: Sequence[Pixels]) -> None:
        """Has the backend work on these images, in batches that overlap where it can. Errors wait for the turn's end:
        LoadGen must have its answer.
        """
        batch = self._case.batch
        parts = [indices[start : start + batch] for start in range(0, len(indices), batch)]
        pixels = (self._gather(part, buffers[number % len(buffers)]) for number, part in enumerate(parts))
        try:
            if len(parts) == self._overlap.slots == 1 and self._case.device == "cpu":
                self._backend.infer(next(pixels))
            else:
                deque(self._overlap.infer_all(pixels), maxlen=0)
        except Exception as error:
            self._errors.append(error)

    def _issue(self, samples: Sequence[Any]) -> None:
        """Called by LoadGen with a query."""
        came = time.perf_counter_ns()
        if self._case.scenario == "server":
            self._queue.put((samples[0], came))
        else:
            self._infer([sample.index for sample in samples], self._buffers)
            self._answer(samples, [came], came, len(samples))

    def _answer(self, samples: Sequence[Any], came: Sequence[int], began: int, images: int) -> None:
        ended = time.perf_counter_ns()
        self._lg.QuerySamplesComplete([self._lg.QuerySampleResponse(sample.id, 0, 0) for sample in samples])
        self._answered += [(images, at, began, ended) for at in came]

    def _serve(self) -> None:
        """Answers what waits in the queue, in batches, until it finds the end."""
        buffers, item = [np.zeros_like(self._buffers[0])], self._queue.get()
        while item is not None:
            waiting, until_ns = [item], item[1] + self._delay_ns
            item = None
            with suppress(queue.Empty):
                while len(waiting) < self._case.batch:
                    left_s = (until_ns - time.perf_counter_ns()) / 1e9
                    if (item := self._queue.get(left_s > 0, max(0.0, left_s))) is None:
                        self._queue.put(None)
                        break
                    waiting.append(item)
            began = time.perf_counter_ns()
            self._infer([sample.index for sample, _ in waiting], buffers)
            self._answer([sample for sample, _ in waiting], [came for _, came in waiting], began, 1)
            item = self._queue.get()

    def _settings(self) -> Any:
        lg, case, settings = self._lg, self._case, self._lg.TestSettings()
        settings.scenario = getattr(lg.TestScenario, LOAD[case.scenario])
        settings.min_duration_ms = round(1000 * self._context.load_seconds)
        settings.min_query_count = {"offline": 1, "server": LEAST_QUERIES_P99}.get(case.scenario, LEAST_QUERIES)
        for name, seed in SEEDS.items():
            setattr(settings, f"{name}_rng_seed", seed)
        settings.offline_expected_qps = MARGIN * max(self._rate, 1.0)
        # Of these it makes its queries beforehand, and must not run out of them.
        fastest_ns = min(self._sampler.samples.latency_ns) // 2
        settings.single_stream_expected_latency_ns = settings.multi_stream_expected_latency_ns = fastest_ns
        settings.multi_stream_samples_per_query = QUERY
        settings.multi_stream_target_latency_percentile = 0.9
        if self._search:
            settings.server_target_qps = self._search.rate
            settings.server_target_latency_ns = self._limit_ns
            settings.server_target_latency_percentile = 0.99
        return settings

    def _test(self, round_: int) -> dict[str, Any]:
        """One test: what LoadGen's detail log says of it. The logs stay in the run's folder."""
        lg, self._answered = self._lg, []
        folder = self._run.path / "loadgen" / self._case.case_id
        folder.mkdir(parents=True, exist_ok=True)
        output, logs = lg.LogOutputSettings(), lg.LogSettings()
        output.outdir, output.prefix = str(folder), f"{round_:04}_mlperf_log_"
        logs.log_output, logs.enable_trace = output, False
        with ThreadPoolExecutor(self._overlap.slots) as pool, ExitStack() as stack:
            for _ in range(self._overlap.slots if self._search else 0):
                pool.submit(self._serve)
                stack.callback(self._queue.put, None)
            sut = lg.ConstructSUT(self._issue, lambda: None)
            stack.callback(lg.DestroySUT, sut)
            qsl = lg.ConstructQSL(LIBRARY, LIBRARY, lambda indices: None, lambda indices: None)
            stack.callback(lg.DestroyQSL, qsl)
            lg.StartTestWithLogSettings(sut, qsl, self._settings(), logs)
        for empty in ("accuracy.json", "trace.json"):
            (folder / f"{output.prefix}{empty}").unlink(missing_ok=True)
        for path in folder.glob(f"{output.prefix}*.txt"):
            self._logs[path.relative_to(self._run.path).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
        detail = (folder / f"{output.prefix}detail.txt").read_text()
        events = [json.loads(line[8:]) for line in detail.splitlines() if line.startswith(":::MLLOG ")]
        return {event["key"]: event["value"] for event in events}

    def turn(self, round_: int, slice_ns: int) -> Progress:
        """One test; for a negative round, a slice of warm-up."""
        started = time.perf_counter_ns()
        told = self._test(round_) if round_ >= 0 else self._warm_up(slice_ns)
        if self._errors:
            raise self._errors[0]
        search, elapsed_ns = self._search, time.perf_counter_ns() - started
        if not told:
            return Progress(self._sampler.warm, False, 0.0, elapsed_ns)
        images, came, began, ended = np.array(self._answered).T
        spans = {self.STAGE: ended - came}
        is_valid, time_ns = told["result_validity"] == "VALID", float(np.median((ended - came) / images))
        why = told.get("result_invalid_reason") or told.get("early_stopping_result") or "it does not say why"
        test: dict[str, Any] = {"round": round_, "valid": is_valid, "reason": "" if is_valid else " ".join(why.split())}
        detail, self._rate = f"{1e9 / time_ns:.3g} images/s", max(self._rate, 1e9 / time_ns)
        if search:
            spans |= {"queue": began - came, "service": ended - began}
            test |= {f"latency_ns_p{q}": told[f"result_{q}.00_percentile_latency_ns"] for q in (50, 99)}
            test |= {"rate": search.rate, "queue_ns_p50": float(np.median(began - came))}
            detail = f"{search.rate:.4g} queries/s"
            search.judge(is_valid)
        for stage, latency_ns in spans.items():
            self._samples.latency_ns += latency_ns.tolist()
            self._samples.round += [round_] * len(images)
            self._stages += [stage] * len(images)
            self._counts += images.tolist()
        self._tests.append(test)
        is_done = not search or search.is_done
        return Progress(True, is_done, float(is_done), elapsed_ns, time_ns, f"{detail}, {told['result_validity']}")

    def _warm_up(self, slice_ns: int) -> dict[str, Any]:
        """Calls, then what a scenario must know: Offline how many images to send, Server its limit and first rate."""
        case, sampler = self._case, self._sampler
        if case.scenario == "server" and not self._context.files.fixed_batch and not sampler.samples.latency_ns:
            for size in range(1, case.batch + 1):  # runtimes prepare anew for each
                self._infer(range(size), self._buffers)
        sampler.warm_up_turn(slice_ns)
        median_ns = float(np.median(sampler.samples.latency_ns[-20:]))
        if case.scenario == "offline" and sampler.warm:
            images, began = list(range(4 * case.batch * self._overlap.most)), time.perf_counter_ns()
            self._infer(images, self._buffers)
            self._rate = 1e9 * len(images) / (time.perf_counter_ns() - began)
        elif case.scenario == "server":
            self._limit_ns = 1000 * int(case.option("limit_us", "0")) or round(3.0 * median_ns)
            self._search = RateSearch(0.6e9 / median_ns * self._overlap.slots)
        return {}

    def finish(self, stop_reason: str) -> Outcome:
        tests, search = self._tests, self._search
        valid = [test for test in tests if test["valid"]]
        found = max(valid, key=lambda test: float(test["rate"]), default=None) if search else None
        rounds = self._samples.round
        self._samples.warmup = [bool(search) and (not found or number != found["round"]) for number in rounds]
        write_samples(self._run, self._case, self._stages, self._samples, self._counts)
        refused = [test["reason"] for test in tests if not test["valid"]]
        load = {"seconds": self._context.load_seconds, "images": LIBRARY, "tests": tests}
        if search:
            high = search.high if math.isfinite(search.high) else None
            load |= {"limit_ns": self._limit_ns, "rate": search.low, "rate_invalid": high}
        failed = [] if found else refused[-1:]
        return Outcome(
            stage=self.STAGE,
            metrics={
                "n_warmup": len(self._sampler.samples.latency_ns),
                "warmup_settled": self._sampler.settled,
                "stop_reason": stop_reason,
                "input_sha256": self._input_sha256,
                "load": load,
                LOGS: self._logs,
                **({"invalid": f"LoadGen: INVALID: {failed[0]}"} if failed else {}),
            },
        )

    def close(self) -> None:
        self._overlap.close()
