"""Finds a good split of the cores between decoding and inference, by a short search on slices of a stream.

Successive halving: all candidates take turns in a few interleaved rounds, the slower half leaves, and those that stay
take as many rounds again, with the time that the others left to them (Karnin, Koren and Somekh, "Almost optimal
exploration in multi-armed bandits", ICML 2013). What the candidates of a round have in common (drift) cancels:
candidates are ranked by the median over rounds of their time relative to the round's geometric mean.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from bench.analysis.stats import intervals
from bench.backends import facts
from bench.record.case import Case
from bench.run.spec import AXES, RunSpec

# Rounds of the first stage. Two, in opposite places of the order, tell a half from the other half; the last stage
# tells the best from the second best.
FIRST_ROUNDS = 2
# The last stage has so many candidates at most, and takes what is left of the time.
FINALISTS = 4

# Options by which ways of running one form differ.
OF_WAYS = ("decode_threads", "hint", "streams")


def candidates(base: Case, cores: int, batches: Sequence[int]) -> tuple[Case, ...]:
    """What is tried: ways of sharing the cores, times batches.

    Args:
        base: model, backend, precision, pipeline and options that stay as they are.

    Returns:
        Throughput Cases, once each.
    """
    return tuple(dict.fromkeys(replace(way, batch=batch) for batch in batches for way in ways(base, cores)))


def ways(base: Case, cores: int) -> list[Case]:
    """Ways of sharing the cores.

    - Inference and decoding both on all cores, which then change sides as needed: one copy, two, or one a core.
    - The same copies with half as many threads that decode.
    - Cores of their own: half of them, or an eighth, decode; each of the others has a copy.
    """
    all_cores = [(copies, cores // copies) for copies in sorted({1, min(2, cores), cores}) if not cores % copies]
    made = [_way(base, copies, threads, cores) for copies, threads in all_cores]
    made += [_way(base, copies, threads, max(1, cores // 2)) for copies, threads in all_cores if copies > 1]
    if cores > 1:
        made += [_way(base, cores - own, 1, own) for own in (cores // 2, max(1, cores // 8))]
    return list(dict.fromkeys(made))


def _way(base: Case, copies: int, threads: int, decoders: int) -> Case:
    """Some copies with some threads each, and threads that decode.

    The streams of a backend that has some are copies on one compiled model, which share the Case's threads.
    """
    options = dict(base.options)
    if "streams" in facts(base.backend).choices:
        options.pop("streams", None)
        options["hint"] = "throughput" if copies > 1 else "latency"
        if copies > 1:
            options["streams"] = str(copies)
        copies, threads = 1, copies * threads
    if decoders != threads:
        options["decode_threads"] = str(decoders)
    return replace(
        base, scenario="throughput", instances=copies, threads=threads, options=tuple(sorted(options.items()))
    )


@dataclass(frozen=True)
class Standing:
    """How a candidate did.

    Attributes:
        images_per_s: with its interval ``low`` to ``high`` as the run's own table has them.
        n_rounds: slices it made.
        ratio: of its images/s to the best's, median over common rounds; 1 for the best.
        ratio_low, ratio_high: the sign-test interval of that; None under six common rounds, and for the best.
        latency_ms: of a call, where there is a limit; ``latency_is`` says which: ``p99``, or, of too few calls for one,
            the median at most.
        why_not: why it cannot be the best; else empty.
    """

    case: Case
    images_per_s: float | None = None
    low: float | None = None
    high: float | None = None
    n_rounds: int = 0
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    latency_ms: float | None = None
    latency_is: str = ""
    why_not: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "case"}
        return {"case_id": self.case.case_id, "case": self.case.to_dict(), **values}


Times = dict[str, dict[int, float]]


class Field(Protocol):
    """The candidates at work."""

    def one_pass(self, case: Case, round_: int) -> tuple[float, float] | None:
        """Nanoseconds an image of a slice, and seconds that its turn took; None where the candidate failed."""
        ...

    def end_of_round(self, round_: int) -> None: ...

    def leave(self, case: Case) -> None:
        """The candidate is too slow and leaves."""
        ...

    def say(self, case: Case, fraction: float, detail: str) -> None:
        """How far the search is, 0..1, and some words."""
        ...


def search(
    cases: Sequence[Case],
    field: Field,
    order: Callable[[Sequence[Case]], Iterable[Sequence[Case]]],
    budget_seconds: float,
    first_round: int = 0,
) -> Times:
    """Takes rounds of slices, and drops the slower half after each stage.

    Args:
        order: orders of some candidates, round after round, without end; see ``bench.run.schedule.rounds``.
        budget_seconds: for all turns. The first stage is made whatever it takes.
        first_round: number of the first round.

    Returns:
        Nanoseconds an image of each candidate's rounds, by its id.
    """
    times: Times = {case.case_id: {} for case in cases}
    alive, spent, round_, stage = list(cases), 0.0, first_round, 1
    while alive:
        last = len(alive) <= FINALISTS
        turns = iter(order(alive))
        began = round_
        while alive:
            of_stage = round_ - began
            over = spent >= budget_seconds and round_ - first_round >= FIRST_ROUNDS
            if over or (of_stage >= FIRST_ROUNDS * stage and not last):
                break
            for case in next(turns):
                if case not in alive:
                    continue
                taken = field.one_pass(case, round_)
                if taken is None:
                    alive.remove(case)
                    continue
                times[case.case_id][round_] = taken[0]
                spent += taken[1]
                rate = f"{len(alive)} left, {1e9 / taken[0]:.3g} images/s"
                field.say(case, min(1.0, spent / budget_seconds), rate)
            field.end_of_round(round_)
            round_ += 1
        if last or spent >= budget_seconds:
            break
        ranked = ranking(alive, times)
        keep = max(min(FINALISTS, len(ranked)), math.ceil(len(ranked) / 2))
        for case in ranked[keep:]:
            alive.remove(case)
            field.leave(case)
        stage += 1
    return times


def ranking(alive: Sequence[Case], times: Times) -> list[Case]:
    """Those that are left, the fastest first, by the rounds that all of them took.

    The time of each round is taken relative to the geometric mean of that round.
    """
    if not alive:
        return []
    common = set.intersection(*(set(times[case.case_id]) for case in alive))
    score: dict[Case, float] = {}
    means = {round_: statistics.geometric_mean(times[case.case_id][round_] for case in alive) for round_ in common}
    for case in alive:
        relative = [times[case.case_id][round_] / means[round_] for round_ in sorted(common)]
        score[case] = statistics.median(relative) if relative else math.inf
    return sorted(alive, key=lambda case: score[case])


def standings(cases: Sequence[Case], times: Times, failed: Mapping[str, str]) -> list[Standing]:
    """Every candidate, the best first: those that stayed longest, and among them the fastest.

    Args:
        failed: why candidates cannot be the best, by their ids.
    """
    able = [case for case in cases if case.case_id not in failed and times.get(case.case_id)]
    ordered: list[Case] = []
    # Those who left together are ranked on the rounds that they took together.
    for last_round in sorted({max(times[case.case_id]) for case in able}, reverse=True):
        ordered += ranking([case for case in able if max(times[case.case_id]) == last_round], times)
    made = [_standing(case, ordered[0], times) for case in ordered]
    for case in cases:
        if case not in ordered:
            known = _standing(case, ordered[0], times) if ordered and times.get(case.case_id) else Standing(case)
            made.append(replace(known, why_not=failed.get(case.case_id, "it was not measured")))
    return made


def _standing(case: Case, best: Case, times: Times) -> Standing:
    own, other = times[case.case_id], times[best.case_id]
    common = sorted(own.keys() & other.keys())
    # Who left before the best came shares no round with it.
    against = common and intervals.ratio_interval([other[place] for place in common], [own[place] for place in common])
    low, high = (against.low, against.high) if against and case is not best else (None, None)
    ratio = against.ratio if against else None
    return Standing(case, n_rounds=len(own), ratio=ratio, ratio_low=low, ratio_high=high)


def unsettled(found: Sequence[Standing]) -> str:
    """A sentence where the rounds do not tell the first from the second; else nothing."""
    able = [standing for standing in found if not standing.why_not]
    if len(able) < 2:
        return ""
    second = able[1]
    if second.ratio_high is None:
        few = f"not settled: {second.n_rounds} rounds are too few"
        return f"{few} to tell the first from the second; give a larger --budget"
    if second.ratio_high >= 1.0:
        return "not settled: the first and the second are as fast as each other as far as these rounds tell"
    return ""


def cpu_features(proof: Mapping[str, Any]) -> tuple[str, ...]:
    """Extensions of the CPU by which convolutions and matrix products ran, and their narrow types, as told."""
    layers = [
        layer
        for layer in proof.get("layer_counts", {})
        if re.match(r"\w*(conv|gemm|matmul|connected|linear)", layer, re.I)
    ]
    told = " ".join([*layers, str(proof.get("instruction_set", ""))]).lower()
    names = {"amx": "AMX", "vnni": "VNNI", "avx512": "AVX-512", "avx2": "AVX2"}
    names |= {"bf16|bfloat16": "BF16", "[iu]8|u?int8": "INT8"}
    return tuple(name for word, name in names.items() if re.search(rf"(?<![a-z0-9])({word})(?![0-9])", told))


def plan_text(case: Case, spec: RunSpec) -> str:
    """A plan file that measures a Case, with its accuracy."""
    ways = {*AXES, "options", "exclude", "budget_seconds", "latency_limit_ms", "timeout_seconds", "lives"}
    ways |= {"rotate_cores", "seed"}
    given: dict[str, Any] = spec.model_dump(mode="json", exclude_defaults=True, exclude=ways)
    given |= {"model": spec.model, "scenarios": ["accuracy", "throughput"], "backends": [case.backend]}
    given |= {"devices": [case.device], "precisions": [case.precision], "pipeline": [case.pipeline]}
    given |= {"batches": [case.batch], "threads": [case.threads], "instances": [case.instances]}
    options = {case.backend: dict(case.options)} if case.options else None
    lines = {name: value for name, value in {**given, "options": options}.items() if value}
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in lines.items())


def latency_case(case: Case) -> Case:
    """Calls from memory in this way of running, all copies at work at once: streams become instances."""
    copies = case.instances * int(case.option("streams", "1"))
    threads = case.threads * case.instances // copies
    calls = replace(case, scenario="latency", instances=copies, threads=threads)
    return calls.without("decode_threads").without("streams")
