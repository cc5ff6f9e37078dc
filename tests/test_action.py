"""The steps of the action, executed as a runner does, in a repository with packages called as ours are."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import planted
import pytest
import yaml
from bench_fakes import WNIDS, make_graph
from folders import ROOT

ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"] if "run" in step}
FORKS = yaml.safe_load((ROOT / "docs" / "ci" / "comment.yml").read_text())["jobs"]["comment"]["steps"]
STEPS["comment of a fork"] = FORKS[-1]
INPUTS = {name: each["default"] for name, each in ACTION["inputs"].items()}


class Runner:
    """A machine of GitHub's with a checkout: a folder, what is installed, and what steps hand on."""

    def __init__(self, home: Path, tool: str) -> None:
        self.project, self.temporary, self.outputs = home / "project", home / "temporary", dict[str, str]()
        (self.temporary / "scarlet-bench" / "bin").mkdir(parents=True)
        for name, program in (("scarlet-bench", tool), ("python", f'exec {sys.executable} "$@"')):
            self.program(self.temporary / "scarlet-bench" / "bin" / name, program)
        self.program(
            home / "bin" / "gh",
            'echo "$@" >>"$GH_CALLS"; case "$*" in *commits*) echo 7 ;; *--paginate*) cat "$GH_ANSWER" ;; esac',
        )
        (home / "answer").touch()
        # Nothing of the machine that the tests run on, as Actions of its own.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
        own = {"GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "some/body", "RUNNER_TEMP": str(self.temporary)}
        files = {
            "GITHUB_OUTPUT": "output",
            "GITHUB_STEP_SUMMARY": "summary",
            "GH_CALLS": "calls",
            "GH_ANSWER": "answer",
        }
        self.environment = {**kept, **own, **{name: str(home / file) for name, file in files.items()}}
        self.environment |= {"PATH": f"{home / 'bin'}:{kept['PATH']}", "GITHUB_ACTION_PATH": str(ROOT)}
        self.home = home

    @staticmethod
    def program(path: Path, text: str) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def step(self, name: str, **inputs: str) -> subprocess.CompletedProcess[str]:
        """Runs one step; ``inputs`` are the action's, the rest are at their defaults."""
        known = {"github.event.pull_request.number": "7", "github.token": "secret"}
        known |= {f"inputs.{key}": value for key, value in {**INPUTS, **inputs}.items()}
        known |= {f"steps.check.outputs.{key}": value for key, value in self.outputs.items()}
        fill = lambda text: re.sub(r"\$\{\{ (.*?) \}\}", lambda found: known.get(found[1], ""), str(text))  # noqa: E731
        environment = {key: fill(value) for key, value in STEPS[name].get("env", {}).items()}
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", fill(STEPS[name]["run"])]
        settings: dict[str, Any] = {"cwd": self.project, "capture_output": True, "text": True}
        done = subprocess.run(command, env={**self.environment, **environment}, **settings)
        if (self.home / "output").exists():
            lines = (self.home / "output").read_text().splitlines()
            self.outputs |= dict(line.split("=", 1) for line in lines)
        return done

    def git(self, *words: str) -> None:
        somebody = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
        subprocess.run(["git", *somebody, *words], cwd=self.project, check=True, capture_output=True)

    def commit(self, file: str, text: str | bytes) -> None:
        (self.project / file).write_bytes(text if isinstance(text, bytes) else text.encode())
        self.git("add", "--all")
        self.git("commit", "--quiet", "--no-verify", "--message", file)


def graph(text: str) -> bytes:
    made = make_graph("batch")
    made.doc_string = text
    return made.SerializeToString()


@pytest.fixture
def runner(tmp_path: Path) -> Callable[[str], Runner]:
    def make(tool: str) -> Runner:
        made = Runner(tmp_path, tool)
        for name in ("bench", "export", "models"):
            (made.project / name).mkdir(parents=True)
            (made.project / name / "__init__.py").write_text(
                "raise SystemExit('a package of the project was imported')"
            )
        made.git("init", "--quiet")
        made.commit("net.onnx", graph("first"))
        return made

    return make


SAID = """
for word; do case $before in --out) out=$word ;;
    --summary) echo summary >>"$word" ;; esac; before=$word; done
echo "$@" >>"$RUNNER_TEMP/calls"
read -r verdict code <"$RUNNER_TEMP/say"
[ "$verdict" = none ] || echo "{\\"verdict\\": \\"$verdict\\"}" >"$out"
exit "$code"
"""


@pytest.mark.parametrize(
    ("says", "inputs", "verdict", "code"),
    [
        ("pass 0", {"baseline": "b.json"}, "pass", 0),
        ("fail 1", {"baseline": "b.json", "against": "HEAD"}, "fail", 1),
        ("unresolved 3", {"baseline": "b.json", "strict": "true"}, "unresolved", 3),
        ("none 2", {"baseline": "b.json"}, "error", 2),
        ("pass 0", {}, "error", 2),
    ],
)
def test_the_verdict_reaches_the_caller(runner, says, inputs, verdict, code):
    made = runner(SAID)
    (made.temporary / "say").write_text(says)
    assert made.step("install").returncode == 0, "a tool that the cache brought is not installed again"
    done = made.step("check", model="onnx:net.onnx", **inputs)
    assert done.returncode == 0, done.stderr
    assert made.outputs["verdict"] == verdict
    assert made.step("verdict").returncode == code
    calls = (made.temporary / "calls").read_text().splitlines() if inputs else []
    assert len(calls) == len({"baseline", "against"} & inputs.keys())
    assert all(("--strict" in call) == ("strict" in inputs) for call in calls)
    if "against" in inputs:
        assert f"--against-model onnx:{made.temporary}/scarlet-bench-old/net.onnx onnx:net.onnx" in calls[1]


@pytest.mark.parametrize("code", [0, 1])
def test_gitlabs_template_asks_both_questions_and_hands_on_the_exit_code(runner: Any, code: int) -> None:
    made = runner(SAID)
    (made.temporary / "say").write_text(f"none {code}")
    template = yaml.safe_load((ROOT / "docs" / "ci" / "gitlab.yml").read_text())[".scarlet-bench"]
    given = {"MODEL": "onnx:net.onnx", "DATA": "images", "BASELINE": "b.json", "AGAINST": "HEAD"}
    script = template["script"][-1].replace("/tmp/", f"{made.temporary}/")
    environment = {**made.environment, **template["variables"], **given}
    done = subprocess.run(["bash", "-eo", "pipefail", "-c", script], cwd=made.project, env=environment)
    assert done.returncode == code
    baseline, against = (made.temporary / "calls").read_text().splitlines()
    assert baseline == "check --baseline b.json --model onnx:net.onnx --junit baseline.xml --data images"
    assert against.startswith(f"check --against-model onnx:{made.temporary}/old/net.onnx onnx:net.onnx --budget 300")
    assert (made.temporary / "old" / "net.onnx").is_file()


def test_actions_of_others_are_pinned_by_digest() -> None:
    files = [ROOT / "action.yml", ROOT / "docs" / "ci.md", *(ROOT / "docs" / "ci").glob("*.yml")]
    files += (ROOT / ".github" / "workflows").glob("*.yml")
    uses = [name for file in files for name in re.findall(r"uses: (\S+)", file.read_text())]
    loose = {name for name in uses if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", name)}
    assert loose == {"./", "OWNER/scarlet-bench@REVISION"}


@pytest.mark.parametrize("step", ["comment", "comment of a fork"])
@pytest.mark.parametrize(
    ("known", "call"), [("", "POST repos/some/body/issues/7"), ("42", "PATCH repos/some/body/issues")]
)
def test_one_comment_is_written_and_changed_later(runner: Any, known: str, call: str, step: str) -> None:
    made = runner(SAID)
    (made.temporary / "say").write_text("pass 0")
    made.step("check", baseline="b.json")
    (made.home / "answer").write_text(f"{known}\n" if known else "")
    done = made.step(step)
    assert done.returncode == 0, done.stderr
    last = (made.home / "calls").read_text().splitlines()[-1]
    assert last.startswith(f"api --silent --method {call}/comments{'/42' if known else ''} --field body=@")
    assert (made.project / last.rpartition("@")[2]).read_text().splitlines()[0] == "<!-- scarlet-bench -->"


@pytest.mark.slow
def test_a_document_passes_and_a_wrong_and_slower_model_fails_with_row_and_stage(runner, image_folder, tmp_path):
    made = runner(f'cd . && exec {sys.executable} -c "import scarlet_bench; scarlet_bench.main()" "$@"')
    made.environment |= {"SCARLET_BENCH_STORE": str(tmp_path / "store")}
    made.environment = planted.plant(tmp_path / "planted", "graph-says", made.environment)
    made.environment["PYTHONPATH"] += f":{ROOT}:{made.project}"
    for number in range(32):
        image = made.project / "images" / WNIDS[0] / f"{number}.JPEG"
        image.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(next(image_folder.rglob("*.JPEG")), image)
    args = "--threads 1 --pipeline reference --images all --lives 4 --option fake.latency_ns=20000000"
    inputs = {"model": "onnx:net.onnx", "data": "images", "backends": "fake", "budget": "1", "tolerance": "5"}
    for file, text, code in (("README.md", "A document.", 0), ("net.onnx", graph("wrong and slow"), 1)):
        made.commit(file, text)
        done = made.step("check", **inputs, args=args, against="HEAD~1")
        assert made.step("verdict").returncode == code, f"{done.stdout}\n{done.stderr}"
    said = json.loads((made.project / "scarlet-bench-check" / "against.json").read_text())
    assert [(row["verdict"], row["stage"]) for row in said["rows"]] == [("fail", "weights"), ("fail", "")]
    assert "1.1 times as long" in said["rows"][1]["reason"] or "1.100 times as long" in said["rows"][1]["reason"]
    assert done.stdout.count("::error title=") == 2
    assert "fail" in (made.home / "summary").read_text()
    assert not (made.temporary / "scarlet-bench-old").exists()
