"""Which rows are the best of their group: resolved against every other one."""

from pathlib import Path

from latex_run import paper_run, scored_run
from report_run import add_predictions, add_samples, case, end, make_run

from bench.analysis.accuracy.predictions import ScoredRun
from bench.analysis.best import fastest, groups_of_run, most_accurate
from bench.analysis.table import load_frame
from bench.record.run_folder import RunFolder


def test_a_difference_that_does_not_count_makes_no_best(tmp_path: Path) -> None:
    folder = paper_run(tmp_path / "run", {"pytorch": 1.0, "onnxruntime": 0.5, "openvino": 0.43}, rounds=200)
    ids = load_frame(folder.path)["case_id"].tolist()
    assert len(fastest(folder, ids, 0.03).case_ids) == 2
    assert fastest(folder, ids, 0.2).case_ids == frozenset()


def test_rows_that_did_not_take_turns_are_not_compared(tmp_path: Path) -> None:
    timed = [case(backend=name) for name in ("pytorch", "onnxruntime")]
    folder = make_run(tmp_path / "run", timed)
    for number, one in enumerate(timed):
        add_samples(folder, one, [20_000_000 // (1 + number)] * 40)
        hour = {"started_at": f"2026-01-01T0{number}:00:00+00:00", "ended_at": f"2026-01-01T0{number}:10:00+00:00"}
        end(folder, one, stage="compute", **hour)
    assert not fastest(folder, [one.case_id for one in timed], 0.03).case_ids


def test_all_pairs_count_as_comparisons(tmp_path: Path) -> None:
    """A difference that two rows alone resolve, and that is lost among the 45 pairs of ten."""
    two = {"a": 742, "b": 750}
    alone = scored_run(tmp_path / "one", two)
    many = scored_run(tmp_path / "two", {**two, **{f"x{number}": 742 for number in range(8)}})
    found = []
    for folder in (alone, many):
        scored = ScoredRun.open(folder.path)
        found.append(most_accurate(groups_of_run(scored, list(scored.predicted))))
    assert [best.n_pairs for best in found] == [1, 45]
    assert [len(best.case_ids) for best in found] == [1, 0]


def test_accuracies_of_two_runs_are_paired_by_image_name(tmp_path: Path) -> None:
    one = scored_run(tmp_path / "one", {"pytorch": 700})
    two = scored_run(tmp_path / "two", {"onnxruntime": 760})
    elsewhere = scored_run(tmp_path / "three", {"openvino": 780})
    other_images = {f"j{place}": (1, [1]) for place in range(100)}
    apart = case(scenario="accuracy", batch=32, backend="tensorrt")
    alone = make_run(tmp_path / "four", [apart])
    add_predictions(alone, apart, other_images)
    end(alone, apart)

    def best(*folders: RunFolder) -> list[str]:
        group = [predicted for run in folders for predicted in ScoredRun.open(run.path).predicted.values()]
        found = most_accurate([group])
        return [predicted.case.backend for predicted in group if predicted.case.case_id in found.case_ids]

    assert best(one, two) == ["onnxruntime"]
    assert best(one, two, elsewhere) == ["openvino"]
    assert best(one, alone) == [], "there is no image that both have"
