"""bench.host and bench.machine on made-up /proc and /sys trees."""

from __future__ import annotations

import os
import subprocess
import sys
import types

import pytest

from bench import host, machine
from bench.host import WarningKind

QUIET = {
    "load_1m": 0.05,
    "logical_cores": 8,
    "logical_cores_allowed": 8,
    "governor": "performance",
    "cgroup_cpu_quota": None,
    "memory_available_bytes": 16 * 2**30,
    "cgroup_memory_limit_bytes": None,
    "swap_used_bytes": 0,
    "nvidia": {"driver": None, "gpus": [], "reason": "nvidia-ml-py is not installed"},
}


def tree(root, files):
    """Writes the files of a made-up system."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


LAPTOP = {
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: Fancy CPU @ 3 GHz\n"
    "flags\t\t: fpu avx2 avx512f avx512_vnni amx_int8\n"
    "\nprocessor\t: 1\nmodel name\t: Other\nflags\t\t: fpu\n",
    "proc/loadavg": "0.50 0.25 0.10 1/100 4242\n",
    "proc/meminfo": "MemTotal:       16000000 kB\nMemAvailable:    8000000 kB\n"
    "SwapTotal: 2000 kB\nSwapFree: 500 kB\nHugePages: x\n",
    "proc/self/cgroup": "0::/user.slice/session.scope\n",
    "proc/1/cgroup": "0::/init.scope\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "powersave\n",
    "sys/devices/system/cpu/intel_pstate/no_turbo": "0\n",
    "etc/os-release": 'NAME="Linux"\nPRETTY_NAME="Some Linux 12"\n',
}


def test_a_laptop_is_described(tmp_path):
    described = host.describe_host(tree(tmp_path, LAPTOP))
    assert described["cpu_model"] == "Fancy CPU @ 3 GHz"
    assert described["cpu_flags"] == ["avx2", "avx512f", "avx512_vnni", "amx_int8"]
    assert (described["load_1m"], described["load_5m"], described["load_15m"]) == (0.5, 0.25, 0.1)
    assert described["memory_total_bytes"] == 16_000_000 * 1024
    assert described["memory_available_bytes"] == 8_000_000 * 1024
    assert described["swap_used_bytes"] == 1500 * 1024
    assert described["governor"] == "powersave"
    assert described["turbo"] is True
    assert described["os"] == "Some Linux 12"
    assert described["container"] is None
    assert described["cgroup_cpu_quota"] is None
    assert described["cgroup_memory_limit_bytes"] is None
    assert described["logical_cores_allowed"] == host.allowed_cores() >= 1


def test_a_system_without_proc_and_sys_leaves_unknowns(tmp_path):
    described = host.describe_host(tmp_path)
    unknown = {name for name, value in described.items() if value is None}
    assert {
        "cpu_model",
        "cpu_flags",
        "load_1m",
        "memory_total_bytes",
        "governor",
        "turbo",
        "swap_used_bytes",
    } <= unknown
    assert described["os"]
    checks = host.doctor(tmp_path, {})
    assert {check.state for check in checks} <= {"ok", "warn", "bad"}
    assert any(check.text == host.UNKNOWN for check in checks)
    assert host.fingerprint(described)


def test_unreadable_contents_are_unknown(tmp_path):
    root = tree(
        tmp_path,
        {"proc/loadavg": "", "proc/meminfo": "MemTotal\nMemAvailable: many kB\n", "proc/cpuinfo": "x"},
    )
    (root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").mkdir(parents=True)
    (root / "etc").mkdir()
    (root / "etc/os-release").write_bytes(b"\xff\xfe")
    described = host.describe_host(root)
    assert [described[name] for name in ("load_1m", "memory_total_bytes", "governor", "cpu_flags")] == [
        None
    ] * 4


def test_arm_features(tmp_path):
    described = host.describe_host(
        tree(tmp_path, {"proc/cpuinfo": "Features : fp asimd asimddp sve\nModel : A Pi\n"})
    )
    assert described["cpu_model"] == "A Pi"
    assert described["cpu_flags"] == ["asimd", "asimddp", "sve"]


def test_cgroup_v2_takes_the_tightest_limit_on_the_way_up(tmp_path):
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/jobs/mine\n",
            "sys/fs/cgroup/jobs/mine/memory.max": "max\n",
            "sys/fs/cgroup/jobs/memory.max": "1073741824\n",
            "sys/fs/cgroup/jobs/mine/cpu.max": "350000 100000\n",
            "sys/fs/cgroup/jobs/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/cpu.max": "max 100000\n",
        },
    )
    described = host.describe_host(root)
    assert described["cgroup_cpu_quota"] == 1.5
    assert described["cgroup_memory_limit_bytes"] == 2**30


def test_cgroup_v1_in_a_container_reads_the_mount(tmp_path):
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/../..\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "536870912\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "proc/1/cgroup": "5:memory:/docker/abc\n",
        },
    )
    described = host.describe_host(root)
    assert described["cgroup_memory_limit_bytes"] == 512 * 2**20
    assert described["cgroup_cpu_quota"] == 2.0
    assert described["container"] == "docker"


def test_cgroup_v1_without_limits(tmp_path):
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/\n3:cpu:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    described = host.describe_host(root)
    assert described["cgroup_memory_limit_bytes"] is None
    assert described["cgroup_cpu_quota"] is None


@pytest.mark.parametrize(
    ("files", "turbo"),
    [
        ({"cpufreq/boost": "1"}, True),
        ({"cpufreq/boost": "0"}, False),
        ({"intel_pstate/no_turbo": "1"}, False),
        ({}, None),
    ],
)
def test_turbo(tmp_path, files, turbo):
    root = tree(tmp_path, {f"sys/devices/system/cpu/{name}": text for name, text in files.items()})
    assert host.describe_host(root)["turbo"] is turbo


@pytest.mark.parametrize(("mark", "name"), [(".dockerenv", "docker"), ("run/.containerenv", "podman")])
def test_container_marks(tmp_path, mark, name):
    assert host.describe_host(tree(tmp_path, {mark: ""}))["container"] == name


def test_allowed_cores_without_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert host.allowed_cores() == 3


# --- packages and git ---------------------------------------------------------------------------------------


def test_package_versions_import_nothing():
    code = "import sys; from bench.host import package_versions as p; print(p()['numpy'], 'numpy' in sys.modules)"
    home = os.path.dirname(os.path.dirname(host.__file__))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=home)
    version, imported = done.stdout.split()
    assert version[0].isdigit()
    assert imported == "False"
    assert host.package_versions(["no-such-package"]) == {"no-such-package": None}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    root = tmp_path / "checkout"
    tree(root, {"a.py": "1", "package/b.py": "2", "ignored/c.py": "3", ".gitignore": "ignored/\n"})

    def git(*words):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(root), *identity, *words], check=True, capture_output=True)

    git("init", "-q")
    return root, git


def test_git_revision_of_a_checkout(checkout):
    root, git = checkout
    assert host.git_revision(root) is None  # no commit yet
    git("add", ".")
    git("commit", "-q", "-m", "first")
    clean = host.git_revision(root / "package")
    assert clean is not None
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    (root / "package/b.py").write_text("changed")
    assert host.git_revision(root) == {"commit": clean["commit"], "dirty": True}


def test_git_revision_is_not_that_of_somebody_elses_checkout(checkout):
    root, git = checkout
    git("add", ".")
    git("commit", "-q", "-m", "first")
    assert host.git_revision(root / "ignored") is None
    assert host.git_revision(root.parent) is None


def test_git_revision_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert host.git_revision(tmp_path) is None


def test_fingerprint_ignores_what_changes_from_day_to_day():
    base = host.fingerprint({**QUIET, "memory_total_bytes": 16 * 2**30})
    assert base == host.fingerprint({**QUIET, "load_1m": 9.0, "memory_total_bytes": 16 * 2**30 - 5_000_000})
    assert base != host.fingerprint({**QUIET, "logical_cores": 4, "memory_total_bytes": 16 * 2**30})
    assert base != host.fingerprint({**QUIET, "memory_total_bytes": 8 * 2**30})
    gpu = {"driver": "1", "gpus": [{"name": "G"}], "reason": None}
    assert base != host.fingerprint({**QUIET, "memory_total_bytes": 16 * 2**30, "nvidia": gpu})


# --- warnings -----------------------------------------------------------------------------------------------


def test_a_quiet_machine_has_no_warnings():
    assert host.warnings(QUIET, {"onnxruntime": "1.0"}) == []


@pytest.mark.parametrize(
    ("change", "kind", "said", "advised"),
    [
        ({"load_1m": 1.5}, WarningKind.LOAD, "1.50", "Stop other work"),
        ({"governor": "powersave"}, WarningKind.GOVERNOR, "powersave", "performance"),
        ({"logical_cores_allowed": 1}, WarningKind.FEW_CORES, "1 logical core for", "--budget"),
        ({"cgroup_cpu_quota": 1.5}, WarningKind.CPU_QUOTA, "1.5 cores", "--threads 1"),
        ({"cgroup_memory_limit_bytes": 2**30}, WarningKind.LOW_MEMORY, "1.0 GiB", "--batches"),
        ({"memory_available_bytes": 2**29}, WarningKind.LOW_MEMORY, "0.5 GiB", "--batches"),
        ({"swap_used_bytes": 2**30}, WarningKind.SWAP, "1024 MiB", "swapoff"),
    ],
)
def test_each_warning_says_what_it_found_and_what_to_do(change, kind, said, advised):
    (warning,) = host.warnings({**QUIET, **change}, {})
    assert warning.kind is kind
    assert said in warning.text
    assert advised in warning.advice


def test_warnings_that_depend_on_the_options():
    assert host.warnings(QUIET, {}, threads=8) == []
    assert host.warnings({**QUIET, "cgroup_cpu_quota": 8.0}, {}) == []
    (threads,) = host.warnings(QUIET, {}, threads=16)
    assert (threads.kind, threads.advice) == (
        WarningKind.TOO_MANY_THREADS,
        "Threads will wait for one another: use --threads 8.",
    )
    (cuda,) = host.warnings(QUIET, {}, devices=("cpu", "cuda"))
    assert cuda.kind is WarningKind.NO_CUDA
    assert "nvidia-ml-py" in cuda.text
    gpu = {"driver": "580.1", "gpus": [{"name": "G"}], "reason": None}
    assert host.warnings({**QUIET, "nvidia": gpu}, {}, devices=("cuda",)) == []
    (both,) = host.warnings(QUIET, {"onnxruntime": "1", "onnxruntime-gpu": "1"})
    assert both.kind is WarningKind.TWO_ONNXRUNTIMES


def test_every_kind_has_a_judgement_and_unknown_facts_never_warn():
    assert set(host._JUDGES) == set(WarningKind)
    assert host.warnings({}, {}) == []


def test_doctor_tells_all(tmp_path):
    checks = {
        check.check: check
        for check in host.doctor(tree(tmp_path, LAPTOP), {"onnxruntime": "1.2", "torch": None})
    }
    assert checks["PyTorch"].state == "bad"
    assert checks["ONNX Runtime"].text == "onnxruntime 1.2"
    assert checks["DALI"].state == "warn"
    assert checks["governor"].state == "warn"
    assert checks["processor"].text.startswith("Fancy CPU")
    assert {kind.value.replace("_", " ") for kind in WarningKind} <= set(checks)
    for check in checks.values():
        assert bool(check.advice) == (check.state != "ok"), check
        assert check.to_dict()["text"] == check.text


# --- NVIDIA -------------------------------------------------------------------------------------------------


def fake_nvml(monkeypatch, fail_at=""):
    """A stand-in for pynvml; ``fail_at`` names the call that raises."""

    class NVMLError(Exception):
        pass

    def call(name, value=None):
        def answer(*arguments):
            if name == fail_at:
                raise NVMLError("Driver Not Loaded")
            calls.append(name)
            return value

        return answer

    calls = []
    module = types.ModuleType("pynvml")
    module.NVMLError = NVMLError
    values = {
        "nvmlInit": None,
        "nvmlShutdown": None,
        "nvmlDeviceGetCount": 1,
        "nvmlDeviceGetHandleByIndex": "handle",
        "nvmlDeviceGetName": b"Test GPU",
        "nvmlDeviceGetMemoryInfo": types.SimpleNamespace(total=80 * 2**30),
        "nvmlDeviceGetCudaComputeCapability": (9, 0),
        "nvmlSystemGetDriverVersion": "580.1",
    }
    for name, value in values.items():
        setattr(module, name, call(name, value))
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return calls


def test_a_gpu_is_described(tmp_path, monkeypatch):
    calls = fake_nvml(monkeypatch)
    described = host.describe_host(tmp_path)["nvidia"]
    gpu = {"name": "Test GPU", "memory_bytes": 80 * 2**30, "compute_capability": "9.0"}
    assert described == {"driver": "580.1", "gpus": [gpu], "reason": None}
    assert calls[-1] == "nvmlShutdown"
    checks = {check.check: check.text for check in host.doctor(tmp_path, {})}
    assert checks["NVIDIA GPU"] == "Test GPU; driver 580.1"


@pytest.mark.parametrize(
    ("fail_at", "reason"),
    [
        ("nvmlInit", "no NVIDIA driver: Driver Not Loaded"),
        ("nvmlDeviceGetName", "does not answer: Driver Not Loaded"),
    ],
)
def test_a_driver_that_fails_gives_the_reason(monkeypatch, fail_at, reason):
    fake_nvml(monkeypatch, fail_at)
    described = machine._nvidia()
    assert described["gpus"] == []
    assert reason in described["reason"]


def test_without_nvidias_library_the_reason_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert machine._nvidia()["reason"] == "nvidia-ml-py is not installed"
