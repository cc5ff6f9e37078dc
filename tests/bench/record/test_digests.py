"""A run's folder is a record: what was damaged, lost or edited since it was written is found by whoever reads."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from report_run import add_samples, case, end

from bench.host.disturbance import RoundState
from bench.record import raw_tables
from bench.record.case import Status
from bench.record.run_folder import CAUSE, DAMAGED, MACHINE, CaseResult, RunFolder
from scarlet.errors import BenchError
from tests.faults.flips import PARQUET, TEXT, make_run, try_flips


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "run", images=40, samples=60)


def statuses(folder: RunFolder) -> dict[str, list[str]]:
    """By scenario, the statuses and reasons of the rows that are not ok."""
    found: dict[str, list[str]] = {}
    for result in folder.results():
        if result.status is not Status.OK:
            found.setdefault(result.case.scenario, []).append(f"{result.status.value}: {result.reason}")
    return found


@pytest.mark.parametrize("name", [*PARQUET, *TEXT])
def test_a_flipped_bit_is_noticed_or_changes_nothing(folder: RunFolder, name: str) -> None:
    tries = 20 if name in PARQUET else 8
    counts = try_flips(folder, name, tries)
    assert counts["wrong"] == 0
    assert counts["noticed"] > tries // 3
    assert sum(counts.values()) == tries


def test_merging_changes_no_digest(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    for life in range(3):
        add_samples(folder, case(), [1, 2, 3 + life])
        folder.end_life(case().case_id, life)
    end(folder, case())
    (written,) = folder.case_results()
    assert set(written.digests or {}) == {"samples"}
    folder.merge_parts()
    assert statuses(folder) == {}
    merged = raw_tables.scan([raw_tables.merged_path(folder.path, "samples")], "samples")
    assert merged.digests == {case().case_id: (written.digests or {})["samples"]}


@pytest.mark.parametrize("name", PARQUET)
def test_a_missing_file_makes_its_rows_invalid(folder: RunFolder, name: str) -> None:
    (folder.path / name).unlink()
    scenario = "accuracy" if name == "predictions.parquet" else "latency"
    assert statuses(folder) == {scenario: [f"invalid: {name} is missing"] * 2}
    for result in folder.case_results():
        assert (result.metrics.get(CAUSE) == DAMAGED) == (result.case.scenario == scenario)
    folder.reopen()
    again = {result.case.scenario for result in folder.case_results() if result.status is Status.INTERRUPTED}
    assert again == {scenario}, "what was lost is measured again"


@pytest.mark.parametrize("name", [*PARQUET, *TEXT])
@pytest.mark.parametrize("instead", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_told_and_never_waited_for(folder, name, instead):
    (folder.path / name).unlink()
    instead(folder.path / name)
    if name in ("run.json", "cases.jsonl"):
        with pytest.raises(BenchError, match=name):
            folder.results()
    else:
        told = [reason for reasons in statuses(folder).values() for reason in reasons]
        assert len(told) == 2
        assert all(name in reason for reason in told)


def test_edited_predictions_make_their_row_invalid_and_no_other(folder: RunFolder) -> None:
    path = folder.path / "predictions.parquet"
    table = pq.read_table(path)
    first = pc.equal(table["case_id"].cast(pa.string()), folder.planned_cases()[0].case_id)
    forged = pc.if_else(first, table["label"], table["top1"])
    place = table.column_names.index("top1")
    pq.write_table(table.set_column(place, table.schema.field("top1"), forged), path)
    assert statuses(folder) == {"accuracy": ["invalid: predictions.parquet was changed since it was written"]}
    with pytest.warns(UserWarning, match="left out"):
        assert folder.predictions()["case_id"].unique().tolist() == [folder.planned_cases()[1].case_id]


@pytest.mark.parametrize("change", ["lost", "doubled"])
def test_lost_and_doubled_rows_make_their_row_invalid(folder: RunFolder, change: str) -> None:
    path = folder.path / "samples.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(1) if change == "lost" else pa.concat_tables([table.slice(0, 1), table]), path)
    assert statuses(folder) == {"latency": ["invalid: samples.parquet was changed since it was written"]}


def test_an_edited_line_makes_its_row_invalid(folder: RunFolder) -> None:
    path = folder.path / "cases.jsonl"
    path.write_text(path.read_text().replace('"n_warmup": 5', '"n_warmup": 6', 1))
    assert statuses(folder) == {"accuracy": ["invalid: cases.jsonl, line 1 was changed since it was written"]}
    lines = path.read_text().splitlines()
    bare = {name: value for name, value in json.loads(lines[2]).items() if name != "sha256"}
    path.write_text("\n".join([*lines[:2], json.dumps(bare), lines[3]]))
    assert len(statuses(folder)["latency"]) == 1, "a line that has lost its digest"


def test_an_edited_description_makes_all_rows_invalid(folder: RunFolder) -> None:
    path = folder.path / "run.json"
    path.write_text(path.read_text().replace('"is_demo": false', '"is_demo": true'))
    assert [reason for reasons in statuses(folder).values() for reason in reasons] == [
        "invalid: run.json was changed since it was written"
    ] * 4
    with pytest.raises(BenchError, match=r"run\.json was changed"):
        folder.add_run_info(finished_at="now")


def test_edited_images_are_refused(folder: RunFolder) -> None:
    path = folder.path / "images.json"
    path.write_text(path.read_text().replace(", 0]", ", 1]", 1))
    with pytest.raises(BenchError, match=r"images\.json was changed"):
        folder.read_images()
    assert len(statuses(folder)["accuracy"]) == 2


def without_digests(folder: RunFolder) -> None:
    """The folder as an older version wrote it."""
    info = json.loads((folder.path / "run.json").read_text())
    del info["sha256"], info["digests"]
    (folder.path / "run.json").write_text(json.dumps(info))
    rows = [json.loads(line) for line in (folder.path / "cases.jsonl").read_text().splitlines()]
    for row in rows:
        del row["sha256"], row["digests"]
    (folder.path / "cases.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def test_a_folder_written_before_digests_reads_as_it_did(folder: RunFolder) -> None:
    before = len(folder.samples()), len(folder.predictions()), len(folder.rounds()), folder.read_images()
    without_digests(folder)
    assert statuses(folder) == {}
    assert before == (len(folder.samples()), len(folder.predictions()), len(folder.rounds()), folder.read_images())
    folder.write_rounds([RoundState("latency", 30, 1)])
    folder.write_run_info(folder.read_run_info())
    assert statuses(folder) == {}, "and goes on as it began"


class Killed(BaseException):
    """Stands for the end of the process."""


def test_a_kill_while_rounds_are_added_leaves_an_honest_folder(folder, monkeypatch):
    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(raw_tables, "_write", killed)
        with pytest.raises(Killed):
            folder.write_rounds([RoundState("latency", 30, 1)])
    assert statuses(folder) == {}
    folder.write_rounds([RoundState("latency", 30, 1)])
    assert statuses(folder) == {}
    assert len(folder.rounds()) == 31


def test_a_kill_while_parts_are_removed_leaves_an_honest_folder(tmp_path, monkeypatch):
    folder = RunFolder.create(tmp_path / "run")
    for life in range(2):
        add_samples(folder, case(), [life])
        folder.end_life(case().case_id, life)
    end(folder, case())
    kept = raw_tables.part_path(folder.path, case().case_id, "samples", 1)
    unlink = Path.unlink

    def killed(path: Path, missing_ok: bool = False) -> None:
        if path == kept:
            raise Killed
        unlink(path, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        with pytest.raises(Killed):
            folder.merge_parts()
    assert kept.exists()
    for _ in range(2):
        assert statuses(folder) == {}
        assert folder.samples()["latency_ns"].tolist() == [0, 1]
        folder.merge_parts()


def test_a_folder_is_a_run_only_once_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run"

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "write_run_info", killed)
        with pytest.raises(Killed):
            RunFolder.create(path, {"settings": {}}, [("a", 1)])
    assert not (path / "run.json").exists()
    folder = RunFolder.create(path, {"settings": {"model": "m"}}, [("b", 2)])
    assert folder.read_run_info()["settings"] == {"model": "m"}
    assert folder.read_images() == [("b", 2)]


def test_what_runs_again_when_a_run_goes_on(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    states = {
        case(batch=1): CaseResult(case(batch=1), Status.OK),
        case(batch=2): CaseResult(case(batch=2), Status.INTERRUPTED, "stopped"),
        case(batch=3): CaseResult(case(batch=3), Status.FAILED, "a bug"),
        case(batch=4): CaseResult(case(batch=4), Status.FAILED, "no room", metrics={CAUSE: MACHINE}),
        case(batch=5): CaseResult(case(batch=5), Status.UNSUPPORTED, "never"),
        case(batch=6): CaseResult(case(batch=6), Status.TIMEOUT, "slow"),
    }
    for result in states.values():
        folder.append_case(result)
    folder.reopen()
    assert open_again(folder) == [2, 4]
    folder.reopen(retry=True)
    assert open_again(folder) == [2, 3, 4, 6]


def open_again(folder: RunFolder) -> list[int]:
    """The batches of the Cases that are to run again."""
    return [result.case.batch for result in folder.case_results() if result.status is Status.INTERRUPTED]


def test_a_part_that_cannot_be_read_back_is_no_result(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    add_samples(folder, case(), [1, 2])
    part = raw_tables.part_path(folder.path, case().case_id, "samples")
    part.write_bytes(part.read_bytes()[:-4])
    recorded = folder.append_case(CaseResult(case(), Status.OK))
    assert recorded.status is Status.FAILED
    assert part.name in recorded.reason
    folder.reopen()
    assert open_again(folder) == [1]
    assert part.exists()


def test_a_merged_file_that_cannot_be_read_whole_is_kept(folder: RunFolder) -> None:
    path = folder.path / "samples.parquet"
    path.write_bytes(b"PAR1 torn")
    timed = next(planned for planned in folder.planned_cases() if planned.scenario == "latency")
    add_samples(folder, timed, [5])
    end(folder, timed)
    folder.merge_parts()
    assert (folder.path / "samples.damaged.parquet").read_bytes() == b"PAR1 torn"
    assert len(statuses(folder)["latency"]) == 1


@pytest.mark.parametrize(
    "facts",
    [
        {"plan": 5},
        {"plan": {"cases": 5}},
        {"plan": {"cases": [5]}},
        {"plan": {"cases": [{"model": 1}]}},
        {"host": "text"},
        {"host": {"nvidia": 3}},
        {"settings": []},
        {"dataset": "text"},
        {"dataset": {"root": 3}},
        {"warnings": {}},
        {"warnings": ["text"]},
        {"command": "text"},
        {"git": "text"},
        {"digests": {"images": "x"}},
        {"schema_version": None},
    ],
)
def test_a_description_of_other_types_is_two_lines(folder: RunFolder, facts: dict[str, object]) -> None:
    info = {**json.loads((folder.path / "run.json").read_text()), **facts}
    (folder.path / "run.json").write_text(json.dumps(info))
    with pytest.raises(BenchError, match=r"run\.json cannot be read"):
        RunFolder.open(folder.path)


@pytest.mark.parametrize(
    "facts",
    [
        {"metrics": None},
        {"reason": None},
        {"proof": []},
        {"bad_images": [1]},
        {"bad_images": [{"image_id": 1}]},
        {"metrics": {"n_warmup": "many"}},
        {"case": {"model": "m", "weights": "w", "backend": "b", "batch": "1"}},
    ],
)
def test_a_line_of_other_types_is_left_out(folder: RunFolder, facts: dict[str, object]) -> None:
    without_digests(folder)
    lines = (folder.path / "cases.jsonl").read_text().splitlines()
    lines[0] = json.dumps({**json.loads(lines[0]), **facts})
    (folder.path / "cases.jsonl").write_text("\n".join(lines))
    with pytest.warns(UserWarning, match="line 1 left out"):
        assert len(folder.case_results()) == 3


@pytest.mark.parametrize("text", ["{", "{}", "[1]", '[["a", "b"]]', '[["a"]]', "\xff"])
def test_a_list_of_images_of_other_types_is_two_lines(folder: RunFolder, text: str) -> None:
    without_digests(folder)
    (folder.path / "images.json").write_text(text, encoding="latin-1")
    with pytest.raises(BenchError, match="does not say which images it scored"):
        folder.read_images()
