"""``table.csv``: the table as text, safe to open in a spreadsheet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.analysis.columns import REGISTRY, TEXT
from bench.record.files import write_text

if TYPE_CHECKING:
    import pandas as pd

FILE_NAME: str = "table.csv"

# A spreadsheet takes a cell that begins so for a formula (OWASP, "CSV Injection"). A quote in front makes it
# text.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def write(frame: pd.DataFrame, info: Mapping[str, Any], path: Path) -> None:
    """Writes the frame, unknown values as empty cells. See ``bench.report.Format``."""
    safe = frame.copy()
    for name, column in REGISTRY.items():
        if column.dtype == TEXT:
            safe[name] = safe[name].map(safe_cell)
    write_text(path, safe.to_csv(index=False, lineterminator="\n"))


def safe_cell(text: str) -> str:
    """The text, with a quote in front where a spreadsheet would run it."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
