"""The order in which the Cases of a group take their turns, round after round."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def rounds(members: Sequence[T], seed: int = 0) -> Iterator[tuple[T, ...]]:
    """Endless orders of the members, balanced against drift.

    Two members alternate in pairs of rounds, AB BA or BA AB (the ABBA design: a linear drift adds the same to
    both). More members follow cyclic Latin squares of a shuffled order: within one square every member stands
    once in every place. The rows of a square are shuffled too, and every square is drawn anew, so that a periodic
    disturbance does not keep meeting the same member.

    Args:
        members: who takes turns, at least one.
        seed: the same seed gives the same orders.
    """
    if not members:
        raise ValueError("a schedule needs at least one member")
    source = random.Random(seed)
    while True:
        base = list(members)
        source.shuffle(base)
        square = [tuple(base[start:] + base[:start]) for start in range(len(base))]
        source.shuffle(square)
        yield from square
