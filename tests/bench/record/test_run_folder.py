"""bench.record.run_folder, bench.record.raw_tables and bench.record.files: nothing is lost, half a file is
never read."""

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from folders import FAKES, ROOT
from report_run import add_predictions, add_samples, case, end, make_run

from bench.record import raw_tables, run_folder
from bench.record.case import Status
from bench.record.files import DamagedRunWarning, atomic_file, disk_errors, plain, write_text
from bench.record.run_folder import SCHEMA_VERSION, CaseResult, RunFolder, new_run_path, set_latest
from scarlet.errors import BenchError

FIRST, SECOND = case(), case(backend="onnxruntime")


@pytest.fixture
def folder(tmp_path):
    return make_run(tmp_path / "run", [FIRST, SECOND])


def result(of=FIRST, status=Status.OK, **more):
    return CaseResult(of, status, **more)


def test_create_makes_a_run_that_open_knows(tmp_path):
    created = RunFolder.create(tmp_path / "a" / "run")
    info = RunFolder.open(created.path).read_run_info()
    assert info["schema_version"] == SCHEMA_VERSION
    assert info["created_at"].endswith("+00:00")
    assert created.case_results() == []
    assert created.planned_cases() == []
    assert created.samples().empty
    assert list(created.predictions().columns)[-1] == "margin"


def test_create_refuses_a_folder_in_use(tmp_path, folder):
    with pytest.raises(BenchError, match="already holds a run") as error:
        RunFolder.create(folder.path)
    assert "--resume" in error.value.do
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BenchError, match="is not empty and holds no run"):
        RunFolder.create(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_create_under_a_file_names_the_path(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match=r"cannot write .*file/run: a part of the path is a file"):
        RunFolder.create(tmp_path / "file" / "run")
    with pytest.raises(BenchError, match="a part of the path is a file"):
        RunFolder.create(tmp_path / "file")


def test_open_needs_a_run(tmp_path):
    with pytest.raises(BenchError, match=r"holds no run: there is no run\.json"):
        RunFolder.open(tmp_path)
    for text in ("{", "[]", "{}"):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(BenchError, match="cannot be read"):
            RunFolder.open(tmp_path)


def test_a_newer_format_is_refused(folder):
    folder.write_run_info({"schema_version": SCHEMA_VERSION + 1})
    with pytest.raises(BenchError, match=r"newer scarlet-bench") as error:
        RunFolder.open(folder.path)
    assert "Update" in error.value.do


def test_run_info_keeps_what_is_added_and_holds_no_nan(folder):
    folder.write_run_info({**folder.read_run_info(), "host": {"load": math.nan}, "extra": Path("x")})
    info = folder.read_run_info()
    assert info["host"] == {"load": None}
    assert info["extra"] == "x"
    assert folder.planned_cases() == [FIRST, SECOND]


def test_images_come_back_whatever_their_names(folder):
    images = [("n1/it's \udcff.JPEG", 3), ("n2/ü\n.JPEG", 999)]
    folder.write_images(images)
    assert folder.read_images() == images


def test_log_path(folder):
    assert folder.log_path("abc") == folder.path / "logs" / "abc.log"


def test_a_result_comes_back_as_it_was(folder):
    given = result(
        status=Status.FALLBACK,
        reason="ran on the CPU",
        stage="compute",
        metrics={"n_warmup": 40, "peak_rss_bytes": 2**31, "stop_reason": "precision"},
        proof={"providers": {"CPUExecutionProvider": 148}},
        bad_images=({"image_id": "a/\udcff.jpg", "reason": "truncated"},),
        started_at="2026-01-01T00:00:00+00:00",
        ended_at="2026-01-01T00:01:00+00:00",
    )
    folder.append_case(given)
    assert folder.case_results() == [given]
    line = json.loads((folder.path / "cases.jsonl").read_text())
    assert line["case_id"] == FIRST.case_id
    assert set(line) == {
        *("case_id", "case", "status", "reason", "stage", "metrics"),
        *("proof", "bad_images", "started_at", "ended_at", "digests", "sha256"),
    }


def test_the_last_line_of_a_case_counts(folder):
    folder.append_case(result(status=Status.INTERRUPTED, reason="stopped"))
    folder.append_case(result(SECOND))
    folder.append_case(result())
    assert [(found.case, found.status) for found in folder.case_results()] == [(FIRST, Status.OK), (SECOND, Status.OK)]


def test_a_torn_line_is_left_out_and_swallows_nothing(folder):
    folder.append_case(result())
    with (folder.path / "cases.jsonl").open("ab") as stream:
        stream.write(b'{"case_id": "beef", "case": {"mod')
    with pytest.warns(DamagedRunWarning, match="line 2 left out"):
        assert [found.case for found in folder.case_results()] == [FIRST]
    folder.append_case(result(SECOND))
    with pytest.warns(DamagedRunWarning):
        assert [found.case for found in folder.case_results()] == [FIRST, SECOND]


@pytest.mark.parametrize("line", [b"[]", b"{}", b"\xff\xfe", b'{"case": {"model": 1}, "status": "ok"}', b"3"])
def test_lines_that_are_no_results_are_left_out(folder, line):
    (folder.path / "cases.jsonl").write_bytes(line + b"\n")
    folder.append_case(result())
    with pytest.warns(DamagedRunWarning, match="line 1 left out"):
        assert [found.case for found in folder.case_results()] == [FIRST]


def test_a_killed_process_leaves_every_appended_line(tmp_path, folder):
    script = (
        "import os, signal, sys; from report_run import *; folder = RunFolder(Path(sys.argv[1]))\n"
        "for n in range(1, 6): end(folder, case(batch=n))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "PYTHONPATH": f"{FAKES}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", script, str(folder.path)], env=environment)
    assert done.returncode == -9
    assert [found.case.batch for found in folder.case_results()] == [1, 2, 3, 4, 5]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_a_clear_error(folder):
    (folder.path / "cases.jsonl").symlink_to("/dev/full")
    with pytest.raises(BenchError, match=r"cannot write .*cases\.jsonl: the disk is full") as error:
        folder.append_case(result())
    assert "--resume" in error.value.do
    assert "--out" in error.value.do


def test_a_line_that_did_not_fit_is_taken_back(folder, monkeypatch):
    folder.append_case(result())
    before = (folder.path / "cases.jsonl").read_bytes()

    def no_space(descriptor):
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patched:
        patched.setattr(run_folder.os, "fsync", no_space)
        with pytest.raises(BenchError, match="disk is full"):
            folder.append_case(result(SECOND))
    assert (folder.path / "cases.jsonl").read_bytes() == before


def fill(folder, cases=(FIRST, SECOND)):
    for number, timed in enumerate(cases):
        add_samples(folder, timed, [100 + number, 200, 300], n_warmup=1)
        add_predictions(folder, timed, {"a": (1, [1, 2, 3, 4, 5]), "b": (2, [7, 2, 3, 4, 5])})
        end(folder, timed)


def test_tables_have_their_columns_and_types(folder):
    fill(folder)
    folder.merge_parts()
    samples, predictions = folder.samples(), folder.predictions()
    assert {name: str(type_) for name, type_ in samples.dtypes.items()} == {
        "case_id": "category",
        "round": "int32",
        "stage": "category",
        "images": "int32",
        "warmup": "bool",
        "latency_ns": "int64",
    }
    assert {name: str(type_) for name, type_ in predictions.dtypes.items()} == {
        "case_id": "category",
        "image_id": "category",
        "label": "int16",
        "margin": "float32",
        **{f"top{place}": "int16" for place in range(1, 6)},
    }
    assert samples["latency_ns"].tolist() == [100, 200, 300, 101, 200, 300]
    assert samples["warmup"].tolist() == [True, False, False] * 2
    assert predictions[predictions["case_id"] == SECOND.case_id]["top1"].tolist() == [1, 7]
    metadata = pq.read_metadata(folder.path / "samples.parquet")
    assert metadata.row_group(0).column(0).compression == "ZSTD"


def test_merged_reads_the_same_as_unmerged_and_removes_the_parts(folder):
    fill(folder)
    before = folder.samples(), folder.predictions()
    folder.merge_parts()
    assert not (folder.path / "parts").exists()
    pd.testing.assert_frame_equal(folder.samples(), before[0])
    pd.testing.assert_frame_equal(folder.predictions(), before[1])
    folder.merge_parts()  # nothing left to do
    pd.testing.assert_frame_equal(folder.samples(), before[0])


def test_a_case_run_again_replaces_its_old_rows(folder):
    fill(folder)
    folder.merge_parts()
    add_samples(folder, FIRST, [777])
    assert folder.samples()["latency_ns"].tolist() == [100, 200, 300, 101, 200, 300], "not yet: it has no row"
    end(folder, FIRST)
    for _ in range(2):
        samples = folder.samples()
        assert samples[samples["case_id"] == FIRST.case_id]["latency_ns"].tolist() == [777]
        assert samples[samples["case_id"] == SECOND.case_id]["latency_ns"].tolist() == [101, 200, 300]
        folder.merge_parts()


def test_the_part_of_a_case_that_has_not_ended_waits(folder):
    fill(folder, [FIRST])
    add_samples(folder, SECOND, [5])
    folder.merge_parts()
    assert folder.samples()["latency_ns"].tolist() == [100, 200, 300]
    assert raw_tables.part_path(folder.path, SECOND.case_id, "samples").exists()
    end(folder, SECOND)
    assert folder.samples()["latency_ns"].tolist() == [100, 200, 300, 5]


def test_the_samples_of_several_lives_are_those_of_one_case(folder):
    for life, latency_ns in enumerate(range(100, 112)):
        add_samples(folder, FIRST, [latency_ns])
        folder.end_life(FIRST.case_id, life)
    end(folder, FIRST)
    add_samples(folder, SECOND, [5])
    for _ in range(2):
        assert folder.samples()["latency_ns"].tolist() == list(range(100, 112)), "in the order of lives"
        folder.merge_parts()
    assert not raw_tables.parts_of(folder.path, FIRST.case_id, "samples")
    folder.drop_parts([SECOND.case_id])
    assert not list((folder.path / "parts").iterdir())
    add_samples(folder, FIRST, [777])
    folder.end_life(FIRST.case_id, 0)
    end(folder, FIRST)
    assert folder.samples()["latency_ns"].tolist() == [777], "new lives replace those of an earlier session"


def test_a_full_disk_while_merging_loses_nothing(folder, monkeypatch):
    fill(folder, [FIRST])
    folder.merge_parts()
    fill(folder, [SECOND])

    def no_space(descriptor):
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", no_space)
        with pytest.raises(BenchError, match=r"samples\.parquet: the disk is full"):
            folder.merge_parts()
    assert not list(folder.path.glob(".*tmp"))
    assert folder.samples()["latency_ns"].tolist() == [100, 200, 300, 100, 200, 300]
    assert len(folder.predictions()) == 4


def test_damaged_tables_are_left_out_with_a_warning(folder):
    fill(folder)
    raw_tables.part_path(folder.path, FIRST.case_id, "samples").write_bytes(b"PAR1 torn")
    with pytest.warns(DamagedRunWarning, match="left out"):
        assert set(folder.samples()["case_id"]) == {SECOND.case_id}
    with pytest.warns(DamagedRunWarning):
        folder.merge_parts()
    assert raw_tables.part_path(folder.path, FIRST.case_id, "samples").exists()
    (folder.path / "samples.parquet").write_bytes(b"")
    with pytest.warns(DamagedRunWarning):
        assert folder.samples().empty


def test_fewer_than_five_classes_leave_minus_one(folder):
    add_predictions(folder, FIRST, {"a": (0, [2, 0, 1])})
    end(folder, FIRST)
    assert folder.predictions()[[f"top{place}" for place in range(1, 6)]].to_numpy().tolist() == [[2, 0, 1, -1, -1]]


def test_names_that_are_no_utf8_are_escaped(folder):
    add_predictions(folder, FIRST, {"a/\udcff.jpg": (0, [0, 1, 2, 3, 4])})
    end(folder, FIRST)
    assert folder.predictions()["image_id"].tolist() == ["a/\\udcff.jpg"]


def test_values_that_do_not_fit_are_refused(folder):
    with pytest.raises(ValueError, match="40000"):
        add_predictions(folder, FIRST, {"a": (40_000, [0, 1, 2, 3, 4])})
    with pytest.raises(ValueError, match="length"):
        folder.write_samples_part(
            *("x",),
            round=np.arange(2),
            stage="s",
            images=np.ones(3, int),
            warmup=np.zeros(3, bool),
            latency_ns=np.ones(3),
        )
    assert not list(folder.path.glob("parts/*"))


def test_five_thousand_images_and_six_cases_stay_under_five_megabytes(folder):
    source = np.random.default_rng(0)
    image_id = [f"n{place // 5:08d}/ILSVRC2012_val_{place:08d}.JPEG" for place in range(5000)]
    for number in range(6):
        scored = case(batch=number + 1)
        folder.write_predictions_part(
            scored.case_id,
            image_id=image_id,
            label=np.arange(5000) // 5,
            top=source.integers(0, 1000, (5000, 5)),  # no backend agrees with another: the worst for compression
            margin=source.random(5000, dtype=np.float32),
        )
        end(folder, scored)
    folder.merge_parts()
    assert len(folder.predictions()) == 30_000
    assert (folder.path / "predictions.parquet").stat().st_size < 1_000_000


def test_run_paths_sort_by_time_and_are_safe(tmp_path):
    first, second = (new_run_path(tmp_path, "scarlet_c"), new_run_path(tmp_path, "onnx:/tmp/my net;rm -rf.onnx"))
    assert first.parent == tmp_path / "runs"
    assert first.name.split("-")[1] == "scarlet_c"
    assert second.name.split("-", 1)[1].startswith("my_net_rm_-rf.onnx-")
    assert new_run_path(tmp_path, "../..").name.split("-")[1] == "model"
    assert new_run_path(tmp_path, "a") != new_run_path(tmp_path, "a")


def test_latest_is_a_relative_link_that_moves_on(tmp_path):
    for name in ("one", "two"):
        run = tmp_path / "results" / "runs" / name
        run.mkdir(parents=True)
        set_latest(tmp_path / "results", run)
        assert os.readlink(tmp_path / "results" / "latest") == f"runs/{name}"
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["latest", "runs"]


def test_latest_never_removes_what_is_no_link(tmp_path):
    (tmp_path / "latest").mkdir()
    with pytest.raises(BenchError, match="not a link"):
        set_latest(tmp_path, tmp_path)


def test_plain_unpacks_what_json_does_not_know():
    given = {"s": Status.OK, "set": {2, 1}, "n": np.int64(3), "a": np.array([1.0, np.inf]), 5: (Path("p"), True)}
    assert plain({**given, "case": FIRST})["case"]["model"] == "scarlet_c"
    assert plain(given) == {"s": "ok", "set": [1, 2], "n": 3, "a": [1.0, None], "5": ["p", True]}


def test_an_atomic_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "a.txt"
    write_text(target, "old \udcff")

    def write_half():
        with atomic_file(target) as stream:
            stream.write(b"half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_half()
    assert target.read_text() == "old \\udcff"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_other_system_errors_keep_their_traceback(tmp_path):
    with pytest.raises(OSError, match="odd"), disk_errors(tmp_path):
        raise OSError(errno.EPIPE, "odd")


def test_import_is_light():
    """The command line imports these at start: no table library may come along."""
    code = "import sys, bench.record.run_folder, bench.host, bench.report; print(*sys.modules)"
    home = ROOT
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=home)
    assert not {"pandas", "pyarrow", "scipy", "torch", "numpy", "onnxruntime"} & set(loaded.stdout.split())


def test_what_is_kept_is_read_once_and_only_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    monkeypatch.setattr(raw_tables, "_read", lambda *words: reads.append(words) or len(reads))
    with raw_tables.kept_reads():
        assert raw_tables.read(tmp_path, "samples", {"a": None}) == 1
        with raw_tables.kept_reads():
            assert raw_tables.read(tmp_path, "samples", {"a": None}) == 1
        assert raw_tables.read(tmp_path, "samples", {"a": None, "b": None}) == 2, "another question"
        assert raw_tables.read(tmp_path, "predictions", {"a": None}) == 3
    assert raw_tables.read(tmp_path, "samples", {"a": None}) == 4
