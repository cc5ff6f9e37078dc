"""The front door: make's targets, the set-up that they share, the pins, and the order of the packages."""

from __future__ import annotations

import ast
import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import console  # noqa: E402
import environment  # noqa: E402
import setup  # noqa: E402
from console import Result, SetupError, Shell  # noqa: E402

# fmt: off
TARGETS = {
    "help", "setup", "bench", "export", "report", "table", "doctor", "demo", "demo-weights", "test", "lint",
    "constraints", "clean", "plan", "noise", "compare", "parity", "bisect", "check", "baseline", "gpu-check",
    "docker-bench", "contracts", "history",
}
VARIABLES = {
    "MODEL", "MODELS", "DATA", "CHECKPOINT", "BACKENDS", "DEVICES", "PRECISIONS", "BATCHES", "IMAGES", "PIPELINE",
    "BUDGET", "OUT", "RUN", "FIGURES", "WITH", "BASELINE", "AGAINST", "ARGS", "EXTRAS", "PYTHON", "INTERPRETER",
}
# fmt: on
PACKAGES = ("bench", "export", "pipelines", "scarlet")


# --- make -----------------------------------------------------------------------------------------------------


def make(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs make away from whatever make runs this test: its variables must not come in."""
    ours = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "TEST_WORKERS", *VARIABLES}
    clean = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env={**clean, "PYTHON": sys.executable, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the Makefile, a set-up that does nothing, and programs that print what they were given."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "setup.py").write_text("")
    bin_ = tmp_path / ".venv" / "bin"
    bin_.mkdir(parents=True)
    for name in ("scarlet-bench", "python"):
        program = bin_ / name
        program.write_text(
            '#!/bin/sh\nfor word; do printf "[%s]\\n" "$word"; done\necho "threads $OMP_NUM_THREADS"\n'
        )
        program.chmod(0o755)
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
    "path",
    [
        "/tmp/my o'dir",
        '/tmp/a "b" c',
        "/tmp/$HOME/$(ls)/`ls`",
        "/tmp/back\\slash",
        "/tmp/#hash;semi&and",
        "*",
    ],
)
def test_paths_arrive_as_they_were_written(checkout: Path, path: str) -> None:
    on_command_line = make(checkout, "bench", f"DATA={path}")
    in_environment = make(checkout, "bench", DATA=path)
    for done in (on_command_line, in_environment):
        assert done.returncode == 0, done.stderr
        assert words(done.stdout) == ["run", "--model", "scarlet_c", "--data", path]


def test_only_variables_that_are_set_are_passed_on(checkout: Path) -> None:
    assert words(make(checkout, "bench").stdout) == ["run", "--model", "scarlet_c"]
    every = {
        "MODEL": "scarlet_a",
        "CHECKPOINT": "c.pth",
        "DATA": "d",
        "PIPELINE": "reference",
        "BACKENDS": "fake",
        "DEVICES": "cpu",
        "PRECISIONS": "fp32",
        "BATCHES": "1,32",
        "IMAGES": "all",
        "BUDGET": "9",
        "OUT": "o",
    }
    passed = words(make(checkout, "bench", *(f"{name}={value}" for name, value in every.items())).stdout)
    assert passed == [
        "run",
        *(word for name, value in every.items() for word in (f"--{name.lower()}", value)),
    ]
    further = make(checkout, "bench", "ARGS=--threads 2 --out 'a b'").stdout
    assert words(further)[3:] == ["--threads", "2", "--out", "a b"]


def test_the_other_targets_call_their_command(checkout: Path) -> None:
    assert words(make(checkout, "report").stdout) == ["report", "results/latest"]
    assert words(make(checkout, "report", "RUN=my run").stdout) == ["report", "my run"]
    assert words(make(checkout, "export", "OUT=x.onnx").stdout) == [
        "export",
        "--model",
        "scarlet_c",
        "--out",
        "x.onnx",
    ]
    assert words(make(checkout, "demo", "OUT=d", "IMAGES=9").stdout) == [
        "demo",
        "--out",
        "d",
        "--images",
        "9",
    ]
    assert words(make(checkout, "doctor").stdout) == ["doctor"]
    assert words(make(checkout, "table").stdout) == ["table"]
    assert words(
        make(checkout, "table", "MODELS=scarlet_a onnx:*.onnx", "BUDGET=9", "BATCHES=1,8").stdout
    ) == [
        "table",
        "scarlet_a",
        "onnx:*.onnx",
        "--batches",
        "1,8",
        "--budget",
        "9",
    ]
    for target in ("plan", "noise"):
        assert words(make(checkout, target, "BUDGET=9").stdout) == [
            target,
            "--model",
            "scarlet_c",
            "--budget",
            "9",
        ]


def test_the_gpu_check_takes_an_interpreter_that_has_everything(checkout: Path) -> None:
    assert words(make(checkout, "gpu-check", "OUT=o", "ARGS=--quick").stdout) == [
        "gpu-check",
        "--out",
        "o",
        "--quick",
    ]
    (checkout / "tools" / "setup.py").write_text("import sys; sys.exit(1)")
    assert make(checkout, "gpu-check").returncode == 2
    program = checkout / ".venv" / "bin" / "python"
    done = make(checkout, "gpu-check", f"INTERPRETER={program}")
    assert words(done.stdout) == ["-m", "bench.cli", "gpu-check"]


def test_a_failing_command_fails_make(checkout: Path) -> None:
    (checkout / ".venv" / "bin" / "scarlet-bench").write_text("#!/bin/sh\nexit 130\n")
    assert make(checkout, "bench").returncode == 2


def test_nothing_runs_after_a_failed_set_up(checkout: Path) -> None:
    (checkout / "tools" / "setup.py").write_text("import sys; sys.exit(1)")
    for target in ("bench", "test"):
        done = make(checkout, target)
        assert done.returncode == 2
        assert words(done.stdout) == []


def test_a_missing_python_is_named(checkout: Path) -> None:
    done = make(checkout, "setup", PYTHON="no-such-python")
    assert done.returncode == 2
    assert "there is no 'no-such-python' here" in done.stderr
    assert "PYTHON=/path/to/python3" in done.stderr


def test_clean_keeps_data_and_results(checkout: Path) -> None:
    kept, removed = (
        ["data/a", "results/runs/b", "bench/record/case.py"],
        [".venv/c", ".mypy_cache/d", ".coverage.1"],
    )
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
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MAKEFLAGS", "MAKELEVEL", *VARIABLES)
    }
    done = subprocess.run(
        [checkout / ".ci" / "run"],
        env=clean,
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"-m", "pytest", "--cov", "--cov-fail-under=90"} <= set(words(done.stdout))
    assert done.stdout.splitlines()[-1] == "threads 1"  # the last thing that the stand-in for pytest prints


# --- The set-up -----------------------------------------------------------------------------------------------


class Commands:
    """Stands in for the shell: keeps what it was asked, and answers by the first key found in the command."""

    def __init__(self, **answers: Result) -> None:
        self.asked: list[str] = []
        self.answers = answers

    def __call__(self, command: Sequence[str]) -> Result:
        line = " ".join(command)
        self.asked.append(line)
        for key, answer in self.answers.items():
            if key.replace("_", "-") in line:
                return answer
        return Result(0, "[]") if "pip list" in line else Result(0)


def report(*needs: str) -> Result:
    """pip's answer to what it would install for torch."""
    return Result(0, json.dumps({"install": [{"metadata": {"name": "torch", "requires_dist": list(needs)}}]}))


CPU_BUILD = report("filelock", "sympy>=1.13", 'optree; extra == "optree"')
CUDA_BUILD = report("filelock", 'nvidia-cudnn-cu13==9; platform_system == "Linux"')
FAILED = Result(1, "", "something broke")
OFFLINE = Result(1, "", "WARNING: Retrying after connection broken by 'NewConnectionError(...)'")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to set up in, with the files that a set-up reads, on Linux."""
    for name in ("pyproject.toml", "constraints/cpu.txt", "constraints/gpu.txt", "tools/environment.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"# {name}\nsetuptools==80.1\ntorch==2.13.0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    return tmp_path


def torch(commands: Commands, extra: str = "cpu", **installed: str) -> tuple[str, list[str]]:
    notes: list[str] = []
    constraints = Path("constraints", f"{extra}.txt")
    return environment.install_torch(commands, notes.append, extra, constraints, installed), notes


def is_plain_install(line: str) -> bool:
    return (
        "pip install" in line
        and line.endswith("torch==2.13.0")
        and "--dry-run" not in line
        and " uv " not in line
    )


def test_the_oldest_python_gets_two_lines_and_no_traceback() -> None:
    assert setup.too_old((3, 10, 13)) == ""
    assert setup.too_old((4, 0)) == ""
    what, do = setup.too_old((3, 9, 18)).splitlines()
    assert "3.9" in what
    assert "3.10" in what
    assert "PYTHON=" in do


def test_the_entry_can_be_read_by_any_python() -> None:
    tree = ast.parse((ROOT / "tools" / "setup.py").read_text())
    too_new = (
        ast.JoinedStr,
        ast.AnnAssign,
        ast.NamedExpr,
        ast.AsyncFunctionDef,
        ast.Nonlocal,
        ast.ImportFrom,
    )
    assert not [node for node in ast.walk(tree) if isinstance(node, too_new)]
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert not [argument for function in functions for argument in function.args.args if argument.annotation]


def test_torch_comes_from_pip_where_pip_has_a_cpu_build(project: Path) -> None:
    commands = Commands(__dry_run=CPU_BUILD)
    outcome, notes = torch(commands)
    assert outcome == "CPU build, from pip"
    assert is_plain_install(commands.asked[-1])
    assert not any("uv" in line for line in commands.asked)
    assert notes == []


def test_torch_comes_from_uv_where_pip_has_only_a_cuda_build(project: Path) -> None:
    commands = Commands(__dry_run=CUDA_BUILD)
    outcome, notes = torch(commands)
    assert outcome == "CPU build"
    assert "--torch-backend=cpu torch==2.13.0" in commands.asked[-1]
    assert not any(is_plain_install(line) for line in commands.asked)
    assert notes == []


def test_the_cuda_build_is_the_last_resort_and_is_announced(project: Path) -> None:
    commands = Commands(__dry_run=CUDA_BUILD, torch_backend=FAILED)
    outcome, notes = torch(commands)
    assert outcome == "default build"
    assert is_plain_install(commands.asked[-1])
    assert len(notes) == 1
    assert "CUDA packages (gigabytes)" in notes[0]


@pytest.mark.parametrize("need", ["nvidia-cublas==1", "cuda-toolkit[cublas]==13", "triton==3.7.1"])
def test_a_cuda_build_is_known_by_what_it_needs(need: str) -> None:
    assert environment.is_cpu_build(CPU_BUILD.stdout)
    assert not environment.is_cpu_build(report("filelock", need).stdout)
    assert not environment.is_cpu_build('{"install": []}')


def test_torch_that_is_there_is_left_alone(project: Path) -> None:
    commands = Commands()
    assert torch(commands, torch="2.13.0+cpu")[0] == "already there"
    assert torch(commands, torch="2.13.0")[0] == "already there"
    assert commands.asked == []
    commands = Commands(__dry_run=CPU_BUILD)
    torch(commands, torch="2.12.0+cpu")
    assert is_plain_install(commands.asked[-1])


def test_a_gpu_gets_the_default_build_in_place_of_a_cpu_build(project: Path) -> None:
    commands = Commands()
    torch(commands, "gpu", torch="2.13.0+cpu")
    assert "pip uninstall --yes torch" in commands.asked[0]
    assert is_plain_install(commands.asked[1])
    commands = Commands()
    torch(commands, "gpu", torch="2.13.0")
    assert len(commands.asked) == 1


def test_other_systems_have_one_build_only(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    commands = Commands()
    torch(commands)
    assert len(commands.asked) == 1
    assert is_plain_install(commands.asked[0])


def test_no_network_is_not_taken_for_a_missing_cpu_build(project: Path) -> None:
    commands = Commands(__dry_run=OFFLINE)
    with pytest.raises(SetupError, match="the package index cannot be reached"):
        torch(commands)
    assert len(commands.asked) == 1


def test_a_missing_pin_is_named() -> None:
    assert environment.pinned("torch", "a==1\ntorch==2.13.0 ; python_version > '3'\n") == "2.13.0"
    with pytest.raises(SetupError, match="torch"):
        environment.pinned("torch", "torchvision==1\n")


@pytest.mark.parametrize(("extra", "rival"), [("cpu", "onnxruntime-gpu"), ("gpu", "onnxruntime")])
def test_one_onnxruntime_replaces_the_other(extra: str, rival: str) -> None:
    commands = Commands()
    assert not environment.remove_rival(commands, extra, {"numpy": "2"})
    assert commands.asked == []
    assert environment.remove_rival(commands, extra, {rival: "1.31.1"})
    assert commands.asked[-1].endswith(f"pip uninstall --yes {rival}")


def test_of_two_onnxruntimes_neither_is_trusted() -> None:
    commands = Commands()
    environment.remove_rival(commands, "cpu", {"onnxruntime": "1", "onnxruntime-gpu": "1"})
    assert commands.asked[0].endswith("uninstall --yes onnxruntime onnxruntime-gpu")


class FakeDriver:
    """The CUDA driver's library, with `count` devices."""

    def __init__(self, count: int, status: int = 0) -> None:
        self.count, self.status = count, status

    def cuInit(self, flags: int) -> int:  # noqa: N802 (the library's name)
        return self.status

    def cuDeviceGetCount(self, count: object) -> int:  # noqa: N802
        ctypes.cast(count, ctypes.POINTER(ctypes.c_int)).contents.value = self.count  # type: ignore[arg-type]
        return 0


def no_library(name: str) -> FakeDriver:
    raise OSError(f"{name}: cannot open shared object file")


@pytest.mark.parametrize(
    ("device", "smi", "driver", "expected"),
    [
        ("nvidia0", None, no_library, True),
        ("nvidiactl", None, no_library, False),
        (None, None, no_library, False),
        (None, Result(0, "GPU 0: NVIDIA H200 (UUID: ...)\n"), no_library, True),
        (None, Result(9, "", "couldn't communicate with the NVIDIA driver"), no_library, False),
        (None, None, lambda name: FakeDriver(1), True),
        (None, None, lambda name: FakeDriver(0), False),
        (None, None, lambda name: FakeDriver(1, status=100), False),
    ],
)
def test_a_gpu_is_one_that_answers(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: str | None,
    smi: Result | None,
    driver: Callable[[str], FakeDriver],
    expected: bool,
) -> None:
    if device:
        (tmp_path / device).touch()
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if smi else None)
    monkeypatch.setattr(ctypes, "CDLL", driver)
    assert environment.has_gpu(Commands(nvidia_smi=smi or FAILED), tmp_path) is expected


def test_extras_overrides_detection() -> None:
    assert environment.chosen_extra("", lambda: True) == "gpu"
    assert environment.chosen_extra("", lambda: False) == "cpu"
    assert environment.chosen_extra("cpu", lambda: True) == "cpu"
    assert environment.chosen_extra(" GPU ", lambda: False) == "gpu"
    with pytest.raises(SetupError, match="EXTRAS is 'both'"):
        environment.chosen_extra("both", lambda: False)


def test_a_python_without_venv_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    environment.check_python()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "ensurepip" else name)
    with pytest.raises(SetupError, match="no module ensurepip") as caught:
        environment.check_python()
    assert "apt install python3-venv" in caught.value.do


@contextmanager
def silent_step(name: str) -> Iterator[Callable[[str], None]]:
    yield lambda outcome: None


def set_up(commands: Commands, kind: str = "run", extra: str = "cpu") -> list[str]:
    notes: list[str] = []
    environment.set_up(kind, extra, commands, notes.append, silent_step)
    return notes


def made(project: Path, **answers: Result) -> Commands:
    """A project with a .venv, and commands that succeed."""
    (project / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
    (project / ".venv" / "bin" / "python").touch()
    ours = "{}.{}\n".format(*sys.version_info[:2])
    return Commands(**{**answers, "import sys, pip": Result(0, ours), "__dry_run": CPU_BUILD})


def test_a_set_up_installs_and_stamps(project: Path) -> None:
    commands = made(project)
    set_up(commands)
    assert commands.asked[-1].endswith("--no-build-isolation -c constraints/cpu.txt -e .[cpu]")
    assert any("setuptools==80.1" in line and environment.PIP in line for line in commands.asked)
    wanted = environment.fingerprint("cpu")
    assert environment.is_done("run", wanted)
    assert not environment.is_done("dev", wanted)
    assert not environment.is_done("run", environment.fingerprint("gpu"))


def test_a_dev_set_up_serves_both(project: Path) -> None:
    commands = made(project)
    set_up(commands, "dev", "gpu")
    assert commands.asked[-2].endswith("-c constraints/gpu.txt -e .[gpu,dev]")
    wanted = environment.fingerprint("gpu")
    assert environment.is_done("dev", wanted)
    assert environment.is_done("run", wanted)


def test_a_cpu_build_on_a_gpu_machine_is_mentioned(project: Path) -> None:
    here = Result(0, '[{"name": "torch", "version": "2.13.0+cpu"}]')
    assert "will not see the GPU" in set_up(made(project, **{"pip list": here}), extra="gpu")[0]


def test_the_second_set_up_does_nothing(project: Path) -> None:
    set_up(made(project))

    class Untouchable(Shell):
        def __call__(self, command: Sequence[str]) -> Result:
            raise AssertionError(f"ran {command}")

    environment.ensure("run", "cpu", Untouchable(project / "log"))


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints/cpu.txt", "tools/environment.py"])
def test_a_changed_input_asks_for_a_new_set_up(project: Path, changed: str) -> None:
    set_up(made(project))
    (project / changed).write_text("torch==2.14.0")
    assert not environment.is_done("run", environment.fingerprint("cpu"))


def test_a_moved_or_removed_environment_asks_for_a_new_set_up(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(made(project))
    here = environment.fingerprint("cpu")
    (project / ".venv" / "bin" / "python").unlink()
    assert not environment.is_done("run", here)
    shutil.copytree(project, project / "elsewhere")
    monkeypatch.chdir(project / "elsewhere")
    assert environment.fingerprint("cpu") != here


def test_a_failed_set_up_leaves_no_stamp_and_can_go_on(project: Path) -> None:
    set_up(made(project))
    with pytest.raises(SetupError, match="cannot be reached"):
        set_up(made(project, no_build_isolation=OFFLINE))
    assert not environment.is_done("run", environment.fingerprint("cpu"))
    assert not environment.UNFINISHED.exists()
    commands = made(project)
    set_up(commands)
    assert not any("-m venv" in line for line in commands.asked)
    assert environment.is_done("run", environment.fingerprint("cpu"))


def test_half_written_packages_are_not_trusted(project: Path) -> None:
    half = Result(1, "", "Installing collected packages: numpy\nNo space left on device")
    with pytest.raises(SetupError, match="disk is full"):
        set_up(made(project, no_build_isolation=half))
    commands = made(project)
    set_up(commands)
    assert "-m venv --clear .venv" in commands.asked[0]


def test_a_killed_set_up_is_begun_anew(project: Path) -> None:
    class Killed(Commands):
        def __call__(self, command: Sequence[str]) -> Result:
            if "--no-build-isolation" in command:
                raise KeyboardInterrupt
            return super().__call__(command)

    with pytest.raises(KeyboardInterrupt):
        set_up(Killed(**made(project).answers))
    assert not environment.is_done("run", environment.fingerprint("cpu"))
    commands = made(project)
    set_up(commands)
    assert "-m venv --clear .venv" in commands.asked[0]


@pytest.mark.parametrize("answer", [Result(0, "2.7\n"), Result(1, "", "No module named pip")])
def test_an_environment_of_another_python_is_replaced(project: Path, answer: Result) -> None:
    made(project)
    commands = Commands(**{"import sys, pip": answer})
    assert environment.make_environment(commands).startswith("Python 3.")
    assert commands.asked[-1].endswith("-m venv --clear .venv")


@pytest.mark.parametrize(
    ("printed", "what"),
    [
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("PermissionError: [Errno 13] Permission denied: '/x'", "may not be written"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]'))", "certificate"),
        (
            "Temporary failure in name resolution\nERROR: No matching distribution found for pip",
            "cannot be reached",
        ),
        ("ERROR: No matching distribution found for torch==2.13.0", "no build for this Python"),
        ("segmentation fault", "a command failed"),
    ],
)
def test_the_cause_of_a_failure_is_named(printed: str, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = console.diagnosis(f"first line\n{'line' * 100}\n{printed}")
    assert what in error.what
    console.complain(error)
    shown = capsys.readouterr().err.splitlines()
    assert shown[-3].endswith(printed.splitlines()[-1])
    assert shown[-2].startswith("error: set-up: ")
    assert shown[-1].strip() == error.do


def test_the_shell_keeps_a_log_and_a_clean_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("PIP_USER", "1")
    shell = Shell(tmp_path / "setup.log")
    program = "import os, sys; print(os.environ.get('PYTHONPATH'), os.environ['PIP_USER']); sys.exit('oh no')"
    result = shell([sys.executable, "-c", program])
    assert (result.status, result.stdout) == (1, "None 0\n")
    assert result.text == "None 0\noh no\n"
    assert "oh no\n[exit 1]" in (tmp_path / "setup.log").read_text()
    assert shell(["no-such-program"]).status == 127


def test_a_step_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shell = Shell(tmp_path / "setup.log")
    with shell.step("pip") as done:
        done("already there")
    assert re.fullmatch(r"set-up: pip \.\.\. already there, \d+ s\n", capsys.readouterr().out)
    with shell.step("PyTorch"):
        shell.note("gigabytes")
    assert re.fullmatch(
        r"set-up: PyTorch \.\.\.\n  note: gigabytes\nset-up: PyTorch \.\.\. \d+ s\n", capsys.readouterr().out
    )
    with pytest.raises(SetupError), shell.step("packages"):
        raise console.diagnosis("")
    assert capsys.readouterr().out.endswith("packages ... failed\n")


def test_main_reports_mistakes_and_interruptions(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "ROOT", project)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setenv("EXTRAS", "tpu")
    assert environment.main(["run"]) == 1
    assert "EXTRAS is 'tpu'" in capsys.readouterr().err
    monkeypatch.setenv("EXTRAS", "cpu")
    for raised, status, words_ in (
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "full"), 1, "disk is full"),
    ):

        def fails(*_: object, error: BaseException = raised) -> None:
            raise error

        monkeypatch.setattr(environment, "set_up", fails)
        assert environment.main(["run"]) == status
        assert words_ in capsys.readouterr().err
    monkeypatch.setattr(environment, "set_up", lambda kind, extra, *_: print(kind, extra))
    assert environment.main(["dev"]) == 0
    assert capsys.readouterr().out == "dev cpu\n"


# --- The pins -------------------------------------------------------------------------------------------------


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
    assert [name for name in cpu if environment.CUDA_PACKAGES.match(name) and not dali.match(name)] == []
    shared = {name: cpu[name] for name in cpu.keys() & gpu.keys()}
    assert shared == {name: gpu[name] for name in shared}


# --- The order of the packages --------------------------------------------------------------------------------


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def modules(*places: str) -> list[Path]:
    paths = [path for place in places for path in sorted(ROOT.glob(place))]
    assert paths, places
    return paths


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("scarlet", ()),
        ("export", ("scarlet",)),
        ("pipelines", ("scarlet",)),
        ("bench", ("scarlet", "export", "pipelines")),
    ],
)
def test_imports_go_one_way(package: str, allowed: tuple[str, ...]) -> None:
    forbidden = set(PACKAGES) - {package, *allowed}
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(f"{package}/**/*.py")
        for name in imports(path)
        if name.partition(".")[0] in forbidden
    }
    assert wrong == set()


def test_nothing_imports_the_command_line() -> None:
    everything = modules(*(f"{package}/**/*.py" for package in PACKAGES))
    assert [path for path in everything if "bench.cli" in imports(path)] == []


RUNTIMES = {"torch", "torchvision", "timm", "onnx", "onnxruntime", "openvino", "tensorrt", "nvidia", "pynvml"}
READERS = (
    "bench/analysis/stats/intervals.py",
    "bench/record/case.py",
    "bench/record/run_folder.py",
    "bench/report/**/*.py",
)


def test_reports_need_no_runtime() -> None:
    for path in modules(*READERS):
        assert {name.partition(".")[0] for name in imports(path)} & RUNTIMES == set(), path


def test_reports_load_no_runtime_by_way_of_others() -> None:
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules(*READERS)]
    program = (
        f"import sys, {', '.join(name.removesuffix('.__init__') for name in names)}; print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {name.partition(".")[0] for name in done.stdout.split()} & RUNTIMES == set()


def test_the_set_up_needs_only_the_standard_library() -> None:
    for path in modules("tools/*.py"):
        foreign = {name.partition(".")[0] for name in imports(path)} - sys.stdlib_module_names
        assert foreign <= {"console", "environment"}, path
