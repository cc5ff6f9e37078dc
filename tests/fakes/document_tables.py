"""Tables of documents that tests make: each stands between two marks, and is as the code behaves, or the test fails."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def check_table(document: str, name: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """The table ``name`` of a document in ``docs/`` has these rows; ``SCARLET_WRITE_TABLES=1`` writes them instead."""
    lines = [header, ["---"] * len(header), *rows]
    table = "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)
    path, found = DOCS / document, re.compile(f"(<!-- table: {name} -->\n)(.*?)(<!-- end -->)", re.DOTALL)
    text = path.read_text(encoding="utf-8")
    assert found.search(text), f"{document} has no marks for the table {name}"
    if os.environ.get("SCARLET_WRITE_TABLES"):
        path.write_text(found.sub(lambda match: f"{match[1]}{table}{match[3]}", text), encoding="utf-8")
    else:
        assert found.search(text)[2] == table  # type: ignore[index]
