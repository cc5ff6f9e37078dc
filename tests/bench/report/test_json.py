"""``table.json``: valid by its published schema, every figure with its source."""

import json
from pathlib import Path

import jsonschema
import pytest
from folders import ROOT
from report_run import add_predictions, add_samples, case, end, make_run
from typer.testing import CliRunner

from bench.cli import app
from bench.record.case import Status
from bench.report import data
from bench.report.forms import write_all

SCHEMA = json.loads((ROOT / "docs" / "schema" / "run-1.json").read_text())
TIMED = case(options=(("form", "plain"),))
SCORED = case(scenario="accuracy", batch=2)
GONE = case(backend="openvino")


@pytest.fixture
def written(tmp_path: Path) -> dict:
    run = make_run(tmp_path / "run", [TIMED, SCORED, GONE])
    add_samples(run, TIMED, [1_000_000 + place for place in range(30)], per_round=2)
    end(run, TIMED, stage="compute", proof={"version": "1.0", "odd": "\udcff"})
    add_predictions(run, SCORED, {"a.jpg": (0, (0, 1)), "b.jpg": (1, (0, 1))})
    end(run, SCORED, bad_images=({"image_id": "\udcfe.jpg", "reason": "torn"},))
    end(run, GONE, Status.UNAVAILABLE, reason="not installed")
    write_all(run.path)
    return json.loads((run.path / "table.json").read_text())


def test_the_published_schema_is_the_one_of_the_code() -> None:
    assert data.schema() == SCHEMA, "write it anew: scarlet-bench schema > docs/schema/run-1.json"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    told = CliRunner().invoke(app, ["schema"])
    assert json.loads(told.output) == SCHEMA


def test_a_document_is_valid(written: dict) -> None:
    jsonschema.validate(written, SCHEMA)
    assert [each["status"] for each in written["cases"]] == ["ok", "ok", "unavailable"]
    assert written["cases"][0]["options"] == {"form": "plain"}
    assert written["cases"][2]["figures"] == {}
    assert written["bad_images"] == [{"image_id": "\\udcfe.jpg", "reason": "torn"}]


@pytest.mark.parametrize("spoil", ["version", "figure", "source", "case"])
def test_a_spoilt_document_is_not(written: dict, spoil: str) -> None:
    if spoil == "version":
        written["schema_version"] = 2
    elif spoil == "figure":
        written["cases"][0]["figures"]["latency_ms"] = 1.0
    elif spoil == "source":
        written["cases"][0]["sources"]["ratio"] = "somewhere"
    else:
        del written["cases"][0]["case_id"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(written, SCHEMA)


def test_every_figure_names_its_file(written: dict) -> None:
    timed, scored, _ = written["cases"]
    assert timed["sources"]["latency_ns_p50"] == "samples.parquet"
    assert scored["sources"]["top1_percent"] == "predictions.parquet"
    assert scored["sources"]["n_images"] == "predictions.parquet"
    assert scored["sources"]["n_bad_images"] == "cases.jsonl"
    for each in written["cases"]:
        assert set(each["sources"]) == set(each["figures"])


def test_the_folder_of_the_data_stays_at_home(written: dict) -> None:
    assert "/data" not in json.dumps(written["dataset"])
    assert written["dataset"]["fingerprint"] == "feed" * 8
