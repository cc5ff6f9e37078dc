"""The gate's error and power: the tables of docs/accuracy.md.

    python docs/experiments/gate_error.py [--write] [--out FOLDER]

1. The chance that a bound lies above the true difference, summed exactly over all outcomes, at an error of 5 %: the
   gate's bound, Tango's score bound, and Bonett and Price's adjusted Wald bound.
2. Checks of 1, 4 and 12 rows by the leads of real images (ONNX Runtime FP32 on 2,000 demo images,
   results/published/int8-2026-11-22), each drawn anew with replacement. A change adds noise to each lead; where that is
   larger than the lead, the image goes to its second class. Rows are given noise of their own, the worst case.
3. How many images the sequential mode needs, and how often it errs.

Some minutes; the same figures on every machine. --write puts the tables into docs/accuracy.md, --out keeps every cell
as CSV. Exit code 1 where the gate's own error is above 5 %, in simulated checks and paths above 3.5 %.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import marks
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, stats

from bench.analysis.stats.paired import lower
from bench.record.case import Case
from bench.studies.check import rules
from bench.studies.check.rules import Comparison, Terms, Verdict
from bench.studies.check.sequential import evidence, first_crossing
from bench.studies.check.snapshot import Row
from bench.studies.check.tolerances import load

ALPHA, ACCEPTED = 0.05, 0.035
CHECKS, MOST_ROWS, ROWS = 4000, 12, (1, 4, 12)
PATHS, LONGEST = 4000, 50_000
LEADS = Path(__file__).resolve().parents[2] / "results" / "published" / "int8-2026-11-22" / "predictions.parquet"
LEADS_OF = "7ca6bc40b4"
CONFIG = load()

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
    return -1.0 if beyond(low) < 0 else float(optimize.brentq(beyond, low, high)) if beyond(high) < 0 else difference


def adjusted_wald(wins: int, losses: int, n: int) -> float:
    """The lower end of Bonett and Price's interval: Wald's with one pseudo-count a discordant cell."""
    first, second = (wins + 1) / (n + 2), (losses + 1) / (n + 2)
    error = math.sqrt((first + second - (first - second) ** 2) / (n + 2))
    return max(-1.0, first - second - float(stats.norm.ppf(1 - ALPHA)) * error)


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
        rows.append([f"{n:,}", f"{100 * win:g} %", f"{100 * loss:g} %", *(f"{100 * each:.1f} %" for each in found)])
    return table(["images", "won", "lost", "gate's bound", "Tango", "adjusted Wald"], rows), largest


@dataclass(frozen=True)
class Cell:
    """A change that is simulated.

    Attributes:
        precision: its class judges it.
        what: for people.
        noise: standard deviation of what is added to each lead.
        leak: what every lead loses besides.
        lost: share of the images that go from right to wrong besides.
        int8_noise: how far the baseline itself is from FP32; 0 where it is FP32.
        wrong: the verdict that is an error here, None where neither is.
    """

    precision: str
    what: str
    noise: float
    leak: float = 0.0
    lost: float = 0.0
    int8_noise: float = 0.0
    wrong: Verdict | None = Verdict.FAIL


CELLS_OF_LEADS = [
    Cell("fp32", "noise 1e-5, as between runtimes", 1e-5),
    Cell("fp32", "noise 1e-4", 1e-4),
    Cell("fp32", "every lead 0.01 lower", 1e-5, leak=0.01, wrong=Verdict.PASS),
    Cell("fp32", "every lead 0.001 lower", 1e-5, leak=0.001, wrong=Verdict.PASS),
    Cell("fp16", "noise 0.001", 1e-3),
    Cell("bf16", "noise 0.01", 1e-2),
    *(Cell("int8", f"noise {noise:g}", noise, int8_noise=0.03) for noise in (0.01, 0.03, 0.06)),
    Cell("int8", "noise 0.03, 0.92 points lost: the margin", 0.03, lost=0.0092, int8_noise=0.03, wrong=None),
    Cell("int8", "noise 0.03, 2 points lost", 0.03, lost=0.02, int8_noise=0.03, wrong=Verdict.PASS),
]


def moved(row: Row, second: NDArray[np.int16], noise: NDArray[np.float64], limit: float = 1.0) -> Row:
    """The row with its leads changed; where they fall below nothing, the second class comes first."""
    assert row.top1 is not None
    assert row.margin is not None
    lead = row.margin + noise
    top1 = np.where(lead < 0, second, row.top1).astype(np.int16)
    return replace(row, top1=top1, margin=np.minimum(np.abs(lead), limit).astype(np.float32))


@cache
def verdict_of(compared: Comparison, precision: str, n_rows: int, against_fp32: bool) -> Verdict:
    """Of a row; the same counts come again and again."""
    name, tolerance = CONFIG.of(precision)
    tolerance = tolerance.margin_alone if against_fp32 else tolerance
    return rules.decide(compared, Terms(tolerance, CONFIG, name, n_rows)).verdict


def checks(cell: Cell, n: int) -> dict[int, Counter[Verdict]]:
    """The verdicts on checks of so many rows."""
    stored = pd.read_parquet(LEADS)
    stored = stored[stored["case_id"].astype(str) == LEADS_OF]
    labels, first, second, lead = (stored[name].to_numpy() for name in ("label", "top1", "top2", "margin"))
    case = Case("scarlet_c", "demo", "onnxruntime", precision=cell.precision, scenario="accuracy")
    tolerance = CONFIG.of(cell.precision)[1]
    found: dict[int, Counter[Verdict]] = {count: Counter() for count in ROWS}
    source = np.random.default_rng(0)
    for _ in range(CHECKS):
        drawn = source.integers(len(labels), size=n)
        truth = labels[drawn]
        fp32 = Row(case, top1=first[drawn], margin=lead[drawn])
        made = []
        for _ in range(MOST_ROWS):
            before = moved(fp32, second[drawn], source.normal(0, cell.int8_noise, n)) if cell.int8_noise else fp32
            other = np.where(before.top1 == fp32.top1, second[drawn], fp32.top1)
            now = moved(before, other, source.normal(0, cell.noise, n) - cell.leak)
            lost = (source.random(n) < cell.lost) & (now.top1 == truth)
            now = replace(now, top1=np.where(lost, (truth + 1) % 1000, now.top1).astype(np.int16))
            bases = (before, fp32) if tolerance.against_fp32 else (before,)
            made.append([_counted(base, now, truth, tolerance) for base in bases])
        for count in ROWS:
            n_rows = sum(map(len, made[:count]))
            verdicts = {
                verdict_of(compared, cell.precision, n_rows, place == 1)
                for row in made[:count]
                for place, compared in enumerate(row)
            }
            worst = (Verdict.FAIL, Verdict.UNRESOLVED, Verdict.PASS)
            found[count][next(verdict for verdict in worst if verdict in verdicts)] += 1
    return found


def _counted(base: Row, now: Row, labels: NDArray[np.int16], tolerance: rules.Tolerance) -> Comparison:
    compared = rules.compare(base, now, labels, tolerance)
    assert compared is not None
    # What only sentences hold: without it equal counts are equal.
    return replace(compared, largest_move=0.0, lead_limit=0.0, ties=0)


def alarms(out: Path | None) -> tuple[str, float, float]:
    """The second table, and the largest shares of errors of any of its cells: in all, and with a loss of the margin."""
    rows, raw, largest, at_margin = [], [], 0.0, 0.0
    verdicts = (Verdict.PASS, Verdict.UNRESOLVED, Verdict.FAIL)
    for cell in CELLS_OF_LEADS:
        for n in (512, 2000):
            counts = checks(cell, n)
            for count, found in counts.items():
                raw.append([cell.precision, cell.what, n, count, CHECKS, *(found[verdict] for verdict in verdicts)])
                if cell.wrong:
                    largest = max(largest, found[cell.wrong] / CHECKS)
                else:
                    at_margin = max(at_margin, found[Verdict.PASS] / CHECKS, found[Verdict.FAIL] / CHECKS)
            shares = [
                " / ".join(f"{100 * counts[count][verdict] / CHECKS:.3g}" for verdict in verdicts) for count in ROWS
            ]
            rows.append([cell.precision, cell.what, f"{n:,}", *shares])
            print(rows[-1], file=sys.stderr, flush=True)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        with (out / "checks.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["precision", "change", "images", "rows", "checks", "pass", "unresolved", "fail"])
            writer.writerows(raw)
    return (table(["precision", "change", "images", "1 row", "4 rows", "12 rows"], rows, words=2), largest, at_margin)


def optional_stopping() -> str:
    """How often a loss of INT8's margin passes where a check is repeated with more images until it does."""
    found, bound = [], cache(lambda wins, losses, n: lower(wins, losses, n, ALPHA))
    source, margin, win = np.random.default_rng(0), 0.0092, 0.006
    for sizes in ((512,), (512, 2000), (512, 2000, 5000, 10_000)):
        passed = 0
        for _ in range(CHECKS):
            wins = losses = 0
            for before, n in zip((0, *sizes), sizes, strict=False):
                drawn = source.multinomial(n - before, [win, win + margin, 1 - 2 * win - margin])
                wins, losses = wins + int(drawn[0]), losses + int(drawn[1])
                if bound(wins, losses, n) > -margin:
                    passed += 1
                    break
        found.append(f"{100 * passed / CHECKS:.1f} % ({', '.join(map(str, sizes))} images)")
    return f"a loss of the margin passes sooner or later in {'; '.join(found)}"


def images_needed() -> tuple[str, float]:
    """The third table, and the largest share of wrong verdicts."""
    rows, largest = [], 0.0
    for margin, win, loss in (
        (0.001, 0.0, 0.0),
        (0.001, 0.0005, 0.0005),
        (0.0075, 0.0, 0.0),
        (0.0075, 0.01, 0.01),
        (0.0075, 0.01, 0.0175),
        (0.0075, 0.002, 0.03),
        (0.0075, 0.01, 0.025),
    ):
        places, verdicts = [], Counter[Verdict]()
        for seed in range(PATHS):
            place, verdict = stopped(np.random.default_rng(seed), win, loss, margin)
            places.append(place)
            verdicts[verdict] += 1
        wrong = {Verdict.FAIL} if loss - win < margin - 1e-9 else {Verdict.PASS}
        wrong = {Verdict.PASS, Verdict.FAIL} if abs(loss - win - margin) < 1e-9 else wrong
        largest = max(largest, *(verdicts[each] / PATHS for each in wrong))
        told = ", ".join(f"{count:,} {verdict.value}" for verdict, count in verdicts.most_common())
        shares = [f"{100 * share:g} %" for share in (win, loss)]
        rows.append([f"{100 * margin:g} points", *shares, told, f"{np.median(places):,.0f}"])
    return table(["margin", "won", "lost", f"verdicts of {PATHS:,}", "median of images"], rows), largest


def stopped(source: np.random.Generator, win: float, loss: float, margin: float) -> tuple[int, Verdict]:
    """After how many images a path is decided, and how; looked at around each loss, and at every image between
    the two looks around a pass.
    """
    n_events = source.binomial(LONGEST, win + loss)
    places = np.sort(source.choice(LONGEST, n_events, replace=False)) + 1
    is_loss = source.random(n_events) < (loss / (win + loss) if win + loss else 0)
    wins, losses = (np.concatenate([[0], np.cumsum(each)]) for each in (~is_loss, is_loss))
    # Between two events the capital for a pass only grows, and that for a fail only shrinks.
    ends = np.append(places - 1, LONGEST)
    starts = np.concatenate([[0], places])
    at_ends, at_starts = evidence(wins, losses, ends, margin), evidence(wins, losses, starts, margin)
    place, verdict = first_crossing(replace(at_ends, for_fail=at_starts.for_fail), ALPHA, ALPHA)
    if verdict is Verdict.PASS:
        seen = np.arange(starts[place], ends[place] + 1)
        same = np.ones(len(seen))
        within = evidence(wins[place] * same, losses[place] * same, seen, margin)
        return int(seen[first_crossing(within, ALPHA, ALPHA)[0]]), verdict
    return int(starts[place] if verdict is Verdict.FAIL else LONGEST), verdict


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the tables into docs/accuracy.md")
    parser.add_argument("--out", type=Path, help="a folder for checks.csv")
    asked = parser.parse_args()
    (error, largest), (simulated, most, at_margin), (needed, erred) = (errors(), alarms(asked.out), images_needed())
    for name, text in (("bounds", error), ("alarms", simulated), ("sequential", needed)):
        print(f"{text}\n")
        if asked.write:
            marks.put(name, text)
    print(
        f"largest errors: bound {largest:.4f}, checks {most:.4f}, at the margin {at_margin:.4f}, sequential {erred:.4f}"
    )
    return int(max(largest, at_margin) > ALPHA or max(most, erred) > ACCEPTED)


if __name__ == "__main__":
    sys.exit(main())
