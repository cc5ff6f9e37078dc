"""``table.parquet``: the table with its types, for notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.record.files import atomic_file

if TYPE_CHECKING:
    import pandas as pd

FILE_NAME: str = "table.parquet"


def write(frame: pd.DataFrame, info: Mapping[str, Any], path: Path) -> None:
    """Writes the frame as it is. See ``bench.report.Format``."""
    with atomic_file(path) as stream:
        frame.to_parquet(stream, index=False, compression="zstd")
