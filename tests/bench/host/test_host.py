"""bench.host, bench.host.machine and the judgements on made-up /proc and /sys trees."""

import dataclasses
import os
import subprocess
import sys
import types

import pytest

from bench import host
from bench.host import WarningKind, gpu_state
from bench.host.counters import Activity
from bench.host.gpu_state import CLOCK_REASONS
from bench.host.judgements import JUDGES

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
    checks = host.doctor(tmp_path, {}, 0)
    assert {check.state for check in checks} <= {"ok", "warn", "bad"}
    assert any(check.text == host.UNKNOWN for check in checks)
    assert host.fingerprint(described)


def test_unreadable_contents_are_unknown(tmp_path):
    root = tree(
        tmp_path, {"proc/loadavg": "", "proc/meminfo": "MemTotal\nMemAvailable: many kB\n", "proc/cpuinfo": "x"}
    )
    (root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").mkdir(parents=True)
    (root / "etc").mkdir()
    (root / "etc/os-release").write_bytes(b"\xff\xfe")
    described = host.describe_host(root)
    assert [described[name] for name in ("load_1m", "memory_total_bytes", "governor", "cpu_flags")] == [None] * 4


def test_arm_features(tmp_path):
    described = host.describe_host(tree(tmp_path, {"proc/cpuinfo": "Features : fp asimd asimddp sve\nModel : A Pi\n"}))
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


def test_the_counters_since_boot_and_while_watching(tmp_path):
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/cpu.stat": "nr_periods 50\nnr_throttled 5\nthrottled_usec 7\n",
            "proc/stat": "cpu  60 0 0 30 0 0 0 10 0 0\ncpu0 1\n",
            "proc/uptime": "120.50 80.00\n",
        },
    )
    described = host.describe_host(root)
    assert described["activity"] is None
    assert described["since_boot"] == {
        "uptime_s": 120.5,
        "steal_share": 0.1,
        "throttled_ns": 7000,
        "throttled_periods": 5,
        "periods": 50,
        "thermal_events": None,
        "memory_stall_ns": None,
    }
    assert host.describe_host(root, 0.001)["activity"]["throttled_ns"] == 0


def test_allowed_cores_without_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert host.allowed_cores() == 3


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


def seen(**figures):
    """What was seen while the machine was watched."""
    quiet = {"swap_in_pages": 0, "swap_out_pages": 0, "memory_stall_share": 0.0, "thermal_events": 0}
    figures = {**quiet, "throttled_ns": 0, "cpu_by_others_cores_low": 0.0, "steal_share_low": 0.0, **figures}
    for name in ("cpu_by_others_cores", "steal_share"):
        figures[name] = figures[f"{name}_low"]
    return dataclasses.asdict(Activity(duration_ns=500_000_000, cpus=2, **figures))


def gpu(**changes):
    """A machine with one quiet GPU, but for the changes."""
    quiet = {
        "sm_clock_mhz": 1830,
        "sm_clock_max_mhz": 1980,
        "sm_clock_set_mhz": 1980,
        "sm_clock_default_mhz": 1980,
        "power_w": 450.0,
        "power_limit_w": 700.0,
        "power_limit_default_w": 700.0,
        "temperature_c": 60,
        "name": "G",
        "clock_reasons": ["idle"],
        "process_ids": [],
    }
    return {"nvidia": {"driver": "580.1", "gpus": [{**quiet, **changes}], "reason": None}}


def test_a_quiet_machine_has_no_warnings():
    known = {"throttled_ns": 0, "throttled_periods": 0, "periods": 9, "steal_share": 0.001, "thermal_events": 0}
    watched = {"activity": seen(), "since_boot": {**known, "uptime_s": 60.0}, "turbo": False}
    assert host.warnings({**QUIET, **watched}, {"onnxruntime": "1.0"}) == []
    assert host.warnings({**QUIET, **watched, **gpu()}, {}, devices=("cuda",)) == []


def test_load_just_seen_tells_more_than_the_last_minute():
    assert host.warnings({**QUIET, "load_1m": 1.5, "activity": seen()}, {}) == []
    unknown = dataclasses.asdict(Activity(duration_ns=1))
    (warning,) = host.warnings({**QUIET, "load_1m": 1.5, "activity": unknown}, {})
    assert warning.kind is WarningKind.LOAD


def test_turbo_is_an_offence_only_where_the_clock_is_meant_to_be_fixed():
    assert [w.kind for w in host.warnings({**QUIET, "turbo": True, "governor": "powersave"}, {})] == [
        WarningKind.GOVERNOR
    ]


def test_a_gpu_that_says_nothing_is_known_by_nothing():
    silent = {"nvidia": {"driver": "1", "gpus": [{"name": "G"}], "reason": None}}
    assert host.warnings({**QUIET, **silent}, {}) == []


@pytest.mark.parametrize(
    ("change", "kind", "said", "advised"),
    [
        ({"load_1m": 1.5}, WarningKind.LOAD, "1.50", "Stop other work"),
        ({"governor": "powersave"}, WarningKind.GOVERNOR, "powersave", "performance"),
        ({"logical_cores_allowed": 1}, WarningKind.FEW_CORES, "1 logical core for", "--budget"),
        ({"cgroup_cpu_quota": 1.5}, WarningKind.CPU_QUOTA, "1.5 cores", "--threads"),
        ({"cgroup_memory_limit_bytes": 2**30}, WarningKind.LOW_MEMORY, "1.0 GiB", "--batches"),
        ({"memory_available_bytes": 2**29}, WarningKind.LOW_MEMORY, "0.5 GiB", "--batches"),
        ({"swap_used_bytes": 2**30}, WarningKind.SWAP, "1024 MiB", "swapoff"),
        ({"turbo": True}, WarningKind.TURBO, "on", "no_turbo"),
        ({"activity": seen(cpu_by_others_cores_low=0.4)}, WarningKind.LOAD, "0.40 cores busy now", "Stop"),
        ({"since_boot": {"steal_share": 0.03}}, WarningKind.STEAL, "3 %", "hypervisor"),
        (
            {"since_boot": {"steal_share": 0.0}, "activity": seen(steal_share_low=0.25)},
            *(WarningKind.STEAL, "25 % now", "hypervisor"),
        ),
        (
            {"since_boot": {"throttled_ns": 2 * 10**9, "throttled_periods": 5, "periods": 100}},
            *(WarningKind.CGROUP_THROTTLING, "2 s so far, in 5 %", "quota"),
        ),
        (
            {"since_boot": {"throttled_ns": 1, "periods": 9}, "activity": seen(throttled_ns=1)},
            *(WarningKind.CGROUP_THROTTLING, "stopped", "quota"),
        ),
        (
            {"since_boot": {"thermal_events": 2, "uptime_s": 7200.0}},
            *(WarningKind.THERMAL_THROTTLING, "2 times since boot", "cool"),
        ),
        (
            {"since_boot": {"thermal_events": 1, "uptime_s": 1e9}, "activity": seen(thermal_events=1)},
            *(WarningKind.THERMAL_THROTTLING, "just now too", "cool"),
        ),
        ({"activity": seen(memory_stall_share=0.2)}, WarningKind.MEMORY_PRESSURE, "20 %", "--batches"),
        ({"activity": seen(swap_in_pages=200, swap_out_pages=56)}, WarningKind.SWAPPING, "256 pages", "disk"),
        (gpu(clock_reasons=[CLOCK_REASONS[0x20]]), WarningKind.GPU_THROTTLING, "GPU 0: thermal", "cool"),
        (gpu(process_ids=[1, 2]), WarningKind.GPU_PROCESSES, "2 processes", "CUDA_VISIBLE_DEVICES"),
        (gpu(power_limit_w=500.0), WarningKind.GPU_POWER_CAP, "of 500 W, by default 700 W", "--power-limit"),
        (gpu(clock_reasons=[CLOCK_REASONS[0x4]]), WarningKind.GPU_POWER_CAP, "450 W of 700 W", "--power-limit"),
        (gpu(sm_clock_set_mhz=1200), WarningKind.GPU_CLOCKS, "set to 1200 MHz", "--reset-applications-clocks"),
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
    assert (threads.kind, threads.text) == (WarningKind.TOO_MANY_THREADS, "16 threads on 8 logical cores")
    (cuda,) = host.warnings(QUIET, {}, devices=("cpu", "cuda"))
    assert cuda.kind is WarningKind.NO_CUDA
    assert "nvidia-ml-py" in cuda.text
    gpu = {"driver": "580.1", "gpus": [{"name": "G"}], "reason": None}
    assert host.warnings({**QUIET, "nvidia": gpu}, {}, devices=("cuda",)) == []
    (both,) = host.warnings(QUIET, {"onnxruntime": "1", "onnxruntime-gpu": "1"})
    assert both.kind is WarningKind.TWO_ONNXRUNTIMES


@pytest.mark.parametrize("places", [("a", "b"), ("a", "a")])
def test_two_builds_of_onnxruntime_harm_each_other_in_one_folder_only(tmp_path, monkeypatch, places):
    both = {"onnxruntime": "1.30.0", "onnxruntime-gpu": "1.31.1"}
    for (name, version), place in zip(both.items(), places, strict=True):
        metadata = tmp_path / place / f"{name.replace('-', '_')}-{version}.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / place) for place in dict.fromkeys(places)])
    kinds = [warning.kind for warning in host.warnings(QUIET, both)]
    assert kinds == [WarningKind.TWO_ONNXRUNTIMES] * (len(set(places)) == 1)


def test_every_kind_has_a_judgement_and_unknown_facts_never_warn():
    assert set(JUDGES) == set(WarningKind)
    assert host.warnings({}, {}) == []


def test_doctor_tells_all(tmp_path):
    packages = {"onnxruntime": "1.2", "torch": None, "nvidia-dali-cuda130": None, "nvidia-dali-cuda120": None}
    checks = {check.check: check for check in host.doctor(tree(tmp_path, LAPTOP), packages, 0)}
    assert checks["PyTorch"].state == "bad"
    assert checks["ONNX Runtime"].text == "onnxruntime 1.2"
    assert checks["DALI"].state == "warn"
    assert checks["governor"].state == "warn"
    assert checks["processor"].text.startswith("Fancy CPU")
    assert {kind.value.replace("_", " ") for kind in WarningKind} <= set(checks)
    assert checks["turbo"].text == "on"
    for check in checks.values():
        assert bool(check.advice) == (check.state != "ok"), check
        assert dataclasses.asdict(check)["text"] == check.text


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
        "nvmlSystemGetDriverVersion": b"580.1",
        "nvmlDeviceGetHandleByUUID": "handle",
        "nvmlDeviceGetEnforcedPowerLimit": 500_000,
        "nvmlDeviceGetPowerManagementDefaultLimit": 700_000,
    }
    for name, value in values.items():
        setattr(module, name, call(name, value))
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return calls


def test_a_gpu_is_described(tmp_path, monkeypatch):
    calls = fake_nvml(monkeypatch)
    described = host.describe_host(tmp_path)["nvidia"]
    (gpu,) = described["gpus"]
    assert (described["driver"], described["reason"]) == ("580.1", None)
    assert (gpu["name"], gpu["memory_bytes"], gpu["compute_capability"]) == ("Test GPU", 80 * 2**30, "9.0")
    assert (gpu["power_limit_w"], gpu["power_limit_default_w"]) == (500.0, 700.0)
    assert gpu["sm_clock_mhz"] is None, "a figure that the library does not give is unknown"
    assert calls[-1] == "nvmlShutdown"
    checks = {check.check: check.text for check in host.doctor(tmp_path, {}, 0)}
    assert checks["NVIDIA GPU"] == "Test GPU; driver 580.1"
    assert "of 500 W, by default 700 W" in checks["gpu power cap"]


@pytest.mark.parametrize(
    ("fail_at", "reason"),
    [("nvmlInit", "no NVIDIA driver: Driver Not Loaded"), ("nvmlDeviceGetCount", "does not answer: Driver Not Loaded")],
)
def test_a_driver_that_fails_gives_the_reason(monkeypatch, fail_at, reason):
    fake_nvml(monkeypatch, fail_at)
    described = gpu_state.describe_gpus()
    assert described["gpus"] == []
    assert reason in described["reason"]


def test_without_nvidias_library_the_reason_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_state.describe_gpus()["reason"] == "nvidia-ml-py is not installed"
