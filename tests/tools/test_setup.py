"""What tools/setup.sh installs, when it does nothing, what it says, and what becomes of one that was cut short."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Plays Python, and in an environment made by it pip and uv: writes down what it was called with, and answers as the
# test's variables say. What it installs are the folders that an installation is known by.
INTERPRETER = r"""#!/bin/sh
echo "$*" >>"$CALLS"
packages=.venv/lib/python3/site-packages
case "$*" in
    *version_info*) echo "$VERSION" ;;
    *find_spec*) echo "$MISSING" ;;
    --version) [ -x .venv/bin/python ] && echo "pip 26 from $(cd .venv && pwd -P)/lib (python $(cat .venv/by))" ;;
    *"$FAILING"*) echo "$PRINTED" && exit 1 ;;
    *"$HANGING"*) exec sleep 60 ;;
    *"$KILLING"*) exec kill -KILL "$PPID" ;;
    "-m venv"*) rm -rf .venv && mkdir -p .venv/bin $packages && cp "$0" .venv/bin/python && echo "$VERSION" >.venv/by ;;
    *ensurepip*) cp "$0" .venv/bin/pip ;;
    *"config list") echo "$CONFIG" ;;
    *--dry-run*) printf '{"requires_dist": [\n    "filelock",\n    "%s"\n' "$NEEDS" >.venv/torch.json ;;
    *uninstall*onnxruntime*) rm -r $packages/onnxruntime* ;;
    *".[cpu"*) mkdir -p $packages/onnxruntime-1.dist-info ;;
    *".[gpu"*) mkdir -p $packages/onnxruntime_gpu-1.dist-info ;;
esac
"""
# What it is told where the test says nothing.
ANSWERS = {"EXTRAS": "cpu", "VERSION": "3.11", "MISSING": "", "PRINTED": "", "CONFIG": "", "NEEDS": "sympy"}
NEVER = dict.fromkeys(("FAILING", "HANGING", "KILLING"), "never")

PRIVATE = "global.index-url='https://packages.example/simple'"
CUDA = "nvidia-cudnn-cu13==9; platform_system == 'Linux'"
ALL = "--no-build-isolation -c constraints/cpu.txt -e .[cpu]"
PIP = f"pip install {ALL}"
UV = "uv pip install --python .venv/bin/python --torch-backend=cpu"
UV_TORCH = f"{UV} --no-deps -c constraints/cpu.txt torch torchvision"
TENSORRT = "pip install tensorrt-cu13>=10,<12"
REMOVED = "pip uninstall --yes onnxruntime onnxruntime-gpu"


class SetUp:
    """The set-up in a folder of its own, whose name has a space and a quote, with an interpreter that only plays."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin, self.calls = folder / "it's here", folder / "bin", folder / "calls"
        for name in ("constraints", "tools"):
            shutil.copytree(ROOT / name, self.folder / name)
        shutil.copy(ROOT / "pyproject.toml", self.folder)
        self.bin.mkdir()
        self.tool("python", INTERPRETER)
        self.tool("nvidia-smi", "#!/bin/sh\nexit 9\n")

    def tool(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def start(self, kind: str = "run", **variables: str) -> subprocess.Popen[str]:
        self.calls.write_text("")
        ours = {"PATH": f"{self.bin}:{os.defpath}", "PYTHON": "python", "CALLS": str(self.calls)}
        return subprocess.Popen(
            [self.folder / "tools" / "setup.sh", kind],
            env={**ours, **ANSWERS, **NEVER, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, kind: str = "run", **variables: str) -> str:
        process = self.start(kind, **variables)
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
        return stdout

    def fails(self, **variables: str) -> list[str]:
        """The lines of a complaint: what the failed command printed, what is wrong, what to do."""
        process = self.start(**variables)
        lines = process.communicate(timeout=60)[1].splitlines()
        assert process.returncode == 1
        assert lines[-2].startswith("error: set-up: ")
        assert lines[-1].startswith("       ")
        return lines

    @property
    def installed(self) -> list[str]:
        """What pip and uv were told to install and remove, beside pip, uv and setuptools themselves."""
        calls = re.findall(r"^-m ((?:uv )?pip (?:un)?install .*)$", self.calls.read_text(), re.MULTILINE)
        return [call for call in calls if not re.search(r"pip==|uv==|--dry-run", call)]

    @property
    def made_anew(self) -> bool:
        return "-m venv --clear" in self.calls.read_text()


@pytest.fixture
def set_up(tmp_path: Path) -> SetUp:
    return SetUp(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have one build of torch")
@pytest.mark.parametrize(
    ("answers", "installed", "gigabytes"),
    [
        ({}, [f"{UV} {ALL}"], False),
        ({"CONFIG": "global.timeout='9'"}, [f"{UV} {ALL}"], False),
        ({"CONFIG": PRIVATE}, [PIP], False),
        ({"FAILING": "uv=="}, [PIP], False),
        ({"FAILING": "uv==", "NEEDS": CUDA}, [PIP], True),
        ({"FAILING": "uv pip", "NEEDS": CUDA}, [f"{UV} {ALL}", PIP], True),
        ({"CONFIG": PRIVATE, "NEEDS": CUDA}, [UV_TORCH, PIP], False),
        ({"CONFIG": PRIVATE, "NEEDS": CUDA, "FAILING": "uv pip"}, [UV_TORCH, PIP], True),
    ],
)
def test_a_cpu_build_of_torch_comes_from_uv_or_from_where_pip_is_told(set_up, answers, installed, gigabytes):
    assert ("CUDA packages (gigabytes)" in set_up(**answers)) is gigabytes
    assert set_up.installed == installed


def test_a_gpu_gets_the_default_build_and_never_two_onnxruntimes(set_up: SetUp) -> None:
    set_up("dev")
    assert set_up.installed[-1].endswith("-e .[cpu,dev]")
    (set_up.folder / ".venv/lib/python3/site-packages/torch-2.13.0+cpu.dist-info").mkdir()
    assert "will not see the GPU" in set_up(EXTRAS=" GPU ")
    default = f"{UV} {ALL}".replace(" --torch-backend=cpu", "").replace("cpu", "gpu")
    assert set_up.installed == [REMOVED, "pip uninstall --yes torch torchvision", default, TENSORRT]
    set_up()
    assert set_up.installed[0] == REMOVED
    assert not set_up.made_anew


def test_tensorrt_is_fetched_for_a_gpu_alone_and_its_absence_is_no_failure(set_up: SetUp) -> None:
    assert "TensorRT cannot be fetched" in set_up(EXTRAS="gpu12", FAILING="tensorrt-")
    assert set_up.installed[-1] == TENSORRT.replace("cu13", "cu12")
    assert "unavailable" in set_up(EXTRAS="gpu", TENSORRT="0")
    assert TENSORRT not in set_up.installed
    set_up(TENSORRT="1")
    assert set_up.installed[-1].endswith(".[cpu]")


@pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="there is a GPU here")
@pytest.mark.parametrize(("answer", "extra"), [("echo 'GPU 0: H200'", "gpu"), ("echo 'no driver'; exit 9", "cpu")])
def test_a_gpu_is_one_that_answers(set_up: SetUp, answer: str, extra: str) -> None:
    set_up.tool("nvidia-smi", f"#!/bin/sh\n{answer}\n")
    set_up(EXTRAS="", TENSORRT="0")
    assert set_up.installed[-1].endswith(f".[{extra}]")


@pytest.mark.parametrize(
    ("variables", "what", "do"),
    [
        ({"PYTHON": "no-such-python"}, "there is no 'no-such-python' here", "PYTHON=/path/to/python3"),
        ({"VERSION": "2.7"}, "this Python is 2.7", "PYTHON="),
        ({"VERSION": "3.9"}, "needs 3.10 or newer", "PYTHON="),
        ({"VERSION": "3.10", "EXTRAS": "gpu"}, "need Python 3.11 or newer", "EXTRAS=cpu"),
        ({"VERSION": "3.10", "EXTRAS": "gpu12"}, "need Python 3.11 or newer", "EXTRAS=cpu"),
        ({"EXTRAS": "both"}, "EXTRAS is 'both'", "EXTRAS=cpu, EXTRAS=gpu or"),
        ({"MISSING": "ensurepip"}, "no module ensurepip", "apt install python3-venv"),
    ],
)
def test_what_cannot_be_set_up_is_said_before_anything_is_written(set_up, variables, what, do):
    lines = set_up.fails(**variables)
    assert what in lines[-2]
    assert do in lines[-1]
    assert len(lines) == 2
    assert not (set_up.folder / ".venv").exists()


@pytest.mark.parametrize(
    ("printed", "what"),
    [
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("PermissionError: [Errno 13] Permission denied: '/x'", "may not be written"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]'))", "certificate"),
        ("Temporary failure in name resolution\nERROR: No matching distribution found", "cannot be reached"),
        ("ERROR: No matching distribution found for torch==2.13.0", "no build for this Python"),
        ("segmentation fault", "a command failed"),
    ],
)
def test_the_cause_of_a_failure_is_named(set_up: SetUp, printed: str, what: str) -> None:
    lines = set_up.fails(FAILING="pip install", PRINTED=printed)
    assert what in lines[-2]
    assert lines[-3].endswith(printed.splitlines()[-1])
    assert printed in (set_up.folder / ".venv" / "setup.log").read_text()


def test_a_set_up_does_nothing_until_an_input_changes(set_up: SetUp) -> None:
    def state() -> list[tuple[Path, int]]:
        return sorted((path, path.stat().st_mtime_ns) for path in set_up.folder.rglob("*"))

    def once(kind: str = "run", **variables: str) -> bool:
        """Whether the first of two set-ups installs; the second must not write, so that it may be read-only."""
        set_up(kind, **variables)
        installs, before = bool(set_up.installed), state()
        assert set_up(kind, **variables) == ""
        assert (set_up.installed, state()) == ([], before)
        return installs

    assert once()
    assert once("dev")
    assert not once("run")
    for name in ("pyproject.toml", "constraints/cpu.txt"):
        with (set_up.folder / name).open("a") as file:
            file.write("# changed\n")
        assert once()
    assert not set_up.made_anew
    assert once(VERSION="3.12")
    (set_up.folder / ".venv/bin/python").unlink()
    assert once(VERSION="3.12")
    set_up.folder = set_up.folder.rename(set_up.folder.with_name("elsewhere"))
    assert once(VERSION="3.12")


def test_an_environment_that_worked_outlives_a_failure_that_wrote_nothing(set_up: SetUp) -> None:
    set_up()
    (set_up.folder / "constraints" / "cpu.txt").write_text("torch==2.14.0")
    set_up.fails(CONFIG=PRIVATE, FAILING=".[cpu]", PRINTED="NewConnectionError(...)")
    set_up()
    assert set_up.installed
    assert not set_up.made_anew


@pytest.mark.parametrize(
    "death",
    [
        {"FAILING": PIP, "CONFIG": PRIVATE, "PRINTED": "Installing collected packages: numpy"},
        {"FAILING": "uv pip", "PRINTED": "Prepared 9 packages in 5s\nerror: Failed to install: numpy.whl"},
        {"KILLING": "ensurepip"},
        {"KILLING": ".[cpu]"},
    ],
)
def test_half_written_packages_are_not_trusted(set_up: SetUp, death: dict[str, str]) -> None:
    process = set_up.start(**death)
    process.communicate(timeout=60)
    assert process.returncode in (1, -9)
    set_up()
    assert set_up.made_anew
    set_up()
    assert not set_up.installed


def test_a_set_up_told_to_stop_stops_what_it_runs(set_up: SetUp) -> None:
    process = set_up.start(HANGING=".[cpu]")
    while not set_up.installed:
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    # Both outputs are at their end once nobody is left to write to them.
    assert "error: set-up: interrupted" in process.communicate(timeout=30)[1]


@pytest.mark.skipif(not shutil.which("flock"), reason="no flock")
def test_set_ups_of_one_checkout_take_turns(set_up: SetUp) -> None:
    with (set_up.folder / "pyproject.toml").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        process = set_up.start()
        assert process.stdout
        assert "waiting for another set-up" in process.stdout.readline()
        assert not (set_up.folder / ".venv").exists()
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert set_up.installed
