"""Puts tables that a benchmark made into a document, between marks."""

from __future__ import annotations

from pathlib import Path

ACCURACY = Path(__file__).resolve().parent.parent / "accuracy.md"


def put(name: str, text: str, document: Path = ACCURACY) -> None:
    """Replaces what stands between ``<!-- name: begin -->`` and ``<!-- name: end -->``."""
    begin, end = (f"<!-- {name}: {place} -->" for place in ("begin", "end"))
    content = document.read_text(encoding="utf-8")
    before, first, rest = content.partition(begin)
    _, second, after = rest.partition(end)
    if not (first and second):
        raise SystemExit(f"{document} has no marks {begin} and {end}")
    document.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
