"""The tables of raw data in a run's folder, as Parquet: timed samples, predictions, and the state of each round.

The rounds' table is written by the runner alone. Of the other two each Case's worker writes parts of its own, one for
each of the Case's lives; ``merge`` moves parts into one file with the rows of a Case together. Readers take both, so
that an unmerged run reads the same. A digest is of the values of a Case's rows, so that it outlives merging; who knows
it is given the rows only where they have it. pyarrow is imported where it is needed: a start of the command line does
not pay for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bench.record.files import atomic_file, disk_errors, encodable, warn_damaged
from scarlet.errors import MachineError, error_text

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

T = TypeVar("T")

_KEPT: ContextVar[dict[Any, Any] | None] = ContextVar("kept", default=None)

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
        if isinstance(values, str):
            arrays.append(pa.DictionaryArray.from_arrays(pa.array([0] * n, pa.int32()), [encodable(values)]))
        elif pa.types.is_dictionary(field.type):
            arrays.append(pa.array(map(encodable, values), type=pa.string(), size=n).cast(field.type))
        else:
            # pyarrow refuses a value that does not fit, rather than wrap it.
            arrays.append(pa.array(values).cast(field.type))
    target = part_path(folder, case_id, kind)
    with disk_errors(target):
        target.parent.mkdir(exist_ok=True)  # and never the run's own folder, where that is gone
    _write(target, kind, [pa.Table.from_arrays(arrays, schema=schema)])


class Content:
    """A digest of rows by their values, however they are split into tables or files."""

    def __init__(self) -> None:
        self._digests: dict[tuple[str, str], Any] = {}

    def add(self, table: pa.Table) -> None:
        """Rows that follow those before them."""
        import pyarrow as pa
        import pyarrow.compute as pc

        for name in table.column_names:
            for values in table[name].chunks:
                facts = {"valid": values.is_valid()}
                if pa.types.is_dictionary(values.type):
                    text = pc.fill_null(values.cast(pa.string()), "")
                    facts |= {"length": pc.binary_length(text), "text": text}
                else:
                    facts["value"] = pc.fill_null(values, pa.scalar(0).cast(values.type))
                for part, array in facts.items():
                    self._digests.setdefault((name, part), hashlib.sha256()).update(_bytes(array))

    def hexdigest(self) -> str:
        """Hex SHA-256 of the digests of all columns, with their names."""
        lines = [f"{name} {part} {own.hexdigest()}\n" for (name, part), own in self._digests.items()]
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def _bytes(array: pa.Array) -> memoryview | bytes:
    import pyarrow as pa

    if not pa.types.is_string(array.type):
        return bytes(array.to_numpy(zero_copy_only=False).data)
    _, offsets, text = array.buffers()
    places = memoryview(offsets).cast("i")
    return memoryview(text)[places[array.offset] : places[array.offset + len(array)]] if text else b""


@dataclass(frozen=True)
class Scan:
    """What a file holds, or several that belong together.

    Attributes:
        digests: of each Case's rows, by its id; of all rows under "" where they are of no Case.
        fault: what of it cannot be read, with the file's name; empty where all can.
    """

    digests: Mapping[str, str]
    fault: str = ""


def scan(paths: Sequence[Path], kind: str) -> Scan:
    """Reads all rows of these files; what cannot be read is told, not raised."""
    key = (kind, *((path, *_signature(path)) for path in paths))
    return _once(key, lambda: _scan(paths, kind))


def _scan(paths: Sequence[Path], kind: str) -> Scan:
    found: dict[str, Content] = {}
    faults: list[str] = []
    for path in paths:
        for case_id, table in _by_case(path, kind, faults):
            found.setdefault(case_id, Content()).add(table)
    return Scan({case_id: content.hexdigest() for case_id, content in found.items()}, "; ".join(faults))


def _signature(path: Path) -> tuple[int, ...]:
    try:
        facts = path.stat()
    except OSError:
        return ()
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


def fault(folder: Path, kind: str, case_id: str, digest: str) -> str:
    """Why a Case's rows are not those that were written, with the file's name; empty where they are."""
    parts, merged = parts_of(folder, case_id, kind), merged_path(folder, kind)
    looked = [scan(files, kind) for files in (parts, [merged]) if files and files[0].exists()]
    if any(one.digests.get(case_id) == digest for one in looked):
        return ""
    if not looked:
        return f"{merged.name} is missing"
    name = f"parts/{parts[0].name}" if parts else merged.name
    if looked[0].fault:
        return looked[0].fault
    return f"{name} {'was changed since it was written' if case_id in looked[0].digests else 'has lost its rows'}"


def _by_case(path: Path, kind: str, faults: list[str]) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each Case in a file, in its order; what cannot be read is added to ``faults``."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    schema = _schema(kind)
    try:
        if not path.is_file():  # a FIFO would make its reader wait
            raise OSError("it is no regular file")
        with pq.ParquetFile(path) as source:
            for group in range(source.num_row_groups):
                try:
                    table = source.read_row_group(group)
                    table.validate(full=True)
                    table = table.cast(schema)
                    ids = table["case_id"].cast(pa.string()) if "case_id" in schema.names else None
                    owners = [""] if ids is None else ids.unique().to_pylist()
                    rows = [table if len(owners) == 1 else table.filter(pc.equal(ids, one)) for one in owners]
                except _unreadable() as error:
                    faults.append(f"{path.name} cannot be read: {error_text(error)}")
                else:
                    yield from zip(map(str, owners), rows, strict=True)
    except _unreadable() as error:
        faults.append(f"{path.name} cannot be read: {error_text(error)}")


def _unreadable() -> tuple[type[BaseException], ...]:
    """What reading a damaged file raises."""
    import pyarrow as pa

    return OSError, ValueError, KeyError, MemoryError, pa.ArrowException


def merge(folder: Path, wanted: Mapping[str, Mapping[str, str] | None]) -> None:
    """Moves the parts of these Cases into the merged files, holding one Case in memory at a time.

    Parts are removed only once the merged file is in place and has been read again; parts of other Cases, and those
    that are not what their Case's row says, stay where they are. A merged file that cannot be read whole is kept beside
    the new one, as ``<kind>.damaged.parquet``.

    Args:
        wanted: by Case, the digest of each kind's rows; None for Cases written before there were digests.

    Raises:
        BenchError: the disk is full or not writable; nothing is lost then.
    """
    for kind in KINDS:
        parts = _parts(folder, kind, _of_kind(wanted, kind))
        if not parts:
            continue
        merged = merged_path(folder, kind)
        expected = {case_id: scan(paths, kind).digests.get(case_id) for case_id, paths in parts.items()}
        _keep_damaged(merged, kind)
        _write(merged, kind, (table for _, table in _tables(folder, kind, parts)))
        written = scan((merged,), kind).digests
        if any(written.get(case_id) != digest for case_id, digest in expected.items()):
            raise MachineError(f"cannot read back what was written to {merged}", "Look after the disk.")
        with disk_errors(folder / "parts"):
            for part in (path for paths in parts.values() for path in paths):
                part.unlink()


def read(folder: Path, kind: str, wanted: Mapping[str, Mapping[str, str] | None]) -> pd.DataFrame:
    """The rows of these Cases, merged or in parts. Text columns are categories.

    What cannot be read is left out with a ``DamagedRunWarning``. Inside ``kept_reads`` the same frame is given again:
    readers leave it as it is.

    Args:
        kind: ``samples`` or ``predictions``.
        wanted: as of ``merge``; parts supersede merged rows of their Case.
    """
    own = _of_kind(wanted, kind)
    return _once((folder.resolve(), kind, tuple(own.items())), lambda: _read(folder, kind, own))


def _of_kind(wanted: Mapping[str, Mapping[str, str] | None], kind: str) -> dict[str, str | None]:
    return {
        case_id: digests[kind] if digests else None
        for case_id, digests in wanted.items()
        if digests is None or kind in digests
    }


@contextlib.contextmanager
def kept_reads() -> Iterator[None]:
    """What is read inside is read once: for a command that makes many things of one run that nobody changes."""
    known = _KEPT.get()
    token = _KEPT.set({} if known is None else known)
    try:
        yield
    finally:
        _KEPT.reset(token)


def _once(key: Any, make: Callable[[], T]) -> T:
    kept = _KEPT.get()
    if kept is None:
        return make()
    if key not in kept:
        kept[key] = make()
    return kept[key]  # type: ignore[no-any-return]


def _read(folder: Path, kind: str, wanted: Mapping[str, str | None]) -> pd.DataFrame:
    import pyarrow as pa

    found = _tables(folder, kind, _parts(folder, kind, wanted))
    tables = [table for case_id, table in found if case_id in wanted]
    joined = pa.concat_tables(tables) if tables else _schema(kind).empty_table()
    frame: pd.DataFrame = joined.unify_dictionaries().to_pandas()
    return frame


def _parts(folder: Path, kind: str, wanted: Mapping[str, str | None]) -> dict[str, list[Path]]:
    """The parts of each Case whose rows are in parts, as its digest says."""
    found = {case_id: parts_of(folder, case_id, kind) for case_id in wanted}
    scans = {case_id: scan(paths, kind) for case_id, paths in found.items() if paths}
    for one in scans.values():
        if one.fault:
            warn_damaged(f"{folder}: {one.fault}: left out")
    return {
        case_id: found[case_id]
        for case_id, one in scans.items()
        if not one.fault and wanted[case_id] in (None, one.digests.get(case_id))
    }


def _tables(folder: Path, kind: str, parts: Mapping[str, Sequence[Path]]) -> Iterator[tuple[str, pa.Table]]:
    """The merged file's Cases, save those that have parts, then the parts, a table for each Case."""
    import pyarrow as pa

    merged, faults = merged_path(folder, kind), list[str]()
    if merged.exists():
        yield from (item for item in _by_case(merged, kind, faults) if item[0] not in parts)
    for case_id, paths in parts.items():
        rows = [table for path in paths for _, table in _by_case(path, kind, faults)]
        if rows:
            yield case_id, pa.concat_tables(rows).unify_dictionaries()
    for one in faults:
        warn_damaged(f"{folder}: {one}: left out")


def append_rounds(folder: Path, rows: Sequence[Mapping[str, Any]], note: Callable[[list[str]], None]) -> None:
    """Adds rows to the rounds' table; a reader finds the old or the new file, never half of it.

    Args:
        rows: values by column; one that is None or not there was not known.
        note: takes down the digests that the file may have from now on, before it is written: that of the new one, and
            that of the one that is there until then.

    Raises:
        BenchError: the disk is full or not writable.
    """
    import pyarrow as pa

    schema, target = _schema(ROUNDS), merged_path(folder, ROUNDS)
    arrays = [pa.array([row.get(field.name) for row in rows]).cast(field.type) for field in schema]
    tables = [*_rounds(folder), pa.Table.from_arrays(arrays, schema=schema)]
    new = Content()
    for table in tables:
        new.add(table)
    note([new.hexdigest(), *scan((target,), ROUNDS).digests.values()])
    _keep_damaged(target, ROUNDS)
    _write(target, ROUNDS, tables)


def read_rounds(folder: Path) -> pd.DataFrame:
    """The rounds' table; empty where no round was watched, and with a ``DamagedRunWarning`` where it is damaged.

    Figures that were not known are missing values: whole numbers come in pandas' types that know them.
    """
    import pandas as pd
    import pyarrow as pa

    nullable = {pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype()}
    sure = ("round", "duration_ns")
    table = pa.concat_tables([_schema(ROUNDS).empty_table(), *_rounds(folder)]).unify_dictionaries()
    frame: pd.DataFrame = table.to_pandas(types_mapper=nullable.get)
    return frame.astype({name: str(_schema(ROUNDS).field(name).type) for name in sure})


def _rounds(folder: Path) -> list[pa.Table]:
    path, faults = merged_path(folder, ROUNDS), list[str]()
    tables = [table for _, table in _by_case(path, ROUNDS, faults)] if path.exists() else []
    for one in faults:
        warn_damaged(f"{folder}: {one}: left out")
    return tables


def _keep_damaged(path: Path, kind: str) -> None:
    """Gives a file that cannot be read whole a second name, before another takes its place."""
    if path.exists() and scan((path,), kind).fault:
        with contextlib.suppress(OSError):
            os.link(path, path.with_suffix(".damaged.parquet"))


def _write(target: Path, kind: str, tables: Iterable[pa.Table]) -> None:
    import pyarrow.parquet as pq

    with (
        atomic_file(target) as stream,
        pq.ParquetWriter(stream, _schema(kind), compression="zstd", compression_level=9) as writer,
    ):
        for table in tables:
            writer.write_table(table)


def _schema(kind: str) -> pa.Schema:
    import pyarrow as pa

    name = pa.dictionary(pa.int32(), pa.string())
    types = {"name": name, "int16": pa.int16(), "int32": pa.int32(), "int64": pa.int64()}
    types |= {"bool": pa.bool_(), "float32": pa.float32()}
    return pa.schema([(column, types[type_]) for column, type_ in _COLUMNS[kind].items()])
