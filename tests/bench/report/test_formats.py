"""The formats: csv, parquet, markdown and the terminal's tables."""

import csv
import io
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_run import add_predictions, add_samples, case, end, make_run
from rich.console import Console

from bench.analysis.columns import REGISTRY
from bench.analysis.stats import paired
from bench.analysis.table import DEMO_NOTE, load_frame, load_info
from bench.record.case import Status
from bench.record.run_folder import RunFolder
from bench.report import sentences
from bench.report import tables as fmt
from bench.report import text as numbers
from bench.report.data import safe_cell
from bench.report.forms import FORMATS, write_all
from bench.report.markdown import escaped
from bench.report.terminal import print_tables
from scarlet.errors import BenchError

HOSTILE = "=cmd|'/C calc'!A0 `x` | <img src=x onerror=alert(1)>\n# [link](javascript:1) \x1b[31m__all__"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two accuracy, two latency, one throughput Case that are ok, and one that failed in an ugly way."""
    scored = [case(scenario="accuracy", backend=backend, weights="demo") for backend in ("pytorch", "onnxruntime")]
    timed = [case(backend=backend, weights="demo") for backend in ("pytorch", "onnxruntime")]
    through = case(scenario="throughput", weights="demo")
    failed = case(backend="openvino", weights="demo", batch=8)
    path = tmp_path_factory.mktemp("formats") / "run"
    folder = make_run(path, [*scored, *timed, through, failed], {"dataset": {"is_demo": True, "n_images": 4}})
    predictions = {f"i{place}": (place % 3, [place % 2, 7, 8, 9, 10]) for place in range(500)}
    for one in scored:
        add_predictions(folder, one, predictions)
        bad = tuple({"image_id": f"bad/{place:02d}_<b>.jpg", "reason": "torn | half"} for place in range(25))
        end(folder, one, bad_images=bad, metrics={"peak_rss_bytes": 300 * 2**20})
    source = np.random.default_rng(0)
    for one, middle in zip(timed, (20e6, 10e6), strict=True):
        add_samples(folder, one, source.normal(middle, middle / 20, 150).astype(int).tolist())
        end(folder, one, stage="compute")
    add_samples(folder, through, [4_000_000] * 10, stage="end_to_end")
    end(folder, through, stage="end_to_end")
    end(folder, failed, Status.FAILED, reason=HOSTILE)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    """The same, to be changed."""
    return RunFolder(Path(shutil.copytree(whole.path, tmp_path / "run")))


@pytest.fixture(scope="module")
def reports(whole):
    return write_all(whole.path)


def shown(folder, width=80):
    stream = io.StringIO()
    print_tables(load_frame(folder.path), folder.read_run_info(), Console(file=stream, width=width))
    return stream.getvalue()


def test_write_all_writes_every_format_and_twice_the_same_bytes(folder):
    paths = write_all(folder.path)
    assert set(paths) == set(FORMATS)
    names = {"table.csv", "table.parquet", "table.json", "table.tex", "report.md", "report.html"}
    assert {path.name for path in paths.values()} == names
    before = {path: path.read_bytes() for path in paths.values()}
    folder.merge_parts()
    assert {path: path.read_bytes() for path in write_all(folder.path).values()} == before


def test_reports_that_cannot_be_written_are_the_users_to_mend(folder):
    (folder.path / "report.md").mkdir()
    with pytest.raises(BenchError, match=r"report\.md"):
        write_all(folder.path)


def test_a_run_with_nothing_in_it_still_reports(tmp_path):
    folder = make_run(tmp_path / "run", [], {"host": {}, "dataset": {}, "packages": {}, "git": None, "command": []})
    text = write_all(folder.path)["markdown"].read_text()
    assert "No Case was planned." in text
    assert "- Host: unknown" in text
    assert "No Case was planned." in shown(folder)


def test_no_folder_of_the_users_is_published(folder):
    info = folder.read_run_info()
    command = ["/opt/x/bin/scarlet-bench", "run", "--data", "/home/me/secret/images", "--model=onnx:/home/me/net.onnx"]
    dataset = {**info["dataset"], "root": "/home/me/secret/images"}
    advice = {"text": "slow", "advice": "echo 1 > /sys/devices/system/cpu/x; see https://a.org/b/c and images/s"}
    folder.add_run_info(
        command=command, dataset=dataset, warnings=[advice], settings={"data": "/home/me/secret/images"}
    )
    for path in write_all(folder.path).values():
        text = path.read_bytes().decode(errors="replace")
        assert "/home/me" not in text, path
        if path.suffix == ".md":
            assert "--data .../images --model=onnx:.../net.onnx" in text
            assert "/sys/devices/system/cpu/x; see https://a.org/b/c and images/s" in text


@pytest.mark.parametrize(
    ("verdicts", "words"),
    [
        (("", "faster", "faster"), "does not settle which is the fastest: b cpu fp32, c cpu fp32"),
        (("", "faster", "unresolved"), "lowest median latency at batch 1: b cpu fp32, 9.0"),
        (("", "same", "unresolved"), "does not settle which is the fastest: b cpu fp32, a cpu fp32;"),
    ],
)
def test_the_summary_names_no_winner_that_no_verdict_names(folder, verdicts, words):
    frame = load_frame(folder.path)
    frame = frame[frame["scenario"].eq("latency") & frame["status"].eq("ok")].iloc[[0, 0, 0]].copy()
    frame["case_id"], frame["backend"], frame["verdict"] = list("abc"), list("abc"), list(verdicts)
    frame["baseline_case_id"], frame["latency_ns_p50"] = "a", [10e6, 9e6, 9.1e6]
    close = verdicts[2] == "faster"
    frame["ratio_low"], frame["ratio_high"] = (
        [None, 0.88, 0.89 if close else 0.97],
        [None, 0.92, 0.93 if close else 1.02],
    )
    frame["n_rounds"], frame["n_disturbed_rounds"] = 20, [0, 3, 0]
    assert words in sentences.summary(frame)
    assert "; the host disturbed 15 % of the rounds." in sentences.summary(frame)


def test_csv_has_every_case_and_column(reports):
    with reports["csv"].open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert list(table[0]) == list(REGISTRY)
    assert [row["scenario"] for row in table] == ["accuracy"] * 2 + ["latency"] * 2 + ["throughput", "latency"]
    assert float(table[2]["latency_ns_p50"]) == pytest.approx(20e6, rel=0.02)
    assert table[2]["latency_ns_p99"] == ""
    assert json.loads(table[2]["left_empty"]).keys() == {"latency_ns_p99"}
    assert all(row["note"].endswith(DEMO_NOTE) for row in table)
    assert [row["verdict"] for row in table] == ["", "", "", "faster", "", ""]
    assert table[3]["baseline_case_id"] == table[2]["case_id"]
    assert table[0]["note"] == DEMO_NOTE
    assert table[0]["latency_ns_p50"] == ""


def test_csv_runs_no_formula(reports):
    with reports["csv"].open(newline="") as stream:
        reason = list(csv.DictReader(stream))[-1]["reason"]
    assert reason.startswith("'=cmd|")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_formula_starts_are_quoted(start):
    assert safe_cell(f"{start}1+1") == f"'{start}1+1"
    assert safe_cell(f"a{start}1") == f"a{start}1"
    assert safe_cell("") == ""


def test_csv_quotes_text_only(tmp_path):
    odd = case(model="-m", options=(("a", "1"),))
    folder = make_run(tmp_path / "run", [odd])
    add_samples(folder, odd, [5] * 30, n_warmup=0)
    end(folder, odd, metrics={"n_warmup": -1})
    frame = pd.read_csv(write_all(folder.path)["csv"])
    assert frame["model"].tolist() == ["'-m"]
    assert frame["n_samples"].tolist() == [30]


def test_parquet_keeps_types_and_values(reports, whole):
    table = pd.read_parquet(reports["parquet"])
    pd.testing.assert_frame_equal(table, load_frame(whole.path), check_dtype=False)
    assert str(table["latency_ns_p50"].dtype) == "Float64"
    assert table["reason"].iloc[-1].startswith("=cmd")


def test_markdown_has_all_sections(reports):
    text = reports["markdown"].read_text()
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == [
        "# scarlet-bench: scarlet_c",
        *(
            "## Accuracy",
            "## Latency",
            "## Throughput",
            "## Not ok",
            "## Flips",
            "## Unreadable images",
            "## How this was made",
        ),
    ]
    assert f"> **{DEMO_NOTE}**" in text
    assert "6 Cases of scarlet_c (demo weights): 5 ok, 1 failed; lowest median latency at batch 1: onnxruntime" in text
    assert "- Host: Test CPU, 2 of 4 logical cores, torch 2.9.0, revision 0123456789ab with changes" in text
    assert "scarlet-bench run --model scarlet_c" in text
    assert "/opt/venv" not in text
    assert "scarlet-bench report ." in text
    assert "25 files could not be decoded" in text
    assert "- and 5 more" in text
    assert text.count("torn") == 20


def test_markdown_tables_are_whole_and_nothing_hostile_lives(reports):
    text = reports["markdown"].read_text()
    assert "<img" not in text
    assert "\x1b" not in text
    lines = text.splitlines()
    for place, line in enumerate(lines):
        if line.startswith("| ---"):
            columns = line.count("|")
            for row in [lines[place - 1], *lines[place + 1 :]]:
                if not row.startswith("|"):
                    break
                assert row.replace("\\|", "").count("|") == columns, row
    (failed,) = [line for line in lines if "cmd" in line]
    assert r"\`x\` \| &lt;img src=x onerror=alert(1)&gt; # \[link\](javascript:1)" in failed
    assert r"\_\_all\_\_" in failed


def test_escaping_leaves_ordinary_names_alone():
    assert escaped("scarlet_c, 12.5 ms (p50)") == "scarlet_c, 12.5 ms (p50)"
    assert escaped("a*b*c ~~x~~ $y$ \\") == r"a\*b\*c \~\~x\~\~ \$y\$ \\"


def test_markdown_lists_warnings_and_fences_the_command(folder):
    warning = {"kind": "load", "text": "3.0 on 2 cores", "advice": "Stop other work."}
    command = ["scarlet-bench", "run", "--model", "```x"]
    folder.write_run_info({**folder.read_run_info(), "warnings": [warning], "command": command})
    text = write_all(folder.path)["markdown"].read_text()
    assert "## What may have disturbed the measurement\n\n- 3.0 on 2 cores. Stop other work." in text
    assert "\n````sh\nscarlet-bench run --model '```x'\n````\n" in text


def test_columns_that_do_not_apply_are_left_out(folder):
    tables = {table.title: table for table in fmt.tables(load_frame(folder.path), {})}
    assert list(tables) == ["Accuracy", "Latency", "Throughput", "Not ok"]
    assert "p50 ms" not in tables["Accuracy"].header
    assert "Top-1 %" not in tables["Latency"].header
    assert "p99 ms" not in tables["Latency"].header  # too few samples in every row
    assert not {"Threads", "Instances", "Options", "Pipeline"} & set(tables["Latency"].header)
    assert tables["Latency"].notes[2] == "all rows: p99 needs 299 effective samples, had 150 of 150"
    assert "vs PyTorch" in tables["Latency"].header
    assert "vs baseline" not in tables["Throughput"].header  # a Case alone
    assert len(tables["Accuracy"].rows) == len(tables["Latency"].rows) == 2
    brief = {table.title: table for table in fmt.tables(load_frame(folder.path), brief=True)}
    assert set(tables["Latency"].header) - set(brief["Latency"].header) == {
        *("95 % interval", "p90 ms", "Samples", "Outliers")
    }
    assert not any("p99" in note for note in brief["Latency"].notes), "that column is not there either"


def test_settings_that_vary_are_shown(tmp_path):
    timed = [case(threads=threads, options=(("form", "plain"),)) for threads in (1, 2)]
    folder = make_run(tmp_path / "run", timed)
    for one in timed:
        add_samples(folder, one, [1_000_000] * 30)
        end(folder, one)
    (table,) = fmt.tables(load_frame(folder.path))
    assert [row[table.header.index("Threads")] for row in table.rows] == ["1", "2"]
    assert table.rows[0][table.header.index("Options")] == "form=plain"


@pytest.mark.parametrize(
    ("value", "half_width", "text"),
    [
        (12.3456, 0.08, "12.35"),
        (12.3456, 0.8, "12.3"),
        (12.3456, 3.0, "12"),
        (123.456, 23.0, "120"),
        (12.3456, 0.0, "12.35"),
        (12.3456, 1e-9, "12.35"),
        (0.0123456, 0.0001, "0.0123"),
        (12.3456, None, "12.3"),
        (1234.56, None, "1230"),
        (0.0, None, "0"),
        (0.4, 30.0, "0"),
        (None, None, ""),
        (math.nan, 1.0, ""),
        (math.inf, None, ""),
    ],
)
def test_only_true_digits_are_shown(value, half_width, text):
    assert numbers.number(value, half_width) == text


@pytest.mark.parametrize(
    ("value", "n", "text"),
    [
        (75.602, 50_000, "75.602"),
        (75.6, 1000, "75.6"),
        (100 * 511 / 512, 512, "99.8"),
        (100.0, 512, "100.0"),
        (100 / 3, 3, "33"),
        (0.0, 1, "0"),
        (None, 10, ""),
        (5.0, None, ""),
        (5.0, 0, ""),
    ],
)
def test_percentages_have_no_digit_finer_than_an_image(value, n, text):
    assert numbers.percent(value, n) == text


@pytest.mark.parametrize("n", [7, 99, 101, 900, 1000, 4999, 50_000])
def test_one_wrong_image_is_never_rounded_away(n):
    assert not numbers.percent(100 * (n - 1) / n, n).startswith("100")


def test_digits_follow_the_rows_interval(folder):
    (latency,) = [table for table in fmt.tables(load_frame(folder.path)) if table.title == "Latency"]
    cells = dict(zip(latency.header, latency.rows[0], strict=True))
    assert cells["p50 ms"] in ("19.9", "20.0", "20.1")
    low, high = cells["95 % interval"].split(" to ")
    assert float(low) <= float(cells["p50 ms"]) <= float(high)


def ratio_run(path, factors, n_rounds=40, info=None, backends=("pytorch", "onnxruntime", "openvino"), **fields):
    """Cases that take these times as long as the first, in rounds that scatter by 1 %."""
    timed = [case(backend=name, **fields) for name in backends[: len(factors)]]
    folder = make_run(path, timed, info)
    for number, (one, factor) in enumerate(zip(timed, factors, strict=True)):
        noise = np.random.default_rng(number).normal(1.0, 0.01, n_rounds)
        add_samples(folder, one, (20e6 * factor * noise).astype(int).tolist())
        end(folder, one, stage="compute")
    return folder


def versus(folder, header="vs PyTorch", brief=False):
    """The cells of that column, and the notes of the table."""
    (table,) = fmt.tables(load_frame(folder.path), folder.read_run_info(), brief=brief)
    return [row[table.header.index(header)] for row in table.rows], table.notes


@pytest.mark.parametrize(
    ("factor", "text"),
    [
        (0.25, r"(3\.9|4\.0)\dx faster \(3\.9\d to 4\.0\d\)"),
        (0.9, r"1\.1\dx faster \(1\.\d\d to 1\.1\d\)"),
        (3.0, r"[23]\.\d\dx slower \([23]\.\d\d to 3\.\d\d\)"),
        (1.0, "same"),
        (1.06, r"unresolved \(1\.0\d+ to 1\.0\d+\)"),
    ],
)
def test_a_verdict_is_shown_with_the_digits_of_its_interval(tmp_path, factor, text):
    (baseline, other), _ = versus(ratio_run(tmp_path / "run", (1.0, factor)))
    assert baseline == "baseline"
    assert re.fullmatch(text, other), other
    digits = {len(each.split(".")[1]) for each in re.findall(r"\d+\.\d+", other)}
    assert len(digits) <= 1, "all three with as many digits"


def test_too_few_rounds_are_unresolved_and_say_so(tmp_path):
    cells, notes = versus(ratio_run(tmp_path / "run", (1.0, 5.0), n_rounds=5))
    assert cells == ["baseline", "unresolved (5 rounds)"]
    assert notes[1] == "unresolved: this run does not settle it; the interval is of the time over that of PyTorch"


def test_the_baseline_is_named(tmp_path):
    two = ratio_run(tmp_path / "one", (1.0, 2.0), backends=("onnxruntime", "openvino"))
    assert versus(two, "vs ONNX Runtime")[0][0] == "baseline"
    frame = load_frame(two.path)
    odd = ratio_run(tmp_path / "two", (1.0, 2.0), backends=("odd", "openvino"), batch=2)
    both = pd.concat([frame, load_frame(odd.path)])
    (table,) = fmt.tables(both, {})
    assert "vs baseline" in table.header
    assert table.notes[0].startswith("vs baseline: ")


def test_the_lines_below_say_how_to_read_it_and_what_the_machine_resolves(tmp_path):
    _, notes = versus(ratio_run(tmp_path / "one", (1.0, 2.0)))
    assert notes[0] == (
        "vs PyTorch: within one life of the processes, median ratio of times over rounds, 95 % sign-test interval; "
        "up to 6 % counts as the same"
    )
    assert notes[1] == "no A/A run of this machine is known: scarlet-bench noise tells what difference it can resolve"
    info = {"noise": {"resolution": 0.0521}, "resolves": {"latency": {"difference": 0.08}}}
    known = ratio_run(tmp_path / "two", (1.0, 2.0, 3.0), info=info)
    _, notes = versus(known)
    assert "interval, 2 comparisons together; up to 10.4 % counts as the same" in notes[0]
    assert notes[1] == "this machine resolves differences of 5.2 % or more (A/A run)"
    assert notes[2] == "a run of this budget tells differences of 8 % or more in four of five cases"


def test_the_end_that_left_it_unresolved_is_not_rounded_back():
    row = {"case_id": "a", "baseline_case_id": "b", "verdict": "unresolved", "n_rounds": 30}
    cells = [
        str(fmt._versus({**row, "ratio": 1.0, "ratio_low": low, "ratio_high": low + 0.021})) for low in (0.9692, 1.01)
    ]
    assert cells == ["unresolved (0.969 to 0.990)", "unresolved (1.010 to 1.031)"]
    cell = str(fmt._versus({**row, "ratio": 1.0, "ratio_low": 0.97, "ratio_high": 1.09}))
    assert cell == "unresolved (0.97 to 1.09)"
    cell = fmt._versus({**row, "verdict": "faster", "ratio": 1 / 4.1, "ratio_low": 1 / 4.3, "ratio_high": 1 / 3.9})
    assert str(cell) == "4.1x faster (3.9 to 4.3)"


def test_disturbed_rounds_are_told(tmp_path, monkeypatch):
    rounds = pd.DataFrame({"scenario": "latency", "round": [3, 7], "disturbed": [True, True]})
    monkeypatch.setattr(RunFolder, "rounds", lambda folder: rounds)
    _, notes = versus(ratio_run(tmp_path / "run", (1.0, 2.0)))
    assert notes[1] == "the host disturbed 2 of 40 rounds; they are kept"


def test_a_throughput_has_its_interval_and_ratio(tmp_path):
    folder = ratio_run(tmp_path / "run", (1.0, 0.5), scenario="throughput")
    (table,) = fmt.tables(load_frame(folder.path), {})
    cells = dict(zip(table.header, table.rows[1], strict=True))
    low, high = (float(end) for end in cells["95 % interval"].split(" to "))
    assert low <= float(cells["Images/s"]) <= high
    assert high - low < 2.0
    assert re.match(r"(1\.99|2\.0)\d*x faster", cells["vs PyTorch"])


def test_markdown_and_terminal_show_verdicts(tmp_path):
    folder = ratio_run(tmp_path / "run", (1.0, 0.5, 1.0))
    text = write_all(folder.path)["markdown"].read_text()
    assert "| vs PyTorch |" in text
    assert re.search(r"\| (1\.9|2\.0)\d*x faster \(1\.\d+ to 2\.\d+\) \|", text)
    assert "| same |" in text
    assert "- no A/A run of this machine is known" in text
    table = shown(folder)
    assert re.search(r"(1\.9|2\.0)\d*x faster \(1\.\d+ to 2\.\d+\)", table)
    assert max(len(line.rstrip()) for line in table.splitlines()) <= 80


def test_accuracy_says_what_the_images_can_resolve(folder):
    (table,) = [table for table in fmt.tables(load_frame(folder.path)) if table.title == "Accuracy"]
    # 1 % of 500 images are five: all of them on one side would be missed as often as not. Eight are seen.
    assert paired.min_detectable_difference(500, 0.01) is None
    assert table.notes == (
        "500 images resolve top-1 differences of 1.6 points or more where two rows differ on 1.6 % of them "
        "(paired, 80 % power)",
    )


def test_few_images_and_much_disagreement(tmp_path):
    rows = [
        {"top1_percent": 50.0, "n_images": 1000, "agreement_percent": None},
        {"top1_percent": 50.0, "n_images": 900, "agreement_percent": 80.0},
        {"top1_percent": None, "n_images": 10, "agreement_percent": 10.0},
    ]
    points = f"{100 * paired.min_detectable_difference(900, 0.2):.2g}"
    (line,) = sentences.accuracy_lines(rows)
    assert f"900 images resolve top-1 differences of {points} points or more where two rows differ on 20 %" in line
    (line,) = sentences.accuracy_lines([{**rows[0], "n_images": 5}])
    assert line == "5 images are too few to tell two top-1 accuracies apart"
    assert sentences.accuracy_lines(rows[2:]) == ()


def test_dataset_and_host_lines():
    assert sentences.dataset_line({}) == "unknown"
    line = sentences.dataset_line(
        {"dataset": {"n_images": 5000, "layout": "val.txt", "root": "/d", "fingerprint": "ab" * 32}}
    )
    assert line == "5,000 images, val.txt, fingerprint abababababab"
    gpu = {"gpus": [{"name": "G"}], "driver": "580"}
    line = sentences.host_line({"host": {"cpu_model": "C", "memory_total_bytes": 8 * 2**30, "nvidia": gpu}})
    assert line == "C, 8 GiB of memory, G, driver 580"


def test_one_line_holds_no_control_characters():
    assert sentences.one_line("a\x1b[31m\u2028b\t\x00c\n") == "a [31m b c"


def test_terminal_shows_every_case_and_the_reason_within_eighty_columns(folder):
    text = shown(folder)
    for title in ("Accuracy", "Latency", "Throughput", "Not ok"):
        assert f"{title}\n" in text
    assert DEMO_NOTE in text
    assert "\x1b" not in text
    assert "onerror=alert(1)" in "".join(text.split())  # the whole reason, folded
    assert "failed" in text
    assert "5 ok, 1 failed" in text
    latency = text[text.index("Latency\n") : text.index("Throughput\n")]
    assert "Images/s" in latency
    assert max(len(line.rstrip()) for line in latency.splitlines()) <= 80


def test_terminal_cuts_nothing_where_it_is_narrow(folder):
    text = shown(folder, width=30)
    header = next(line for line in text.splitlines() if "p50 ms" in line)
    assert "Images/s" in header


def test_markup_in_names_is_shown_as_it_is(tmp_path):
    odd = case(model="onnx:[bold]x[/].onnx")
    folder = make_run(tmp_path / "run", [odd])
    end(folder, odd, Status.FAILED, reason="[red]bad[/red] [/]")
    text = shown(folder, width=200)
    assert "[red]bad[/red] [/]" in text
    assert "[bold]x[/]" in text


def test_load_info_is_what_formats_get(folder):
    assert len(load_info(folder.path)["bad_images"]) == 25
