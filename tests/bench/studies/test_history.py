"""Many runs as one history: ratios by machine, predictions by images, changes marked; and what the command shows."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from report_run import INFO, add_predictions, add_samples, case, end, make_run
from typer.testing import CliRunner

from bench.cli import app
from bench.report.forms import write_all, write_document
from bench.studies import history
from scarlet.errors import BenchError

BASE, FAST = case(), case(backend="onnxruntime")
SCORED = case(scenario="accuracy", batch=2)


def run(folder: Path, day: int, fast_ms: float, right: int = 4, **info: Any) -> Path:
    """A run of that day in which the second backend takes so long, and so many of five images are right."""
    path = folder / f"run-{day:02}"
    made = make_run(
        path,
        [BASE, FAST, SCORED],
        {"created_at": f"2026-01-{day:02}T00:00:00+00:00", "git": {"commit": f"{day:02}" * 20, "dirty": False}, **info},
    )
    for each, ms in ((BASE, 10.0), (FAST, fast_ms)):
        times = [int(ms * 1e6) + 1000 * place for place in range(24)]
        add_samples(made, each, times, per_round=2)
        end(made, each, stage="compute")
    rows = {f"{place}.jpg": (0, (0 if place < right else 1, 2, 3, 4, 5)) for place in range(5)}
    add_predictions(made, SCORED, rows)
    end(made, SCORED)
    return path


@pytest.fixture(scope="module")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve runs; from the seventh on the second backend is slower, in the last one image more is wrong."""
    folder = tmp_path_factory.mktemp("twelve")
    for day in range(1, 13):
        run(folder / "runs", day, 5.0 if day < 7 else 6.0, right=4 if day < 12 else 3)
    return folder


def test_a_page_has_every_row_its_changes_and_links_and_another_tool_its_form(twelve: Path, tmp_path: Path) -> None:
    (twelve / "runs" / "run-03" / "report.html").write_text("a report")
    page, other = tmp_path / "history.html", tmp_path / "figures.json"
    ended = CliRunner().invoke(app, ["history", str(twelve), "--html", str(page), "--benchmark", str(other)])
    assert ended.exit_code == 0, ended.output
    text = page.read_text()
    links = re.findall(r'<a href="([^"]+)">', text)
    assert links
    assert all((tmp_path / link).resolve() == (twelve / "runs" / "run-03" / "report.html").resolve() for link in links)
    assert text.count("<figure>") == text.count("<polyline") == 2
    assert text.count('class="change"') == 2, "the ratio's new level, and the run with another top-1"
    assert "from 2026-01-07 0707070707" in text
    rows = json.loads(other.read_text())
    assert {"name", "unit", "value"} <= rows[0].keys()
    values = {row["unit"]: row["value"] for row in rows}
    assert values == {"time / baseline": pytest.approx(0.6, abs=0.01), "top-1 error %": pytest.approx(40.0)}


def test_a_ratio_is_followed_and_its_change_is_found(twelve: Path) -> None:
    found = {(each.kind, each.case): each for each in history.series(history.load_history(twelve))}
    ratios = found["ratio", FAST]
    assert [round(point.value, 2) for point in ratios.points] == [0.5] * 6 + [0.6] * 6
    (change,) = ratios.changes
    assert ratios.points[change.index].run == "run-07"
    assert change.after / change.before == pytest.approx(1.2, rel=1e-3)
    assert ratios.baseline_case_id == BASE.case_id
    assert all(point.low is not None and point.low <= point.value <= point.high for point in ratios.points)
    assert ("ratio", BASE) not in found, "the baseline has no ratio to itself"


def test_a_change_in_the_newest_three_runs_is_found(tmp_path: Path) -> None:
    for day in range(1, 14):
        run(tmp_path, day, 5.0 if day < 11 else 6.0)
    found = {(each.kind, each.case): each for each in history.series(history.load_history(tmp_path))}
    (change,) = found["ratio", FAST].changes
    assert found["ratio", FAST].points[change.index].run == "run-11"


def test_a_prediction_that_changed_is_marked_at_once(twelve: Path) -> None:
    (scored,) = [each for each in history.series(history.load_history(twelve)) if each.kind == "top1_percent"]
    (change,) = scored.changes
    assert (scored.points[change.index].run, change.before, change.after) == ("run-12", 80.0, 60.0)


def test_machines_are_told_apart(tmp_path: Path) -> None:
    run(tmp_path, 1, 5.0)
    run(tmp_path, 2, 5.0)
    run(tmp_path, 3, 7.0, host={"cpu_model": "Another CPU"})
    ratios = [each for each in history.series(history.load_history(tmp_path)) if each.kind == "ratio"]
    assert [len(each.points) for each in ratios] == [2], "a single run of another machine is no series"


def test_reports_that_are_up_to_date_are_read_and_others_are_not(tmp_path: Path) -> None:
    path = run(tmp_path, 1, 5.0)
    write_all(path)
    table = pd.read_parquet(path / "table.parquet")
    table.assign(ratio=0.25).to_parquet(path / "table.parquet")
    read = history.load_history(tmp_path)
    assert read["ratio"].dropna().unique().tolist() == [0.25], "the file that was there"
    os.utime(path / "table.parquet", ns=(1, 1))
    assert 0.25 not in history.load_history(tmp_path)["ratio"].dropna().unique().tolist()
    table.drop(columns="ratio").to_parquet(path / "table.parquet")
    assert history.load_history(tmp_path)["ratio"].notna().any(), "a table of an older version is made anew"


def test_a_broken_run_is_left_out_with_a_warning(tmp_path: Path) -> None:
    run(tmp_path, 1, 5.0)
    path = run(tmp_path, 2, 5.0)
    (path / "run.json").write_text("{")
    with pytest.warns(UserWarning, match=r"run-02 is left out"):
        read = history.load_history(tmp_path)
    assert set(read["run"]) == {"run-01"}


def test_the_newest_link_is_no_second_run(tmp_path: Path) -> None:
    path = run(tmp_path / "runs", 1, 5.0)
    (tmp_path / "latest").symlink_to(path)
    assert history.runs_in(tmp_path) == [path]


def test_no_run_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="holds no run"):
        history.load_history(tmp_path)


def test_the_command_shows_where_it_changed(twelve: Path) -> None:
    done = CliRunner().invoke(app, ["history", str(twelve)], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    assert re.search(r"from 2026-01-07 0707\w+ on \(p 0\.00", text), text
    assert "▁▁▁▁▁▁██████" in text
    assert "80 to 60 from 2026-01-12 121212121212 on" in text


def test_json_names_runs_and_revisions(twelve: Path) -> None:
    done = CliRunner().invoke(app, ["history", str(twelve), "--json"])
    told = json.loads(done.output)
    (ratios,) = [each for each in told["series"] if each["kind"] == "ratio"]
    assert ratios["changes"][0]["run"] == "run-07"
    assert ratios["changes"][0]["commit"].startswith("0707")
    assert len(told["runs"]) == 12


def test_a_file_in_every_form_twice_the_same(twelve: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        table = history.load_history(twelve)
        document = history.document(table, history.series(table), "History")
        for suffix in (".md", ".csv", ".parquet", ".json"):
            write_document(document, tmp_path / f"{name}{suffix}")
    for suffix in (".md", ".csv", ".parquet", ".json"):
        assert (tmp_path / f"first{suffix}").read_bytes() == (tmp_path / f"second{suffix}").read_bytes()
    assert len(pd.read_csv(tmp_path / "first.csv")) == 36


def test_two_runs_are_too_few_to_tell(tmp_path: Path) -> None:
    run(tmp_path, 1, 5.0)
    run(tmp_path, 2, 9.0)
    table = history.load_history(tmp_path)
    document = history.document(table, history.series(table), "History")
    assert document.tables[0].rows[0][-1] == "too few runs to tell"
    assert document.marks == [], INFO["dataset"]


def test_one_run_is_no_history(tmp_path: Path) -> None:
    run(tmp_path, 1, 5.0)
    table = history.load_history(tmp_path)
    assert history.document(table, history.series(table), "").lines == ["no Case was measured in two runs or more"]


@pytest.mark.parametrize(
    ("values", "drawn"),
    [([1.0], "▄"), ([1.0, 1.01], "▄▄"), ([1.0, 2.0], "▁█"), ([1.0, 1.5, 2.0], "▁▅█"), ([1.0, 2.0] * 20, "▁█" * 12)],
)
def test_a_course_in_one_line(values: list[float], drawn: str) -> None:
    assert history.sparkline(values) == drawn
