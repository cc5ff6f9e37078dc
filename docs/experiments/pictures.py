"""Draws the pictures of docs/method.md from what results/published/ holds.

    python docs/experiments/pictures.py [--out docs/images]

1. ``aa.svg``: every A/A run's ratio with its interval, of ``results/published/aa-2026-11-30/runs.csv``.
2. ``lives.svg``: what lives change where processes differ, of the simulation's table in its README.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import altair as alt
import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "results" / "published"
NAMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "pytorch": "PyTorch"}
COLOURS = alt.Scale(domain=list(NAMES.values()), range=["#0072b2", "#d55e00", "#5a5a5a"])


def aa() -> alt.HConcatChart:
    """A/A runs, quiet and busy, each kind in the order of its ratios."""
    runs = pd.read_csv(PUBLISHED / "aa-2026-11-30" / "runs.csv")
    runs["runtime"] = runs["backend"].map(NAMES)
    runs = runs.sort_values(["runtime", "ratio"])
    runs["place"] = runs.groupby("busy").cumcount()
    around = alt.Scale(type="log", domain=[0.88, 1.0 / 0.88], nice=False, clamp=True)
    ticks = alt.Axis(values=[0.9, 0.95, 1.0, 1.05, 1.1], format=".2f")
    panels = []
    for is_busy, title in ((False, "quiet"), (True, "another process on half a core")):
        base = alt.Chart(runs[runs["busy"] == is_busy], title=title, width=300, height=220)
        at = alt.X("place:Q", title=None, axis=None)
        colour = alt.Color("runtime:N", scale=COLOURS, title=None, legend=alt.Legend(orient="bottom"))
        interval = base.mark_rule(strokeWidth=2).encode(
            at,
            alt.Y("ratio_low:Q", title="ratio of two equal Cases", scale=around, axis=ticks),
            alt.Y2("ratio_high:Q"),
            colour,
        )
        point = base.mark_point(filled=True, size=28, opacity=1).encode(at, alt.Y("ratio:Q"), colour)
        one = alt.Chart(pd.DataFrame({"one": [1.0]})).mark_rule(color="#888888", strokeDash=[4, 3]).encode(y="one:Q")
        panels.append(one + interval + point)
    return alt.hconcat(*panels)


def lives() -> alt.HConcatChart:
    """Wrong verdicts, and differences found, against the number of lives, where processes differ."""
    text = (PUBLISHED / "simulated-lives-2026-11-30" / "README.md").read_text("utf-8")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "]
    head = next(index for index, row in enumerate(cells) if row[1] == "lives x rounds")
    rows = [row for row in cells[head + 1 :] if len(row) == len(cells[head]) and row[0] == "processes differ"]
    frame = pd.DataFrame(rows, columns=cells[head])
    frame["lives"] = frame["lives x rounds"].str.split().str[0].astype(int)
    panels = []
    for title, columns in (
        ("intervals and verdicts, % of runs", {"holds": "interval holds the ratio", "at 1.03": "wrong at a true 3 %"}),
        ("found, % of runs", {"slower at 1.05": "a true 5 %", "at 1.08": "a true 8 %"}),
    ):
        long = frame.melt("lives", list(columns), "what", "percent").astype({"percent": float})
        long["what"] = long["what"].map(columns)
        colour = alt.Color("what:N", title=None, legend=alt.Legend(orient="bottom"), scale=alt.Scale(scheme="dark2"))
        panels.append(
            alt.Chart(long, title=title, width=300, height=200)
            .mark_line(point=alt.OverlayMarkDef(filled=True, size=40))
            .encode(
                alt.X("lives:O", title="lives in 60 s", axis=alt.Axis(labelAngle=0)),
                alt.Y("percent:Q", title=None, scale=alt.Scale(domain=[0, 100])),
                colour,
            )
        )
    return alt.hconcat(*panels).resolve_scale(color="independent")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    out = parser.parse_args().out
    for name, chart in (("aa", aa()), ("lives", lives())):
        chart.configure(background="white").save(out / f"{name}.svg")


if __name__ == "__main__":
    main()
