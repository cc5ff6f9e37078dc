"""Reads and writes a run's folder.

Nothing here is held back until the end: each Case's line, samples and predictions are on disk when it ends,
and every file is either appended to in one write or written under another name and renamed. So a run that was
stopped, crashed or met a full disk stays readable up to its last finished Case.

``run.json`` tells of the run as a whole: ``schema_version``, ``created_at`` (ISO 8601, UTC), ``command``
(words), ``plan`` (the matrix, and under ``cases`` every planned Case as ``Case.to_dict()``), ``settings``,
``host``, ``packages``, ``git``, ``dataset`` (``root``, ``layout``, ``fingerprint``, ``n_images``,
``is_demo``), ``model_files``, ``warnings``, ``resolves`` (by scenario, what difference its lives can tell apart),
``finished_at`` and ``exit_code`` (None until the run ends). Keys appear as they become known; readers take a missing
one as unknown. ``digests`` has those of ``images.json`` and ``rounds.parquet``: of the last two states, because the
file and its digest are not written in one moment.

``run.json`` and each line of ``cases.jsonl`` end in a digest of themselves (``sha256``), and a line has the digests of
its Case's rows: who reads finds what was damaged, lost or edited, and such a row is ``invalid``. A folder of a version
that wrote no digests reads as it did. Whoever may write the folder may write other digests too.

Importing this module is cheap; pyarrow and pandas are imported where tables are read or written.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timezone
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.record import raw_tables
from bench.record.case import MEASURED, Case, Status
from bench.record.files import DamagedRunWarning, disk_errors, file_name, fits, plain, warn_damaged, write_text
from bench.record.lock import LOCK
from bench.record.raw_tables import ROUNDS, TOP
from scarlet.errors import BenchError, error_text
from scarlet.files import RUN_BYTES_MAX, read_bytes, read_json

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from bench.host.disturbance import RoundState

SCHEMA_VERSION = 1

RUN_INFO = "run.json"
CASES = "cases.jsonl"
IMAGES = "images.json"

NEVER_RAN = "the run ended before this Case did; go on with --resume"

# Why a row is what it is, for programs: ``metrics["cause"]``. Such Cases run again when the run goes on.
CAUSE, MACHINE, DAMAGED = "cause", "machine", "damaged"
# Files of the run's folder besides the tables, with their SHA-256: ``metrics["loadgen_logs"]``.
LOGS = "loadgen_logs"
# These run again where the user asks for it.
RETRIED = (Status.FAILED, Status.CRASHED, Status.OOM, Status.TIMEOUT, Status.UNAVAILABLE)

# The types of what readers look at; see ``fits``.
_TEXT, _COUNT = (str, None), (int, None)
_RUN_SHAPE: dict[str, Any] = {
    **dict.fromkeys(("settings", "model_files", "packages", "preprocessing", "reference", "noise"), (dict, None)),
    "model_input": ({"source": _TEXT}, None),
    **dict.fromkeys(("created_at", "finished_at"), _TEXT),
    "plan": ({"cases": [dict], "model": _TEXT}, None),
    "host": ({"cpu_model": _TEXT, "nvidia": ({"gpus": ([dict], None)}, None)}, None),
    "dataset": ({"root": _TEXT, "layout": _TEXT, "fingerprint": _TEXT, "n_images": _COUNT}, None),
    "git": ({"commit": _TEXT}, None),
    "command": ([str], None),
    "warnings": ([dict], None),
    "real": ([dict], None),
    "digests": ({"images": [str], "rounds": [str]}, None),
}
_ROW_SHAPE: dict[str, Any] = {
    **dict.fromkeys(("reason", "stage", "started_at", "ended_at"), str),
    "metrics": {
        **dict.fromkeys(("n_bad_images", "n_warmup", "peak_rss_bytes", "model_file_bytes"), _COUNT),
        **dict.fromkeys(("stop_reason", "input_sha256", CAUSE), _TEXT),
        "lives": [dict],
        "load": ({"tests": [dict]}, None),
        LOGS: (dict, None),
    },
    "proof": dict,
    "bad_images": [{"image_id": str, "reason": str}],
    "digests": ({"samples": str, "predictions": str}, None),
}


@dataclass(frozen=True)
class CaseResult:
    """How a Case ended: one line of ``cases.jsonl``.

    Attributes:
        reason: why, for every status but ``ok``: one line a person can act on.
        stage: what its samples timed, such as ``compute``; empty where it never got so far.
        metrics: only what cannot be derived from raw samples: ``n_warmup``, ``stop_reason``,
            ``peak_rss_bytes``, ``load_ns``, ``input_sha256``, ``n_bad_images``.
        proof: what really executed, from the backend.
        bad_images: ``{"image_id": ..., "reason": ...}`` of each file that could not be decoded.
        started_at, ended_at: ISO 8601, UTC.
        digests: of its rows in ``samples`` and ``predictions``; None in a folder written before there were digests.
    """

    case: Case
    status: Status
    reason: str = ""
    stage: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    proof: Mapping[str, Any] = field(default_factory=dict)
    bad_images: Sequence[Mapping[str, str]] = ()
    started_at: str = ""
    ended_at: str = ""
    digests: Mapping[str, str] | None = field(default=None, compare=False)

    @property
    def is_damaged(self) -> bool:
        """Its record is not as it was written."""
        return self.metrics.get(CAUSE) == DAMAGED

    def damaged(self, why: str) -> CaseResult:
        """As it is to be read where its record is not as it was written: with nothing of what was measured."""
        return replace(self, status=Status.INVALID, reason=why, metrics={CAUSE: DAMAGED}, proof={}, bad_images=())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; ``from_dict`` reads it back."""
        own = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "case"}
        return {"case_id": self.case.case_id, "case": self.case.to_dict(), **plain(own)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CaseResult:
        """Reads what ``to_dict`` wrote; keys of later versions are ignored.

        Raises:
            KeyError, TypeError, ValueError: it is no such thing.
        """
        fits(data, _ROW_SHAPE)
        known = {item.name: data[item.name] for item in fields(cls) if item.name in data}
        known["case"] = Case.from_dict(data["case"])
        known["status"] = Status(data["status"])
        known["bad_images"] = tuple(dict(bad) for bad in data.get("bad_images", ()))
        return cls(**known)


AS_WRITTEN, BEFORE_DIGESTS, NOT_ENDED = "as it was written", "written before digests", "has not ended"


@dataclass(frozen=True)
class RunFolder:
    """One run's folder. Make it with ``create`` or ``open``; all that is held is the path."""

    path: Path

    @classmethod
    def create(
        cls, path: Path, info: Mapping[str, Any] | None = None, images: Iterable[tuple[str, int]] | None = None
    ) -> RunFolder:
        """Makes the folder. ``run.json`` comes last and whole: from then on the run can go on whatever befalls it.

        Args:
            images: as of ``write_images``.

        Raises:
            BenchError: the folder is not empty, or cannot be written.
        """
        path = Path(path)
        cls.refuse_taken(path)
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        folder, digests = cls(path), dict[str, list[str]]()
        if images is not None:
            text = _listed(images)
            write_text(path / IMAGES, text)
            digests["images"] = [_sha256(text.encode())]
        folder.write_run_info({"created_at": utc_now(), **(info or {}), "digests": digests})
        return folder

    @staticmethod
    def refuse_taken(path: Path) -> None:
        """Makes sure that a new run may have this folder.

        Raises:
            BenchError: it is not empty, or cannot be looked into.
        """
        with disk_errors(path):
            # A run that was killed before it had a run.json leaves these.
            names = {item.name for item in path.iterdir() if not _left_over(item)} if path.exists() else set()
        if RUN_INFO in names:
            do = "Go on with it by --resume, or name another --out."
            raise BenchError(f"{path} already holds a run", do)
        if names - {IMAGES, LOCK}:
            do = "Name an empty or a new folder with --out."
            raise BenchError(f"{path} is not empty and holds no run", do)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run; BenchError where the folder holds no run, or one of a newer version."""
        folder = cls(Path(path))
        folder.read_run_info()
        return folder

    # --- names ----------------------------------------------------------------------------------------------

    def log_path(self, case_id: str) -> Path:
        """Where all that a Case's worker prints goes."""
        return self.path / "logs" / f"{case_id}.log"

    # --- the run as a whole ---------------------------------------------------------------------------------

    def write_run_info(self, info: Mapping[str, Any]) -> None:
        """Writes ``run.json``; a reader finds the old or the new one, never half of it.

        Args:
            info: as described at the top of this module; the schema version is added, and the digests that are known.
        """
        known = {} if "digests" in info else {"digests": self._digests()}
        whole = plain({"schema_version": SCHEMA_VERSION, **known, **info})
        write_text(self.path / RUN_INFO, _sealed(json.dumps(whole, indent=2, allow_nan=False)) + "\n")

    def add_run_info(self, **facts: Any) -> None:
        """Adds facts to ``run.json``; BenchError where it cannot be read, or was changed by somebody else."""
        info = self.read_run_info()
        if why := self.info_fault():
            raise BenchError(f"{self.path}: {why}", f"Put back the {RUN_INFO} of this run, or start a new run.")
        self.write_run_info({**info, **facts})

    def info_fault(self) -> str:
        """What is wrong with a ``run.json`` that can be read: it was changed since it was written; else empty."""
        text = read_bytes(self.path / RUN_INFO, RUN_BYTES_MAX).decode(errors="surrogateescape")
        whole, intact = _unsealed(text)
        is_sealed = intact or (intact is None and "digests" not in whole)
        return "" if is_sealed else f"{RUN_INFO} was changed since it was written"

    def read_run_info(self) -> dict[str, Any]:
        """Reads ``run.json``; BenchError where it is missing, broken, or of a newer version."""
        source = self.path / RUN_INFO
        try:
            info: dict[str, Any] = read_json(source)
            version = int(info["schema_version"])
            fits(info, _RUN_SHAPE)
            for case in (info.get("plan") or {}).get("cases", ()):
                Case.from_dict(case)
        except (FileNotFoundError, NotADirectoryError):
            what = f"{self.path} holds no run: there is no {RUN_INFO} in it"
            raise BenchError(what, "Name the folder of a run, such as results/latest.") from None
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            what = f"{source} cannot be read: {error_text(error)}"
            raise BenchError(what, "Restore the file, or measure again into another --out.") from None
        if version > SCHEMA_VERSION:
            what = f"{self.path} was written by a newer scarlet-bench"
            do = f"Update scarlet-bench: the run has format {version}, this one reads up to {SCHEMA_VERSION}."
            raise BenchError(what, do)
        info.pop("sha256", None)
        return info

    def planned_cases(self) -> list[Case]:
        """Every Case of the plan, in order; none where the run was stopped before it had one."""
        plan = self.read_run_info().get("plan") or {}
        return [Case.from_dict(case) for case in plan.get("cases", ())]

    def _digests(self) -> dict[str, list[str]] | None:
        """What ``run.json`` knows of other files; None where it is of a version that wrote no digests."""
        if not (self.path / RUN_INFO).exists():
            return {}
        found: dict[str, list[str]] | None = self.read_run_info().get("digests")
        return found

    def _note(self, name: str, digests: list[str]) -> None:
        """Takes down which digests a file may have from now on: before it is written, so that a kill between the two
        leaves a folder in which all is as it should be.
        """
        known = self._digests()
        if known is not None:
            self.add_run_info(digests={**known, name: digests})

    def write_images(self, images: Iterable[tuple[str, int]]) -> None:
        """Writes ``images.json``: id and label of each image of this run, in order, for the workers."""
        target, text = self.path / IMAGES, _listed(images)
        before = [_sha256(target.read_bytes())] if target.exists() else []
        self._note("images", [_sha256(text.encode()), *before])
        write_text(target, text)

    def read_images(self) -> list[tuple[str, int]]:
        """Reads what ``write_images`` wrote; BenchError where it is missing, broken or changed."""
        source = self.path / IMAGES
        why = self.file_fault("images")
        try:
            listed = read_json(source)
            fits(listed, [list])
            images = [(image_id, label) for image_id, label in listed]
            for image_id, label in images:
                fits({"id": image_id, "label": label}, {"id": str, "label": int})
        except FileNotFoundError:
            why = f"there is no {IMAGES} in it"
        except (ValueError, TypeError, OSError) as error:
            why = why or f"{IMAGES} cannot be read: {error_text(error)}"
        if why:
            what = f"{self.path} does not say which images it scored: {why}"
            raise BenchError(what, "Name the folder of a run as scarlet-bench run left it.")
        return images

    def file_fault(self, name: str) -> str:
        """Why ``images`` or ``rounds`` are not what was written, with the file's name; empty where they are."""
        expected = (self._digests() or {}).get(name)
        file = IMAGES if name == "images" else f"{name}.parquet"
        path = self.path / file
        if not expected:
            return ""
        if name == "images":
            return self._changed(file, expected)
        if not path.exists():
            return f"{file} is missing"
        read = raw_tables.scan((path,), name)
        fault = read.fault or f"{file} was changed since it was written"
        return "" if read.digests.get("", "") in expected else fault

    def _changed(self, file: str, expected: Collection[str]) -> str:
        """Why a file's SHA-256 is none of these; empty where it is one."""
        try:
            found = _sha256(read_bytes(self.path / file, RUN_BYTES_MAX))
        except FileNotFoundError:
            return f"{file} is missing"
        except OSError as error:
            return f"{file} cannot be read: {error.strerror}"
        return "" if found in expected else f"{file} was changed since it was written"

    # --- cases.jsonl ----------------------------------------------------------------------------------------

    def append_case(self, result: CaseResult) -> CaseResult:
        """Adds a Case's line, with the digests of its rows, on disk when this returns; a failed write leaves the file
        as it was.

        Returns:
            the row as it was recorded: ``failed`` where the parts that its worker wrote cannot be read back.

        Raises:
            BenchError: the disk is full or not writable.
        """
        target = self.path / CASES
        result = self._with_digests(result)
        line = _sealed(json.dumps(result.to_dict(), allow_nan=False)).encode() + b"\n"
        with disk_errors(target), target.open("a+b", buffering=0) as stream:
            size = stream.seek(0, os.SEEK_END)
            if size:
                stream.seek(-1, os.SEEK_END)
                # A line torn by a crash must not swallow the one that follows it.
                line = line if stream.read(1) == b"\n" else b"\n" + line
            try:
                if stream.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(stream.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    stream.truncate(size)
                raise
        return result

    def _with_digests(self, result: CaseResult) -> CaseResult:
        case_id, digests = result.case.case_id, dict[str, str]()
        has_rows = result.status in (*MEASURED, Status.INVALID)
        for kind in raw_tables.KINDS if has_rows else ():
            read = raw_tables.scan(raw_tables.parts_of(self.path, case_id, kind), kind)
            if read.fault:
                mark = {CAUSE: MACHINE}
                return replace(result, status=Status.FAILED, reason=read.fault, metrics=mark, digests={})
            if case_id in read.digests:
                digests[kind] = read.digests[case_id]
        return replace(result, digests=digests)

    def case_results(self) -> list[CaseResult]:
        """The Cases that ended, in the order of their first line; of a Case that ran again the last line counts.

        A measured Case whose line, rows or files were damaged, lost or edited since is ``invalid``, and says which.
        A line that cannot be read (torn by a crash or a full disk) is left out with a ``DamagedRunWarning``.
        """
        return [
            result.damaged(why) if why and result.status in MEASURED else result for result, why in self.checked_lines()
        ]

    def checked_lines(self) -> list[tuple[CaseResult, str]]:
        """As ``case_results``, as they were written, each with why it cannot be trusted; empty where it can."""
        lines = self._lines()
        if not lines:
            return []
        with raw_tables.kept_reads():
            shared = {name: self.info_fault() or self.file_fault(name) for name in ("images", ROUNDS)}
            return [(result, why or self._fault(result, shared)) for result, why in lines.values()]

    def _fault(self, result: CaseResult, shared: Mapping[str, str]) -> str:
        case = result.case
        own = (
            raw_tables.fault(self.path, kind, case.case_id, digest) for kind, digest in (result.digests or {}).items()
        )
        logs = (self._changed(name, (digest,)) for name, digest in (result.metrics.get(LOGS) or {}).items())
        return shared["images" if case.scenario == "accuracy" else ROUNDS] or next(filter(None, chain(own, logs)), "")

    def _lines(self) -> dict[str, tuple[CaseResult, str]]:
        """By Case: its last line, and what is wrong with it."""
        results: dict[str, tuple[CaseResult, str]] = {}
        source = self.path / CASES
        with disk_errors(source, "read"):
            lines = read_bytes(source, RUN_BYTES_MAX).split(b"\n") if source.exists() else []
        expects_digests = bool(lines) and self._digests() is not None
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                data, intact = _unsealed(line.decode())
                result = CaseResult.from_dict(data)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                warn_damaged(f"{source}, line {number} left out: {error_text(error)}")
                continue
            is_changed = intact is False or (intact is None and expects_digests)
            why = f"{CASES}, line {number} was changed since it was written" if is_changed else ""
            results[result.case.case_id] = result, why
        return results

    def verify(self) -> list[tuple[str, str]]:
        """Each file, and each Case's line with its rows, and its state: one of the three above, or what is wrong.
        All of them are read.
        """
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", DamagedRunWarning)
            lines = self.checked_lines()
            ended = {result.case for result, _ in lines}
            planned = [case for case in self.planned_cases() if case not in ended]
            known = self._digests()
        files = {RUN_INFO: self.info_fault(), IMAGES: self.file_fault("images")}
        files[f"{ROUNDS}.parquet"] = self.file_fault(ROUNDS)
        found = [
            (name, why or (BEFORE_DIGESTS if known is None else AS_WRITTEN))
            for name, why in files.items()
            if why or (self.path / name).exists()
        ]
        found += [(CASES, str(warning.message)) for warning in told]
        for result, why in lines:
            state = BEFORE_DIGESTS if result.digests is None else AS_WRITTEN
            found.append((f"{result.case.label}, {result.case.case_id}", why or state))
        return [*found, *((f"{case.label}, {case.case_id}", NOT_ENDED) for case in planned)]

    def reopen(self, retry: bool = False) -> None:
        """Records that Cases are to run again: those that the machine failed (a full disk) or whose record is damaged.

        Args:
            retry: those too that failed, crashed, took too long or had not what they need.
        """
        for result in self.case_results():
            if result.metrics.get(CAUSE) in (MACHINE, DAMAGED) or (retry and result.status in RETRIED):
                self.append_case(CaseResult(result.case, Status.INTERRUPTED, NEVER_RAN))

    def has_results(self) -> bool:
        """A Case has ended, or its worker has written what it measured."""
        return (self.path / CASES).exists() or any((self.path / "parts").glob("*"))

    def forget_left_overs(self) -> None:
        """Removes temporary files that a kill left; only who holds the folder's lock may."""
        for folder in (self.path, self.path / "parts"):
            for left in filter(_left_over, folder.glob(".*")):
                with disk_errors(left):
                    left.unlink(missing_ok=True)

    def results(self) -> list[CaseResult]:
        """One for each Case: planned ones in order, those that never ended as ``interrupted``, then any others."""
        results = {case.case_id: CaseResult(case, Status.INTERRUPTED, NEVER_RAN) for case in self.planned_cases()}
        results |= {result.case.case_id: result for result in self.case_results()}
        return list(results.values())

    # --- samples and predictions ----------------------------------------------------------------------------

    def write_samples_part(
        self,
        case_id: str,
        *,
        round: NDArray[np.integer[Any]],  # noqa: A002 (the column's name)
        stage: str | Sequence[str],
        images: NDArray[np.integer[Any]],
        warmup: NDArray[np.bool_],
        latency_ns: NDArray[np.integer[Any]],
    ) -> None:
        """Writes a Case's samples, one value a sample, all of shape ``(n,)``.

        Args:
            round: number of the interleaved round; negative during warm-up.
            stage: what was timed; one text for all samples, or one each.
            images: how many images the sample worked on.
        """
        columns = {"round": round, "stage": stage, "images": images, "warmup": warmup, "latency_ns": latency_ns}
        raw_tables.write_part(self.path, case_id, "samples", columns)

    def write_predictions_part(
        self,
        case_id: str,
        *,
        image_id: Sequence[str],
        label: NDArray[np.integer[Any]],
        top: NDArray[np.integer[Any]],
        margin: NDArray[np.floating[Any]],
    ) -> None:
        """Writes a Case's predictions, one row an image.

        Args:
            label: ``(n,)``, the true class.
            top: ``(n, k)``, classes by falling logit; k of at most 5, missing ones become -1.
            margin: ``(n,)``, softmax probability of the first class minus that of the second.
        """
        import numpy as np

        missing = np.full(len(image_id), -1)
        classes = {f"top{index + 1}": top[:, index] if index < top.shape[1] else missing for index in range(TOP)}
        columns = {"image_id": image_id, "label": label, **classes, "margin": margin}
        raw_tables.write_part(self.path, case_id, "predictions", columns)

    # --- the state of each round ----------------------------------------------------------------------------

    def write_rounds(self, states: Sequence[RoundState]) -> None:
        """Adds the rounds of a group to ``rounds.parquet``; on disk when this returns.

        Call it when the group's last round is over and before its Cases are finished: a Case then never ends without
        its rounds.

        Raises:
            BenchError: the disk is full or not writable.
        """
        if states:
            rows = [state.to_row() for state in states]
            raw_tables.append_rounds(self.path, rows, lambda digests: self._note(ROUNDS, digests))

    def rounds(self) -> pd.DataFrame:
        """What disturbed each round, in the order they were written; empty where none was watched.

        Columns: ``scenario`` (category), ``round`` (int32), ``disturbed`` (bool), ``reason`` (category:
        comma-separated values of ``WarningKind``, empty for a quiet round), ``duration_ns`` (int64) and
        the other figures of ``disturbance.RoundState``, missing where they were not known.
        """
        return raw_tables.read_rounds(self.path)

    def next_round(self, scenario: str) -> int:
        """The number of a group's next round: a run that is resumed goes on counting, so that rounds of two sessions
        are never taken for one.
        """
        rounds = self.rounds()
        known = rounds.loc[rounds["scenario"] == scenario, "round"]
        return int(known.max()) + 1 if len(known) else self.read_run_info().get("first_round", 0)

    # --- all parts ------------------------------------------------------------------------------------------

    def end_life(self, case_id: str, life: int, kind: str = "samples") -> None:
        """Keeps what a Case's worker wrote as that of this life, from 0: the next worker writes its own. Of predictions
        a life is told by its first image.

        Raises:
            BenchError: the disk is not writable.
        """
        written = raw_tables.part_path(self.path, case_id, kind)
        with disk_errors(written), contextlib.suppress(FileNotFoundError):
            written.rename(raw_tables.part_path(self.path, case_id, kind, life))

    def drop_parts(self, case_ids: Iterable[str]) -> None:
        """Removes what workers of these Cases wrote and nobody has merged: of Cases that begin anew, or failed."""
        for case_id in case_ids:
            for kind in raw_tables.KINDS:
                for path in raw_tables.parts_of(self.path, case_id, kind):
                    with disk_errors(path):
                        path.unlink(missing_ok=True)

    def merge_parts(self) -> None:
        """Moves the parts of ended Cases into ``samples.parquet`` and ``predictions.parquet``.

        Parts are removed only once the merged file is in place; parts of Cases that have not ended stay.

        Raises:
            BenchError: the disk is full or not writable; nothing is lost then.
        """
        with raw_tables.kept_reads():
            raw_tables.merge(self.path, self._wanted())
        with contextlib.suppress(OSError):  # it holds parts of Cases that have not ended, or does not exist
            (self.path / "parts").rmdir()

    def _wanted(self) -> dict[str, Mapping[str, str] | None]:
        """The digests of the rows of each ended Case; what is not as it was written is left out with a warning."""
        wanted: dict[str, Mapping[str, str] | None] = {}
        for result in self.case_results():
            if result.is_damaged:
                warn_damaged(f"{self.path}: {result.reason}: {result.case.case_id} left out")
            else:
                wanted[result.case.case_id] = result.digests
        return wanted

    def samples(self) -> pd.DataFrame:
        """All samples of ended Cases: merged and not yet merged.

        Columns: ``case_id`` (category), ``round`` (int32), ``stage`` (category), ``images`` (int32),
        ``warmup`` (bool), ``latency_ns`` (int64).
        """
        return raw_tables.read(self.path, "samples", self._wanted())

    def predictions(self) -> pd.DataFrame:
        """All predictions of ended Cases: merged and not yet merged.

        Columns: ``case_id``, ``image_id`` (category), ``label``, ``top1`` to ``top5`` (int16), ``margin``
        (float32).
        """
        return raw_tables.read(self.path, "predictions", self._wanted())


def _listed(images: Iterable[tuple[str, int]]) -> str:
    return json.dumps([[image_id, int(label)] for image_id, label in images])


def _left_over(path: Path) -> bool:
    """A temporary file of ``atomic_file``."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sealed(text: str) -> str:
    """A JSON object's text with a digest of that text as its last item."""
    head = text[:-1].rstrip()
    return f'{head}, "sha256": "{_sha256(text.encode())}"{text[len(head) :]}'


def _unsealed(text: str) -> tuple[Any, bool | None]:
    """What ``_sealed`` was given, as data, and whether it is still the same: None where it bears no digest."""
    data, intact = json.loads(text), None
    if parts := re.fullmatch(r'(.*), "sha256": "([0-9a-f]{64})"(\s*\})\s*', text, re.DOTALL):
        intact = _sha256(f"{parts[1]}{parts[3]}".encode(errors="surrogateescape")) == parts[2]
    return data, intact


def set_latest(results_dir: Path, run: Path) -> None:
    """Points ``<results_dir>/latest`` at a run: a relative link, replaced in one step.

    Raises:
        BenchError: the link cannot be made, or something that is no link has its name.
    """
    link = Path(results_dir) / "latest"
    if link.exists() and not link.is_symlink():
        raise BenchError(f"{link} is in the way: it is not a link", "Move or remove it.")
    temporary = link.with_name(f".latest-{secrets.token_hex(4)}")
    with disk_errors(link):
        link.parent.mkdir(parents=True, exist_ok=True)
        target = os.path.relpath(Path(run).resolve(), link.parent.resolve())
        temporary.symlink_to(target, target_is_directory=True)
        os.replace(temporary, link)


def utc_now() -> str:
    """The time as ISO 8601, UTC, in whole seconds."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def new_run_path(results_dir: Path, model: str) -> Path:
    """A name for a new run: ``<results_dir>/runs/<time>-<model>-<short id>``. Names sort by time."""
    time = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    return Path(results_dir) / "runs" / f"{time}-{file_name(model)[-40:]}-{secrets.token_hex(3)}"
