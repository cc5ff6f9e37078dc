"""The gate's error and power: the tables of docs/accuracy.md.

    python docs/experiments/gate_error.py [--write]

1. The chance that a bound lies above the true difference, summed exactly over all outcomes, at an error of 5 %: the
   gate's bound, Tango's score bound, and Bonett and Price's adjusted Wald bound.
2. Of 200 seeded bootstrap resamples of predictions with true difference 0, how many each class fails.
3. How many images the sequential mode needs.

About a minute; the same figures on every machine. --write puts the tables into docs/accuracy.md. Exit code 1 where the
gate's own error is above 5 %.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache

import marks
import numpy as np
from scipy import optimize, stats

from bench.analysis.stats.paired import lower, paired_difference_interval
from bench.studies.check.rules import Comparison, Verdict, decide
from bench.studies.check.sequential import first_crossing
from bench.studies.check.tolerances import load

ALPHA = 0.05
RESAMPLES = 200
PATHS, LONGEST = 200, 50_000

# Images, and the shares of them that only the current Case has right and that only the baseline has.
CELLS = [
    (5000, 0.0, 0.0008),
    (5000, 0.0006, 0.00002),
    (5000, 0.0002, 0.0006),
    (5000, 0.001, 0.002),
    (60, 0.0, 0.05),
    (60, 0.01, 0.02),
    (60, 0.1, 0.4),
]


def tango(wins: int, losses: int, n: int) -> float:
    """The lower end of Tango's score interval: Stat. Med. 17 (1998), 891-908."""
    z = stats.norm.ppf(1 - ALPHA)

    def beyond(delta: float) -> float:
        a, b = 2 * n, -wins - losses + (2 * n - wins + losses) * delta
        q = (math.sqrt(max(0.0, b * b + 4 * a * losses * delta * (1 - delta))) - b) / (2 * a)
        spread = n * (2 * q + delta * (1 - delta))
        return (wins - losses - n * delta) - z * math.sqrt(max(spread, 1e-300))

    difference = (wins - losses) / n
    low, high = -1 + 1e-12, difference - 1e-12
    return (
        -1.0
        if beyond(low) < 0
        else float(optimize.brentq(beyond, low, high))
        if beyond(high) < 0
        else difference
    )


def adjusted_wald(wins: int, losses: int, n: int) -> float:
    """The lower end of Bonett and Price's interval, which reports describe differences with."""
    return paired_difference_interval(wins, losses, n, 1 - 2 * ALPHA).low


def exact_error(bound: Callable[[int, int, int], float], n: int, win: float, loss: float) -> float:
    """The chance that the bound lies above the true difference, over all outcomes that are not out of reach."""
    most = [int(stats.binom.ppf(1 - 1e-9, n, share)) + 1 if share else 0 for share in (win, loss)]
    error = 0.0
    for wins in range(most[0] + 1):
        chance = stats.binom.pmf(wins, n, win)
        losses = np.arange(min(most[1] + 5, n - wins) + 1)
        chances = chance * stats.binom.pmf(losses, n - wins, loss / (1 - win))
        above = [bound(wins, int(lost), n) > win - loss + 1e-12 for lost in losses]
        error += float(chances[above].sum())
    return error


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], words: int = 0) -> str:
    """Markdown; all columns but the first ``words`` are numbers."""
    rule = ["---" if place < words else "---:" for place in range(len(titles))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (titles, rule, *rows))


def errors() -> tuple[str, float]:
    """The first table, and the gate's largest error."""
    rows, largest = [], 0.0
    for n, win, loss in CELLS:
        bounds = (lambda wins, losses, n: lower(wins, losses, n, ALPHA), tango, adjusted_wald)
        found = [exact_error(cache(bound), n, win, loss) for bound in bounds]
        largest = max(largest, found[0])
        rows.append(
            [f"{n:,}", f"{100 * win:g} %", f"{100 * loss:g} %", *(f"{100 * each:.1f} %" for each in found)]
        )
    return table(["images", "won", "lost", "gate's bound", "Tango", "adjusted Wald"], rows), largest


def false_alarms() -> tuple[str, int]:
    """The second table, and the most fails of any of its rows."""
    config = load()
    rows, most = [], 0
    for precision, share in (
        ("fp32", 0.0),
        ("fp32", 0.0006),
        ("fp16", 0.004),
        ("bf16", 0.02),
        ("int8", 0.04),
    ):
        for n in (512, 5000, 50_000):
            outcomes = np.zeros(n, dtype=np.int8)
            each = round(share / 2 * n)
            if share and not each:
                continue
            outcomes[:each], outcomes[each : 2 * each] = 1, -1
            name, tolerance = config.of(precision)
            verdicts: Counter[Verdict] = Counter()
            for seed in range(RESAMPLES):
                drawn = np.random.default_rng(seed).choice(outcomes, n)
                wins, losses = int((drawn > 0).sum()), int((drawn < 0).sum())
                compared = Comparison(n, wins + losses, wins, losses, int(0.75 * n) + wins)
                verdicts[decide(compared, tolerance, config, name=name).verdict] += 1
            counts = [verdicts[kind] for kind in (Verdict.PASS, Verdict.UNRESOLVED, Verdict.FAIL)]
            most = max(most, counts[2])
            rows.append([precision, f"{n:,}", f"{200 * each / n:.3g} %", *map(str, counts)])
    return table(["precision", "images", "changed", "pass", "unresolved", "fail"], rows, words=1), most


def images_needed() -> str:
    """The third table."""
    rows = []
    for margin, win, loss in (
        (0.001, 0.0, 0.0),
        (0.001, 0.0005, 0.0005),
        (0.0075, 0.0, 0.0),
        (0.0075, 0.01, 0.01),
        (0.0075, 0.002, 0.03),
        (0.0075, 0.01, 0.025),
    ):
        places, verdicts = [], Counter[str]()
        for seed in range(PATHS):
            drawn = np.random.default_rng(seed).random(LONGEST)
            won, lost = np.cumsum(drawn < win), np.cumsum(drawn > 1 - loss)
            place, verdict = first_crossing(won, lost, np.arange(1, LONGEST + 1), margin, ALPHA, ALPHA)
            places.append(place + 1)
            verdicts[verdict.value] += 1
        told = ", ".join(f"{count} {name}" for name, count in verdicts.most_common())
        rows.append(
            [
                f"{100 * margin:g} points",
                f"{100 * win:g} %",
                f"{100 * loss:g} %",
                told,
                f"{np.median(places):,.0f}",
            ]
        )
    return table(["margin", "won", "lost", f"verdicts of {PATHS}", "median of images"], rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the tables into docs/accuracy.md")
    wanted = parser.parse_args()
    (error, largest), (alarms, most) = errors(), false_alarms()
    for name, text in (("bounds", error), ("alarms", alarms), ("sequential", images_needed())):
        print(f"{text}\n")
        if wanted.write:
            marks.put(name, text)
    return int(largest > ALPHA or most > ALPHA * RESAMPLES)


if __name__ == "__main__":
    sys.exit(main())
