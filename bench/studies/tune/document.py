"""The candidates of a search (``bench.studies.tune.search``) as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.report.sentences import one_line
from bench.report.tables import Table
from bench.report.text import number, whole

if TYPE_CHECKING:
    from bench.studies.tune.search import Standing

_HEADER = ("Batch", "Instances", "Threads", "Options", "Images/s", "95 % interval", "of best", "Rounds", "")
_NUMERIC = (True, True, True, False, True, True, True, True, False)


def tuning_table(standings: Sequence[Standing]) -> Table:
    """A row a candidate, the best first.

    Args:
        standings: as of ``bench.studies.tune.search.standings``.
    """
    first = standings[0].case
    return Table(
        title=f"{first.model}, {first.pipeline} and {first.backend} {first.device} {first.precision}, files to top-5",
        header=_HEADER,
        rows=tuple(map(_row, standings)),
        numeric=_NUMERIC,
        notes=(
            "of best: images/s relative to the first row, median over the rounds that both took",
            "options not given: decode_threads are as many as threads",
        ),
    )


def _row(standing: Standing) -> tuple[str, ...]:
    case, half_width = standing.case, None
    if standing.low is not None and standing.high is not None:
        half_width = (standing.high - standing.low) / 2.0
    ends = [number(end, half_width) for end in (standing.low, standing.high)]
    return (
        str(case.batch),
        str(case.instances),
        str(case.threads),
        ", ".join(f"{name}={value}" for name, value in case.options),
        number(standing.images_per_s, half_width),
        " to ".join(ends) if all(ends) else "",
        _of_best(standing),
        whole(standing.n_rounds) if standing.n_rounds else "",
        one_line(standing.why_not),
    )


def _of_best(standing: Standing) -> str:
    if standing.ratio is None:
        return ""
    if standing.ratio_low is None or standing.ratio_high is None:
        return number(standing.ratio)
    half_width = (standing.ratio_high - standing.ratio_low) / 2.0
    low, high = (number(end, half_width) for end in (standing.ratio_low, standing.ratio_high))
    return f"{number(standing.ratio, half_width)} ({low} to {high})"
