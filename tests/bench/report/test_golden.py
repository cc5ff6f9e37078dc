"""The plain forms of a fixed run, as they were reviewed: CSV, Markdown and JSON; Parquet holds the same as the frame.

HTML and LaTeX have theirs in tests of their own. Numbers are compared to nine digits: the last ones depend on the
processor's instructions.
"""

import re
from pathlib import Path

import pandas as pd
import pytest
from folders import golden
from html_run import make

from bench.analysis.table import load
from bench.report.forms import FORMATS


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    return make(folder / "run", folder / "data").path


@pytest.mark.parametrize("name", ["csv", "markdown", "json"])
def test_a_form_is_as_reviewed(run: Path, name: str) -> None:
    form = FORMATS[name]
    form.write(load(run), run / form.file_name)
    made = (run / form.file_name).read_text().replace(str(run.parent), "/somewhere")
    texts, numbers = _parted(made)
    kept_texts, kept_numbers = _parted(golden(f"{name}/{form.file_name}", made))
    assert texts == kept_texts
    assert numbers == pytest.approx(kept_numbers, rel=1e-9)


def _parted(text: str) -> tuple[list[str], list[float]]:
    """The text around numbers with a fraction, and those numbers."""
    found = re.compile(r"(?<![\w.])-?\d+\.\d+(?:e[+-]?\d+)?(?![\w.])")
    return found.split(text), [float(number) for number in found.findall(text)]


def test_parquet_holds_the_frame(run: Path) -> None:
    loaded = load(run)
    FORMATS["parquet"].write(loaded, run / "table.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(run / "table.parquet"), loaded.frame)
