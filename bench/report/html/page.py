"""``report.html``: the run as one page that needs no network, for a browser, a phone, paper and a screen reader.

The page is a template, a style sheet and a script in ``page/``; what stands in it is made here and in the modules
``html_*``. The same run gives the same bytes: nothing in it tells when it was made.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.analysis.accuracy.predictions import ScoredRun
from bench.analysis.accuracy.waterfall import Step
from bench.analysis.columns import PREDICTIONS, SAMPLES
from bench.analysis.table import Loaded, public
from bench.record.files import plain, write_text
from bench.record.run_folder import CaseResult
from bench.report import flips
from bench.report.html.charts import page_charts, vega_scripts
from bench.report.html.flips import flip_section
from bench.report.html.safety import content_policy, environment, inlined, island
from bench.report.html.tables import View, case_tables, plain_table
from bench.report.markdown import BAD_IMAGES_SHOWN
from bench.report.sentences import command_line, facts, host_line, records, summary, watermarks
from bench.report.text import one_line, row_names

PAGE = Path(__file__).parent / "page_files"

# Settings of a Case that a proof is named by, and those that are named only where they differ among the rows.
ALWAYS = ("scenario", "backend", "device", "precision", "options", "batch")
VARYING = ("model", "weights", "pipeline", "threads", "instances")

# A proof may list every layer of a network; cases.jsonl has all of it.
DOCUMENT_CHARACTERS = 20_000

# Keys of run.json that tell of the machine and the settings, in this order.
MACHINE_KEYS = (
    *("host", "packages", "git", "dataset", "settings", "model_files", "preprocessing", "noise", "peaks"),
    "finished_at",
)


def write(run: Loaded, path: Path) -> None:
    """Writes the page (see ``bench.report.forms.Format``); thumbnails where the run's data folder is still there."""
    write_text(path, page(run))


def page(run: Loaded) -> str:
    """The page's source."""
    frame, info, scored = run.frame, run.info, run.scored
    charts, specs = page_charts(run)
    scripts = [inlined((PAGE / "page.js").read_text(encoding="utf-8"))]
    if charts:
        scripts.append(inlined(vega_scripts()))
    rows = records(frame)
    bad = info.get("bad_images") or ()
    shown = {
        "tables": case_tables(frame, info),
        "charts": charts,
        "waterfall": _waterfall(scored),
        "flips": flip_section(scored),
        "warnings": _warnings(info),
        "bad_images": [{name: one_line(text) for name, text in image.items()} for image in bad[:BAD_IMAGES_SHOWN]],
        "proofs": _proofs(rows, scored, info),
    }
    made: str = (
        environment()
        .get_template("template.html.j2")
        .render(
            **shown,
            models=one_line(", ".join(dict.fromkeys(row["model"] for row in rows))) or "no Case",
            marks=watermarks(frame, info),
            summary=summary(frame),
            facts=facts(info),
            sections=list(_sections(shown)),
            scenarios=list(dict.fromkeys(row["scenario"] for row in rows)),
            statuses=sorted({row["status"] for row in rows}),
            n_bad_images=len(bad),
            machine={"line": host_line(info), "documents": _documents(info, MACHINE_KEYS)},
            command=command_line(info),
            version=str((info.get("packages") or {}).get("scarlet-bench") or ""),
            style=inlined((PAGE / "style.css").read_text(encoding="utf-8")),
            specs=island(specs),
            scripts=scripts,
            policy=content_policy(*scripts),
        )
    )
    return made


def _sections(shown: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    names = {
        "tables": ("results", "Results"),
        "charts": ("charts", "Charts"),
        "waterfall": ("waterfall", "Where accuracy was lost"),
        "flips": ("flips", "Flips"),
        "warnings": ("warnings", "Warnings"),
        "bad_images": ("unreadable", "Unreadable images"),
        "proofs": ("proof", "Proof"),
    }
    yield from (names[key] for key in names if shown[key])
    yield "machine", "Machine"
    yield "made", "How this was made"


def _waterfall(run: ScoredRun) -> View | None:
    """Who lost accuracy, step by step."""
    steps = flips.telling_steps(run)
    drawn = flips.waterfall_table(steps)
    return plain_table("waterfall", drawn, [_whose(step) for step in steps]) if drawn else None


def _whose(step: Step) -> tuple[str, str]:
    against = f" against Case {step.parent.case_id}, image by image" if step.parent else ""
    return step.case.case_id, f"Case {step.case.case_id}{against}, from {PREDICTIONS}"


def _warnings(info: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {name: one_line(str(warning.get(name, ""))) for name in ("text", "advice")}
        for warning in info.get("warnings") or ()
    ]


def _proofs(rows: Sequence[Mapping[str, Any]], run: ScoredRun, info: Mapping[str, Any]) -> list[View]:
    """A proof for each row, in the order of the rows; of a Case that never ended, what is known."""
    results = {result.case.case_id: result for result in run.results}
    host = host_line(info)
    labels = row_names(rows, ALWAYS, VARYING)
    return [_proof(row, label, results.get(row["case_id"]), host) for row, label in zip(rows, labels, strict=True)]


def _proof(row: Mapping[str, Any], label: str, result: CaseResult | None, host: str) -> View:
    """All that is known of a Case: facts as (name, value), and documents as (name, JSON text)."""
    case_id = row["case_id"]
    file = PREDICTIONS if row["scenario"] == "accuracy" else SAMPLES
    told = {
        "Case": case_id,
        "Reason": row["reason"],
        "Note": row["note"],
        "Baseline": row["baseline_case_id"] if row["baseline_case_id"] != case_id else "",
        "Reference": row["reference_case_id"] if row["reference_case_id"] != case_id else "",
        "Started": result.started_at if result else "",
        "Ended": result.ended_at if result else "",
        "Raw data": f"rows of {file} with case_id '{case_id}', and the line of cases.jsonl with that id",
        "Host": host,
    }
    known = {name: value for name, value in row.items() if value not in (None, "")}
    documents = {"proof": result.proof if result else {}, "metrics": result.metrics if result else {}, "figures": known}
    return {
        "case_id": case_id,
        "label": label,
        "scenario": row["scenario"],
        "status": row["status"],
        "facts": [(name, one_line(str(value))) for name, value in told.items() if value],
        "documents": _documents(documents, tuple(documents)),
    }


def _documents(source: Mapping[str, Any], keys: Sequence[str]) -> tuple[tuple[str, str], ...]:
    return tuple((key, _pretty(source[key])) for key in keys if source.get(key))


def _pretty(value: Any) -> str:
    text = json.dumps(public(plain(value)), indent=2, ensure_ascii=False)
    if len(text) <= DOCUMENT_CHARACTERS:
        return text
    return f"{text[:DOCUMENT_CHARACTERS]}\n… {len(text) - DOCUMENT_CHARACTERS:,} more characters in the run's folder"
