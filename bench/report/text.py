"""Values as text: no digit that is not true, and nothing that a terminal or a table would take for a command."""

from __future__ import annotations

import json
import math
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

from bench.analysis.columns import REGISTRY, Column
from scarlet.errors import visible

Row = Mapping[str, Any]

# More digits than these are never true of a time, and never read.
MOST_DIGITS = 4
# Digits where nothing is known of the uncertainty.
PLAIN_DIGITS = 3


def number(value: float | None, half_width: float | None = None) -> str:
    """The value with the digits that are true: down to the first digit of its uncertainty.

    Args:
        half_width: half of its interval, in the same unit; without one, three significant digits.
    """
    if value is None or not math.isfinite(value):
        return ""
    if half_width is None:
        places = _places(value, PLAIN_DIGITS)
    else:
        places = _places(value, MOST_DIGITS)
        if half_width > 0:
            places = min(places, -math.floor(math.log10(half_width)))
    return f"{round(value, places) + 0.0:.{max(places, 0)}f}"


def two_digits(value: float) -> str:
    """The value with two significant digits: 100, and not 1e+02."""
    return f"{float(f'{value:.2g}'):g}"


def _places(value: float, digits: int) -> int:
    """Decimal places that leave so many significant digits."""
    return digits - 1 - math.floor(math.log10(abs(value))) if value else 0


def percent(value: float | None, n: int | None) -> str:
    """A share of n images in per cent, with no digit finer than one image: 75.6 of 1,000, 75.602 of 50,000.

    A share short of 100 is never rounded to it.
    """
    if value is None or not n:
        return ""
    return f"{value:.{max(0, math.ceil(math.log10(n / 100)))}f}"


def whole(value: float | None) -> str:
    """A count with thousands separated."""
    return "" if value is None else f"{int(value):,}"


def one_line(text: str) -> str:
    """The text on one line, without control characters (a worker's last words may hold terminal codes)."""
    visible = "".join(" " if unicodedata.category(sign) in ("Cc", "Zl", "Zp") else sign for sign in text)
    return " ".join(visible.split())


def written(name: str, row: Row) -> str:
    """A row's value of a column, in the column's unit; empty where it is not known.

    Args:
        row: with all columns, unknown values as None.
    """
    column, value = REGISTRY[name], row[name]
    if value is None:
        return ""
    if column.written == "number":
        return number(value / column.scale, half_width(column, row))
    if column.written == "percent":
        return percent(value, row["n_images"])
    if column.written == "count":
        return whole(value / column.scale)
    if column.written == "share":
        return f"{value:.0f} %"
    return options_text(json.loads(value or "{}")) if column.written == "options" else one_line(str(value))


def interval_ends(name: str, row: Row) -> tuple[str, str] | None:
    """Both ends of the interval of a row's value, as ``written``; None where one of them is not known."""
    low, high = (written(f"{name}_{end}", row) for end in ("low", "high"))
    return (low, high) if low and high else None


def half_width(column: Column, row: Row) -> float | None:
    """Half of the interval that says how many digits of a row's value are true, in the column's unit; or None."""
    if not column.interval:
        return None
    low, high = row[f"{column.interval}_low"], row[f"{column.interval}_high"]
    if low is not None and high is not None:
        return float(high - low) / 2.0 / column.scale
    # A latency's interval is its throughput's as well, in proportion.
    value, median = row["throughput_images_per_s"], row["latency_ns_p50"]
    if column.name == "throughput_images_per_s" and value and median:
        of_median = half_width(REGISTRY["latency_ns_p50"], row)
        return None if of_median is None else float(value * of_median * 1e6 / median)
    return None


def options_text(options: Mapping[str, Any], separator: str = ", ") -> str:
    """Options of a Case on one line."""
    return one_line(separator.join(f"{name}={value}" for name, value in options.items()))


# Settings whose value says what it is of.
_BARE = ("scenario", "backend", "device", "precision")


def row_names(
    rows: Sequence[Row],
    always: Sequence[str] = ("backend", "device", "precision", "options"),
    varying: Sequence[str] = (),
) -> list[str]:
    """What to call each row: settings that are always named, and those that tell it from the others.

    Args:
        always: settings that are named even where all rows agree in them.
        varying: settings that are named where rows differ in them.
    """
    differing = [name for name in varying if len({str(row[name]) for row in rows}) > 1]
    return [one_line(" ".join(_setting(name, row[name]) for name in (*always, *differing))) for row in rows]


def _setting(name: str, value: Any) -> str:
    if name == "options":
        options = json.loads(value or "{}") if isinstance(value, str) else value
        return options_text(options, " ")
    if name in ("threads", "instances"):
        return f"{value} {name.removesuffix('s') if value == 1 else name}"
    return str(value) if name in _BARE else f"{name} {value}"


def annotate(stream: IO[str], commands: Iterable[str]) -> None:
    """Writes workflow commands, as ``annotation`` makes them, where a workflow of GitHub's reads."""
    if os.environ.get("GITHUB_ACTIONS") == "true":
        stream.writelines(f"{command}\n" for command in commands)


def annotation(level: str, title: str, text: str) -> str:
    """A workflow command that makes GitHub show a text beside a change; ``level`` is ``error`` or ``warning``.

    Escaped as GitHub's toolkit does it: %, CR and LF in the text, and : and , in properties
    (https://docs.github.com/actions/reference/workflow-commands-for-github-actions).
    """
    title, text = (each.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A") for each in (title, text))
    title = title.replace(":", "%3A").replace(",", "%2C")
    return visible(f"::{level} title={title}::{text}")
