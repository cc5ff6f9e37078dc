"""Sixty faults of all kinds, in forked processes. `make faults` strikes with a thousand."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.faults.flips import make_run
from tests.faults.kinds import KINDS
from tests.faults.oracle import Truth, judged, rows_of
from tests.faults.place import Said

COUNT = 3 * len(KINDS)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the faults need /proc and prctl")
def test_faults_of_every_kind_are_survived(tmp_path: Path) -> None:
    words = ["--count", str(COUNT), "--seed", "0", "--json", str(tmp_path / "found.json")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    program = [sys.executable, "-m", "tests.faults", *words]
    ended = subprocess.run(program, env=environment, timeout=900, capture_output=True, text=True)
    found: list[dict[str, Any]] = json.loads((tmp_path / "found.json").read_text())
    assert len(found) == COUNT, ended.stderr
    assert [each for each in found if each["verdict"] != "survived"] == []
    assert ended.returncode == 0
    assert f"| all | {COUNT} | {COUNT} | 0 |" in ended.stdout


WELL, WITH_WARNING = Said(0, "3 ok"), Said(0, "predictions.parquet was changed since it was written")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of two Cases."""
    return make_run(tmp_path / "run").path


def truth_of(run: Path) -> Truth:
    rows = rows_of(run)
    return Truth(rows, frozenset().union(*(set(data.tolist()) for data in rows.data.values() if hasattr(data, "size"))))


def test_an_untouched_run_is_survived(run: Path) -> None:
    truth = truth_of(run)
    assert judged(truth, run, truth.rows.ok(), WELL, complete=True).verdict == "survived"


def test_what_the_oracle_must_not_let_pass(run: Path) -> None:
    truth = truth_of(run)
    finished = truth.rows.ok()
    for said, verdict in (
        (Said(None, ""), "hang"),
        (Said(1, "Traceback (most recent call last):\nKeyError: 1"), "traceback"),
        (Said(2, "no"), "unclear"),
    ):
        assert judged(truth, run, finished, said, complete=True).verdict == verdict
    assert judged(truth, run, {*finished, "another"}, WELL, complete=True).verdict == "lost"
    assert judged(truth, run, {*finished, "another"}, WITH_WARNING, complete=True).verdict == "survived"
    (run / ".x.tmp").touch()
    assert judged(truth, run, finished, WELL, complete=True).verdict == "unclear"


def test_figures_that_nobody_measured_are_wrong_without_a_word(run: Path) -> None:
    truth = truth_of(run)
    other = Truth(truth.rows, frozenset({1}))
    assert judged(other, run, set(), WELL, complete=True).verdict == "wrong"
    assert judged(other, run, set(), WITH_WARNING, complete=True).verdict == "survived"
    first = next(case_id for case_id, data in truth.rows.data.items() if isinstance(data, list))
    changed = Truth(replace(truth.rows, data={**truth.rows.data, first: []}), truth.times)
    assert judged(changed, run, set(), WELL, complete=True).verdict == "wrong"
    (run / "cases.jsonl").write_text("")
    assert judged(truth, run, set(), WELL, complete=True).verdict == "lost"
