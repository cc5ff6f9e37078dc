"""table.tex: what stands in it, what is bold, what is escaped."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_fakes import Command
from folders import golden
from latex_run import HOSTILE, paper_run, scored_run
from report_run import add_predictions, add_samples, case, end, make_run

from bench.analysis.accuracy.predictions import ScoredRun
from bench.analysis.best import groups_of_run, most_accurate
from bench.analysis.table import load, load_frame
from bench.record.case import Status
from bench.record.run_folder import RunFolder
from bench.report.document import Cell, Head, Table
from bench.report.latex import table as latex
from bench.report.latex.escape import escaped, shortened
from bench.report.latex.layout import checked_label, mark_of, source
from bench.report.latex.table import SPECS, chosen
from scarlet.errors import BenchError


def made(folder: RunFolder, **options: str) -> str:
    path = folder.path / "table.tex"
    latex.write(load(folder.path), path, latex.Options(**options))
    return path.read_text(encoding="utf-8")


def body(text: str) -> list[list[str]]:
    """The cells of the rows between the rules, as they are written."""
    between = text.partition("\\midrule\n")[2].partition("\\bottomrule")[0]
    return [
        [cell.strip() for cell in line.removesuffix(r" \\").split(" & ")]
        for line in between.splitlines()
        if line.endswith(r"\\")
    ]


def header(text: str) -> list[str]:
    line = text.partition("\\toprule\n")[2].splitlines()[0]
    return [cell.strip().strip("{}") for cell in line.removesuffix(r" \\").split(" & ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return paper_run(tmp_path_factory.mktemp("paper") / "run")


@pytest.fixture(scope="module")
def text(folder: RunFolder) -> str:
    return made(folder)


def test_the_table_is_the_golden_one(text: str) -> None:
    assert text == golden("latex/table.tex", text)


def test_it_is_one_of_the_formats_and_the_same_twice(folder: RunFolder) -> None:
    from bench.report.forms import FORMATS

    assert FORMATS["latex"].write is latex.write
    assert made(folder) == made(folder)


def test_only_ascii_comes_out(text: str) -> None:
    assert text.isascii()
    assert "/secret/folder" not in text, "where a user keeps the images is nothing for a paper"


def test_digits_are_limited_by_the_interval(text: str) -> None:
    for row in body(text):
        if row[0] == "TensorRT":
            continue
        low, high = row[5].split("--")
        value = row[4].removeprefix(r"\bfseries ")
        places = {len(number.partition(".")[2]) for number in (low, high, value)}
        assert len(places) == 1, row
        assert float(low) <= float(value) <= float(high)
        assert places.pop() <= 2, "an interval of one per cent leaves no more"


def test_no_digit_of_an_accuracy_is_finer_than_an_image(tmp_path: Path) -> None:
    one = case(scenario="accuracy", batch=32)
    folder = make_run(tmp_path / "run", [one])
    add_predictions(folder, one, {f"i{place}": (1, [1 if place else 2]) for place in range(3)})
    end(folder, one)
    assert body(made(folder)) == [["PyTorch", "67"]]


def test_a_failure_is_a_row_with_its_status_and_its_reason_below(text: str) -> None:
    (row,) = [row for row in body(text) if row[0] == "TensorRT"]
    assert row[4] == r"{unavailable\textsuperscript{a}}"
    (note,) = [line for line in text.splitlines() if line.startswith(r"\item[a]")]
    assert note.startswith(r"\item[a] unavailable: a\_")


def test_a_machine_that_tells_nothing_of_its_clocks_is_said_to(tmp_path: Path) -> None:
    one = case()
    folder = make_run(tmp_path / "run", [one])
    add_samples(folder, one, [1_000_000] * 30)
    end(folder, one, stage="compute")
    assert "The machine does not tell its governor and clocks" in made(folder)


def test_gpu_rows_say_that_copies_are_in(tmp_path: Path) -> None:
    one = case(device="cuda")
    gpu = {"name": "GPU X", "sm_clock_max_mhz": 1980, "sm_clock_set_mhz": 1500}
    host = {"cpu_model": "C", "nvidia": {"gpus": [gpu], "driver": "580.1"}}
    folder = make_run(tmp_path / "run", [one], {"host": host})
    add_samples(folder, one, [1_000_000] * 30)
    end(folder, one, stage="compute")
    text = made(folder).replace(r"\allowbreak{}", "")
    assert "GPU X, driver 580.1" in text
    assert "GPU clock up to 1980 MHz, set to 1500 MHz" in text
    assert "copies to it and back are left out" in text
    assert "copies to a device and back included" not in text


def test_a_gpus_copies_have_columns_of_their_own(tmp_path: Path) -> None:
    one, other = case(device="cuda"), case(device="cuda", backend="onnxruntime")
    folder = make_run(tmp_path / "run", [one, other])
    stages = {"compute": 1_000_000, "h2d": 200_000, "d2h": 30_000, "end_to_end": 1_400_000}
    n = 30 * len(stages)
    folder.write_samples_part(
        one.case_id,
        round=np.tile(np.arange(30), len(stages)),
        stage=[stage for stage in stages for _ in range(30)],
        images=np.ones(n, dtype=np.int64),
        warmup=np.zeros(n, dtype=bool),
        latency_ns=np.repeat(list(stages.values()), 30),
    )
    add_samples(folder, other, [2_000_000] * 30, stage="end_to_end")
    end(folder, one, stage="compute")
    end(folder, other, stage="end_to_end")
    text = made(folder, columns="backend,latency,h2d,d2h,call")
    assert body(text) == [["PyTorch", "1.000", "0.2000", "0.03000", "1.400"], ["ONNX Runtime", "2.000", *["{--}"] * 3]]
    said = text.replace(r"\allowbreak{}", "")
    assert r"stage compute (the work of the GPU alone" in said
    assert r"stage end\_to\_end (the call as its caller sees it" in said


def test_what_is_not_resolved_is_not_bold(text: str) -> None:
    assert r"\bfseries" not in text, "ONNX Runtime and OpenVINO are the same, and so are the accuracies"
    assert "Nothing is bold" in text


def test_the_resolved_best_of_each_batch_is_bold(tmp_path: Path) -> None:
    folder = paper_run(tmp_path / "run", {"pytorch": 1.0, "onnxruntime": 0.8, "openvino": 0.5})
    bold = [(row[0], row[1]) for row in body(made(folder)) if row[4].startswith(r"\bfseries")]
    assert bold == [("OpenVINO", "1"), ("OpenVINO", "8")]
    assert "Bold: better than every other row" in made(folder).replace(r"\allowbreak{}", "")


def test_few_rounds_resolve_nothing(tmp_path: Path) -> None:
    folder = paper_run(tmp_path / "run", {"pytorch": 1.0, "onnxruntime": 0.1}, rounds=5)
    assert r"\bfseries" not in made(folder)


def test_an_accuracy_is_bold_where_the_paired_interval_says_so(tmp_path: Path) -> None:
    folder = scored_run(tmp_path / "one", {"pytorch": 700, "onnxruntime": 760, "openvino": 690})
    bold = [row[0] for row in body(made(folder)) if r"\bfseries" in row[1]]
    assert bold == ["ONNX Runtime"]
    close = scored_run(tmp_path / "two", {"pytorch": 758, "onnxruntime": 760})
    assert r"\bfseries" not in made(close)
    ids = load_frame(close.path)["case_id"].tolist()
    assert most_accurate(groups_of_run(ScoredRun.open(close.path), ids)).n_pairs == 1


def test_columns_are_chosen_by_a_short_spec(folder: RunFolder) -> None:
    text = made(folder, columns="backend, Precision,batch,top1,latency,ratio")
    assert header(text) == ["Backend", "Precision", "Batch", r"Top-1 (\%)", "Latency (ms)", "Time / PyTorch"]


def test_every_column_can_be_made(folder: RunFolder) -> None:
    text = made(folder, columns=",".join(SPECS))
    assert len(header(text)) == len(SPECS)
    assert {len(row) for row in body(text)} == {len(SPECS)}


def test_columns_of_one_scenario_leave_the_others_rows_out(folder: RunFolder) -> None:
    assert len(body(made(folder, columns="backend,top1"))) == 3
    assert len(body(made(folder, columns="backend,batch,latency"))) == 7
    assert len(body(made(folder, columns="backend,batch,status"))) == 7


@pytest.mark.parametrize(
    ("columns", "words"),
    [("latncy", ["unknown column 'latncy'", "latency"]), ("batch,batch", ["'batch' is named twice"])],
)
def test_a_wrong_column_is_a_users_mistake(columns: str, words: list[str]) -> None:
    with pytest.raises(BenchError) as raised:
        chosen(columns)
    for word in words:
        assert word in str(raised.value)


def test_unresolved_ratios_bear_a_mark(tmp_path: Path) -> None:
    folder = paper_run(tmp_path / "run", {"pytorch": 1.0, "onnxruntime": 0.944})
    ratios = [row[-1] for row in body(made(folder)) if row[0] == "ONNX Runtime"]
    assert all(re.fullmatch(r"0\.9\d+\{\\textsuperscript\{a\}\}", ratio) for ratio in ratios), ratios
    assert r"\item[a] unresolved" in made(folder)


def test_throughput_and_latency_of_one_setting_are_one_row(tmp_path: Path) -> None:
    both = [case(scenario=name, pipeline="turbo") for name in ("latency", "throughput")]
    other = case(scenario="throughput", pipeline="dali")
    folder = make_run(tmp_path / "run", [*both, other])
    for one in (*both, other):
        stage = "compute" if one.scenario == "latency" else "end_to_end"
        add_samples(folder, one, [2_000_000] * 30, stage=stage)
        end(folder, one, stage=stage)
    rows = body(made(folder))
    assert header(made(folder)) == ["Backend", "Pipeline", "Latency (ms)", r"95\,\% interval", "Images/s"]
    assert rows == [["PyTorch", "turbo", "2.000", "2.000--2.000", "500.0"], ["PyTorch", "dali", "{--}", "", "500.0"]]
    assert "Images/s: over n = 30 slices or passes a row; stage end" in made(folder)


def test_what_ran_elsewhere_keeps_its_figures_with_a_mark(tmp_path: Path) -> None:
    one = case(precision="int8", options=(("form", "plain"),))
    folder = make_run(tmp_path / "run", [one])
    add_samples(folder, one, [2_000_000] * 30)
    end(folder, one, Status.FALLBACK, reason="it ran in fp32", stage="compute")
    (row,) = body(made(folder))
    assert row[:3] == ["PyTorch", "form=plain", r"2.000{\textsuperscript{a}}"]


def test_a_path_is_named_by_its_file(tmp_path: Path) -> None:
    nets = [case(model=f"onnx:/home/me/secret/{name}.onnx", weights="user") for name in ("a", "b" * 60)]
    folder = make_run(tmp_path / "run", nets)
    for one in nets:
        add_samples(folder, one, [2_000_000] * 30)
        end(folder, one, stage="compute")
    text = made(folder)
    names = [row[0] for row in body(text)]
    assert names[0] == "a.onnx"
    assert len(names[1]) == 32
    assert "..." in names[1]
    assert "secret" not in "".join(line for line in text.splitlines() if not line.startswith("%"))


def test_a_run_with_nothing_in_it_is_still_a_table(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", [], {"host": {}, "dataset": {}, "packages": {}, "git": None, "command": []})
    text = made(folder)
    assert "no Case was planned" in text
    assert r"\label{tab:no-case}" in text


def test_a_run_in_which_all_failed_says_why(tmp_path: Path) -> None:
    both = [case(backend=name) for name in ("pytorch", "onnxruntime")]
    folder = make_run(tmp_path / "run", both)
    for one in both:
        end(folder, one, Status.UNAVAILABLE, reason="timm is not installed")
    text = made(folder)
    assert header(text) == ["Backend", "Latency (ms)"]
    assert [row[1] for row in body(text)] == [r"unavailable\textsuperscript{a}"] * 2
    assert text.count("timm is not installed") == 1


def test_nothing_hostile_survives() -> None:
    text = escaped(HOSTILE)
    assert text.isascii()
    assert "\n" not in text
    assert "\x1b" not in text
    assert r"\input" not in text
    # Without the commands that we wrote nothing of TeX's own is left.
    words = "textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar|char34|l"
    ours = rf"\\(?:{words})\{{\}}|\\'e|\\[{{}}$&#%_]"
    rest = re.sub(ours, "", text).replace("{}", "").replace("{[}", "").replace("{]}", "").replace("{*}", "")
    assert not set(rest) & set('\\{}$&#%_~^<>|"[]*'), rest


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("scarlet_c 12.5 %", r"scarlet\_c 12.5\,\%"),
        ("a--b", "a-{}-b"),
        ("``x''", "`{}`x'{}'"),
        ("Ångström café", r"\r{A}ngstr\"om caf\'e"),
        ("cafe\u0301", r"caf\'e"),
        ("5 × 3 µs – ½", r"5 \texttimes{} 3 \textmu{}s -- \textonehalf{}"),
        ("αΣ ű Đ", r"\ensuremath{\alpha}\ensuremath{\Sigma} \H{u} {[}U+0110{]}"),
        ("中", "{[}U+4E2D{]}"),
        ("＄ﬁ", r"\$fi"),
        ("\udc80", "{[}U+DC80{]}"),
        ("a\u2028b", "a b"),
        ("", ""),
    ],
)
def test_escaping(text: str, expected: str) -> None:
    assert escaped(text) == expected


def test_running_text_may_be_broken() -> None:
    assert escaped("a_long/path.c", breakable=True) == r"a\_\allowbreak{}long/\allowbreak{}path.\allowbreak{}c"
    assert escaped("a/b.c 1,000,000,000.5", breakable=True) == "a/b.c 1,000,000,000.5"
    assert escaped("x" * 30, breakable=True).count(r"\allowbreak{}") == 2
    assert r"\allowbreak" not in escaped("x" * 30)
    assert "\ue000" not in escaped("\ue000\ue001", breakable=True)


def test_what_is_long_keeps_both_ends() -> None:
    assert shortened("abcdefghij", 10) == "abcdefghij"
    assert shortened("abcdefghijk", 10) == "abcd...ijk"
    assert shortened("a\nb", 10) == "a b"


def test_captions_and_labels_are_the_users(folder: RunFolder) -> None:
    text = made(folder, caption="100 % of $5_000", label="tab:my_results")
    assert r"\caption{100\,\% of \$5\_000}" in text
    assert r"\label{tab:my_results}" in text
    assert "% Made again, in the run's folder, by: scarlet-bench report . --format latex --caption" in text


def test_short_notes_keep_what_rows_share_the_machine_and_what_is_bold(folder: RunFolder) -> None:
    full, short = made(folder), made(folder, notes="short")
    kept = [line for line in full.splitlines() if line in short.splitlines() and line.startswith(r"\item")]
    assert any("Measured on" in line for line in kept)
    assert short.count(r"\item") < full.count(r"\item")
    assert "--notes short" in short
    with pytest.raises(BenchError, match="--notes long"):
        made(folder, notes="long")


@pytest.mark.parametrize("label", ["", "a b", "tab:{x}", "x\\y", "a%b", "ä"])
def test_a_label_that_is_none_is_a_users_mistake(label: str) -> None:
    with pytest.raises(BenchError, match="label"):
        checked_label(label)


def test_a_newline_in_the_command_does_not_leave_the_comment(tmp_path: Path) -> None:
    one = case()
    folder = make_run(tmp_path / "run", [one], {"command": ["scarlet-bench", "run", "x\n\\input{y}"]})
    end(folder, one, Status.FAILED, reason="r")
    assert all(line.startswith("%") for line in made(folder).splitlines() if r"\input{y}" in line)


def test_marks_go_on_after_z() -> None:
    assert [mark_of(place) for place in (0, 25, 26, 27, 51, 52, 701, 702)] == [
        *("a", "z", "aa", "ab", "az", "ba", "zz", "aaa")
    ]


def tex(heads: list[Head], rows: list[list[Cell]], notes: tuple[str, ...] = (), **more: Any) -> str:
    return source(Table("", tuple(heads), tuple(map(tuple, rows)), notes), "c", "l", **more)


def test_numbers_are_aligned_and_texts_among_them_braced() -> None:
    cells = [Cell("12.5", "12 to 13", 12.5, "best"), Cell("1.25", value=1.25, note="n"), Cell("failed"), Cell()]
    text = tex(
        [Head("who"), Head("n", True)], [[Cell(letter), cell] for letter, cell in zip("abcd", cells, strict=True)]
    )
    assert r"\begin{tabular}{@{}l S[table-format=2.2{\textsuperscript{a}}] r@{}}" in text
    assert [row[1] for row in body(text)] == [r"\bfseries 12.5", r"1.25{\textsuperscript{a}}", "{failed}", "{--}"]
    assert [row[2] for row in body(text)] == ["12--13", "", "", ""]
    signed = tex([Head("n", True)], [[Cell("+1.5", value=1.5)], [Cell("1,000", value=1000)]])
    assert [row[0] for row in body(signed)] == ["{+1.5}", "1000"]


def test_a_note_has_one_mark_in_the_order_of_reading() -> None:
    rows = [[Cell("1", note="x"), Cell("2", note="y")], [Cell("3", note="x"), Cell("4")]]
    text = tex([Head("p"), Head("q")], rows, ("n",), watermarks=["w"])
    assert body(text) == [[r"1\textsuperscript{a}", r"2\textsuperscript{b}"], [r"3\textsuperscript{a}", "4"]]
    items = [line for line in text.splitlines() if line.startswith(r"\item")]
    assert items == [r"\item \textbf{w}", r"\item N.", r"\item[a] x", r"\item[b] y"]


def test_headings_over_several_columns() -> None:
    heads = [Head(f"h{index}", over=over) for index, over in enumerate(["", "S", "S", "T", ""])]
    text = tex(heads, [[Cell("x")] * 5])
    assert r"{} & \multicolumn{2}{c}{S} & {T} & {} \\" in text
    assert r"\cmidrule(lr){2-3}" in text
    assert r"{4-4}" not in text, "over one column a rule says nothing"


def test_wide_tables_take_both_columns_and_long_ones_say_so() -> None:
    def of(rows: int, columns: int) -> str:
        cells = [[Cell("some text", note="m")] + [Cell("some text")] * (columns - 1)] * rows
        return tex([Head("header", over="S")] * columns, cells, ("note",))

    assert r"\begin{table}" in of(3, 3)
    assert r"\begin{table*}" in of(3, 12)
    assert "% A page has no room for so many rows" in of(60, 3)
    assert "% A page" not in of(3, 3)


def test_the_command_makes_one_format(folder: RunFolder, scarlet_bench: Command) -> None:
    call = partial(scarlet_bench, "report", str(folder.path))
    made = call("--format", "latex", "--columns", "backend,latency", "--label", "tab:x", "--caption", "C")
    assert (made.code, made.out.strip()) == (0, str(folder.path / "table.tex"))
    text = (folder.path / "table.tex").read_text()
    assert header(text) == ["Backend", "Latency (ms)"]
    assert r"\label{tab:x}" in text
    assert call("--format", "csv").code == 0
    assert "case_id" in (folder.path / "table.csv").read_text()
    for words, said in ((("--columns", "backend"), "Add --format latex."), (("--format", "latx"), "latex")):
        refused = call(*words)
        assert refused.code == 2
        assert said in refused.err
    assert len(json.loads(call("--json").out)["cases"]) == 10
    assert header((folder.path / "table.tex").read_text())[0] == "Backend"
