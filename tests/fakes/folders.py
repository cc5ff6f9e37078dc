"""Folders that tests use."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
FAKES = ROOT / "tests" / "fakes"
CONTRACTS = ROOT / "tests" / "contracts"
