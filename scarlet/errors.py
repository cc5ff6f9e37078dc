"""The one exception for mistakes a user can mend, and how errors are worded."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BenchError(Exception):
    """A mistake a user can mend: one line of what is wrong, one of what to do.

    The command line prints both lines without a traceback and ends with exit code 2. Anything else that
    escapes is a bug of ours and keeps its traceback.

    Attributes:
        what: what is wrong, with what was found and what was expected.
        do: what to do about it.
        stage: ``weights`` or ``export`` where making a model's files broke there; else empty. A check reports it.
    """

    def __init__(self, what: str, do: str, stage: str = "") -> None:
        super().__init__(f"{what}\n{do}")
        self.what = what
        self.do = do
        self.stage = stage

    def __reduce__(self) -> tuple[type[BenchError], tuple[str, str, str]]:
        return BenchError, (self.what, self.do, self.stage)


def error_text(error: object) -> str:
    """An error's text in one line, or its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def shown(value: object, signs: int = 80) -> str:
    """A value as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= signs else f"{text[: signs - 3]}..."


def unknown_name(kind: str, name: str, known: Iterable[str]) -> BenchError:
    """The error for a name that is not in a closed set, with near names suggested.

    Args:
        kind: what is being named, in the singular ("model", "backend").
    """
    choices = sorted(known)
    near = difflib.get_close_matches(name.lower(), choices, n=3, cutoff=0.5)
    do = f"Did you mean {' or '.join(near)}?" if near else f"Choose from: {', '.join(choices)}."
    return BenchError(f"unknown {kind} {shown(name)}", do)
