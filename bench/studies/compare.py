"""A comparison image by image as a document, for every form that ``bench.report.document`` writes."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bench.analysis.accuracy.flips import FlipLedger
from bench.analysis.accuracy.pairing import Comparison
from bench.analysis.table import DEMO_NOTE
from bench.report import flips
from bench.report.document import Document, notes
from bench.report.text import one_line


def document(made: Comparison, most_flips: int) -> Document:
    """Tables for people with at most so many flips of each ledger; all flips for machines."""
    ledgers = made.ledgers
    names = flips.short_names([ledger.other.case for ledger in ledgers])
    tables = []
    if ledgers:
        tables = [
            flips.ledgers_table(made.title, names, ledgers, flips.COUNTS),
            flips.ledgers_table("Both sides", names, ledgers, flips.TOTALS, *flips.how_to_read(ledgers)),
        ]
    tables += flips.flips_tables(names, ledgers, most_flips)
    left = [
        one_line(f"not compared: {each.case.label} ({each.case.case_id}) of {each.run}: {each.reason}")
        for each in made.left_out
    ]
    return Document(
        title=made.title,
        blocks=[
            *notes([DEMO_NOTE] if made.is_demo else [], "mark"),
            *tables,
            *notes([*flips.lines(names, ledgers), *left, *map(one_line, made.notes)]),
        ],
        data=made.to_dict(),
        frames={"ledgers": _ledgers(made), "images": _images(made)},
    )


def _ledgers(made: Comparison) -> pd.DataFrame:
    """A row for each ledger, without its flips."""
    return pd.DataFrame([_flat(ledger) for ledger in made.ledgers])


def _flat(ledger: FlipLedger) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for side, name in (("base", ledger.base), ("other", ledger.other)):
        row |= {f"{side}_run": name.run, f"{side}_case_id": name.case.case_id, f"{side}_label": name.case.label}
    row |= {
        "n_images": ledger.n_images,
        "n_flips": ledger.n_flips,
        "n_only_base": ledger.only_base.count,
        "n_only_other": ledger.only_other.count,
        "agreement_percent": ledger.agreement_percent,
        "top5_ordered_agreement_percent": ledger.top5_ordered_agreement_percent,
        "no_accuracy": ledger.no_accuracy,
    }
    for place, pair in (("top1", ledger.top1), ("top5", ledger.top5)):
        row |= {f"{place}_{name}": value for name, value in vars(pair).items()} if pair else {}
    return row


def _images(made: Comparison) -> pd.DataFrame:
    """A row for each flip of each ledger."""
    tables = [
        ledger.flips.assign(
            base_run=ledger.base.run,
            base_case_id=ledger.base.case.case_id,
            other_run=ledger.other.run,
            other_case_id=ledger.other.case.case_id,
        )
        for ledger in made.ledgers
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
