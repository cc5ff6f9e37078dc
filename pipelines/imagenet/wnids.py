"""The classes of ILSVRC2012, and how a long list of names is shown in an error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

SHOWN = 3


def wnids() -> tuple[str, ...]:
    """The 1000 WordNet ids of ILSVRC2012, sorted: a label is a place in this list."""
    return tuple(Path(__file__).with_suffix(".txt").read_text(encoding="ascii").split())


def first_few(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
