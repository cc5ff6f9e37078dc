"""Reports of a run: one small module per format, all made from one DataFrame.

A format is a module with a ``FILE_NAME`` and a ``write(frame, info, path)``, and one line in ``FORMATS``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bench.report import data, jsonfile, markdown, parquet
from bench.report.html import page
from bench.report.latex import table

if TYPE_CHECKING:
    import pandas as pd


class Format(Protocol):
    """What a format's module offers."""

    FILE_NAME: str

    def write(self, frame: pd.DataFrame, info: Mapping[str, Any], path: Path) -> None:
        """Writes the report to ``path``, in one step; the same input gives the same bytes.

        Args:
            frame: as of ``bench.analysis.table.load_frame``.
            info: as of ``bench.analysis.table.load_info``.
            path: where to.

        Raises:
            BenchError: the disk is full or not writable.
        """
        ...


FORMATS: dict[str, Format] = {
    "csv": data,
    "parquet": parquet,
    "json": jsonfile,
    "markdown": markdown,
    "html": page,
    "latex": table,
}


def write_all(run: Path) -> dict[str, Path]:
    """Makes every report of a run anew from its raw files, in the run's folder.

    Returns:
        the file of each format by the format's name.

    Raises:
        BenchError: the folder holds no run, or cannot be written.
    """
    from bench.analysis.table import load_frame, load_info
    from bench.record.raw_tables import kept_reads

    with kept_reads():
        frame, info = load_frame(run), load_info(run)
        paths = {name: Path(run) / format_.FILE_NAME for name, format_ in FORMATS.items()}
        for name, path in paths.items():
            FORMATS[name].write(frame, info, path)
    return paths
