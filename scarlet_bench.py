"""The command, and for notebooks ``load_run`` and ``columns`` of ``bench``.

The packages have common names ("bench", "export"). A wheel brings them inside a folder of this name, which only
processes of ours have on their path: packages of a user that are called the same stay what they are.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

HOME = Path(__file__).resolve().parent


def _bench() -> ModuleType:
    """Our package, whatever others PYTHONPATH or the current folder offer."""
    if str(HOME) not in sys.path[:1]:
        sys.path.insert(0, str(HOME))
    import bench

    if not str(bench.__file__).startswith(str(HOME / "bench")):
        raise ImportError(f"a package 'bench' that is not ours was imported before: {bench.__file__}")
    return bench


def main() -> None:
    """Entry point of the command."""
    _bench()
    from bench.cli import main as command

    command()


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    return getattr(_bench(), name)
