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


def short(value: float) -> float:
    """The value in six significant digits."""
    return float(f"{value:.{DIGITS}g}")


def known(**fields: Any) -> dict[str, Any]:
    """The fields that have a value, numbers shortened, lists of numbers too; infinite ones and NaN are unknown."""
    return {name: _shortened(value) for name, value in fields.items() if _is_known(value)}


def tooltips(*fields: tuple[str, ...]) -> list[altair.Tooltip]:
    """What is shown of a row when one points at its mark; its Case and the file of its figures come last.

    Args:
        fields: of each line its field with a letter for the type (``ms:Q``), its title, and its format where that is
            not ``PLAIN``.
    """
    last = (("case_id:N", "case_id"), ("file:N", "file"))
    return [
        altair.Tooltip(field, title=title, format=(*more, PLAIN)[0])
        if field.endswith(":Q")
        else altair.Tooltip(field, title=title)
        for field, title, *more in (("name:N", "row"), *fields, *last)
    ]


def positive(low: float, high: float, title: str, *, wide: float = WIDE, **more: Any) -> dict[str, Any]:
    """Scale and axis of positive quantities: logarithmic from a wide range on, else linear and not from 0.

    Args:
        wide: from this ratio of the two on the range is wide.
    """
    if low <= 0 or high / low < wide:
        return linear(title, **more)
    return logarithmic(low, high, title)


def linear(title: str, ticks: Any = FEW, grid: bool = True, **more: Any) -> dict[str, Any]:
    """A linear scale that need not begin at 0.

    Args:
        ticks: about how many; as a wide chart has room for, where the axis is horizontal.
    """
    return {"title": title, "scale": altair.Scale(zero=False, **more), "axis": altair.Axis(tickCount=ticks, grid=grid)}


def logarithmic(low: float, high: float, title: str, grid: bool = True) -> dict[str, Any]:
    """A logarithmic scale over the range and a little more, with round ticks inside it.

    Args:
        low: the smallest value, above 0.
    """
    room = max(math.log(high / low), 0.02) * 0.04
    ends = low * math.exp(-room), high * math.exp(room)
    return {
        "title": title,
        "scale": altair.Scale(type="log", domain=[short(end) for end in ends], nice=False),
        "axis": altair.Axis(values=ticks(*ends), format=PLAIN, grid=grid),
    }


def ticks(low: float, high: float) -> list[float]:
    """Round numbers within the range, at least four where that can be: 1, 2 and 5 times powers of ten, or evenly."""
    powers = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    for steps in _STEPS:
        found = [short(step * 10.0**power) for power in powers for step in steps]
        inside = [value for value in found if low <= value <= high]
        if len(inside) >= _LEAST_TICKS:
            return inside
    return _even(low, high)


def _even(low: float, high: float) -> list[float]:
    """Multiples of a round step, four to nine of them."""
    if high <= low:
        return [short(low)]
    rough = (high - low) / (_LEAST_TICKS + 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = max((size * power for size in (1.0, 2.0, 5.0) if size * power <= rough), default=power)
    first, last = math.ceil(low / step), math.floor(high / step)
    return list(dict.fromkeys(short(place * step) for place in range(first, last + 1)))


def _is_known(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def _shortened(value: Any) -> Any:
    if isinstance(value, float):
        return short(value)
    return [_shortened(item) for item in value] if isinstance(value, list | tuple) else value
