"""Reports of a run: every form in which it is written, all made from one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.analysis.table import Loaded, load
from bench.report import data, markdown
from bench.report.html import page
from bench.report.latex import table


@dataclass(frozen=True)
class Format:
    """A form of a run's report.

    Attributes:
        file_name: in the run's folder.
        write: writes the report in one step; the same run gives the same bytes. Raises BenchError where the disk is
            full or not writable.
    """

    file_name: str
    write: Callable[[Loaded, Path], None]


FORMATS: dict[str, Format] = {
    "csv": Format("table.csv", lambda run, path: data.write_csv(run.frame, path)),
    "parquet": Format("table.parquet", lambda run, path: data.write_parquet(run.frame, path)),
    "json": Format("table.json", lambda run, path: data.write_json(data.run_data(run), path)),
    "markdown": Format("report.md", markdown.write),
    "html": Format("report.html", page.write),
    "latex": Format("table.tex", table.write),
}


def write_all(run: Path | Loaded) -> dict[str, Path]:
    """Makes every report of a run anew from its raw files, in the run's folder.

    Args:
        run: its folder, or what ``bench.analysis.table.load`` made of it.

    Returns:
        the file of each format by the format's name.

    Raises:
        BenchError: the folder holds no run, or cannot be written.
    """
    from bench.record.raw_tables import kept_reads

    with kept_reads():
        loaded = run if isinstance(run, Loaded) else load(run)
        paths = {name: loaded.path / format_.file_name for name, format_ in FORMATS.items()}
        for name, path in paths.items():
            FORMATS[name].write(loaded, path)
    return paths
