"""Measures, compares, reports. In a notebook: ``bench.load_run("results/latest")``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.analysis.notebook import LoadedRun, columns, load_run

__all__ = ["LoadedRun", "columns", "load_run"]


def __getattr__(name: str) -> Any:
    """These names come from ``bench.analysis.notebook`` when they are first asked for: commands need not wait
    for them."""
    if name in __all__:
        from bench.analysis import notebook

        return getattr(notebook, name)
    raise AttributeError(f"module 'bench' has no attribute '{name}'")
