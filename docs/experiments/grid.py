"""Does `best` find the best? Its winner against an exhaustive grid of what it could have chosen.

    scarlet-bench best --out results/runs/found
    python docs/experiments/grid.py --best results/runs/found --out results/published/grid

The grid has every runtime, precision (with the recipes that `best` takes), batch and split of the cores, but for what
`best` did not find to keep the accuracy, by steady-state throughput: slices of a stream in interleaved rounds, the
winner in every group that memory has room for. Three races:

1. every form in one way of running, two rounds. Left out is what takes more than --within (1.6) times as long as the
   fastest: the best way of a form was 1.06 times as fast as this one in results/published/best-2026-11-30;
2. all ways and batches of what is left, three rounds each;
3. the fastest five of these and the winner, in fresh processes, ten rounds.

Prints and keeps (``grid.md``, ``grid.json``, and a run's folder for each race) all rows, and the winner's rate relative
to the best row's: the median over the rounds of the third race, with the sign test's interval. The best of many rows is
ahead by luck too, which rounds of its own do not share. Exit code 1 where that ratio is below 0.97.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import Prepared, Quiet
from rich.console import Console

from bench import host
from bench.analysis.stats.intervals import RatioInterval, ratio_interval
from bench.backends import package_versions
from bench.record.case import Case
from bench.record.run_folder import utc_now
from bench.run import schedule
from bench.run.runner import Limits, Runner
from bench.run.session import Session
from bench.run.spec import RunSpec
from bench.studies.best import drive, search

LEAST_RATIO = 0.97
FIRST_ROUNDS, GRID_ROUNDS, FINAL_ROUNDS, FINALISTS = 2, 3, 10, 5


@dataclass
class Row:
    """A Case of a race: nanoseconds an image of its rounds, and the winner's of the same rounds."""

    case: Case
    own: list[float]
    base: list[float]

    @property
    def ratio(self) -> RatioInterval:
        """Its rate relative to the winner's."""
        return ratio_interval(self.base, self.own)

    def to_dict(self) -> dict[str, Any]:
        rate = 1e9 / statistics.median(self.own)
        return {
            "case": self.case.to_dict(),
            "images_per_s": rate,
            "of_winner": list(self.ratio),
            "ns_per_image": self.own,
        }


def race(model: Prepared, name: str, base: Case, others: Sequence[Case], rounds: int, seed: int) -> list[Row]:
    """The rows of all that could be measured, the fastest first; the winner is among them."""
    folder, rows = model.folder(name, [base, *others]), list[Row]()

    def order(runner: Runner, planned: Sequence[Case]) -> None:
        waiting, number, times = list(planned[1:]), 0, {}
        while waiting or not number:
            taken = runner.admit([base, *waiting])
            members, waiting = [base, *waiting[: taken - 1]], waiting[taken - 1 :]
            times = {case: dict[int, float]() for case in members}
            for turns, slice_ns in zip(
                schedule.rounds(members, seed + number), schedule.slices(seed + number), strict=False
            ):
                for case in turns:
                    if told := runner.turn(case, number, slice_ns):
                        times[case][number] = told.median_ns
                        print(f"{name}, round {number + 1}: {case.label}: {told.detail}", flush=True)
                number += 1
                if not number % rounds:
                    break
            for case in members:
                runner.finish(case, last=case is not base or not waiting)
                common = sorted(times[case].keys() & times[base].keys())
                if common and (case is not base or not waiting):
                    rows.append(Row(case, *([of[at] for at in common] for of in (times[case], times[base]))))

    Runner(folder, model.context(folder), Quiet(), Limits(timeout_seconds=3600)).execute([base, *others], order)
    folder.merge_parts()
    return sorted(rows, key=lambda row: -row.ratio.ratio)


def markdown(found: dict[str, Any]) -> str:
    """The races for people."""
    ratio, low, high = found["winner_of_best_row"]
    ends = "" if low is None else f" ({low:.3f} to {high:.3f})"
    lines = [f"# {found['model']}: the winner of `best` against a grid", "", f"- {found['at']}, `{found['command']}`"]
    lines += [f"- the winner's rate over that of the best row: {ratio:.3f}{ends}", ""]
    for name, rows in found["races"].items():
        lines += [f"## {name}", "", "| | images/s | of the winner |", "|---|---:|---:|"]
        for row in rows:
            case = Case.from_dict(row["case"])
            lines.append(
                f"| {case.label} threads {case.threads} | {row['images_per_s']:.1f} | {row['of_winner'][0]:.3f} |"
            )
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--best", type=Path, required=True, help="the folder of a run of `best`")
    parser.add_argument("--backends", default="")
    parser.add_argument("--precisions", default="fp32,bf16,int8")
    parser.add_argument("--batches", default="8,32")
    parser.add_argument("--within", type=float, default=1.6)
    parser.add_argument("--rounds", type=int, default=GRID_ROUNDS)
    parser.add_argument("--final-rounds", type=int, default=FINAL_ROUNDS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder that takes grid.md, grid.json and the runs")
    wanted = parser.parse_args()
    stored = json.loads((wanted.best / drive.FILE).read_text())
    winner, unfit = (
        Case.from_dict(stored["best"]["case"]),
        [form["case"] for form in stored["forms"] if not form["within"]],
    )
    asked = {name: getattr(wanted, name) for name in ("backends", "precisions", "batches")}
    spec = RunSpec(model=winner.model, scenarios="accuracy,throughput", pipeline=winner.pipeline, images="512", **asked)
    with Session.open(drive.with_recipes(spec), wanted.out, Console(stderr=True, width=160), "grid") as session:
        files, cores = session.require(), host.allowed_cores()
        pairs = [(image.image_id, image.label) for image in session.images]
        model = Prepared(session.folder.path, str(session.root), files, pairs, session.image_set.is_demo)
        keys = [drive.form_key(Case.from_dict(case)) for case in unfit]
        forms = [form for form in drive.forms_of(session.spec, files) if drive.form_key(form) not in keys]
        ways = {form: search.candidates(form, cores, session.spec.batches) for form in forms}
        first = [each[0] for each in ways.values() if each[0] != winner]
        races = {"1-forms": race(model, "1-forms", winner, first, FIRST_ROUNDS, wanted.seed)}
        fastest = races["1-forms"][0].ratio.ratio
        near = {drive.form_key(row.case) for row in races["1-forms"] if row.ratio.ratio * wanted.within >= fastest}
        others = [way for form, each in ways.items() if drive.form_key(form) in near for way in each if way != winner]
        races["2-grid"] = race(model, "2-grid", winner, others, wanted.rounds, wanted.seed)
        best = [row.case for row in races["2-grid"] if row.case != winner][:FINALISTS]
        races["3-finals"] = race(model, "3-finals", winner, best, wanted.final_rounds, wanted.seed)
        leader = max(races["3-finals"], key=lambda row: row.ratio.ratio)
        found = {
            "command": shlex.join(["python", *sys.argv]),
            "at": utc_now(),
            "host": host.describe_host(),
            "packages": package_versions(),
            "model": files.model,
            "winner": winner.to_dict(),
            "best_row": leader.case.to_dict(),
            "winner_of_best_row": list(ratio_interval(leader.own, leader.base)),
            "left_out_for_accuracy": unfit,
            "races": {name: [row.to_dict() for row in rows] for name, rows in races.items()},
        }
        (session.folder.path / "grid.json").write_text(json.dumps(found, indent=1) + "\n")
        (session.folder.path / "grid.md").write_text(markdown(found))
        session.write(finished_at=utc_now(), exit_code=0)
    print(f"\n{markdown(found)}")
    return int(found["winner_of_best_row"][0] < LEAST_RATIO)


if __name__ == "__main__":
    sys.exit(main())
