"""Reads and writes a run's folder.

Nothing here is held back until the end: each Case's line, samples and predictions are on disk when it ends,
and every file is either appended to in one write or written under another name and renamed. So a run that was
stopped, crashed or met a full disk stays readable up to its last finished Case.

``run.json`` tells of the run as a whole: ``schema_version``, ``created_at`` (ISO 8601, UTC), ``command``
(words), ``plan`` (the matrix, and under ``cases`` every planned Case as ``Case.to_dict()``), ``settings``,
``host``, ``packages``, ``git``, ``dataset`` (``root``, ``layout``, ``fingerprint``, ``n_images``,
``is_demo``), ``model_files``, ``warnings``, ``finished_at`` and ``exit_code`` (None until the run ends). Keys
appear as they become known; readers take a missing one as unknown.

Importing this module is cheap; pyarrow and pandas are imported where tables are read or written.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.record import raw_tables
from bench.record.case import Case, Status
from bench.record.files import disk_errors, file_name, plain, warn_damaged, write_text
from bench.record.raw_tables import TOP
from scarlet.errors import BenchError, error_text

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


@dataclass(frozen=True)
class CaseResult:
    """How a Case ended: one line of ``cases.jsonl``.

    Attributes:
        case: the Case.
        status: how it ended.
        reason: why, for every status but ``ok``: one line a person can act on.
        stage: what its samples timed, such as ``compute``; empty where it never got so far.
        metrics: only what cannot be derived from raw samples: ``n_warmup``, ``stop_reason``,
            ``peak_rss_bytes``, ``load_ns``, ``input_sha256``, ``n_bad_images``.
        proof: what really executed, from the backend.
        bad_images: ``{"image_id": ..., "reason": ...}`` of each file that could not be decoded.
        started_at: ISO 8601, UTC.
        ended_at: likewise.
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
        known = {item.name: data[item.name] for item in fields(cls) if item.name in data}
        known["case"] = Case.from_dict(data["case"])
        known["status"] = Status(data["status"])
        known["bad_images"] = tuple(dict(bad) for bad in data.get("bad_images", ()))
        return cls(**known)


@dataclass(frozen=True)
class RunFolder:
    """One run's folder. Make it with ``create`` or ``open``; all that is held is the path."""

    path: Path

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """Makes the folder, with a first ``run.json`` in it, so that it is known as a run from the start.

        Raises:
            BenchError: the folder is not empty, or cannot be written.
        """
        path = Path(path)
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            taken = any(path.iterdir())
        if (path / RUN_INFO).exists():
            raise BenchError(
                f"{path} already holds a run", "Go on with it by --resume, or name another --out."
            )
        if taken:
            raise BenchError(
                f"{path} is not empty and holds no run", "Name an empty or a new folder with --out."
            )
        folder = cls(path)
        folder.write_run_info({"created_at": utc_now()})
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run.

        Raises:
            BenchError: the folder holds no run, or one of a newer version.
        """
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
            info: as described at the top of this module; the schema version is added.
        """
        whole = plain({"schema_version": SCHEMA_VERSION, **info})
        write_text(self.path / RUN_INFO, json.dumps(whole, indent=2, allow_nan=False) + "\n")

    def read_run_info(self) -> dict[str, Any]:
        """Reads ``run.json``.

        Raises:
            BenchError: it is missing, broken, or of a newer version.
        """
        source = self.path / RUN_INFO
        try:
            info: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
            version = int(info["schema_version"])
        except (FileNotFoundError, NotADirectoryError):
            what = f"{self.path} holds no run: there is no {RUN_INFO} in it"
            raise BenchError(what, "Name the folder of a run, such as results/latest.") from None
        except (ValueError, TypeError, KeyError, OSError) as error:
            what = f"{source} cannot be read: {error_text(error)}"
            raise BenchError(what, "Restore the file, or measure again into another --out.") from None
        if version > SCHEMA_VERSION:
            what = f"{self.path} was written by a newer scarlet-bench"
            do = f"Update scarlet-bench: the run has format {version}, this one reads up to {SCHEMA_VERSION}."
            raise BenchError(what, do)
        return info

    def planned_cases(self) -> list[Case]:
        """Every Case of the plan, in order; none where the run was stopped before it had one."""
        plan = self.read_run_info().get("plan") or {}
        return [Case.from_dict(case) for case in plan.get("cases", ())]

    def write_images(self, images: Iterable[tuple[str, int]]) -> None:
        """Writes ``images.json``: id and label of each image of this run, in order, for the workers."""
        write_text(self.path / IMAGES, json.dumps([[image_id, int(label)] for image_id, label in images]))

    def read_images(self) -> list[tuple[str, int]]:
        """Reads what ``write_images`` wrote."""
        return [
            (image_id, label)
            for image_id, label in json.loads((self.path / IMAGES).read_text(encoding="utf-8"))
        ]

    # --- cases.jsonl ----------------------------------------------------------------------------------------

    def append_case(self, result: CaseResult) -> None:
        """Adds a Case's line, on disk when this returns; a failed write leaves the file as it was.

        Raises:
            BenchError: the disk is full or not writable.
        """
        target = self.path / CASES
        line = json.dumps(result.to_dict(), allow_nan=False).encode() + b"\n"
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

    def case_results(self) -> list[CaseResult]:
        """The Cases that ended, in the order of their first line; of a Case that ran again the last line
        counts.

        A line that cannot be read (torn by a crash or a full disk) is left out with a ``DamagedRunWarning``.
        """
        results: dict[str, CaseResult] = {}
        source = self.path / CASES
        lines = source.read_bytes().split(b"\n") if source.exists() else []
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                result = CaseResult.from_dict(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                warn_damaged(f"{source}, line {number} left out: {error_text(error)}")
                continue
            results[result.case.case_id] = result
        return list(results.values())

    def results(self) -> list[CaseResult]:
        """One for each Case: planned ones in order, those that never ended as ``interrupted``, then any others."""
        results = {
            case.case_id: CaseResult(case, Status.INTERRUPTED, NEVER_RAN) for case in self.planned_cases()
        }
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
            case_id: of the Case.
            round: number of the interleaved round; negative during warm-up.
            stage: what was timed; one text for all samples, or one each.
            images: how many images the sample worked on.
            warmup: the sample does not count.
            latency_ns: the time.
        """
        columns = {
            "round": round,
            "stage": stage,
            "images": images,
            "warmup": warmup,
            "latency_ns": latency_ns,
        }
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
            case_id: of the Case.
            image_id: n ids.
            label: ``(n,)``, the true class.
            top: ``(n, k)``, classes by falling logit; k of at most 5, missing ones become -1.
            margin: ``(n,)``, softmax probability of the first class minus that of the second.
        """
        missing = [-1] * len(image_id)
        classes = {
            f"top{index + 1}": top[:, index] if index < top.shape[1] else missing for index in range(TOP)
        }
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
            raw_tables.append_rounds(self.path, {name: [row[name] for row in rows] for name in rows[0]})

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
        return int(known.max()) + 1 if len(known) else 0

    # --- all parts ------------------------------------------------------------------------------------------

    def end_life(self, case_id: str, life: int) -> None:
        """Keeps the samples that a Case's worker wrote as those of this life, from 0: the next worker writes its own.

        Raises:
            BenchError: the disk is not writable.
        """
        written = raw_tables.part_path(self.path, case_id, "samples")
        with disk_errors(written), contextlib.suppress(FileNotFoundError):
            written.rename(raw_tables.part_path(self.path, case_id, "samples", life))

    def drop_parts(self, case_ids: Iterable[str]) -> None:
        """Removes what workers of these Cases wrote and nobody has merged: of Cases that begin anew, or failed."""
        for case_id in case_ids:
            for kind in raw_tables.KINDS:
                for path in raw_tables.parts_of(self.path, case_id, kind):
                    path.unlink(missing_ok=True)

    def merge_parts(self) -> None:
        """Moves the parts of ended Cases into ``samples.parquet`` and ``predictions.parquet``.

        Parts are removed only once the merged file is in place; parts of Cases that have not ended stay.

        Raises:
            BenchError: the disk is full or not writable; nothing is lost then.
        """
        raw_tables.merge(self.path, self._ended())
        with contextlib.suppress(OSError):  # it holds parts of Cases that have not ended, or does not exist
            (self.path / "parts").rmdir()

    def _ended(self) -> list[str]:
        return [result.case.case_id for result in self.case_results()]

    def samples(self) -> pd.DataFrame:
        """All samples of ended Cases: merged and not yet merged.

        Columns: ``case_id`` (category), ``round`` (int32), ``stage`` (category), ``images`` (int32),
        ``warmup`` (bool), ``latency_ns`` (int64).
        """
        return raw_tables.read(self.path, "samples", self._ended())

    def predictions(self) -> pd.DataFrame:
        """All predictions of ended Cases: merged and not yet merged.

        Columns: ``case_id``, ``image_id`` (category), ``label``, ``top1`` to ``top5`` (int16), ``margin``
        (float32).
        """
        return raw_tables.read(self.path, "predictions", self._ended())


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
