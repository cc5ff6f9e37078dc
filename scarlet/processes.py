"""Ties the life of a process to that of the one that started it: none is left behind. Says how a process ended."""

from __future__ import annotations

import os
import signal
import sys

# PR_SET_PDEATHSIG of prctl(2). The parent may have ended before: then somebody else has adopted this process.
_TIE = f"import ctypes, os; ctypes.CDLL(None).prctl(1, {int(signal.SIGKILL)}); os.getppid() == %d or os._exit(1)"


class Terminated(KeyboardInterrupt):
    """SIGTERM: somebody's time is up. A KeyboardInterrupt else is a person who may go on later."""


def tied(program: str) -> str:
    """Program text for ``python -c``, whose process the kernel kills when the thread that started it ends.

    It needs no package of ours: a program may be that of an older revision.
    """
    return f"{_TIE % os.getpid()}\n{program}" if sys.platform == "linux" else program


def tie(parent: int) -> None:
    """The same for this process, which ``parent`` started; called where it begins."""
    if sys.platform == "linux":
        exec(_TIE % parent)


def ending(returncode: int) -> str:
    """How a process ended: ``was killed by SIGKILL``, ``ended with exit code 1``."""
    if returncode >= 0:
        return f"ended with exit code {returncode}"
    named = {number.value: number.name for number in signal.Signals}
    return f"was killed by {named.get(-returncode, f'signal {-returncode}')}"
