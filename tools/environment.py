"""What tools/setup.py does: a virtual environment with the right packages for this machine. Standard library only.

Four steps, each skipped or cheap when its result is already there: the virtual environment, pip, PyTorch, the rest.
A stamp in .venv says for which inputs (project, pins, Python, extra, place) the last set-up was completed; while
it holds, nothing is run and nothing is fetched.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from console import Run, Say, SetupError, Shell, checked, complain, diagnosis

ROOT = Path(__file__).resolve().parent.parent
VENV = Path(".venv")
PYTHON = str(VENV / "bin" / "python")
LOG = VENV / "setup.log"
# Present while packages are being written. Found at the start of a set-up, it means that the last one was killed
# half way: pip may then take a half-written package for a whole one, so the environment is made anew.
UNFINISHED = VENV / ".unfinished"

# pip from 24.1 on writes the reports read below; uv knows where the CPU builds of torch are.
PIP = "pip==26.3"
UV = "uv==0.13.9"

KINDS = ("run", "dev")
EXTRAS = ("cpu", "gpu")
RIVALS = {"cpu": "onnxruntime-gpu", "gpu": "onnxruntime"}
# What a CUDA build of torch depends on and a CPU build does not.
CUDA_PACKAGES = re.compile(r"(nvidia-|cuda-|triton\b|pytorch-triton\b)")
# Asks pip what it would install. Without fast-deps, an index that serves no metadata would send the whole wheel.
PROBE = ("--dry-run", "--quiet", "--report=-", "--use-feature=fast-deps", "--ignore-installed", "--no-deps")


# --- What this machine is -------------------------------------------------------------------------------------


def has_gpu(run: Run, devices: Path = Path("/dev"), driver: str = "libcuda.so.1") -> bool:
    """Whether an NVIDIA GPU can be used here: a device file, or nvidia-smi or the driver library naming a device.

    A library or tool alone proves nothing (images for GPUs carry both, and run on machines without one), so each
    is asked for a device. The driver library is the only sign under WSL, which has no device file.
    """
    if any(devices.glob("nvidia[0-9]*")):
        return True
    if shutil.which("nvidia-smi"):
        listed = run(["nvidia-smi", "-L"])
        if listed.status == 0 and "GPU 0" in listed.stdout:
            return True
    try:
        library = ctypes.CDLL(driver)
    except OSError:
        return False
    count = ctypes.c_int(0)
    return library.cuInit(0) == 0 and library.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def chosen_extra(wanted: str, gpu: Callable[[], bool]) -> str:
    """`cpu` or `gpu`: what the user asked for (EXTRAS), else what the machine has.

    Raises:
        SetupError: something else was asked for.
    """
    wanted = wanted.strip().lower()
    if not wanted:
        return "gpu" if gpu() else "cpu"
    if wanted not in EXTRAS:
        raise SetupError(
            f"EXTRAS is '{wanted}'", "Write EXTRAS=cpu or EXTRAS=gpu, or leave it out to detect a GPU."
        )
    return wanted


def check_python() -> None:
    """Debian and its kin ship Python without the part that makes virtual environments.

    Raises:
        SetupError: venv or ensurepip is missing.
    """
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        raise SetupError(
            f"this Python ({sys.executable}) has no module {' and '.join(missing)}",
            "Install it (Debian and Ubuntu: apt install python3-venv), or name another Python: make setup PYTHON=...",
        )


# --- The stamp ------------------------------------------------------------------------------------------------


def stamp_path(kind: str) -> Path:
    """Where the stamp of a `run` or `dev` set-up lies."""
    return VENV / f".stamp-{kind}"


def fingerprint(extra: str) -> str:
    """A digest of all that a set-up of the current folder depends on; of the place too, as a .venv cannot move."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", f"constraints/{extra}.txt", "tools/environment.py"):
        digest.update(Path(name).read_bytes() + b"\0")
    digest.update(repr((extra, sys.version_info[:2], os.getcwd())).encode())
    return digest.hexdigest()


def is_done(kind: str, wanted: str) -> bool:
    """Whether the last completed set-up of this kind was for the same inputs, and its Python is still there."""
    try:
        return stamp_path(kind).read_text() == wanted and Path(PYTHON).exists() and not UNFINISHED.exists()
    except OSError:
        return False


def write_stamps(kind: str, wanted: str) -> None:
    """Marks the set-up as complete; a `dev` environment holds all that a `run` one does."""
    for name in KINDS if kind == "dev" else (kind,):
        stamp_path(name).write_text(wanted)


# --- The steps ------------------------------------------------------------------------------------------------


def pinned(package: str, constraints: str) -> str:
    """The version of `package` in the text of a constraints file.

    Raises:
        SetupError: it is not pinned there.
    """
    found = re.search(rf"^{re.escape(package)}==([^\s;]+)", constraints, re.MULTILINE)
    if not found:
        raise SetupError(f"constraints do not pin {package}", "Remake them with `make constraints`.")
    return found.group(1)


def is_cpu_build(report: str) -> bool:
    """Whether the torch in pip's JSON installation report depends on no CUDA package.

    The report's format: https://pip.pypa.io/en/stable/reference/installation-report/
    """
    items: list[dict[str, Any]] = json.loads(report)["install"]
    needs = [need for item in items for need in item["metadata"].get("requires_dist", [])]
    return bool(items) and not any(CUDA_PACKAGES.match(need) for need in needs)


def pip(*arguments: str) -> list[str]:
    """A pip command for the environment."""
    return [PYTHON, "-m", "pip", *arguments]


def install_torch(run: Run, say: Say, extra: str, constraints: Path, installed: Mapping[str, str]) -> str:
    """Installs torch, on a machine without a GPU a CPU build if one can be had. Returns what was done, in words.

    On Linux the package index's default build brings several gigabytes of CUDA libraries. So where no GPU is wanted:
    first ask pip what it would take (a private index or a local wheel may well offer a CPU build); if that is a
    CUDA build, let uv fetch a CPU build from where PyTorch publishes them; and if that place cannot be reached,
    take the CUDA build after all, and say so.

    Raises:
        SetupError: a command failed.
    """
    version = pinned("torch", constraints.read_text())
    wanted = f"torch=={version}"
    install = pip("install", "-c", str(constraints), wanted)
    present = installed.get("torch", "")
    if extra == "gpu":
        if present.endswith("+cpu"):
            checked(run(pip("uninstall", "--yes", "torch")))
        checked(run(install))
        return "default build"
    if present.split("+")[0] == version:
        return "already there"
    if sys.platform != "linux":
        checked(run(install))
        return "default build"
    if is_cpu_build(checked(run(pip("install", *PROBE, wanted))).stdout):
        checked(run(install))
        return "CPU build, from pip"
    checked(run(pip("install", UV)))
    # Only torch itself comes this way; what it depends on is left to pip and its configuration.
    uv = [PYTHON, "-m", "uv", "pip", "install", "--python", PYTHON, "--no-deps", "--torch-backend=cpu"]
    if run([*uv, wanted]).status == 0:
        return "CPU build"
    say(
        "PyTorch's CPU builds cannot be reached: downloading the default build with its CUDA packages (gigabytes)"
    )
    checked(run(install))
    return "default build"


def remove_rival(run: Run, extra: str, installed: Mapping[str, str]) -> bool:
    """Uninstalls onnxruntime where onnxruntime-gpu is wanted and the other way round; says whether it had to.

    Both install the same module, so that removing one breaks the other: where the wrong one is there, both go.
    """
    if RIVALS[extra] not in installed:
        return False
    checked(run(pip("uninstall", "--yes", *(name for name in sorted(RIVALS.values()) if name in installed))))
    return True


def installed_packages(run: Run) -> dict[str, str]:
    """Names (in pip's normal form) and versions of what the environment holds."""
    listed: list[dict[str, str]] = json.loads(checked(run(pip("list", "--format=json"))).stdout)
    return {re.sub(r"[-_.]+", "-", item["name"]).lower(): item["version"] for item in listed}


def make_environment(run: Run) -> str:
    """Makes .venv where it is missing, broken, half made, or of another Python; returns what was done, in words."""
    ask = "import sys, pip; print('%d.%d' % sys.version_info[:2])"
    ours = "{}.{}".format(*sys.version_info[:2])
    if Path(PYTHON).exists() and not UNFINISHED.exists():
        answer = run([PYTHON, "-c", ask])
        if answer.status == 0 and answer.stdout.strip() == ours:
            return "already there"
    checked(run([sys.executable, "-m", "venv", "--clear", str(VENV)]))
    return f"Python {ours}"


Step = Callable[[str], AbstractContextManager[Callable[[str], None]]]


def set_up(kind: str, extra: str, run: Run, say: Say, step: Step) -> None:
    """All the steps, in the current folder, which is the project's.

    Raises:
        SetupError: a step failed; no stamp is left.
    """
    constraints = Path("constraints", f"{extra}.txt")
    with step("virtual environment .venv") as done:
        for name in KINDS:
            stamp_path(name).unlink(missing_ok=True)
        done(make_environment(run))
    UNFINISHED.touch()
    try:
        with step("pip"):
            setuptools = pinned("setuptools", constraints.read_text())
            checked(run(pip("install", PIP, f"setuptools=={setuptools}")))
            installed = installed_packages(run)
        with step("PyTorch") as done:
            done(install_torch(run, say, extra, constraints, installed))
        extras = f"{extra},dev" if kind == "dev" else extra
        with step(f"packages ({extras})"):
            remove_rival(run, extra, installed)
            # setuptools is there already, so that no second copy is fetched to build this one package.
            checked(run(pip("install", "--no-build-isolation", "-c", str(constraints), "-e", f".[{extras}]")))
    except SetupError as error:
        # Where pip failed before it wrote anything (no network, say), an environment that worked stays as it was.
        if "Installing collected packages" not in error.printed:
            UNFINISHED.unlink()
        raise
    if extra == "gpu" and installed_packages(run).get("torch", "").endswith("+cpu"):
        say("pip is set up to offer only a CPU build of torch here: PyTorch rows will not see the GPU")
    UNFINISHED.unlink()
    write_stamps(kind, fingerprint(extra))


# --- All together ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def one_at_a_time(say: Say) -> Iterator[None]:
    """Waits for a set-up of the same checkout in another terminal. File systems without locks go without."""
    with open("pyproject.toml") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another set-up of this checkout")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            say("this file system has no locks: do not start two set-ups at once")
        yield


def ensure(kind: str, extra: str, shell: Shell) -> None:
    """Sets up unless that is done already.

    Raises:
        SetupError: a step failed.
    """
    wanted = fingerprint(extra)
    if is_done(kind, wanted):
        return
    check_python()
    with one_at_a_time(shell.note):
        if not is_done(kind, wanted):  # the one waited for may have done it
            set_up(kind, extra, shell, shell.note, shell.step)


def main(arguments: Sequence[str]) -> int:
    """Runs the set-up named by the first argument, `run` (default) or `dev`. Returns the exit status."""
    os.chdir(ROOT)
    shell = Shell(LOG)
    # A set-up told to stop (by make, by a CI) stops its pip too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        extra = chosen_extra(os.environ.get("EXTRAS", ""), lambda: has_gpu(shell))
        ensure(arguments[0] if arguments else "run", extra, shell)
    except SetupError as error:
        complain(error)
        return 1
    except OSError as error:
        complain(diagnosis(str(error)))
        return 1
    except KeyboardInterrupt:
        complain(SetupError("interrupted", "Run the same command again."))
        return 130
    return 0
