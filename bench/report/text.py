"""Numbers as text: no digit that is not true."""

from __future__ import annotations

import math

# More digits than these are never true of a time, and never read.
MOST_DIGITS = 4
# Digits where nothing is known of the uncertainty.
PLAIN_DIGITS = 3


def number(value: float | None, half_width: float | None = None) -> str:
    """The value with the digits that are true: down to the first digit of its uncertainty.

    Args:
        value: None gives an empty text.
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
