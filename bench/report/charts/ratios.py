"""The ratio of each row's time to its baseline's, with its interval and the band that counts as the same."""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.time import verdict
from bench.report.charts.axes import known, positive, short
from bench.report.charts.bars import Bars
from bench.report.charts.chart import SAMPLES, Chart, Row, Source
from bench.report.charts.looks import backend_name, clean, counted, names, plural
from bench.report.charts.theme import BLUE, GREEN, GREY, VERMILLION
from bench.report.document import interval_cell

# Verdict, colour, shape: also without colours the shape points to where the row lies.
WAYS = (
    ("faster", BLUE, "triangle-left"),
    ("same", GREEN, "circle"),
    ("slower", VERMILLION, "triangle-right"),
    ("unresolved", GREY, "cross"),
)
_TOLD = (
    ("verdict:N", "verdict"),
    ("ratio:Q", "time over baseline's"),
    ("low:Q", "from"),
    ("high:Q", "to"),
    ("rounds:Q", "rounds"),
    ("baseline_case_id:N", "case_id (baseline)"),
)


def ratios(source: Source) -> list[Chart]:
    """A chart for each timed scenario: they time other stages."""
    return [chart for scenario in ("latency", "throughput") if (chart := _chart(source, scenario))]


def _chart(source: Source, scenario: str) -> Chart | None:
    timed = source.of(scenario)
    rows = [row for row in timed if row["ratio"] and row["verdict"]]
    if not rows:
        return None
    values = [
        known(
            case_id=row["case_id"],
            baseline_case_id=row["baseline_case_id"],
            place=place,
            name=name,
            figure=str(interval_cell(row["ratio"], row["ratio_low"], row["ratio_high"])),
            verdict=row["verdict"],
            ratio=row["ratio"],
            low=row["ratio_low"],
            high=row["ratio_high"],
            rounds=row["n_rounds"],
            file=SAMPLES,
        )
        for place, (row, name) in enumerate(zip(rows, names(rows), strict=True))
    ]
    baseline = _baseline(timed, rows)
    fastest = min(values, key=lambda value: float(value["ratio"]))
    n_lives = min(row["n_lives"] for row in rows)
    over = "ratio over lives" if n_lives > 1 else "median ratio over rounds within one life"
    together = f", {len(rows)} together" if len(rows) > 1 else ""
    material = verdict.asked(source.materiality, n_lives)
    low, high = 1.0 / (1.0 + material), 1.0 + material
    ends = [value[name] for value in values for name in ("ratio", "low", "high") if name in value]
    x = positive(min(*ends, low), max(*ends, high), f"time over that of {baseline}", wide=1.0, grid=False)
    verdicts = counted([row["verdict"] for row in rows], [word for word, _, _ in WAYS])
    band = (short(low), 1.0, short(high))
    return Bars(values, x, "ratio", "verdict", WAYS, _TOLD, band=band).chart(
        f"{scenario}_ratio",
        f"Time relative to {baseline}: {scenario}",
        [
            f"{over}, 95 % intervals{together}; left is faster",
            f"grey band: up to {100 * material:.3g} % counts as the same",
        ],
        f"Time over that of {baseline} for {plural(len(rows), 'row')}: {verdicts}. "
        f"Lowest ratio: {fastest['name']}, {fastest['figure']}.",
    )


def _baseline(timed: Sequence[Row], rows: Sequence[Row]) -> str:
    ids = {row["baseline_case_id"] for row in rows}
    called = {f"{backend_name(row)} {clean(row['precision']).upper()}" for row in timed if row["case_id"] in ids}
    return called.pop() if len(called) == 1 else "the baseline"
