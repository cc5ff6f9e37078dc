"""Folders that tests use."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
FAKES = ROOT / "tests" / "fakes"
CONTRACTS = ROOT / "tests" / "contracts"


def golden(name: str, text: str) -> str:
    """The reviewed content of a file in ``tests/golden``.

    With UPDATE_GOLDEN=1 it is written anew, to be looked at before it is committed; all golden files go by this.
    """
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return path.read_text(encoding="utf-8")
