"""The tables of raw data in a run's folder, as Parquet: timed samples, predictions, and the state of each round.

The rounds' table is written by the runner alone. Of the other two each Case's worker writes a part of its own, or
several workers do one after the other (its lives); ``merge`` moves parts into one file with a row group each. Readers
take both, so that an unmerged run reads the same. pyarrow is imported where it is needed: a start of the command line
does not pay for it.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.record.files import atomic_file, disk_errors, encodable, warn_damaged
from scarlet.errors import error_text

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_KEPT: ContextVar[dict[tuple[Path, str, tuple[str, ...]], pd.DataFrame] | None] = ContextVar(
    "kept", default=None
)

KINDS = ("samples", "predictions")
ROUNDS = "rounds"
TOP = 5

# Column names and pyarrow type names; "name" is text, dictionary-encoded.
_COLUMNS = {
    "samples": {
        "case_id": "name",
        "round": "int32",
        "stage": "name",
        "images": "int32",
        "warmup": "bool",
        "latency_ns": "int64",
    },
    "predictions": {
        "case_id": "name",
        "image_id": "name",
        "label": "int16",
        **{f"top{place}": "int16" for place in range(1, TOP + 1)},
        "margin": "float32",
    },
    ROUNDS: {
        "scenario": "name",
        "round": "int32",
        "disturbed": "bool",
        "reason": "name",
        "duration_ns": "int64",
        "cpu_by_others_cores": "float32",
        "steal_share": "float32",
        "throttled_ns": "int64",
        "thermal_events": "int32",
        "memory_stall_share": "float32",
        "swap_in_pages": "int64",
        "swap_out_pages": "int64",
        "cpu_mhz": "float32",
        "gpu_sm_clock_mhz": "int32",
        "gpu_clock_reasons": "name",
        "gpu_temperature_c": "int32",
        "gpu_power_w": "float32",
        "gpu_thermal_ns": "int64",
        "gpu_power_cap_ns": "int64",
        "gpu_other_processes": "int32",
    },
}


def part_path(folder: Path, case_id: str, kind: str, life: int | None = None) -> Path:
    """A Case's own file, until it is merged: as its worker writes it, or as it is called once that life has ended."""
    return folder / "parts" / f"{case_id}{'' if life is None else f'.{life}'}.{kind}.parquet"


def parts_of(folder: Path, case_id: str, kind: str) -> list[Path]:
    """The parts of a Case that are there, in the order of its lives."""
    named = (folder / "parts").glob(f"{case_id}.*{kind}.parquet")
    return sorted(named, key=lambda path: (len(path.name), path.name))


def merged_path(folder: Path, kind: str) -> Path:
    """The file of all Cases."""
    return folder / f"{kind}.parquet"


def write_part(folder: Path, case_id: str, kind: str, columns: Mapping[str, Any]) -> None:
    """Writes a Case's part.

    Args:
        folder: of the run.
        case_id: of the Case; fills the column of that name.
        kind: ``samples`` or ``predictions``.
        columns: the other columns, all of the same length; a single text stands for a column of it.

    Raises:
        BenchError: the disk is full or not writable.
        ValueError: a value does not fit its type (a class index over 32,767), or the lengths differ.
    """
    import pyarrow as pa

    schema = _schema(kind)
    n = max(len(values) for values in columns.values() if not isinstance(values, str))
    arrays = []
    for field in schema:
        values = case_id if field.name == "case_id" else columns[field.name]
        # pyarrow refuses a value that does not fit, rather than wrap it.
        if pa.types.is_dictionary(field.type):
            arrays.append(pa.array(_texts(values, n), type=pa.string()).cast(field.type))
        else:
            arrays.append(pa.array(values).cast(field.type))
    _write(part_path(folder, case_id, kind), kind, [pa.Table.from_arrays(arrays, schema=schema)])


def _texts(values: str | Sequence[str], n: int) -> list[str]:
    if isinstance(values, str):
        return [values] * n
    return [encodable(value) for value in values]


def merge(folder: Path, case_ids: Iterable[str]) -> None:
    """Moves the parts of these Cases into the merged files, holding one Case in memory at a time.

    Parts are removed only once the merged file is in place; parts of other Cases stay where they are.

    Raises:
        BenchError: the disk is full or not writable; nothing is lost then.
    """
    wanted = list(case_ids)
    for kind in KINDS:
        parts = _readable_parts(folder, kind, wanted)
        if parts:
            _write(merged_path(folder, kind), kind, _tables(folder, kind, parts))
            with disk_errors(folder / "parts"):
                for part in itertools.chain(*parts.values()):
                    part.unlink()


def read(folder: Path, kind: str, case_ids: Iterable[str]) -> pd.DataFrame:
    """The merged rows and those in parts of these Cases; a part supersedes merged rows of its Case.

    Text columns are categories. What cannot be read is left out with a ``DamagedRunWarning``. Inside ``kept_reads`` the
    same frame is given again: readers leave it as it is.
    """
    wanted = tuple(case_ids)
    kept = _KEPT.get()
    if kept is None:
        return _read(folder, kind, wanted)
    key = (folder.resolve(), kind, wanted)
    if key not in kept:
        kept[key] = _read(folder, kind, wanted)
    return kept[key]


@contextlib.contextmanager
def kept_reads() -> Iterator[None]:
    """What is read inside is read once: for a command that makes many things of one run that nobody changes."""
    known = _KEPT.get()
    token = _KEPT.set({} if known is None else known)
    try:
        yield
    finally:
        _KEPT.reset(token)


def _read(folder: Path, kind: str, case_ids: Iterable[str]) -> pd.DataFrame:
    import pyarrow as pa

    tables = list(_tables(folder, kind, _readable_parts(folder, kind, case_ids)))
    joined = pa.concat_tables(tables) if tables else _schema(kind).empty_table()
    frame: pd.DataFrame = joined.unify_dictionaries().to_pandas()
    return frame


def append_rounds(folder: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Adds rows to the rounds' table; a reader finds the old or the new file, never half of it.

    Args:
        folder: of the run.
        columns: all columns, of the same length; None stands for what was not known.

    Raises:
        BenchError: the disk is full or not writable.
    """
    import pyarrow as pa

    schema = _schema(ROUNDS)
    arrays = [pa.array(columns[field.name]).cast(field.type) for field in schema]
    new = pa.Table.from_arrays(arrays, schema=schema)
    _write(merged_path(folder, ROUNDS), ROUNDS, [_rounds(folder), new])


def read_rounds(folder: Path) -> pd.DataFrame:
    """The rounds' table; empty where no round was watched, and with a ``DamagedRunWarning`` where it is damaged.

    Figures that were not known are missing values: whole numbers come in pandas' types that know them.
    """
    import pandas as pd
    import pyarrow as pa

    nullable = {pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype()}
    sure = ("round", "duration_ns")
    frame: pd.DataFrame = _rounds(folder).unify_dictionaries().to_pandas(types_mapper=nullable.get)
    return frame.astype({name: str(_schema(ROUNDS).field(name).type) for name in sure})


def _rounds(folder: Path) -> pa.Table:
    import pyarrow.parquet as pq

    path, schema = merged_path(folder, ROUNDS), _schema(ROUNDS)
    if not path.exists() or not _is_readable(path):
        return schema.empty_table()
    return pq.read_table(path).cast(schema)


def _write(target: Path, kind: str, tables: Iterable[pa.Table]) -> None:
    import pyarrow.parquet as pq

    with (
        atomic_file(target) as stream,
        pq.ParquetWriter(stream, _schema(kind), compression="zstd", compression_level=9) as writer,
    ):
        for table in tables:
            writer.write_table(table)


def _readable_parts(folder: Path, kind: str, case_ids: Iterable[str]) -> dict[str, list[Path]]:
    parts = {case_id: list(filter(_is_readable, parts_of(folder, case_id, kind))) for case_id in case_ids}
    return {case_id: paths for case_id, paths in parts.items() if paths}


def _is_readable(path: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        warn_damaged(f"{path} left out: {error_text(error)}")
        return False
    return True


def _tables(folder: Path, kind: str, parts: Mapping[str, Sequence[Path]]) -> Iterator[pa.Table]:
    """The merged file's Cases, save those that have a newer part, then the parts."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    merged, schema = merged_path(folder, kind), _schema(kind)
    if merged.exists() and _is_readable(merged):
        with pq.ParquetFile(merged) as source:
            superseded = pa.array(list(parts), type=pa.string())
            for group in range(source.num_row_groups):
                table = source.read_row_group(group).cast(schema)
                kept = table.filter(pc.invert(pc.is_in(table["case_id"].cast(pa.string()), superseded)))
                if kept.num_rows:
                    yield kept
    for part in itertools.chain(*parts.values()):
        yield pq.read_table(part).cast(schema)


def _schema(kind: str) -> pa.Schema:
    import pyarrow as pa

    name = pa.dictionary(pa.int32(), pa.string())
    types = {"name": name, "int16": pa.int16(), "int32": pa.int32(), "int64": pa.int64()}
    types |= {"bool": pa.bool_(), "float32": pa.float32()}
    return pa.schema([(column, types[type_]) for column, type_ in _COLUMNS[kind].items()])
