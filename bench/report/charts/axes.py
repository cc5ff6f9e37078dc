"""Axes whose ticks are round numbers, numbers short enough to send, and tooltips."""

from __future__ import annotations

import math
from typing import Any

import altair

# From this ratio of largest to smallest on a linear axis would press the small ones into its foot.
WIDE = 8.0

# Digits kept of a figure: finer than any interval that the harness reaches.
DIGITS = 6

_STEPS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))
_LEAST_TICKS = 4

# Of ticks and tooltips: all digits that are kept, never an exponent.
PLAIN = f".{DIGITS}~r"

# So that a wide chart is not a ruler.
FEW = altair.ExprRef("max(2, ceil(width / 70))")


def short(value: Any) -> Any:
    """A number, or each of a list, in six significant digits; anything else as it is."""
    if isinstance(value, list | tuple):
        return [short(item) for item in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def known(**fields: Any) -> dict[str, Any]:
    """The fields that have a value, numbers shortened; infinite ones and NaN are unknown."""
    return {
        name: short(value)
        for name, value in fields.items()
        if value is not None and not (isinstance(value, float) and not math.isfinite(value))
    }


def tooltips(*fields: tuple[str, ...]) -> list[altair.Tooltip]:
    """What is shown of a row when one points at its mark; its Case and the file of its figures come last.

    Args:
        fields: of each line its field with a letter for the type (``ms:Q``), its title, and its format where that is
            not ``PLAIN``.
    """
    last = (("case_id:N", "case_id"), ("file:N", "file"))
    return [
        altair.Tooltip(field, title=title, format=(*more, PLAIN)[0] if field.endswith(":Q") else altair.Undefined)
        for field, title, *more in (("name:N", "row"), *fields, *last)
    ]


def linear(title: str, ticks: Any = FEW, grid: bool = True, zero: bool = False, **more: Any) -> dict[str, Any]:
    """A linear scale and its axis.

    Args:
        ticks: about how many; as a wide chart has room for, where the axis is horizontal.
        zero: it begins at 0.
    """
    return {"title": title, "scale": altair.Scale(zero=zero, **more), "axis": altair.Axis(tickCount=ticks, grid=grid)}


def positive(
    low: float, high: float, title: str, *, wide: float = WIDE, grid: bool = True, **more: Any
) -> dict[str, Any]:
    """Scale and axis of positive quantities: logarithmic from a wide range on, with round ticks, else linear.

    Args:
        wide: from this ratio of the two on the range is wide.
    """
    if low <= 0 or high / low < wide:
        return linear(title, grid=grid, **more)
    room = max(math.log(high / low), 0.02) * 0.04
    ends = low * math.exp(-room), high * math.exp(room)
    return {
        "title": title,
        "scale": altair.Scale(type="log", domain=short(ends), nice=False),
        "axis": altair.Axis(values=ticks(*ends), format=PLAIN, grid=grid),
    }


def ticks(low: float, high: float) -> list[float]:
    """Round numbers within the range, at least four where that can be: 1, 2 and 5 times powers of ten, or evenly."""
    powers = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    for steps in _STEPS:
        inside = [each for power in powers for step in steps if low <= (each := short(step * 10.0**power)) <= high]
        if len(inside) >= _LEAST_TICKS:
            return inside
    if high <= low:
        return [short(low)]
    rough = (high - low) / (_LEAST_TICKS + 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = max((size * power for size in (1.0, 2.0, 5.0) if size * power <= rough), default=power)
    first, last = math.ceil(low / step), math.floor(high / step)
    return list(dict.fromkeys(short(place * step) for place in range(first, last + 1)))
