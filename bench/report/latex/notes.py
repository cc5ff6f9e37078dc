"""The notes below a LaTeX table: what a reader must know of the machine, of the method and of the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.analysis.best import Best
from bench.backends import display_name
from bench.report.latex.columns import SPECS, Line, Row
from bench.report.sentences import accuracy_lines, comparison_lines, host_line
from bench.report.text import whole

if TYPE_CHECKING:
    import pandas as pd

# What a stage holds, by scenario, device (empty: any other) and stage: the timing contract of docs/method.md.
STAGES = {
    ("latency", "", "compute"): "from a batch in host memory to its logits in host memory",
    (
        "latency",
        "cuda",
        "compute",
    ): "the work of the GPU alone, by its events: copies to it and back are left out",
    ("latency", "", "end_to_end"): "the call as its caller sees it, copies to a device and back included",
    ("throughput", "", "end_to_end"): "from image files to top-5, decoding and every copy included",
}
# What all rows share is told below instead of in a column.
_SHARED = ("model", "weights", "device", "precision", "options", "pipeline", "threads", "instances", "batch")


def notes(
    frame: pd.DataFrame,
    info: Mapping[str, Any],
    made: Sequence[Line],
    columns: Sequence[str],
    best: Mapping[str, Best],
) -> list[str]:
    """Sentences.

    Args:
        frame: as of ``bench.analysis.table.load_frame``.
        info: the content of ``run.json``.
        made: the lines of the table.
        columns: of the table.
        best: what may be bold, by the scenario.
    """
    told = [*_rows(made, columns), *machine(info), *_accuracy(made, columns, info)]
    told += [*_timing(made, columns), *_ratios(made, columns, frame, info), *_bold(made, columns, best, info)]
    return [f"{sentence[0].upper()}{sentence[1:]}." for sentence in told]


def _rows(made: Sequence[Line], columns: Sequence[str]) -> Iterator[str]:
    """What all rows have in common and no column says."""
    parts = []
    for name in _SHARED:
        texts = {SPECS[name].value(line.first) for line in made if name != "batch" or line.timed}
        if name not in columns and len(texts) == 1 and (text := texts.pop()):
            if name == "instances" and text == "1":
                continue
            parts.append(f"{text} weights" if name == "weights" else _with_unit(name, text))
    if parts:
        yield f"all rows: {', '.join(parts)}"


def _with_unit(name: str, text: str) -> str:
    if name in ("threads", "instances"):
        return f"{text} {name[:-1] if text == '1' else name}"
    return f"{name} {text}" if name in ("batch", "pipeline") else text


def machine(info: Mapping[str, Any]) -> Iterator[str]:
    """Hardware, driver and versions; and what is known of the clocks."""
    yield f"measured on {host_line(info)}"
    host = info.get("host") or {}
    clocks = [f"CPU governor {host['governor']}"] if host.get("governor") else []
    if host.get("turbo") is not None:
        clocks.append(f"turbo {'on' if host['turbo'] else 'off'}")
    for gpu in (host.get("nvidia") or {}).get("gpus") or ():
        if gpu.get("sm_clock_max_mhz"):
            set_to = f", set to {gpu['sm_clock_set_mhz']} MHz" if gpu.get("sm_clock_set_mhz") else ""
            clocks.append(f"GPU clock up to {gpu['sm_clock_max_mhz']} MHz{set_to}")
    if host:
        yield ", ".join(clocks) or "the machine does not tell its governor and clocks"


def _shown(made: Sequence[Line], columns: Sequence[str], scenario: str) -> list[Row]:
    """The measured rows of a scenario, where a column shows it."""
    if not any(SPECS[name].scenario == scenario for name in columns):
        return []
    rows = [line.rows[scenario] for line in made if scenario in line.rows]
    return [row for row in rows if row["status"] in ("ok", "fallback")]


def _accuracy(made: Sequence[Line], columns: Sequence[str], info: Mapping[str, Any]) -> Iterator[str]:
    rows = _shown(made, columns, "accuracy")
    counts = sorted({row["n_images"] for row in rows if row["n_images"]})
    if counts:
        fingerprint = str((info.get("dataset") or {}).get("fingerprint") or "")
        which = f" (fingerprint {fingerprint[:12]})" if fingerprint else ""
        yield f"accuracy on {_span(counts)} images{which}"
        yield from accuracy_lines(rows)
    if "agreement" in columns and rows:
        named = [row for row in rows if row["case_id"] == row["reference_case_id"]]
        who = f", {display_name(named[0]['backend'])}" if named else ""
        yield f"same top-1: share of images with the same first class as in the reference row{who}"


def _timing(made: Sequence[Line], columns: Sequence[str]) -> Iterator[str]:
    latencies = _shown(made, columns, "latency")
    counts = sorted({row["n_samples"] for row in latencies if row["n_samples"]})
    if counts:
        yield (
            f"latency: median of single calls after warm-up, n = {_span(counts)} a row, "
            f"with the 95 % order-statistic interval; {stages(latencies)}"
        )
    passes = _shown(made, columns, "throughput")
    counts = sorted({row["n_samples"] for row in passes if row["n_samples"]})
    if counts:
        yield f"images/s: over n = {_span(counts)} passes a row; {stages(passes)}"


def stages(rows: Sequence[Row]) -> str:
    """What was timed, stage by stage, and whether copies to a device and back are in it."""
    texts = []
    for scenario, device, stage in dict.fromkeys(
        (row["scenario"], row["device"], row["stage"]) for row in rows
    ):
        what = STAGES.get((scenario, device, stage)) or STAGES.get((scenario, "", stage))
        texts.append(f"stage {stage or 'unknown'}{f' ({what})' if what else ''}")
    return ", ".join(dict.fromkeys(texts))


def _ratios(
    made: Sequence[Line], columns: Sequence[str], frame: pd.DataFrame, info: Mapping[str, Any]
) -> Iterator[str]:
    if "ratio" in columns:
        n_comparisons = int(frame["ratio"].notna().sum())
        said = comparison_lines(_shown(made, columns, "latency"), baseline(made), n_comparisons, info)
        # The rows that are not resolved bear a mark that says so.
        yield from (line for line in said if not line.startswith("unresolved:"))


def baseline(made: Sequence[Line]) -> str:
    """What the rows' times are compared with, where it is one backend."""
    rows = [line.rows["latency"] for line in made if "latency" in line.rows]
    backends = {row["backend"] for row in rows if row["case_id"] == row["baseline_case_id"]}
    return display_name(backends.pop()) if len(backends) == 1 else "baseline"


def _bold(
    made: Sequence[Line], columns: Sequence[str], best: Mapping[str, Best], info: Mapping[str, Any]
) -> Iterator[str]:
    shown = {line.rows[name]["case_id"] for line in made for name in line.rows}
    found = [one for one in best.values() if one.n_pairs]
    if any(one.case_ids & shown for one in found):
        from bench.analysis.time import verdict

        share = f"{100 * verdict.materiality(info):.3g}"
        yield (
            "bold: better than every other row of the same model, batch and device, resolved at 95 % over all pairs "
            f"(times by more than {share} %, accuracies by more than nothing)"
        )
    elif found:
        yield "nothing is bold: no row's difference to every other of its group is resolved"


def _span(counts: Sequence[int]) -> str:
    low, high = whole(counts[0]), whole(counts[-1])
    return low if low == high else f"{low} to {high}"
