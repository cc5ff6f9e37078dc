"""bench.analysis.columns: the registry, and the documents that list it."""

import re

import pytest
from folders import ROOT

from bench.analysis.columns import CASES, PREDICTIONS, REGISTRY, ROUNDS, SAMPLES, source_of


def test_columns_name_the_file_that_they_are_derived_from() -> None:
    assert source_of("n_images", "latency") == SAMPLES
    assert source_of("n_images", "accuracy") == PREDICTIONS
    assert source_of("n_disturbed_rounds", "latency") == ROUNDS
    timed = [name for name in REGISTRY if "_ns_" in name or "_per_s" in name or name.startswith("ratio")]
    assert {source_of(name, "latency") for name in timed} == {SAMPLES}, timed
    assert {column.source for column in REGISTRY.values()} == {CASES, SAMPLES, PREDICTIONS, ROUNDS}


@pytest.mark.parametrize("column", REGISTRY.values(), ids=list(REGISTRY))
def test_a_column_refers_to_others_that_exist(column) -> None:
    assert not column.interval or {f"{column.interval}_low", f"{column.interval}_high"} <= set(REGISTRY)
    assert not column.sort or column.sort in REGISTRY
    assert column.written == "text" or column.is_numeric or column.name == "options"


def test_the_documents_list_every_column() -> None:
    text = (ROOT / "docs" / "reports.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \| (.+) \| (\S+) \|$", text, re.MULTILINE)
    assert listed == [(column.name, column.meaning, column.source) for column in REGISTRY.values()]
