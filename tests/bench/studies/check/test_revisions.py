"""This tree against another revision: the figures, the lives on a fake clock, and real worktrees with real workers."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_fakes import Clock, Command, HereWorker, Recorder, fake_case, run_on, tiny_files
from rich.console import Console

from bench.analysis.stats import intervals
from bench.backends.base import ModelFiles
from bench.backends.fake import Fake
from bench.record.case import Case, Status
from bench.record.run_folder import CaseResult, RunFolder
from bench.run.lives import start_order
from bench.run.runner import Limits, Runner, Workers
from bench.run.spec import RunSpec
from bench.studies.check import introduction, pairs, revisions
from bench.studies.check.pairs import THIS, Against
from bench.studies.check.revisions import Revision, RevisionWorker, Side, this_revision, worktree
from bench.studies.check.rules import Verdict, of_interval, overall
from bench.worker import channel
from bench.worker.messages import Context
from scarlet.errors import BenchError

OTHER = "0123456789ab"
BASE = fake_case(latency_ns="20000000")


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.5, 0.6, "pass"),
        (0.99, 1.03, "pass"),
        (0.99, 1.0301, "unresolved"),
        (1.03, 1.2, "unresolved"),
        (1.0301, 1.2, "fail"),
        (None, None, "unresolved"),
    ],
)
def test_the_whole_interval_decides(low: float | None, high: float | None, outcome: str) -> None:
    assert of_interval(low, high, 0.03).value == outcome


def test_one_failure_fails_and_one_doubt_leaves_the_whole_in_doubt() -> None:
    assert overall([]) is Verdict.UNRESOLVED
    assert overall([Verdict.PASS, Verdict.NEW]) is Verdict.PASS
    assert overall([Verdict.PASS, Verdict.UNRESOLVED]) is Verdict.UNRESOLVED
    assert overall(list(Verdict)) is Verdict.FAIL


SEEDS = 200
ROUNDS = 30
ROUND_NOISE = 0.02


def simulated(seed: int, ratio: float, of_process: float, first: float = 1.0, n_lives: int = 6) -> list[Any]:
    """Log ratios of the rounds of each life: fixed for a pair of processes, and noisy besides.

    Args:
        ratio: the true one.
        of_process: standard deviation of what a process is slower by for as long as it lives.
        first: what the process that was started first is slower by.
    """
    source = np.random.default_rng(seed)
    made = []
    for life in range(n_lives):
        fixed = source.normal(0, of_process) - source.normal(0, of_process)
        fixed += math.log(first) * (1 if start_order([OTHER, THIS], life)[0] == THIS else -1)
        made.append(math.log(ratio) + fixed + source.standard_t(3, ROUNDS) * ROUND_NOISE)
    return made


def by_lives(rounds: list[Any]) -> tuple[float, float]:
    """The interval that a verdict rests on."""
    numbers = np.arange(sum(map(len, rounds))).reshape(len(rounds), -1)
    orders = [start_order([OTHER, THIS], life) for life in range(len(rounds))]
    rows, times = [], {}
    for name, logs in ((THIS, np.concatenate(rounds)), (OTHER, np.zeros(numbers.size))):
        lives = [
            {"first_round": int(own[0]), "start_index": order.index(name)}
            for own, order in zip(numbers, orders, strict=True)
        ]
        case = BASE.having(pairs.REVISION, name)
        rows.append(CaseResult(case, Status.OK, stage="compute", metrics={"lives": lives}))
        times[case.case_id] = dict(enumerate((2e7 * np.exp(logs)).tolist()))
    found = pairs.over_their_lives(rows[0], rows[1], times, 0.03, 1)
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


def test_the_interval_over_lives_holds_what_it_promises_and_the_one_over_rounds_does_not() -> None:
    held, pooled, seeds = 0, 0, 5 * SEEDS
    for seed in range(seeds):
        rounds = simulated(seed, 1.0, of_process=0.015)
        low, high = by_lives(rounds)
        held += low <= 1.0 <= high
        interval = intervals.sign_test_interval(np.concatenate(rounds))
        assert interval is not None
        pooled += interval.low <= 0.0 <= interval.high
    assert held / seeds >= 0.935, "95 % but for three standard errors"
    assert pooled / seeds <= 0.60


@pytest.mark.parametrize("of_process", [0.0, 0.01, 0.02])
@pytest.mark.parametrize("first", [1.0, 1.02])
def test_an_equal_revision_never_fails_and_ten_per_cent_does(of_process: float, first: float) -> None:
    equal: Counter[Verdict] = Counter()
    slower: Counter[Verdict] = Counter()
    for seed in range(SEEDS):
        for found, ratio in ((equal, 1.0), (slower, 1.1)):
            found[of_interval(*by_lives(simulated(seed, ratio, of_process, first)), 0.03)] += 1
    assert equal[Verdict.FAIL] == 0
    assert slower[Verdict.PASS] == 0
    assert slower[Verdict.FAIL] >= (0.99 if of_process <= 0.01 else 0.93) * SEEDS
    if of_process <= 0.01 and first == 1.0:
        assert equal[Verdict.PASS] >= 0.90 * SEEDS


def test_what_favours_the_first_process_is_taken_out_because_the_order_is_swapped() -> None:
    plain, biased = (by_lives(simulated(3, 1.0, of_process=0.0, first=first)) for first in (1.0, 1.05))
    assert biased == pytest.approx(plain, abs=1e-12)


def test_equal_ratios_are_no_surer_than_the_clock() -> None:
    """Six lives of exactly 1.031, on a clock of steps: no interval of no width."""
    lives = [{"first_round": 6 * life, "start_index": 0} for life in range(6)]
    rows, times = [], {}
    for name, each in ((THIS, [1031, 1041]), (OTHER, [1000, 1010])):
        case = BASE.having(pairs.REVISION, name)
        rows.append(CaseResult(case, Status.OK, stage="compute", metrics={"lives": lives}))
        times[case.case_id] = dict(enumerate([float(each[0])] * 35 + [float(each[1])]))
    found = pairs.over_their_lives(rows[0], rows[1], times, 0.03, 1)
    assert found.outcome is Verdict.UNRESOLVED
    assert found.low is not None
    assert found.low < 1.03 < 1.031 < (found.high or 0.0)


class Slowed(Fake):
    """The fake backend, slower by a factor; it is told the Case as a revision's worker is, without labels."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def load(self, case: Case, files: ModelFiles) -> None:
        super().load(case.without(pairs.REVISION), files)
        self._told["latency_ns"] *= self.factor


class SlowedWorker(HereWorker):
    """A worker without a process of its own, slower by a factor for as long as it lives."""

    one_at_a_time = threading.Lock()  # workers start in threads side by side: each is to find what it patched

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def ask(self, request: channel.Message, timeout_seconds: float) -> channel.Message:
        with self.one_at_a_time, pytest.MonkeyPatch.context() as patch:
            patch.setattr("bench.worker.serve.make_backend", lambda name: Slowed(self.factor))
            return super().ask(request, timeout_seconds)


@pytest.fixture
def run_folder(tmp_path: Path, image_folder: Path, tiny_graph: Path) -> Callable[[str], tuple[RunFolder, Context]]:
    def make(name: str) -> tuple[RunFolder, Context]:
        folder = run_on(tmp_path / name, image_folder)
        return folder, Context(run=str(folder.path), data=str(image_folder), files=tiny_files(tiny_graph))

    return make


def measured(
    made: tuple[RunFolder, Context], base: Case, ratio: float, seed: int, of_process: float
) -> tuple[Against, RunFolder]:
    """One Case, whose processes all differ by something of their own; this tree's are slower by ``ratio`` besides."""
    folder, context = made
    source, clock = np.random.default_rng(seed), Clock()

    def make_worker(case: Case) -> Any:
        own = ratio if case.option(pairs.REVISION) == THIS else 1.0
        return clock.of(SlowedWorker(own * math.exp(source.normal(0, of_process))))

    cases = [base.having(pairs.REVISION, name) for name in (OTHER, THIS)]
    limits = Limits(budget_seconds=18.0, seed=seed, lives=6)
    runner = Runner(folder, context, Recorder(), limits, Workers(make_worker, clock=clock))
    runner.execute(cases, pairs.pair_by_pair(cases))
    folder.merge_parts()
    assert len(runner.rounds) == len(folder.rounds())
    (found,) = pairs.compare(OTHER, 0.03, [base], folder.case_results(), folder)
    return found, folder


def test_the_driver_measures_lives_of_fresh_workers_and_the_verdicts_hold(run_folder: Any) -> None:
    noisy = fake_case(latency_ns="20000000", noise="0.01")
    equal, folder = measured(run_folder("equal"), noisy, 1.0, 0, of_process=0.01)
    assert equal.outcome is not Verdict.FAIL
    slow, _ = measured(run_folder("slow"), noisy, 1.1, 1, of_process=0.01)
    assert slow.outcome is Verdict.FAIL
    assert slow.ratio == pytest.approx(1.1, rel=0.02)
    assert len(set(slow.lives)) == 6, "every life drew its processes anew"
    assert slow.start_effect is not None
    first, second = folder.case_results()
    assert replace(first.case, options=()) == replace(second.case, options=())
    assert sum(life["start_index"] == 0 for life in first.metrics["lives"]) == 3
    numbers = [set(part["round"]) - {-1} for _, part in folder.samples().groupby("case_id", observed=True)]
    assert numbers[0] == numbers[1], "both copies in every round"
    assert equal.n_rounds == len(numbers[0])


def test_a_case_that_breaks_is_not_tried_again_and_nor_is_its_other_half(run_folder: Any) -> None:
    broken = fake_case(latency_ns="20000000", fault="raise", fault_call="50")
    found, folder = measured(run_folder("broken"), broken, 1.0, 0, of_process=0.0)
    assert found.outcome is Verdict.UNRESOLVED, "the other revision cannot run it either"
    assert "told to raise" in found.reason
    assert {result.status for result in folder.case_results()} <= {Status.FAILED, Status.OK}


@pytest.mark.parametrize(
    ("mine", "theirs", "outcome", "words"),
    [
        (Status.CRASHED, Status.OK, "fail", "this one did not: crashed, why"),
        (Status.TIMEOUT, Status.OK, "fail", "timeout"),
        (Status.OK, Status.FAILED, "unresolved", f"{OTHER} has no time: failed, why"),
        (Status.CRASHED, Status.CRASHED, "unresolved", "crashed"),
        (Status.CRASHED, Status.INTERRUPTED, "unresolved", "stopped"),
        (None, Status.OK, "unresolved", "stopped"),
    ],
)
def test_what_cannot_be_compared(
    run_folder: Any, mine: Status | None, theirs: Status, outcome: str, words: str
) -> None:
    results = [
        CaseResult(BASE.having(pairs.REVISION, name), status, "why", stage="compute")
        for name, status in ((THIS, mine), (OTHER, theirs))
        if status
    ]
    (found,) = pairs.compare(OTHER, 0.03, [BASE], results, run_folder("none")[0])
    assert (found.outcome.value, found.ratio) == (outcome, None)
    assert words in found.reason
    assert found.judged(0.03).reason == found.reason


def test_the_text_gives_the_figures() -> None:
    found = Against(BASE, Verdict.FAIL, 1.1, 1.05, 1.15, (1.1,) * 6, 0.014, 240, 3)
    assert found.judged(0.03).reason == (
        "1.100 times as long (1.050 to 1.150), up to 1.03 passes; 6 lives, 240 rounds, "
        "3 of them disturbed; started first: +1.4%"
    )
    assert json.loads(json.dumps(found.to_dict()))["outcome"] == "fail"


def test_other_weights_and_equal_code_are_told() -> None:
    revision = Revision("x", "0" * 40, False, Path())
    side = Side(revision, {"weights_sha256": "a", "onnx_sha256": "b"}, "c")
    assert revisions.notes_on(side, side) == ("the Python files of both are the same",)
    other = replace(side, files={"weights_sha256": "d", "onnx_sha256": "e"}, sources_sha256="f")
    assert len(revisions.notes_on(side, other)) == 2


OBEDIENT = """
import json, os, sys
def main():
    for line in sys.stdin:
        do = json.loads(line)["do"]
        print(json.dumps(ANSWERS.get(do, {"ok": False, "status": "failed", "reason": "KeyError"})), flush=True)
"""
ANSWERS = {"finish": {"ok": True, "stage": "compute", "metrics": {}, "proof": {"own": 1}, "bad_images": []}}


@pytest.fixture
def stranger(tmp_path: Path) -> Callable[..., RevisionWorker]:
    """Starts a worker of a made-up revision."""

    def start(
        worker: str | None = OBEDIENT,
        answers: dict[str, Any] | None = None,
        wire_text: str = "",
        sources_sha256: str | None = None,
        without: str = "",
    ) -> RevisionWorker:
        home = tmp_path / "strange"
        for name in set(introduction.PACKAGES) - {without}:
            (home / name).mkdir(parents=True)
            (home / name / "__init__.py").touch()
        (home / "bench" / "wire.py").write_text(wire_text)
        if worker is not None:
            (home / "bench" / "worker.py").write_text(worker + f"\nANSWERS = {answers or ANSWERS!r}\n")
        revision = Revision("old", "f" * 40, False, home)
        side = None if sources_sha256 is None else Side(revision, {"onnx": "theirs"}, sources_sha256)
        return RevisionWorker(revision, tmp_path / "log", 1, side)

    return start


def test_a_worker_says_whose_code_it_runs(stranger: Any, tmp_path: Path) -> None:
    worker = stranger()
    try:
        code = worker.ask({"do": "finish"}, 20.0)["proof"]
    finally:
        worker.stop()
    home = tmp_path / "strange"
    assert code["own"] == 1
    assert code["code"]["packages"] == {name: [str(home / name)] for name in introduction.PACKAGES}
    assert (code["code"]["revision"], code["code"]["commit"], code["code"]["protocol"]) == ("old", "f" * 40, 1)
    folders = [str(home / name) for name in introduction.PACKAGES]
    assert code["code"]["sources_sha256"] == introduction.sources_sha256(folders)
    (home / "scarlet" / "__init__.py").write_text("changed = True\n")
    assert code["code"]["sources_sha256"] != introduction.sources_sha256(folders)


def test_what_another_tree_on_the_path_has_is_not_the_revisions(stranger: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(channel.own_home()))
    worker = stranger(without="scarlet")
    worker.stop()
    assert worker.introduction["packages"]["scarlet"] == [], "an older revision has no such package"


HANGS = "import time\ndef main():\n    time.sleep(60)\n"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"worker": None}, "ended with exit code 1; .*No module named 'bench.worker'"),
        ({"worker": "def main(): raise SystemExit(3)\n"}, "ended with exit code 3"),
        ({"worker": "print('hello')\n" + OBEDIENT}, "does not say who it is"),
        ({"without": "export"}, "no package 'export' in it"),
        ({"wire_text": "PROTOCOL = 999\n"}, "it speaks protocol 999, and this tree speaks 1"),
        ({"worker": HANGS}, "longer than 1 s"),
        ({"sources_sha256": "another"}, "changed while it was measured"),
    ],
)
def test_a_worker_that_cannot_be_talked_to_is_one_clear_error(stranger, monkeypatch, how, said):
    if how.get("worker") == HANGS:
        monkeypatch.setattr(revisions, "HANDSHAKE_SECONDS", 1.0)
    with pytest.raises(BenchError, match=said) as broken:
        stranger(**how)
    assert "\n" not in broken.value.what
    assert "old (ffffffff)" in broken.value.what or "sources_sha256" in how


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"ok": True, "warm": True}, "answer to 'turn' .*busy_ns"),
        ({"ok": False, "status": "failed"}, "answer to 'turn' .*reason"),
        ({"ok": False, "status": "molten", "reason": "x"}, "'molten' is not a valid Status"),
        ({"answer": 42}, "KeyError: .*ok"),
        ([], "TypeError"),
    ],
)
def test_an_answer_the_runner_would_stumble_over_is_a_clear_error(stranger: Any, answer: Any, said: str) -> None:
    worker = stranger(answers={"turn": answer})
    try:
        with pytest.raises(BenchError, match=said):
            worker.ask({"do": "turn", "round": 0, "slice_ns": 1}, 20.0)
    finally:
        worker.kill()


ECHO = """
import json, sys
def main():
    for line in sys.stdin:
        print(json.dumps({"ok": True, "sent": json.loads(line)}), flush=True)
"""


def test_an_older_worker_is_sent_its_own_files_and_no_field_at_its_default(
    stranger: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(RevisionWorker, "_introduced", lambda self: self.read(20.0))
    worker = stranger(worker=ECHO, sources_sha256="any")
    run = RunFolder.create(tmp_path / "run")
    run.write_images([("a.jpg", 3)])
    context = Context(run=str(run.path), data="/data", files=tiny_files("ours"))
    case = BASE.having(pairs.REVISION, THIS)
    message = {"do": "start", "case": case.to_dict(), "context": context.to_dict()}
    try:
        sent = worker.ask(message, 20.0)["sent"]
    finally:
        worker.stop()
    own = run.path / revisions.WORKERS / case.case_id
    assert sent["context"] == {"run": str(own), "data": "/data", "files": {"onnx": "theirs"}}
    assert RunFolder.open(own).read_images() == [("a.jpg", 3)]
    assert sent["case"].keys() == {"model", "weights", "backend", "pipeline", "options"}
    assert Case.from_dict(sent["case"]) == BASE, "no label that a strict backend could refuse"


def refusing(**answer: str) -> dict[str, Any]:
    return {"prepare": {"ok": False, "status": "failed", **answer}}


@pytest.mark.parametrize(
    ("first", "answers", "said", "do"),
    [
        ("", refusing(reason="bad file", do="Mend it."), "prepare the model: bad file", "Mend it."),
        ("", refusing(reason="TypeError: x"), "prepare the model: TypeError: x", "The whole log is "),
        ("os._exit(9)", None, "ended with exit code 9", ""),
        ("import time; time.sleep(60)", None, "took longer than 1 s", ""),
    ],
)
def test_a_revision_that_cannot_prepare_says_why(stranger, tmp_path, first, answers, said, do):
    spoilt = OBEDIENT.replace('["do"]\n', f'["do"]\n        if do == "prepare": {first or "pass"}\n')
    stranger(worker=spoilt, answers=answers).stop()
    home = Revision("old", "f" * 40, False, tmp_path / "strange")
    with pytest.raises(BenchError, match=said) as broken:
        revisions.prepare(home, {"threads": 1}, tmp_path / "log", 1.0 if "sleep" in first else 20.0)
    assert broken.value.do.startswith(do)


def git(tree: Path, *words: str) -> str:
    somebody = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    done = subprocess.run(["git", "-C", str(tree), *somebody, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(tree: Path, message: str) -> None:
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "--no-verify", "--message", message)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with this project's packages, below its top; the second commit changes a document only."""
    top = tmp_path / "somewhere"
    tree = top / "project"
    ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")
    for name in {*introduction.PACKAGES} - {"models"}:
        shutil.copytree(channel.own_home() / name, tree / name, ignore=ignored)
    git(top, "init", "--quiet")
    (tree / ".gitignore").write_text("__pycache__/\n")
    commit(top, "first")
    (tree / "README.md").write_text("A document.\n")
    commit(top, "second")
    return tree


def settings_for(image_folder: Path, tiny_graph: Path, *options: str) -> RunSpec:
    return RunSpec(
        model=f"onnx:{tiny_graph}",
        data=str(image_folder),
        pipeline="reference",
        backends="fake",
        batches="1",
        threads="1",
        budget_seconds=1.0,
        lives=4,
        timeout_seconds=60.0,
        options=("fake.latency_ns=20000000", *options),
    )


def worktrees(tree: Path) -> list[str]:
    return git(tree, "worktree", "list").splitlines()


def test_a_slow_down_in_the_tree_as_it_is_fails(project, image_folder, tiny_graph, monkeypatch, scarlet_bench):
    fake = project / "bench" / "backends" / "fake.py"
    slow = fake.read_text().replace("round(base * warm", "round(1.1 * base * warm")
    assert slow != fake.read_text()
    fake.write_text(slow)  # not committed
    monkeypatch.setattr(channel, "own_home", lambda: project)
    monkeypatch.chdir(project.parent.parent)
    words = ["HEAD~1", "--model", f"onnx:{os.path.relpath(tiny_graph)}", "--data", str(image_folder)]
    words += ["--pipeline", "reference", "--backends", "fake", "--threads", "1", "--budget", "1", "--lives", "4"]
    words += ["--option", "fake.latency_ns=20000000", "--tolerance", "5", "--json", "--out", "run"]
    captured = scarlet_bench("against", *words)
    assert captured.code == 1, captured.err
    said = json.loads(captured.out)
    assert (said["outcome"], said["tolerance"], said["notes"]) == ("fail", 0.05, [])
    assert [said["cases"][0][end] for end in ("ratio", "low", "high")] == pytest.approx([1.1] * 3)
    assert "this tree (" in said["revisions"][0]
    assert ", changed)" in said["revisions"][0]
    assert "report: " in captured.err
    assert Path("run/report.md").exists()
    assert len(worktrees(project)) == 1, "the worktree is gone"
    folder = RunFolder.open(Path("run"))
    assert not (folder.path / revisions.WORKERS).exists()
    assert set(folder.samples()["case_id"]) == {row.case.case_id for row in folder.case_results()}
    code = {row.case.option(pairs.REVISION): row.proof["code"] for row in folder.case_results()}
    before = git(project, "rev-parse", "HEAD~1")
    assert code.keys() == {THIS, before[:12]}
    assert code[before[:12]]["commit"] == before
    assert code[THIS]["packages"]["bench"] == [str(project / "bench")]
    (other,) = code[before[:12]]["packages"]["bench"]
    assert other.endswith("/tree/project/bench")
    assert not Path(other).exists()
    kept = folder.read_run_info()["against"]
    assert (kept["outcome"], kept["revisions"][THIS]["name"]) == ("fail", "this tree")
    assert kept["revisions"][before[:12]] | {"name": "HEAD~1", "commit": before} == kept["revisions"][before[:12]]


def test_ctrl_c_leaves_no_worktree_and_a_readable_run(project: Path, image_folder: Path, tiny_graph: Path) -> None:
    settings = settings_for(image_folder, tiny_graph, "fake.fault=interrupt")
    out = project.parent.parent / "run"
    ended = revisions.run("HEAD~1", settings, out, Console(record=True), home=project)
    assert ended.interrupted
    assert ended.outcome is Verdict.UNRESOLVED
    assert len(worktrees(project)) == 1
    assert {row.status for row in RunFolder.open(out).case_results()} == {Status.INTERRUPTED}
    assert RunFolder.open(out).read_run_info()["exit_code"] == 130


def test_a_revision_without_workers_leaves_neither_run_nor_worktree(
    project: Path, image_folder: Path, tiny_graph: Path
) -> None:
    (project / "bench" / "worker").rename(project / "bench" / "labourer")
    commit(project, "third")
    git(project, "mv", "bench/labourer", "bench/worker")
    commit(project, "fourth")
    out = project.parent.parent / "run"
    settings = settings_for(image_folder, tiny_graph)
    with pytest.raises(BenchError, match=r"HEAD~1 .* cannot be talked to: .*bench.worker"):
        revisions.run("HEAD~1", settings, out, Console(record=True), home=project)
    assert not out.exists()
    assert len(worktrees(project)) == 1


@pytest.mark.parametrize("ref", ["nowhere", "--detach", "", "HEAD:README.md"])
def test_an_unknown_revision_is_a_clear_error(project: Path, ref: str) -> None:
    with pytest.raises(BenchError, match="is no revision") as broken, worktree(project, ref):
        pass
    assert "git fetch --unshallow" in broken.value.do


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BenchError("a", "b")])
def test_a_worktree_goes_whatever_happens_in_it(project: Path, error: BaseException) -> None:
    homes = []

    def use() -> None:
        with worktree(project, "HEAD~1") as other:
            homes.append(other.home)
            assert not (other.home / "README.md").exists()
            assert (other.home / "bench" / "worker" / "channel.py").exists()
            assert len(worktrees(project)) == 2
            raise error

    with pytest.raises(type(error)):
        use()
    assert len(worktrees(project)) == 1
    assert not homes[0].parent.parent.exists()


def test_a_worktree_that_cannot_be_made_is_a_clear_error(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = project.parent.parent / "temporary"
    (folder / "tree" / "full").mkdir(parents=True)
    monkeypatch.setattr("tempfile.mkdtemp", lambda prefix: str(folder))
    with pytest.raises(BenchError, match=r"cannot make a worktree of 'HEAD~1': .*exists"), worktree(project, "HEAD~1"):
        pass
    assert not folder.exists()


def test_what_is_no_checkout_has_no_other_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bench").mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(BenchError, match="no git checkout"):
        this_revision(tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--lives", "3"], "--lives 3"), (["--lives", "1"], "--lives 1"), (["--tolerance", "0"], "--tolerance 0")],
)
def test_numbers_that_make_no_sense_are_two_lines_and_exit_code_2(
    scarlet_bench: Command, words: list[str], said: str
) -> None:
    answer = scarlet_bench("against", "HEAD~1", *words)
    assert answer.code == 2
    assert said in answer.err.splitlines()[0]
