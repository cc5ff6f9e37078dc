"""The exception for mistakes that a user can mend, that for a model that needs more than is here, and their words."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable

_NO_SPACE = "Free some space and go on with --resume, or name another --out."
_NO_ACCESS = "Name another --out, or make the folder writable."
_GONE = "Leave a run's folder where it is until the run ends; start a new one where it is gone."
_FILES = "Raise the limit (ulimit -n), or stop other programs, and go on with --resume."

# What the system says where it refuses a file, and what can be done. Other numbers are bugs of ours.
REFUSALS = {
    errno.ENOSPC: ("the disk is full", _NO_SPACE),
    errno.EDQUOT: ("the disk quota is used up", _NO_SPACE),
    errno.EFBIG: ("the file may not grow any larger", _NO_SPACE),
    errno.EIO: ("the disk failed (input/output error)", "Look after the disk, then go on with --resume."),
    errno.EACCES: ("permission denied", _NO_ACCESS),
    errno.EPERM: ("operation not permitted", _NO_ACCESS),
    errno.EROFS: ("the file system is read-only", _NO_ACCESS),
    errno.ENOTDIR: ("a part of the path is a file", _NO_ACCESS),
    errno.EEXIST: ("a file of that name is in the way", _NO_ACCESS),
    errno.EISDIR: ("a folder of that name is in the way", _NO_ACCESS),
    errno.ENAMETOOLONG: ("the name is too long", _NO_ACCESS),
    errno.ENXIO: ("it is no regular file", _NO_ACCESS),
    errno.ELOOP: ("a link of the path leads to itself", _NO_ACCESS),
    errno.ENOENT: ("its folder is gone", _GONE),
    errno.ESTALE: ("its folder is gone", _GONE),
    errno.EMFILE: ("too many files are open", _FILES),
    errno.ENFILE: ("too many files are open on this machine", _FILES),
    errno.EAGAIN: ("there are too many processes", "Raise the limit (ulimit -u), and go on with --resume."),
    errno.ENOMEM: ("memory ran out", "Stop other programs, and go on with --resume."),
}


class ModelUnavailable(Exception):
    """The model could run, but something is not installed here. The text says what, and how to get it."""


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
        return type(self), (self.what, self.do, self.stage)


class MachineError(BenchError):
    """The machine refused a file: no room, no right, too many open, a failing disk. What was asked is in order, so that
    it can be asked again when that is mended.
    """


def refusal(error: BaseException, doing: str = "") -> MachineError | None:
    """The error for a file that the system refused; None where it is something else.

    Args:
        error: what the system said.
        doing: what was tried, as ``cannot write results/x``; without it a file that is not there is no refusal.
    """
    if not isinstance(error, OSError) or not (doing or error.errno != errno.ENOENT):
        return None
    known = REFUSALS.get(error.errno or 0)
    doing = doing or f"cannot use {error.filename or 'a file'}"
    return MachineError(f"{doing}: {known[0]}", known[1]) if known else None


# Control characters of C0 (but tab and newline) and C1, line and paragraph separators, what turns the direction of
# text, and halves of characters that no encoding knows: a terminal would obey them, a reader would not see them.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """The text with whatever a terminal would obey, or nobody would see, written out as Python does: ``\\x1b``."""
    return _HIDDEN.sub(lambda sign: sign[0].encode("unicode_escape").decode(), text)


def error_text(error: object) -> str:
    """An error's text in one line, or its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def shown(value: object, signs: int = 80) -> str:
    """A value as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= signs else f"{text[: signs - 3]}..."


LISTED_MAX = 40  # timm alone knows more than a thousand names


def unknown_name(kind: str, name: str, known: Iterable[str]) -> BenchError:
    """The error for a name that is not in a closed set, with near names suggested.

    Args:
        kind: what is being named, in the singular ("model", "backend").
    """
    choices = sorted(known)
    near = difflib.get_close_matches(name.lower(), choices, n=3, cutoff=0.5)
    do = f"Did you mean {' or '.join(near)}?" if near else f"Choose from: {', '.join(choices)}."
    if not near and len(choices) > LISTED_MAX:
        nearest = difflib.get_close_matches(name.lower(), choices, n=5, cutoff=0)
        do = f"The nearest of {len(choices):,} are {', '.join(nearest)}."
    return BenchError(f"unknown {kind} {shown(name)}", do)
