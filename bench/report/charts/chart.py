"""A chart, and what all charts of a run are drawn from."""

from __future__ import annotations

import copy
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair
import pandas as pd

from bench.analysis.accuracy.waterfall import Step, steps
from bench.analysis.table import DEMO_NOTE, Loaded
from bench.analysis.time import verdict
from bench.record.run_folder import CaseResult
from bench.report.charts.theme import BOLD_CHARACTER, CHARACTER, CONFIG, FONT_SIZE, LARGE, SMALL, printed
from bench.report.sentences import records, watermarks
from scarlet.errors import BenchError

Row = Mapping[str, Any]

# Files of a run's folder that the figures come from. Parts that are not merged yet end up in the same.
SAMPLES, PREDICTIONS = "samples.parquet", "predictions.parquet"

# What a page has room for; and what a line of a title may fill where the page decides on the width: a phone.
WIDTH, NARROW = 600, 330

# On paper: a plot's height over the width of its figure, how much higher it may be than on a screen, and the height
# that a page has room for; at most.
FLATNESS, HIGHER, MOST_HIGH = 0.62, 1.5, 810

# What only a page can do.
POINT_AT = "point at a mark for its Case"

ROWS = altair.NamedData("rows")


@dataclass(frozen=True, eq=False)
class Chart:
    """A drawing of a run, for every width.

    Attributes:
        alt: what is to be seen, with figures, for screen readers.
        data: what the layers draw, by name, nothing empty; ``rows`` has a row for each Case, with its ``case_id``.
        layers: marks and encodings, from back to front.
        height: of the plot alone, in px.
        is_list: the height is made of rows, so that the plot may not be flattened.
    """

    name: str
    title: str
    notes: Sequence[str]
    alt: str
    data: Mapping[str, Sequence[Row]]
    layers: Sequence[altair.Chart]
    height: int
    legend: Sequence[str] = ()
    is_list: bool = False

    @property
    def case_ids(self) -> tuple[str, ...]:
        """Whose rows it draws."""
        fields = ("case_id", "accuracy_case_id")
        return tuple(dict.fromkeys(row[field] for field in fields for row in self.data["rows"] if field in row))

    def spec(self, width: int | str = WIDTH, is_paper: bool = False) -> dict[str, Any]:
        """The chart in Vega-Lite, data included; ``theme.darkened`` makes a dark page of it.

        Args:
            width: of the whole chart, axes and legend included, in px; ``container`` to fill the element that it
                stands in.

        Raises:
            altair.utils.schemapi.SchemaValidationError: the layers break Vega-Lite's schema.
        """
        wide = width if isinstance(width, int) else NARROW
        # The title, because Vega does not break lines.
        head, small = (max(12, int(wide / em)) for em in (BOLD_CHARACTER * LARGE, CHARACTER * SMALL))
        notes = [note for note in self.notes if not (is_paper and note == POINT_AT)]
        letters = max(map(len, self.legend), default=0)
        # Beside the axis each entry of the legend takes a symbol, space and its letters.
        columns = max(1, int((wide - 3 * FONT_SIZE) / (36 + CHARACTER * FONT_SIZE * letters)))
        height = min(self.height, MOST_HIGH) if self.is_list else min(HIGHER * self.height, FLATNESS * wide)
        drawn = altair.layer(*self.layers).properties(
            title=altair.TitleParams(
                text=textwrap.wrap(self.title, head),
                subtitle=[line for note in notes for line in textwrap.wrap(note, small)],
            ),
            description=self.alt,
            width=width,
            height=round(height) if is_paper else self.height,
            autosize=altair.AutoSizeParams(type="fit-x", contains="padding"),
            usermeta={"legend_characters": letters},  # the page chooses the legend's columns again
        )
        spec = {**drawn.to_dict(), "config": copy.deepcopy(CONFIG), "datasets": self.data}
        spec["config"]["legend"]["columns"] = columns
        if is_paper:
            printed(spec)
        return spec


@dataclass(frozen=True, eq=False)
class Source:
    """What a run has to draw.

    Attributes:
        rows: of the frame, of Cases that are ok, unknown values as None.
        steps: of the accuracy waterfall; none where no two Cases may be scored, or their predictions do not fit.
        materiality: the least difference of times that counts, as a share.
        marks: what must be said wherever an accuracy stands.
    """

    rows: Sequence[Row]
    results: Sequence[CaseResult]
    samples: pd.DataFrame
    rounds: pd.DataFrame
    steps: Sequence[Step]
    materiality: float
    marks: Sequence[str]

    @classmethod
    def open(cls, run: Loaded) -> Source:
        """Reads a run's samples and rounds."""
        rows = [row for row in records(run.frame) if row["status"] == "ok"]
        ids = {row["case_id"] for row in rows}
        return cls(
            rows=rows,
            results=[result for result in run.folder.case_results() if result.case.case_id in ids],
            samples=run.folder.samples(),
            rounds=run.folder.rounds(),
            steps=_steps(run, rows),
            materiality=verdict.materiality(run.info),
            marks=[mark for mark in watermarks(run.frame, run.info) if mark == DEMO_NOTE],
        )

    def of(self, scenario: str) -> list[Row]:
        """The rows of a scenario."""
        return [row for row in self.rows if row["scenario"] == scenario]


def _steps(run: Loaded, rows: Sequence[Row]) -> Sequence[Step]:
    if sum(row["top1_percent"] is not None for row in rows) < 2:
        return ()
    try:
        return steps(run.scored)
    except BenchError:
        return ()  # the report's section on flips says what is wrong with the predictions
