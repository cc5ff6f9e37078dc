"""bench.analysis.table: every figure derived from raw files, every planned Case a row."""

import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from report_run import add_predictions, add_samples, case, end, make_run

from bench.analysis.accuracy.predictions import FOREIGN_NOTE, RANDOM_NOTE
from bench.analysis.columns import REGISTRY
from bench.analysis.stats import intervals, lives
from bench.analysis.table import DEMO_NOTE, load_frame, load_info
from bench.record.case import Status
from bench.record.run_folder import NEVER_RAN, RunFolder

REQUIRED = """
    case_id status reason model weights backend device precision pipeline batch threads instances scenario stage
    n_samples latency_ns_p50 latency_ns_p50_low latency_ns_p50_high latency_ns_p90 latency_ns_p99
    throughput_images_per_s n_images n_bad_images top1_percent top5_percent agreement_percent peak_rss_bytes
"""

# label, top-5: top-1 right on a and b, top-5 right on c too, wrong on d
GOOD = {"a": (1, [1, 2, 3, 4, 5]), "b": (2, [2, 1, 3, 4, 5]), "c": (3, [9, 8, 7, 6, 3]), "d": (4, [9, 8, 7, 6, 5])}
# differs from GOOD in the top-1 of d, and in the order of c's tail
OTHER = {**GOOD, "c": (3, [9, 8, 7, 3, 6]), "d": (4, [4, 8, 7, 6, 5])}

ACCURACY = case(scenario="accuracy", batch=32)
ORT = case(scenario="accuracy", batch=32, backend="onnxruntime")


def rows(folder):
    frame = load_frame(folder.path)
    return {row["case_id"]: row for row in frame.to_dict("records")}


def timed_row(tmp_path, latency_ns, timed=None, stage="compute", metrics=None, **samples):
    """The row of one timed Case with these samples."""
    timed = timed or case()
    folder = make_run(tmp_path / "run", [timed])
    add_samples(folder, timed, latency_ns, stage=stage, **samples)
    end(folder, timed, stage=stage, metrics=metrics or {})
    return rows(folder)[timed.case_id]


def scored(tmp_path, first=ACCURACY, second=ORT, info=None):
    folder = make_run(tmp_path / "run", [first, second], info)
    add_predictions(folder, first, GOOD)
    add_predictions(folder, second, OTHER)
    end(folder, first)
    end(folder, second)
    return rows(folder), first, second


def test_columns_come_in_the_promised_order(tmp_path):
    frame = load_frame(make_run(tmp_path / "run", [ACCURACY]).path)
    required = REQUIRED.split()
    assert list(frame.columns)[: len(required)] == required
    assert list(frame.columns) == list(REGISTRY)
    assert {name: str(type_) for name, type_ in frame.dtypes.items()} == {
        name: column.dtype for name, column in REGISTRY.items()
    }


def test_a_run_without_a_plan_is_an_empty_table(tmp_path):
    frame = load_frame(make_run(tmp_path / "run", []).path)
    assert len(frame) == 0
    assert list(frame.columns) == list(REGISTRY)


def test_latency_is_derived_from_samples_after_warm_up(tmp_path):
    timed = case(batch=8, threads=2, options=(("form", "plain"),))
    latency_ns = np.random.default_rng(0).lognormal(16, 0.2, 400).astype(np.int64)
    metrics = {"peak_rss_bytes": 123, "stop_reason": "precision", "n_warmup": 40}
    row = timed_row(tmp_path, [10**9] * 40 + latency_ns.tolist(), timed, metrics=metrics, n_warmup=40)
    assert (row["n_samples"], row["n_warmup"], row["stop_reason"], row["peak_rss_bytes"]) == (400, 40, "precision", 123)
    assert row["latency_ns_p50"] == np.median(latency_ns)
    assert row["latency_ns_p90"] == np.quantile(latency_ns, 0.9)
    assert row["latency_ns_p99"] == np.quantile(latency_ns, 0.99)
    assert (row["latency_ns_p50_low"], row["latency_ns_p50_high"]) == intervals.sign_test_interval(latency_ns)
    assert row["throughput_images_per_s"] == pytest.approx(400 * 8 / (latency_ns.sum() / 1e9))
    assert row["n_outliers"] == intervals.modified_z_outliers(latency_ns)
    assert row["options"] == '{"form": "plain"}'
    assert row["note"] == ""
    assert pd.isna(row["top1_percent"])
    assert pd.isna(row["n_images"])
    assert pd.isna(row["ratio"])
    assert (row["baseline_case_id"], row["verdict"]) == ("", "")
    assert (row["n_rounds"], row["n_disturbed_rounds"]) == (400, 0)
    assert pd.isna(row["throughput_images_per_s_low"])


def test_quantiles_without_enough_samples_are_empty_and_say_why(tmp_path):
    row = timed_row(tmp_path, [1000] * 20)
    assert row["latency_ns_p50"] == 1000
    assert pd.isna(row["latency_ns_p90"])
    assert pd.isna(row["latency_ns_p99"])
    assert json.loads(row["left_empty"]) == {
        "latency_ns_p90": "needs 29 effective samples, had 20 of 20",
        "latency_ns_p99": "needs 299 effective samples, had 20 of 20",
    }


def test_calls_of_a_round_that_are_alike_are_not_as_many_samples(tmp_path):
    source = np.random.default_rng(1)
    state = np.repeat(source.normal(0, 0.08, 60), 15)
    latency_ns = (1e7 * np.exp(state + source.normal(0, 0.04, 900))).astype(np.int64)
    row = timed_row(tmp_path, latency_ns.tolist(), per_round=15)
    assert row["latency_ns_p90"] == np.quantile(latency_ns, 0.9)
    assert pd.isna(row["latency_ns_p99"])
    assert re.fullmatch(
        r"needs 299 effective samples, had \d\d of 900", json.loads(row["left_empty"])["latency_ns_p99"]
    )
    medians = np.median(latency_ns.reshape(60, 15), axis=1)
    assert row["latency_ns_p50"] == np.median(medians)
    assert (row["latency_ns_p50_low"], row["latency_ns_p50_high"]) == intervals.sign_test_interval(medians)


LIVES = [{"first_round": 10 * life, "start_index": life % 2} for life in range(6)]
OTHER_LIVES = [{"first_round": 10 * life, "start_index": 1 - life % 2} for life in range(6)]


def test_over_lives_the_row_has_students_interval_and_says_what_differs(tmp_path):
    timed = case(), case(backend="onnxruntime")
    folder = make_run(tmp_path / "run", timed)
    source = np.random.default_rng(2)
    drift, first = source.lognormal(0, 0.1, 60), 1.02  # what is started first is slower by 2 %
    made = {}
    for one, factor, known in zip(timed, (1.0, 1.1), (LIVES, OTHER_LIVES), strict=True):
        late = np.repeat([1.0 if life["start_index"] else first for life in known], 10)
        made[one] = np.repeat(1e7 * factor * drift * late * source.lognormal(0, 0.01, 60), 5).astype(np.int64)
        add_samples(folder, one, made[one].tolist(), per_round=5)
        end(folder, one, stage="compute", metrics={"lives": known})
    row = rows(folder)[timed[1].case_id]
    medians = [math.log(np.median(part)) for part in made[timed[1]].reshape(6, 50)]
    expected = lives.over_lives(medians)
    assert [row[f"latency_ns_p50{end}"] for end in ("", "_low", "_high")] == pytest.approx(expected[:3])
    assert (row["verdict"], row["n_lives"]) == ("slower", 6)
    assert row["ratio"] == pytest.approx(1.1, rel=0.01)
    assert row["start_effect_percent"] == pytest.approx(2.0, abs=0.5)
    assert 0 < row["spread_percent"] < 1
    assert "between 6 lives" in row["note"]


def test_a_throughput_over_lives_is_their_mean(tmp_path):
    timed = case(scenario="throughput", batch=4)
    per_pass_ns = np.repeat([2_000_000, 2_100_000, 1_900_000, 2_000_000, 2_050_000, 1_950_000], 3)
    known = [{"first_round": 3 * life, "start_index": 0} for life in range(6)]
    row = timed_row(tmp_path, per_pass_ns.tolist(), timed, "end_to_end", {"lives": known})
    expected = lives.over_lives(np.log(4e9 / per_pass_ns[::3]))
    found = [row[f"throughput_images_per_s{end}"] for end in ("", "_low", "_high")]
    assert found == pytest.approx(expected[:3])


def test_a_handful_of_samples_has_no_interval(tmp_path):
    row = timed_row(tmp_path, [1000] * 4)
    assert row["latency_ns_p50"] == 1000
    assert pd.isna(row["latency_ns_p50_low"])
    assert row["throughput_images_per_s"] == pytest.approx(1e6)


def test_throughput_has_images_and_no_quantiles(tmp_path):
    timed = case(scenario="throughput", batch=4)
    row = timed_row(tmp_path, [7, *([2_000_000] * 50)], timed, "end_to_end", {"n_bad_images": 2}, n_warmup=1)
    assert row["throughput_images_per_s"] == pytest.approx(2000)
    assert (row["n_images"], row["n_bad_images"], row["stage"]) == (200, 2, "end_to_end")
    assert row["throughput_images_per_s_low"] < 2000 < row["throughput_images_per_s_high"]
    assert pd.isna(row["latency_ns_p50"])
    assert row["note"] == ""


def test_throughput_of_one_life_has_an_interval_over_blocks_of_passes(tmp_path):
    few, enough = (case(scenario="throughput", batch=batch) for batch in (1, 4))
    folder = make_run(tmp_path / "run", [few, enough])
    time_ns = np.random.default_rng(0).lognormal(14, 0.1, 30).astype(np.int64)
    for timed, part in ((few, time_ns[:9]), (enough, time_ns)):
        add_samples(folder, timed, part.tolist(), stage="end_to_end")
        end(folder, timed, stage="end_to_end")
    found = rows(folder)
    row = found[enough.case_id]
    expected = lives.throughput_interval(np.full(30, 4), time_ns)
    found_ends = [row[f"throughput_images_per_s_{end}"] / 1e9 for end in ("low", "high")]
    assert found_ends == pytest.approx(expected)
    assert 1e9 * expected.low < row["throughput_images_per_s"] < 1e9 * expected.high
    assert pd.isna(found[few.case_id]["throughput_images_per_s_low"])
    said = json.loads(found[few.case_id]["left_empty"])
    assert said == {"throughput_images_per_s_low": "needs 10 passes, had 9"}


def compared(tmp_path, ratio, info=None):
    """A PyTorch Case and an ONNX Runtime Case that takes ``ratio`` times as long, in 12 drifting rounds of 5."""
    timed = case(), case(backend="onnxruntime")
    folder = make_run(tmp_path / "run", timed, info)
    drift = np.repeat(np.linspace(1e6, 1.3e6, 12), 5)
    for one, factor in zip(timed, (1.0, ratio), strict=True):
        latency_ns = (drift * factor).astype(np.int64).tolist()
        add_samples(folder, one, [10**9, *latency_ns], n_warmup=1, per_round=5)
        end(folder, one, stage="compute")
    return rows(folder), timed


@pytest.mark.parametrize(
    ("ratio", "noise", "expected"),
    [
        (0.5, None, "faster"),
        (1.08, None, "slower"),
        (1.01, None, "same"),
        # Within one life of the processes twice the materiality is asked for.
        (1.05, None, "same"),
        (1.08, {"resolution": 0.05}, "same"),
        (1.08, {"resolution": 0.01}, "slower"),
    ],
)
def test_a_case_is_compared_with_pytorch_round_by_round(tmp_path, ratio, noise, expected):
    found, (baseline, other) = compared(tmp_path, ratio, {"noise": noise})
    row = found[other.case_id]
    assert row["ratio"] == pytest.approx(ratio, rel=1e-5)
    assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    assert (row["verdict"], row["n_rounds"], row["n_disturbed_rounds"]) == (expected, 12, 0)
    assert row["baseline_case_id"] == found[baseline.case_id]["baseline_case_id"] == baseline.case_id
    assert pd.isna(found[baseline.case_id]["ratio"])
    assert found[baseline.case_id]["verdict"] == ""


def test_disturbed_rounds_are_counted(tmp_path, monkeypatch):
    rounds = pd.DataFrame({"scenario": "latency", "round": [0, 1, 2], "disturbed": [True, False, True]})
    monkeypatch.setattr(RunFolder, "rounds", lambda folder: rounds)
    found, (baseline, other) = compared(tmp_path, 1.0)
    assert [found[each.case_id]["n_disturbed_rounds"] for each in (baseline, other)] == [2, 2]


def test_rows_of_two_stages_are_not_compared_and_say_so(tmp_path):
    timed = case(), case(backend="onnxruntime")
    folder = make_run(tmp_path / "run", timed)
    for one, stage in zip(timed, ("compute", "end_to_end"), strict=True):
        add_samples(folder, one, [1000] * 300, stage=stage)
        end(folder, one, stage=stage)
    row = rows(folder)[timed[1].case_id]
    assert pd.isna(row["ratio"])
    assert row["verdict"] == ""
    assert row["note"] == "not compared: it timed end_to_end and pytorch timed compute"


def test_only_samples_of_the_rows_stage_count(tmp_path):
    timed = case()
    folder = make_run(tmp_path / "run", [timed])
    add_samples(folder, timed, [1000] * 30, stage="compute")
    end(folder, timed, stage="h2d")
    row = rows(folder)[timed.case_id]
    assert row["n_samples"] == 0
    assert row["note"] == "no sample after warm-up"


def test_times_of_zero_give_no_throughput(tmp_path):
    assert pd.isna(timed_row(tmp_path, [0] * 30)["throughput_images_per_s"])


def test_accuracy_and_agreement_by_hand(tmp_path):
    found, first, second = scored(tmp_path)
    reference, other = found[first.case_id], found[second.case_id]
    assert (reference["n_images"], reference["top1_percent"], reference["top5_percent"]) == (4, 50.0, 75.0)
    assert (other["top1_percent"], other["top5_percent"]) == (75.0, 100.0)
    assert other["agreement_percent"] == 75.0
    assert other["top5_ordered_agreement_percent"] == 50.0
    assert other["reference_case_id"] == reference["reference_case_id"] == first.case_id
    assert pd.isna(reference["agreement_percent"])
    assert pd.isna(reference["top5_ordered_agreement_percent"])
    assert reference["note"] == other["note"] == ""


def test_the_reference_is_pytorch_on_the_cpu_wherever_it_stands(tmp_path):
    found, first, _ = scored(tmp_path, ORT, ACCURACY)
    assert found[first.case_id]["reference_case_id"] == ACCURACY.case_id
    assert found[first.case_id]["agreement_percent"] == 75.0


def test_without_pytorch_the_first_ok_case_is_the_reference(tmp_path):
    folder = make_run(tmp_path / "run", [ACCURACY, ORT, case(scenario="accuracy", backend="fake")])
    end(folder, ACCURACY, Status.UNAVAILABLE, reason="torch is missing")
    for scored_case in (ORT, case(scenario="accuracy", backend="fake")):
        add_predictions(folder, scored_case, GOOD)
        end(folder, scored_case)
    found = rows(folder)
    assert found[case(scenario="accuracy", backend="fake").case_id]["reference_case_id"] == ORT.case_id
    assert found[case(scenario="accuracy", backend="fake").case_id]["agreement_percent"] == 100.0
    assert found[ACCURACY.case_id]["reference_case_id"] == ""


def test_agreement_is_over_common_images_in_any_order(tmp_path):
    folder = make_run(tmp_path / "run", [ACCURACY, ORT])
    add_predictions(folder, ACCURACY, GOOD)
    add_predictions(folder, ORT, {"z": (1, [0, 1, 2, 3, 4]), "d": OTHER["d"], "a": GOOD["a"]})
    end(folder, ACCURACY)
    end(folder, ORT)
    for _ in range(2):
        row = rows(folder)[ORT.case_id]
        assert (row["n_images"], row["agreement_percent"]) == (3, 50.0)
        folder.merge_parts()


def test_no_common_image_says_so(tmp_path):
    folder = make_run(tmp_path / "run", [ACCURACY, ORT])
    add_predictions(folder, ACCURACY, GOOD)
    add_predictions(folder, ORT, {"z": (1, [1, 2, 3, 4, 5])})
    end(folder, ACCURACY)
    end(folder, ORT)
    row = rows(folder)[ORT.case_id]
    assert pd.isna(row["agreement_percent"])
    assert "no image in common" in row["note"]


def test_random_weights_show_agreement_and_no_accuracy(tmp_path):
    found, _, second = scored(
        tmp_path,
        case(scenario="accuracy", weights="random"),
        case(scenario="accuracy", weights="random", backend="onnxruntime"),
    )
    row = found[second.case_id]
    assert pd.isna(row["top1_percent"])
    assert pd.isna(row["top5_percent"])
    assert row["agreement_percent"] == 75.0
    assert row["note"] == RANDOM_NOTE


@pytest.mark.parametrize(
    ("weights", "is_demo", "note"),
    [
        ("demo", False, f"{FOREIGN_NOTE}; {DEMO_NOTE}"),
        ("demo", True, DEMO_NOTE),
        ("user", True, DEMO_NOTE),
        ("random", True, f"{RANDOM_NOTE}; {DEMO_NOTE}"),
        ("user", False, ""),
    ],
)
def test_demo_is_marked(tmp_path, weights, is_demo, note):
    marked = case(scenario="accuracy", weights=weights)
    found, first, _ = scored(tmp_path, marked, ORT, {"dataset": {"is_demo": is_demo}})
    assert found[first.case_id]["note"] == note


@pytest.mark.parametrize("is_demo", [True, False])
def test_demo_weights_have_an_accuracy_on_demo_images_only(tmp_path, is_demo):
    marked = [case(scenario="accuracy", weights="demo", backend=name) for name in ("pytorch", "onnxruntime")]
    found, _, second = scored(tmp_path, *marked, {"dataset": {"is_demo": is_demo}})
    row = found[second.case_id]
    assert pd.isna(row["top1_percent"]) is pd.isna(row["top5_percent"]) is not is_demo
    assert row["agreement_percent"] == 75.0, "that two backends agree is as true on other images"


@pytest.mark.parametrize(("weights", "is_demo"), [("demo", False), ("user", True)])
def test_every_row_of_a_demo_run_says_so(tmp_path, weights, is_demo):
    planned = [case(weights=weights), case(scenario="throughput", weights=weights), case(batch=9)]
    folder = make_run(tmp_path / "run", planned, {"dataset": {"is_demo": is_demo}})
    add_samples(folder, planned[0], [1000] * 300)
    end(folder, planned[0])
    end(folder, planned[1], Status.FAILED, reason="broken")
    assert load_frame(folder.path)["note"].tolist() == [DEMO_NOTE] * 3


def test_one_image_all_wrong(tmp_path):
    folder = make_run(tmp_path / "run", [ACCURACY])
    add_predictions(folder, ACCURACY, {"a": (7, [1, 2, 3, 4, 5])})
    end(folder, ACCURACY)
    row = rows(folder)[ACCURACY.case_id]
    assert (row["n_images"], row["top1_percent"], row["top5_percent"]) == (1, 0.0, 0.0)


def test_every_planned_case_is_a_row_in_order(tmp_path):
    planned = [case(batch=batch) for batch in (1, 2, 3, 4)]
    extra = case(batch=99)
    folder = make_run(tmp_path / "run", planned)
    end(folder, extra)
    end(folder, planned[2], Status.OOM, reason="memory ran out;\n use a smaller --batches")
    end(folder, planned[1], Status.INTERRUPTED, reason="stopped by the user")
    frame = load_frame(folder.path)
    assert frame["batch"].tolist() == [1, 2, 3, 4, 99]
    assert frame["status"].tolist() == ["interrupted", "interrupted", "oom", "interrupted", "ok"]
    assert frame["reason"].tolist() == [
        *(NEVER_RAN, "stopped by the user", "memory ran out; use a smaller --batches", NEVER_RAN, "")
    ]


def test_a_case_that_is_not_ok_has_no_figures(tmp_path):
    timed = case()
    folder = make_run(tmp_path / "run", [timed, ACCURACY, ORT])
    add_samples(folder, timed, [1000] * 500)
    add_predictions(folder, ACCURACY, GOOD)
    add_predictions(folder, ORT, OTHER)
    end(folder, ORT)
    end(folder, timed, Status.TIMEOUT, reason="too slow", stage="compute")
    end(folder, ACCURACY, Status.INVALID, reason="no proof", bad_images=({"image_id": "x", "reason": "torn"},))
    found = rows(folder)
    assert pd.isna(found[timed.case_id]["latency_ns_p50"])
    assert pd.isna(found[timed.case_id]["throughput_images_per_s"])
    assert pd.isna(found[ACCURACY.case_id]["top1_percent"])
    assert found[ACCURACY.case_id]["n_bad_images"] == 1
    assert found[ORT.case_id]["reference_case_id"] == ORT.case_id


def test_ok_cases_without_raw_data_say_so(tmp_path):
    timed = case()
    folder = make_run(tmp_path / "run", [timed, ACCURACY])
    end(folder, timed)
    end(folder, ACCURACY)
    found = rows(folder)
    assert found[timed.case_id]["note"] == "its samples are missing from the run's folder"
    assert found[ACCURACY.case_id]["note"] == "its predictions are missing from the run's folder"


def test_texts_that_are_no_utf8_survive(tmp_path):
    timed = case(model="onnx:\udcff.onnx")
    folder = make_run(tmp_path / "run", [timed])
    end(folder, timed, Status.FAILED, reason="cannot read \udcff")
    row = load_frame(folder.path).iloc[0]
    assert row["reason"] == "cannot read \\udcff"
    assert row["model"] == "onnx:\\udcff.onnx"


def test_bad_images_are_listed_once_and_sorted(tmp_path):
    folder = make_run(tmp_path / "run", [ACCURACY, ORT])
    bad = ({"image_id": "b", "reason": "torn"}, {"image_id": "a", "reason": "empty"})
    end(folder, ACCURACY, bad_images=bad)
    end(folder, ORT, bad_images=bad[:1])
    info = load_info(folder.path)
    assert info["bad_images"] == [bad[1], bad[0]]
    assert info["host"]["cpu_model"] == "Test CPU"


def test_many_cases_are_joined_by_image_not_by_place(tmp_path):
    """Against a plain loop, on random predictions with images missing here and there."""
    source = np.random.default_rng(1)
    scored_cases = [case(scenario="accuracy", batch=batch) for batch in range(1, 6)]
    folder = make_run(tmp_path / "run", scored_cases)
    given = {}
    for scored_case in scored_cases:
        names = source.permutation([f"image{place}" for place in range(60)])[: source.integers(20, 60)]
        given[scored_case] = {str(name): (int(name[5:]) % 4, source.permutation(6)[:5].tolist()) for name in names}
        add_predictions(folder, scored_case, given[scored_case])
        end(folder, scored_case)
    folder.merge_parts()
    found, reference = rows(folder), given[scored_cases[0]]
    for scored_case in scored_cases[1:]:
        own = given[scored_case]
        common = [name for name in own if name in reference]
        same = sum(own[name][1][0] == reference[name][1][0] for name in common)
        right = sum(label in top for label, top in own.values())
        row = found[scored_case.case_id]
        assert row["agreement_percent"] == pytest.approx(100 * same / len(common))
        assert row["top5_percent"] == pytest.approx(100 * right / len(own))
