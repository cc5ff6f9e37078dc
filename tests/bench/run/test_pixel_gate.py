"""The gate: a pipeline that makes other pixels than the reference has no valid accuracy rows."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from bench.record.case import Case, Status
from bench.record.run_folder import CaseResult, RunFolder
from bench.report.forms import write_all
from bench.run import pixel_gate, session
from bench.run.spec import RunSpec
from bench.worker.pixel_parity import Request
from pipelines.imagenet.find import Image, find_images
from pipelines.parity.digests import of_reference
from scarlet.errors import BenchError

OK = {"status": "ok", "reason": "", "report": {}, "flips": None}


def request_for(pipeline: str, image_folder: Path) -> Request:
    images = find_images(image_folder).images
    return Request(pipeline, str(image_folder), [(image.image_id, image.label) for image in images])


@pytest.mark.parametrize(
    ("pipeline", "status", "words"),
    [
        ("reference", "ok", ""),
        (
            "bgr",
            "invalid",
            "the pipeline bgr differs from the reference where it decodes: 8 of 8 images differ by more than 0",
        ),
        ("crashing", "crashed", "killed by SIGKILL"),
        ("absent", "unavailable", "it is not installed here"),
        ("unfit", "unsupported", "it has no bicubic filter"),
    ],
)
def test_a_worker_answers_for_a_pipeline_whatever_becomes_of_it(
    planted: None,
    tmp_path: Path,
    image_folder: Path,
    request: pytest.FixtureRequest,
    pipeline: str,
    status: str,
    words: str,
) -> None:
    if pipeline != "crashing":
        request.getfixturevalue("workers_here")
    found = pixel_gate.ask(request_for(pipeline, image_folder), tmp_path / "check.log", 60.0)
    assert found["status"] == status
    assert words in found["reason"]
    assert ("report" in found) == (status in ("ok", "invalid"))


def test_a_check_that_takes_too_long_is_given_up(tmp_path: Path, image_folder: Path) -> None:
    found = pixel_gate.ask(request_for("reference", image_folder), tmp_path / "check.log", 0.001)
    assert found == {"status": "timeout", "reason": "it took longer than 0.001 s"}


def test_a_name_that_is_not_known_is_a_mistake(tmp_path: Path, image_folder: Path) -> None:
    with pytest.raises(BenchError, match="unknown pipeline 'dally'"):
        pixel_gate.ask(request_for("dally", image_folder), tmp_path / "check.log", 60.0)


def test_the_references_digests_come_from_a_worker_which_nothing_hinders_to_die(tmp_path, image_folder, monkeypatch):
    folder, console = RunFolder.create(tmp_path / "run"), Console(file=io.StringIO())
    images = find_images(image_folder).images
    request = pixel_gate.sample(images, str(image_folder), {}, 0)
    found = pixel_gate.reference_digests(folder, images, request, console)
    assert found == of_reference(images, {})
    monkeypatch.setattr(pixel_gate, "GATE_TIMEOUT_SECONDS", 0.001)
    assert pixel_gate.reference_digests(folder, images, request, console) == {}
    assert "took longer than 0.001 s" in console.file.getvalue()  # type: ignore[attr-defined]


def accuracy(pipeline: str, backend: str = "fake", **more: object) -> Case:
    return Case("m", "demo", backend, pipeline=pipeline, scenario="accuracy", **more)  # type: ignore[arg-type]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What the gate asks, answered with ok."""
    requests: list[Request] = []

    def ask(request: Request, log: Path) -> dict[str, object]:
        requests.append(request)
        return dict(OK)

    monkeypatch.setattr(pixel_gate, "ask", ask)
    return requests


def run_gate(folder: RunFolder, cases: list[Case], n_images: int = 100, seed: int = 0) -> dict[str, object]:
    images = [Image(f"{k:03d}", Path(f"{k:03d}"), k % 10) for k in range(n_images)]
    console = Console(file=io.StringIO())
    return pixel_gate.gate(folder, cases, pixel_gate.sample(images, "/data", {"crop": 32}, seed), console)


def test_only_pipelines_of_accuracy_cases_are_checked_and_each_once(tmp_path: Path, asked: list[Request]) -> None:
    folder = RunFolder.create(tmp_path / "run")
    cases = [
        *(accuracy("reference"), accuracy("dali", threads=2), accuracy("dali", "pytorch")),
        Case("m", "demo", "fake", pipeline="other", scenario="latency"),
        Case("m", "demo", "fake", pipeline="another", scenario="throughput"),
    ]
    assert run_gate(folder, cases) == {"dali": OK}
    (request,) = asked
    assert (request.pipeline, request.data, request.preprocess, request.files) == ("dali", "/data", {"crop": 32}, None)
    labels = [label for _, label in request.images]
    assert len(labels) == len({image_id for image_id, _ in request.images}) == pixel_gate.GATE_IMAGES
    assert {labels.count(label) for label in range(10)} == {3, 4}, "evenly over the classes"
    run_gate(folder, cases, seed=1)
    assert asked[1].images != request.images
    run_gate(folder, cases[:1])
    assert len(asked) == 2


def test_a_resumed_run_asks_only_what_it_does_not_know(tmp_path: Path, asked: list[Request]) -> None:
    folder = RunFolder.create(tmp_path / "run")
    cases = [accuracy("one"), accuracy("two"), accuracy("three")]
    crashed = {"status": "crashed", "reason": "killed"}
    invalid = {"status": "invalid", "reason": "it crops otherwise"}
    folder.write_run_info({"preprocessing": {"one": invalid, "two": crashed}})
    folder.append_case(CaseResult(cases[2], Status.OK))
    assert run_gate(folder, cases) == {"one": invalid, "two": OK}
    assert [request.pipeline for request in asked] == ["two"]


def test_what_is_wrong_is_said_and_what_the_rows_say_themselves_is_not(tmp_path, monkeypatch):
    answers = {
        "good": OK,
        "bad": {"status": "invalid", "reason": "the pipeline bad crops otherwise"},
        "dead": {"status": "crashed", "reason": "the check's worker was killed by SIGKILL"},
        "missing": {"status": "unavailable", "reason": "not installed"},
    }
    monkeypatch.setattr(pixel_gate, "ask", lambda request, log: answers[request.pipeline])
    console = Console(file=io.StringIO(), width=200)
    cases = [accuracy(name) for name in answers]
    request = pixel_gate.sample([Image("0", Path("0"), 0)], "/data", {}, 0)
    found = pixel_gate.gate(RunFolder.create(tmp_path / "run"), cases, request, console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "the pipeline bad crops otherwise. Accuracy rows of bad will be invalid." in said
    assert "the pipeline dead could not be compared with the reference: the check's worker was killed" in said
    assert "not installed" not in said
    assert pixel_gate.objections(cases, found) == {cases[1].case_id: "the pipeline bad crops otherwise"}
    latency = Case("m", "demo", "fake", pipeline="bad")
    assert pixel_gate.objections([latency], found) == {}, "no pixel's value is in a latency"


def run_of(pipeline: str, image_folder: Path, graph: Path, out: Path) -> tuple[RunFolder, str]:
    """An accuracy run of the fake backend, and what it said."""
    console = Console(file=io.StringIO(), width=300)
    spec = RunSpec(
        model=f"onnx:{graph}",
        data=str(image_folder),
        pipeline=pipeline,
        backends="fake",
        threads="1",
        scenarios="accuracy",
    )
    session.run(spec, out, console)
    return RunFolder.open(out), console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.usefixtures("workers_here")
def test_accuracy_on_a_faulty_pipeline_is_invalid_and_its_predictions_are_kept(
    planted: None, tmp_path: Path, image_folder: Path, tiny_graph: Path
) -> None:
    folder, said = run_of("reference,twin,bgr,unfit", image_folder, tiny_graph, tmp_path / "run")
    results = {result.case.pipeline: result for result in folder.case_results()}
    assert {name: result.status.value for name, result in results.items()} == {
        "reference": "ok",
        "twin": "ok",
        "bgr": "invalid",
        "unfit": "unsupported",
    }
    reason = results["bgr"].reason
    assert reason.startswith("the pipeline bgr differs from the reference where it decodes: ")
    assert reason in said
    assert folder.predictions().groupby("case_id", observed=True).size().to_dict() == {
        results[name].case.case_id: 8 for name in ("reference", "twin", "bgr")
    }
    info = folder.read_run_info()
    assert info["settings"]["pipeline"] == "reference,twin,bgr,unfit"
    assert info["plan"]["pipelines"] == ["reference", "twin", "bgr", "unfit"]
    assert "comparing the pipeline twin with the reference, on 8 images" in said
    checked = info["preprocessing"]
    assert {name: found["status"] for name, found in checked.items()} == {
        "twin": "ok",
        "bgr": "invalid",
        "unfit": "unsupported",
    }
    assert checked["bgr"]["report"]["blame"] == "decode"
    text = write_all(folder.path)["markdown"].read_text()
    assert text.count("| Pipeline |") == 2, "in the tables of what is ok and of what is not"
    assert "twin: the same pixels as the reference on 8 images" in text
    assert f"{reason}: rows of this pipeline are invalid" in text
    assert "unfit: not compared with the reference: it has no bicubic filter" in text

    # A run that was begun before there was this check, and stopped before this Case.
    del info["preprocessing"]
    info["plan"]["pipeline"] = info["plan"].pop("pipelines")[0]
    folder.write_run_info(info)
    lines = (folder.path / "cases.jsonl").read_text().splitlines()
    (folder.path / "cases.jsonl").write_text("\n".join(line for line in lines if "invalid" not in line))
    ended = session.resume(folder.path, Console(file=io.StringIO()))
    assert [status.value for status in ended.statuses] == ["ok", "ok", "invalid", "unsupported"]
    checked = folder.read_run_info()["preprocessing"]
    assert {name: found["status"] for name, found in checked.items()} == {"bgr": "invalid"}, (
        "what had ended is not asked again"
    )
