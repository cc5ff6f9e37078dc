"""The front door: make's targets, the pins, and the order of the packages."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent

# fmt: off
TARGETS = {
    "help", "setup", "bench", "export", "report", "table", "verify", "doctor", "demo", "demo-weights", "test", "lint",
    "constraints", "clean", "plan", "noise", "compare", "parity", "bisect", "check", "baseline", "gpu-check",
    "docker-bench", "contracts", "history", "faults", "best",
}
VARIABLES = {
    "MODEL", "MODELS", "DATA", "CHECKPOINT", "BACKENDS", "DEVICES", "PRECISIONS", "BATCHES", "IMAGES", "PIPELINE",
    "SCENARIOS", "THREADS", "INSTANCES", "BUDGET", "OUT", "RUN", "FIGURES", "WITH", "BASELINE", "AGAINST", "ARGS",
    "EXTRAS", "TENSORRT", "PYTHON", "INTERPRETER",
}
# fmt: on
PACKAGES = ("bench", "export", "pipelines", "scarlet")


def call(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a command away from whatever make runs this test: its variables must not come in."""
    ours = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "TEST_WORKERS", *VARIABLES}
    clean = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(command, cwd=folder, env={**clean, **variables}, capture_output=True, text=True, check=False)


def make(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return call(folder, "make", *arguments, **variables)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the Makefile, a set-up that does nothing, and programs that print what they were given."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "tools").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    show = 'for word; do printf "[%s]\\n" "$word"; done\necho "threads $OMP_NUM_THREADS"'
    for name, does in (("tools/setup.sh", "exit"), (".venv/bin/scarlet-bench", show), (".venv/bin/python", show)):
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    return tmp_path


def words(printed: str) -> list[str]:
    return re.findall(r"^\[(.*)\]$", printed, re.MULTILINE)


def test_help_is_the_default_and_explains_every_target_and_variable() -> None:
    printed = make(ROOT).stdout
    explained = dict(re.findall(r"^  ([A-Za-z-]+) +(\S.+)$", printed, re.MULTILINE))
    assert set(explained) == {*TARGETS, *VARIABLES}
    assert "(default: scarlet_c)" in explained["MODEL"]
    assert "default" not in explained["DATA"]
    assert printed == make(ROOT, "help").stdout


def test_help_misses_no_target_of_the_makefile() -> None:
    text = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == {*TARGETS, "setup-dev"}


@pytest.mark.parametrize(
    "path", ["/tmp/my o'dir", '/tmp/a "b" c', "/$HOME/$(ls)/`ls`", "/back\\slash", "/#hash;semi&and", "*"]
)
def test_paths_arrive_as_they_were_written(checkout: Path, path: str) -> None:
    on_command_line = make(checkout, "bench", f"DATA={path}")
    in_environment = make(checkout, "bench", DATA=path)
    for done in (on_command_line, in_environment):
        assert done.returncode == 0, done.stderr
        assert words(done.stdout) == ["run", "--model", "scarlet_c", "--data", path]


def test_only_variables_that_are_set_are_passed_on(checkout: Path) -> None:
    assert words(make(checkout, "bench").stdout) == ["run", "--model", "scarlet_c"]
    every = "MODEL=a CHECKPOINT=c DATA=d PIPELINE=p BACKENDS=fake DEVICES=cpu PRECISIONS=fp32 BATCHES=1,32"
    given = [*every.split(), "IMAGES=all", "SCENARIOS=latency", "THREADS=1,2", "INSTANCES=2", "BUDGET=9", "OUT=o"]
    options = [(f"--{name.lower()}", value) for name, value in (item.split("=") for item in given)]
    passed = words(make(checkout, "bench", *given).stdout)
    assert passed == ["run", *(word for pair in options for word in pair)]
    further = make(checkout, "bench", "ARGS=--threads 2 --out 'a b'").stdout
    assert words(further)[3:] == ["--threads", "2", "--out", "a b"]


@pytest.mark.parametrize(
    ("asked", "called"),
    [
        ("report", "report -- results/latest"),
        ("report RUN=r FIGURES=1", "report --figures -- r"),
        ("compare RUN=a WITH=b", "compare -- a b"),
        ("export OUT=x.onnx", "export --model scarlet_c --out x.onnx"),
        ("demo OUT=d IMAGES=9", "demo --out d --images 9"),
        ("doctor", "doctor"),
        ("table", "table --"),
        ("verify MODEL=scarlet_a CHECKPOINT=a.pth", "reproduce --model scarlet_a --checkpoint a.pth"),
        (
            "table MODELS=scarlet_a\\ onnx:*.onnx BUDGET=9 BATCHES=1,8",
            "table --batches 1,8 --budget 9 -- scarlet_a onnx:*.onnx",
        ),
        ("best BATCHES=8 DEVICES=cuda", "best --model scarlet_c --batches 8"),
        ("plan BUDGET=9", "plan --model scarlet_c --budget 9"),
        ("noise BUDGET=9", "noise --model scarlet_c --budget 9"),
        ("check BASELINE=b.json", "check --model scarlet_c --baseline b.json"),
        ("check AGAINST=HEAD~1", "against --model scarlet_c -- HEAD~1"),
        ("check AGAINST=--help", "against --model scarlet_c -- --help"),
        ("report RUN=--help", "report -- --help"),
        ("baseline", "run --model scarlet_c --scenarios accuracy --baseline default"),
        (
            "baseline BASELINE=b.json ARGS=--out\\ r",
            "run --model scarlet_c --scenarios accuracy --baseline b.json --out r",
        ),
        ("gpu-check OUT=o ARGS=--quick", "-m tests.gpu.acceptance --out o --quick"),
    ],
)
def test_a_target_calls_its_command(checkout: Path, asked: str, called: str) -> None:
    assert words(make(checkout, *shlex.split(asked)).stdout) == called.split()


def test_nothing_runs_after_a_failed_set_up(checkout: Path) -> None:
    (checkout / "tools" / "setup.sh").write_text("#!/bin/sh\nexit 1\n")
    for target in ("bench", "test", "gpu-check"):
        done = make(checkout, target)
        assert done.returncode == 2
        assert words(done.stdout) == []
    # An interpreter that has everything needs no set-up.
    done = make(checkout, "gpu-check", f"INTERPRETER={checkout}/.venv/bin/python")
    assert words(done.stdout) == ["-m", "tests.gpu.acceptance"]


def test_a_failing_command_fails_make(checkout: Path) -> None:
    (checkout / ".venv" / "bin" / "scarlet-bench").write_text("#!/bin/sh\nexit 130\n")
    assert make(checkout, "bench").returncode == 2


def test_check_prints_the_exit_code_that_make_hides(checkout: Path) -> None:
    for code in (0, 1, 3):
        (checkout / ".venv" / "bin" / "scarlet-bench").write_text(f"#!/bin/sh\nexit {code}\n")
        done = make(checkout, "check")
        assert done.returncode == (2 if code else 0)
        assert done.stdout.splitlines()[-1] == f"exit code of scarlet-bench: {code}"


def test_clean_keeps_data_and_results(checkout: Path) -> None:
    kept, removed = (["data/a", "results/runs/b", "bench/record/case.py"], [".venv/c", ".mypy_cache/d", ".coverage.1"])
    removed += ["bench/__pycache__/e", "x.egg-info/f"]
    for name in kept + removed:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).touch()
    make(checkout, "clean")
    assert all((checkout / name).exists() for name in kept)
    assert not any((checkout / name).exists() for name in removed)


def test_ci_ends_with_the_closing_line_of_pytest(checkout: Path) -> None:
    (checkout / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", checkout / ".ci")
    assert os.access(checkout / ".ci" / "run", os.X_OK)
    done = call(Path("/"), str(checkout / ".ci" / "run"))
    assert done.returncode == 0, done.stderr
    assert {"-m", "pytest", "--cov", "--cov-fail-under=90"} <= set(words(done.stdout))
    assert done.stdout.splitlines()[-1] == "threads 1"  # the last thing that the stand-in for pytest prints


def declared() -> dict[str, list[Requirement]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"core": project["dependencies"], **project["optional-dependencies"]}
    return {name: [Requirement(line) for line in lines] for name, lines in groups.items()}


def machine(python: str) -> dict[str, str]:
    """What markers ask about a Linux machine with this Python."""
    return {
        "python_full_version": python,
        "python_version": python.rpartition(".")[0],
        "sys_platform": "linux",
        "platform_machine": "x86_64",
    }


def pins(extra: str, python: str) -> dict[str, list[str]]:
    """Package to the versions that a constraints file pins on Linux with this Python."""
    active: dict[str, list[str]] = {}
    for line in (ROOT / "constraints" / f"{extra}.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        pin, _, marker = line.partition(" ; ")
        name, equals, version = pin.partition("==")
        assert equals, line
        if not marker or Marker(marker).evaluate(machine(python)):
            active.setdefault(name, []).append(version)
    return active


@pytest.mark.parametrize("python", ["3.10.13", "3.11.7", "3.12.1", "3.13.0"])
@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_every_dependency_is_pinned_once_for_every_python(extra: str, python: str) -> None:
    found = pins(extra, python)
    assert {name: versions for name, versions in found.items() if len(versions) > 1} == {}
    groups = declared()
    for requirement in groups["core"] + groups["dev"] + groups[extra]:
        if requirement.marker and not requirement.marker.evaluate(machine(python)):
            continue
        assert requirement.name in found, requirement
        assert requirement.specifier.contains(found[requirement.name][0]), requirement


def test_each_file_pins_one_onnxruntime_and_only_the_gpu_one_pins_cuda() -> None:
    cpu, gpu = pins("cpu", "3.12.1"), pins("gpu", "3.12.1")
    assert "onnxruntime" in cpu
    assert "onnxruntime-gpu" not in cpu
    assert "onnxruntime-gpu" in gpu
    assert "onnxruntime" not in gpu
    dali = re.compile(r"nvidia-(dali|nvimgcodec|nvjpeg|nvtiff|libnvcomp)")
    assert [name for name in cpu if re.match(r"nvidia-|cuda-|triton\b", name) and not dali.match(name)] == []
    shared = {name: cpu[name] for name in cpu.keys() & gpu.keys()}
    assert shared == {name: gpu[name] for name in shared}
