"""Several builds of one plan: kernels are chosen by timing them, so that no two builds are the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from bench.backends import REGISTRY, facts
from bench.record.case import Case
from scarlet.errors import BenchError

OPTION = "build"


def options(builds: int) -> tuple[str, ...]:
    """What ``--builds`` adds to the texts of ``--option``, for backends that build plans: a Case for each build.

    Raises:
        BenchError: there cannot be so many.
    """
    if builds < 1:
        raise BenchError(f"--builds {builds} is not a number of builds", "Write for example --builds 3.")
    numbers = ",".join(str(number) for number in range(1, builds + 1))
    if builds == 1:
        return ()
    return tuple(f"{name}.{OPTION}={numbers}" for name in REGISTRY if OPTION in facts(name).choices)


def groups(cases: Iterable[Case]) -> list[tuple[Case, ...]]:
    """Cases that differ in nothing but their build, two or more of a kind, in the order given."""
    found: dict[Case, list[Case]] = {}
    for case in cases:
        if case.option(OPTION):
            others = tuple((name, value) for name, value in case.options if name != OPTION)
            found.setdefault(replace(case, options=others), []).append(case)
    return [tuple(group) for group in found.values() if len(group) > 1]
