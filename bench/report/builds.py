"""What several builds of one plan differ in: medians of latency, and images whose top-1 class changes."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from bench.analysis.accuracy.flips import compare
from bench.report.differing_builds import OPTION, groups
from bench.report.sentences import records

if TYPE_CHECKING:
    import pandas as pd

    from bench.analysis.accuracy.predictions import ScoredRun
    from bench.record.case import Case


def lines(frame: pd.DataFrame, run: ScoredRun) -> list[str]:
    """A sentence for each group of timed Cases, and for each of accuracy Cases, that are builds of one plan.

    Cases that have no figures are left out; a group of one has nothing to differ from.

    Args:
        frame: of ``load_frame``.
        run: the same run.
    """
    medians = {
        row["case_id"]: row["latency_ns_p50"] for row in records(frame) if row["latency_ns_p50"] is not None
    }
    found = []
    for group in groups(result.case for result in run.results):
        timed = [medians[case.case_id] for case in group if case.case_id in medians]
        if len(timed) > 1:
            least, most = min(timed), max(timed)
            found.append(
                f"{_name(group[0])}: the medians of {len(timed)} builds are {least / 1e6:.4g} to {most / 1e6:.4g} ms; "
                f"the slowest takes {100.0 * (most / least - 1.0):.1f} % longer than the fastest"
            )
        scored = [run.predicted[case.case_id] for case in group if case.case_id in run.predicted]
        ledgers = [compare(base, other) for base, other in itertools.combinations(scored, 2)]
        if ledgers:
            worst = max(ledgers, key=lambda ledger: ledger.n_flips / ledger.n_images)
            found.append(
                f"{_name(group[0])}: between any two of {len(scored)} builds the top-1 class of at most "
                f"{worst.n_flips:,} of {worst.n_images:,} images differs"
            )
    return found


def _name(case: Case) -> str:
    parts = [case.backend, case.device, case.precision, f"batch {case.batch}"]
    return " ".join([*parts, *(f"{name}={value}" for name, value in case.options if name != OPTION)])
