"""`scarlet-bench compare`, and the flips in report.md."""

import io
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from report_run import case, end, make_run
from rich.console import Console

from bench.analysis.accuracy.flips import compare
from bench.analysis.accuracy.pairing import compare_named
from bench.analysis.accuracy.predictions import RANDOM_NOTE, ScoredRun
from bench.analysis.table import DEMO_NOTE
from bench.report import flips, terminal
from bench.report.forms import write_all
from bench.studies import compare as compared

N = 500
BACKENDS = (("pytorch", "fp32"), ("onnxruntime", "fp32"), ("onnxruntime", "int8"))


REFERENCE, ORT, INT8 = (
    case(scenario="accuracy", batch=32, backend=name, precision=precision) for name, precision in BACKENDS
)


def make(path, changed=0, weights="official", seed=0, missing=0, fewer_labels=0, **info):
    """Three Cases; the third calls ``changed`` images otherwise, and has lost its last ``missing`` ones."""
    source = np.random.default_rng(seed)
    scored = [replace(one, weights=weights) for one in (REFERENCE, ORT, INT8)]
    folder = make_run(path, scored, {"dataset": {"is_demo": weights == "demo", "n_images": N}, **info})
    label = source.integers(0, 1000, N)
    top = source.integers(0, 1000, (N, 5))
    top[:, 0] = np.where(source.random(N) < 0.9, label, 1000)
    margin = source.uniform(0.2, 0.9, N)
    margin[:changed] = source.uniform(0.001, 0.019, changed)
    for one in scored:
        own, kept = top.copy(), N
        if one.precision == "int8":
            own[:changed, 0] += 1
            kept = N - missing
            label = label + fewer_labels
        folder.write_predictions_part(
            one.case_id,
            image_id=[f"n0000/val_[{place:05}].JPEG" for place in range(kept)],
            label=label[:kept],
            top=own[:kept],
            margin=margin[:kept].astype(np.float32),
        )
        end(folder, one)
    return folder


@pytest.fixture
def command(scarlet_bench, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return partial(scarlet_bench, "compare")


def test_a_run_is_shown_against_its_reference(command, tmp_path):
    make(tmp_path / "run", changed=41)
    code, out, err = command("run", "--flips", "3")
    assert (code, err) == (0, "")
    assert f"Run run against its reference {REFERENCE.label}" in out
    table = [line.split() for line in out.splitlines() if line.startswith("onnxruntime cpu")]
    ledger = compare(*[ScoredRun.open(tmp_path / "run").predicted[each] for each in ids(tmp_path / "run")[::2]])
    wins, losses = ledger.top1.wins, ledger.top1.losses
    assert table[0][:6] == ["onnxruntime", "cpu", "fp32", "500", "0", "0"]
    assert table[1][:7] == ["onnxruntime", "cpu", "int8", "500", "41", str(wins), str(losses)]
    assert losses > 30
    assert "Same top-5 %" in out
    assert "onnxruntime cpu int8: 3 of 41 flips, the largest margin of the base first (class, margin)" in out
    assert out.count(".JPEG") == 3
    assert "n0000/val_[000" in out, "brackets in names are no markup"
    assert "onnxruntime cpu int8: all 41 flips have a margin under 0.02" in out
    assert "resolved: top-1 differences of 1.6 to " in out
    tables = [line.rstrip() for line in out[: out.index("win: ")].splitlines()]
    assert max(map(len, tables)) <= 80


def ids(run):
    return list(ScoredRun.open(run).predicted)


def test_no_flip_is_listed_when_none_is_wanted(command, tmp_path):
    make(tmp_path / "run", changed=41)
    code, out, _ = command("run", "--flips", "0")
    assert code == 0
    assert ".JPEG" not in out
    assert command("run", "--flips", "-1")[0] == 2


def test_two_runs_and_what_only_one_has(command, tmp_path):
    make(tmp_path / "one", missing=7)
    second = make(tmp_path / "two", changed=2)
    extra = case(scenario="accuracy", backend="openvino", batch=32)
    second.write_predictions_part(
        extra.case_id, image_id=["a"], label=np.array([1]), top=np.array([[1]]), margin=np.array([0.5])
    )
    end(second, extra)
    end(second, case(), stage="compute")
    code, out, _ = command("one", "two")
    assert code == 0
    assert "Run two against run one" in out
    assert "onnxruntime cpu int8: 7 images are only in the other side: n0000/val_[00493].JPEG" in " ".join(out.split())
    assert "val_[00497].JPEG, ..." in " ".join(out.split())
    assert f"not compared: {extra.label} ({extra.case_id}) of two: in one it is not there" in " ".join(out.split())
    assert "latencies are compared only inside one run" in " ".join(out.split())


def test_random_weights_show_agreement_alone(command, tmp_path):
    make(tmp_path / "run", changed=5, weights="random")
    code, out, _ = command("run")
    assert code == 0
    assert "Wins" not in out
    assert "Top-1 points" not in out
    assert "Same top-1 %" in out
    assert out.count(RANDOM_NOTE) == 1
    assert "Kind" not in out


def test_a_narrow_terminal_cuts_nothing(tmp_path):
    folder = make(tmp_path / "run", changed=3)
    stream = io.StringIO()
    shown = compared.document(compare_named(str(folder.path), None, tmp_path), 2)
    terminal.show(shown, Console(file=stream, width=30))
    header = next(line for line in stream.getvalue().splitlines() if line.startswith("Case"))
    assert header.rstrip().endswith("Top-1 points")


def test_json_holds_the_ledgers_and_demo_is_marked(command, tmp_path):
    folder = make(tmp_path / "run", changed=41, weights="demo")
    folder.merge_parts()
    code, out, _ = command("run", "--json", "--flips", "2")
    assert code == 0
    made = json.loads(out)
    first, second = made["ledgers"]
    assert (first["n_flips"], second["n_flips"], len(second["flips"])) == (0, 41, 2)
    assert second["other"]["label"] == replace(INT8, weights="demo").label
    assert second["top1"]["p_value"] < 1e-6
    assert second["agreement_percent"] == pytest.approx(100 * (N - 41) / N)
    assert (made["left_out"], made["is_demo"]) == ([], True)
    assert DEMO_NOTE in command("run")[1]


def test_the_newest_run_is_the_default(command, tmp_path):
    make(tmp_path / "run", changed=3)
    (tmp_path / "results").mkdir()
    (tmp_path / "results/latest").symlink_to("../run")
    assert "Run run against its reference" in command()[1]
    assert "3 of 3 flips" in command(ids(tmp_path / "run")[2])[1]


@pytest.mark.parametrize("words", [["nothing"], ["run:zz"], ["run", "run"], ["run", "elsewhere/run"]])
def test_a_mistake_is_two_lines_and_exit_code_2(command, tmp_path, words):
    make(tmp_path / "run")
    code, out, err = command(*words)
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("       ")
    assert len(lines) == 2


def section(folder):
    text = write_all(folder.path)["markdown"].read_text()
    return text[text.index("\n## Flips\n") : text.index("\n## How this was made")] if "## Flips" in text else ""


def test_the_report_lists_five_flips_of_each_case(tmp_path):
    text = section(make(tmp_path / "run", changed=41, missing=2))
    assert "Images whose top-1 class differs from that of pytorch cpu fp32, the base." in text
    header, rule, quiet, loud = [line for line in text.splitlines() if line.startswith("|")][:4]
    assert header == ("| Case | Images | Flips | Wins | Losses | p | Top-1 points | Resolves | Top-5 points |")
    assert header.count("|") == rule.count("|") == quiet.count("|") == loud.count("|")
    assert quiet.startswith("| onnxruntime cpu fp32 | 500 | 0 | 0 | 0 | 1 | 0.0 (-0.7 to +0.7) |")
    assert loud.startswith("| onnxruntime cpu int8 | 498 | 41 |")
    assert "| &lt;0.0001 |" in loud
    assert "- onnxruntime cpu int8: all 41 flips have a margin under 0.02" in text
    assert r"- onnxruntime cpu int8: 2 images are only in the base: n0000/val\_\[00498\].JPEG" in text.replace(
        "val_", r"val\_"
    )
    assert "### onnxruntime cpu int8: 5 of 41 flips" in text
    assert text.count("| loss |") + text.count("| win |") + text.count("| both wrong |") == 5
    assert text.count("###") == 1


def test_nothing_flipped_is_one_line_that_tells_of_a_dropped_batch(tmp_path):
    assert section(make(tmp_path / "run")).split("\n## Flips\n\n")[1] == (
        "On all 500 images onnxruntime cpu fp32, onnxruntime cpu int8 and pytorch cpu fp32 have the same top-1 class.\n"
    )
    text = section(make(tmp_path / "dropped", missing=4))
    assert "On all 496 images" in text
    assert "onnxruntime cpu int8: 4 images are only in the base: n0000/val_" in text.replace("\\", "")


def test_a_run_with_one_accuracy_case_has_no_such_section(tmp_path):
    folder = make_run(tmp_path / "run", [case()])
    end(folder, case())
    assert section(folder) == ""


def test_what_cannot_be_paired_is_told_and_the_report_is_written(tmp_path):
    text = section(make(tmp_path / "run", changed=3, fewer_labels=1))
    assert "On all 500 images onnxruntime cpu fp32 and pytorch cpu fp32" in text
    assert f"- {INT8.label} is not compared: 500 of 500 images have another label" in text


def test_random_weights_have_flips_and_no_figures_of_accuracy(tmp_path):
    text = section(make(tmp_path / "run", changed=3, weights="random"))
    assert "| Case | Images | Flips |\n" in text
    assert f"- {RANDOM_NOTE}" in text
    assert "Kind" not in text


@pytest.mark.parametrize(
    ("value", "n", "text"),
    [
        (-0.2, 500, "-0.2"),
        (0.2, 500, "+0.2"),
        (-0.0123, 500, "0.0"),
        (0.0, 50_000, "0.000"),
        (0.0021, 50_000, "+0.002"),
        (-12.4, 80, "-12"),
    ],
)
def test_points_have_a_sign_and_no_digit_finer_than_an_image(value, n, text):
    assert flips.points(value, n) == text


def test_p_values_have_two_digits():
    assert [flips.p_text(p) for p in (1.0, 0.03125, 0.000101, 0.00009, 0.0)] == [
        "1",
        "0.031",
        "0.0001",
        "<0.0001",
        "<0.0001",
    ]


def test_names_tell_what_varies():
    one = case(scenario="accuracy", options=(("form", "plain"),))
    assert flips.short_names([one]) == ["pytorch cpu fp32 form=plain"]
    threads = case(scenario="accuracy", threads=4)
    assert flips.short_names([case(scenario="accuracy"), threads]) == [
        "pytorch cpu fp32 1 thread",
        "pytorch cpu fp32 4 threads",
    ]
    copies = case(scenario="accuracy", instances=2)
    assert flips.short_names([one, copies, case(scenario="accuracy")])[1:] == [
        f"pytorch cpu fp32 ({copies.case_id})",
        f"pytorch cpu fp32 ({case(scenario='accuracy').case_id})",
    ]


def test_few_images_resolve_nothing_and_that_is_said(tmp_path):
    folder = make_run(tmp_path / "run", scored := [case(scenario="accuracy", batch=batch) for batch in (1, 2)])
    for place, one in enumerate(scored):
        folder.write_predictions_part(
            one.case_id,
            image_id=["a", "b"],
            label=np.array([1, 2]),
            top=np.array([[1], [2 + place]]),
            margin=np.array([0.5, 0.5]),
        )
        end(folder, one)
    text = section(folder)
    assert f"- {flips.TOO_FEW}" in text
    assert "Resolves" not in text
