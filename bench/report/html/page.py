"""``report.html``: the run as one page that needs no network, for a browser, a phone, paper and a screen reader.

The page is a template, a style sheet and a script in ``page_files/``. The same run gives the same bytes: nothing in it
tells when it was made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.analysis.accuracy.pairing import against_reference
from bench.analysis.accuracy.predictions import ScoredRun
from bench.analysis.columns import CASES, PREDICTIONS, REGISTRY, SAMPLES, source_of
from bench.analysis.table import Loaded, public
from bench.record.files import plain, write_text
from bench.record.run_folder import CaseResult
from bench.report.document import Cell, Head, Table
from bench.report.html.charts import page_charts, vega_scripts
from bench.report.html.flips import View, flip_cards
from bench.report.html.safety import PAGE, inlined, island, rendered
from bench.report.sentences import command_line, facts, host_line, records, summary, watermarks
from bench.report.tables import sections, tables
from bench.report.text import one_line, row_names

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
    ledgers, left_out = against_reference(scored)
    return rendered(
        "template.html.j2",
        scripts,
        columns=columns,
        origin=origin,
        order=order,
        tables=tables(frame, info),
        charts=charts,
        sections=sections(run, ledgers, left_out),
        pairs=flip_cards(scored, ledgers),
        proofs=_proofs(rows, scored, info),
        models=one_line(", ".join(dict.fromkeys(row["model"] for row in rows))) or "no Case",
        marks=watermarks(frame, info),
        summary=summary(frame),
        facts=facts(info),
        scenarios=list(dict.fromkeys(row["scenario"] for row in rows)),
        statuses=sorted({row["status"] for row in rows}),
        machine={"line": host_line(info), "documents": _documents(info, MACHINE_KEYS)},
        command=command_line(info),
        version=str((info.get("packages") or {}).get("scarlet-bench") or ""),
        specs=island(specs),
    )


def columns(table: Table) -> list[tuple[int, int | None, str]]:
    """Of each column that stands beside the others: its index, that of its interval, which stands below its values in
    small, and the value of all rows, where it tells none from another: a phone shows that above the table.
    """
    heads = [*table.columns, Head("")]
    return [
        (index, index + 1 if heads[index + 1].below else None, _same(table, index))
        for index, head in enumerate(table.columns)
        if not head.below
    ]


def _same(table: Table, index: int) -> str:
    """The text of all rows, where the column says what was requested or counted: a phone may leave that out."""
    name, texts = table.columns[index].name, {str(cells[index]) for cells in table.cells}
    if not name or index == 0 or name in ("status", "reason") or len(table.cells) == 1 or len(texts) > 1:
        return ""
    return texts.pop() if REGISTRY[name].source == CASES or name in ("n_images", "n_samples") else ""


def origin(record: Mapping[str, Any], head: Head) -> str:
    """The words for where a number comes from: its Case and file."""
    if "title" in record:
        return str(record["title"])
    title = f"Case {record['case_id']}, from {source_of(head.name, record['scenario'])}"
    baseline = record["baseline_case_id"]
    if head.name == "verdict" and baseline and baseline != record["case_id"]:
        title += f", against Case {baseline} round by round"
    return title


def order(cell: Cell, head: Head) -> str:
    """What a cell is sorted by; empty where its value is not known."""
    if head.numeric or cell.value is not None:
        return "" if cell.value is None else f"{cell.value:.9g}"
    return cell.text


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
