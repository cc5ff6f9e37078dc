"""A run as tidy tables, for notebooks and scripts: ``bench.load_run("results/latest")``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analysis.accuracy.pairing import Comparison, compare_named
from bench.analysis.columns import REGISTRY
from bench.analysis.table import load_frame, load_info
from bench.record.run_folder import RunFolder


@dataclass(frozen=True)
class LoadedRun:
    """A run's tables. ``case_id`` joins them.

    Attributes:
        path: the run's folder.
        cases: a row for each Case, with every figure; ``columns()`` says what each column means.
        samples: a row for each timed sample: ``case_id``, ``round`` (of the interleaving, negative during warm-up),
            ``stage``, ``images`` (worked on), ``warmup``, ``latency_ns``.
        predictions: a row for each image and accuracy Case: ``case_id``, ``image_id``, ``label``, ``top1`` to
            ``top5`` (classes, -1 where there are fewer), ``margin`` (probability of the first class minus that of the
            second).
        rounds: what disturbed each interleaved round; columns as of ``bench.record.run_folder.RunFolder.rounds``.
        info: ``run.json``: command, host, packages, revision, data.
        proofs: by ``case_id``, what really executed.
    """

    path: Path
    cases: pd.DataFrame
    samples: pd.DataFrame
    predictions: pd.DataFrame
    rounds: pd.DataFrame
    info: dict[str, Any]
    proofs: dict[str, dict[str, Any]]

    def compare(self, other: LoadedRun | None = None) -> Comparison:
        """Image by image: with another run, Case by Case, or without one with this run's reference Case.

        Raises:
            BenchError: there is nothing to compare, or the images differ.
        """
        return compare_named(str(self.path), str(other.path) if other else None, self.path)


def load_run(path: str | Path = "results/latest") -> LoadedRun:
    """Loads a run's folder; figures are derived anew from its raw files.

    Raises:
        BenchError: it holds no run.
    """
    folder = RunFolder.open(Path(path).resolve())
    return LoadedRun(
        path=folder.path,
        cases=load_frame(folder.path),
        samples=folder.samples(),
        predictions=folder.predictions(),
        rounds=folder.rounds(),
        info=load_info(folder.path),
        proofs={result.case.case_id: dict(result.proof) for result in folder.case_results()},
    )


def columns() -> pd.DataFrame:
    """What the columns of ``LoadedRun.cases`` mean: ``column``, ``dtype`` and ``meaning``."""
    return pd.DataFrame(
        [(column.name, column.dtype, column.meaning) for column in REGISTRY.values()],
        columns=["column", "dtype", "meaning"],
    )
