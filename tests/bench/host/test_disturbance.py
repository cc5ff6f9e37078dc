"""Counters, GPU state and disturbances on made-up systems and a stand-in for NVIDIA's library."""

import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from bench.host import counters, disturbance, gpu_state, judgements
from bench.host.counters import Counters, Reader
from bench.host.disturbance import Monitor, RoundState
from bench.host.judgements import WarningKind
from bench.record.files import DamagedRunWarning
from bench.record.run_folder import RunFolder
from bench.worker.footprint import EnergyAccount

MS = 1_000_000
OWN = 4242


def put(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


class System:
    """A system of two CPUs whose counters move as it is told."""

    def __init__(self, root: Path) -> None:
        self.root, self.now_ns, self.own_ns = root, 0, 0
        self.idle_ticks, self.steal_ticks, self.busy_ticks = 1000, 50, 300
        self.throttled_us, self.stall_us, self.swapped_in = 7, 100, 0
        put(root, "proc/self/cgroup", "0::/jobs/mine\n")
        for cpu, core in ((0, 0), (1, 0), (2, 1)):
            folder = f"sys/devices/system/cpu/cpu{cpu}"
            put(root, f"{folder}/topology/physical_package_id", "0\n")
            put(root, f"{folder}/topology/core_id", f"{core}\n")
            put(root, f"{folder}/thermal_throttle/core_throttle_count", "3\n")
            put(root, f"{folder}/thermal_throttle/package_throttle_count", "5\n")
            put(root, f"{folder}/cpufreq/scaling_cur_freq", f"{2_000_000 + 100_000 * cpu}\n")
        self.write()

    def write(self) -> None:
        total = f"cpu  {self.busy_ticks} 0 0 {self.idle_ticks} 0 0 0 {self.steal_ticks} 0 0\n"
        put(self.root, "proc/stat", total + "cpu0 1 2 3\ncpu1 1 2 3\nintr 5\n")
        put(self.root, "proc/vmstat", f"nr_free 7\npswpin {self.swapped_in}\npswpout 9\n")
        put(
            self.root,
            "proc/pressure/memory",
            f"some avg10=0.00 avg60=0.00 avg300=0.00 total={self.stall_us}\nfull total=1\n",
        )
        quota = "sys/fs/cgroup/jobs/mine/cpu.stat"
        put(self.root, quota, f"nr_periods 10\nnr_throttled 2\nthrottled_usec {self.throttled_us}\n")
        put(self.root, "sys/fs/cgroup/jobs/cpu.stat", "nr_periods 10\nnr_throttled 0\nthrottled_usec 1\n")

    def spend(self, ms: int, own_ms: int = 0, others_ms: int = 0, stolen_ms: int = 0) -> None:
        """Some time passes, and CPU time with it; what is left of two CPUs' time is idle."""
        self.now_ns += ms * MS
        self.own_ns += own_ms * MS
        self.steal_ticks += stolen_ms // 10
        self.busy_ticks += (own_ms + others_ms) // 10
        self.idle_ticks += (2 * ms - own_ms - others_ms - stolen_ms) // 10
        self.write()

    def round(self, ms: int = 1000, **spent: int) -> RoundState:
        """One round, in which so much time passes."""
        monitor = self.monitor()
        monitor.begin("latency")
        self.spend(ms, **spent)
        return monitor.end_of_round(0)

    def monitor(self, **more: object) -> Monitor:
        return Monitor(
            own_pids=lambda: [OWN],
            root=self.root,
            clock_ns=lambda: self.now_ns,
            cpu_ns_of=lambda pid: self.own_ns if pid == OWN else None,
            **more,  # type: ignore[arg-type]
        )


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path / "system")


def test_one_look_reads_every_counter(system: System) -> None:
    seen = Reader(system.root, lambda: [OWN, 1], lambda: 5, lambda pid: 9 if pid == OWN else None).read()
    counts = {
        "idle_ns": 1000 * counters.TICK_NS,
        "stolen_ns": 50 * counters.TICK_NS,
        "busy_ns": 300 * counters.TICK_NS,
        "throttled_ns": 7000,
        "throttled_periods": 2,
        "periods": 10,
        "thermal_events": 3 + 3 + 5,  # two cores and one package, though three CPUs repeat them
        "memory_stall_ns": 100_000,
        "swap_in_pages": 0,
        "swap_out_pages": 9,
    }
    assert seen == Counters(5, counts, {OWN: 9}, cpus=2, cpu_mhz=2100.0)


def test_version_1_groups_count_throttled_time_in_nanoseconds(tmp_path: Path) -> None:
    put(tmp_path, "proc/self/cgroup", "3:cpu,cpuacct:/\n")
    put(tmp_path, "sys/fs/cgroup/cpu/cpu.stat", "nr_periods 4\nnr_throttled 1\nthrottled_time 123456\n")
    assert Reader(tmp_path).read().counts["throttled_ns"] == 123_456


def test_a_system_that_tells_nothing_is_never_disturbed(tmp_path: Path) -> None:
    monitor = Monitor(root=tmp_path)
    monitor.begin("latency")
    state = monitor.end_of_round(0)
    assert not state.disturbed
    names = ("cpu_by_others_cores", "throttled_ns", "thermal_events", "swap_in_pages", "cpu_mhz", "gpu_power_w")
    assert [state.to_row().get(name) for name in names] == [None] * len(names)
    assert disturbance.summary([state]) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("proc/stat", "cpu x y z\n"),
        ("proc/stat", ""),
        ("proc/pressure/memory", "some total=many\n"),
        ("proc/pressure/memory", "full total=3\n"),
        ("proc/vmstat", "pswpin\npswpout -\n"),
    ],
)
def test_broken_files_are_unknown(tmp_path: Path, name: str, text: str) -> None:
    put(tmp_path, name, text)
    seen = Reader(tmp_path).read()
    assert seen.cpus is None
    assert not seen.counts.keys() & {"idle_ns", "memory_stall_ns", "swap_in_pages"}


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's process clocks")
def test_the_cpu_time_of_a_process_is_exact_and_of_none_unknown() -> None:
    own = counters.process_cpu_ns(os.getpid())
    assert own is not None
    assert own > 0
    sum(range(10_000))
    later = counters.process_cpu_ns(os.getpid())
    assert later is not None
    assert later > own
    assert counters.process_cpu_ns(2**22 + 1) is None  # beyond the largest process id


def test_elsewhere_the_cpu_time_of_a_process_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert counters.process_cpu_ns(os.getpid()) is None


def test_watching_takes_two_looks(system: System) -> None:
    seen, activity = counters.watch(system.root, 0.001)
    assert seen.counts["throttled_periods"] == 2
    assert activity.duration_ns >= MS
    assert activity.thermal_events == 0


def test_a_quiet_round_has_figures_and_no_mark(system: System) -> None:
    with system.monitor() as monitor:
        monitor.begin("latency")
        system.spend(1000, own_ms=1800, others_ms=100, stolen_ms=20)
        state = monitor.end_of_round(3)
    assert (state.scenario, state.round, state.duration_ns) == ("latency", 3, 1000 * MS)
    assert state.figures["cpu_by_others_cores"] == pytest.approx(0.1)
    assert state.figures["steal_share"] == pytest.approx(0.01)
    assert (state.figures["throttled_ns"], state.figures["thermal_events"], state.figures["swap_in_pages"]) == (0, 0, 0)
    assert (state.disturbed, state.to_row()["reason"]) == (False, "")


def test_each_round_is_judged_by_what_happened_in_it_alone(system: System) -> None:
    monitor = system.monitor()
    monitor.begin("latency")
    system.spend(1000, own_ms=1000, others_ms=900)
    noisy = monitor.end_of_round(0)
    system.spend(1000, own_ms=1000)
    quiet = monitor.end_of_round(1)
    assert noisy.reasons == (WarningKind.LOAD,)
    assert noisy.figures["cpu_by_others_cores"] == pytest.approx(0.9)
    assert not quiet.disturbed


def test_our_own_workers_are_no_disturbance(system: System) -> None:
    assert not system.round(own_ms=2000).disturbed


def test_a_tick_more_or_less_in_a_short_round_is_no_disturbance(system: System) -> None:
    state = system.round(100, own_ms=100, others_ms=30, stolen_ms=10)
    assert state.figures["cpu_by_others_cores"] == pytest.approx(0.3)
    assert not state.disturbed


def test_others_on_a_large_machine_need_a_twentieth_of_it() -> None:
    before = Counters(0, {"idle_ns": 0, "stolen_ns": 0}, cpus=64)
    for busy_cores, disturbs in ((2, False), (4, True)):
        after = Counters(counters.NS, {"idle_ns": (64 - busy_cores) * counters.NS, "stolen_ns": 0}, cpus=64)
        assert counters.between(before, after).others_disturb is disturbs


def test_a_worker_that_came_or_went_within_the_round_is_ours() -> None:
    still = {"idle_ns": 0, "stolen_ns": 0}
    before = Counters(0, still, {1: 5 * counters.NS, 2: counters.NS}, cpus=2)
    after = Counters(counters.NS, still, {2: 2 * counters.NS, 3: counters.NS // 2}, cpus=2)
    assert counters.between(before, after).cpu_by_others_cores == pytest.approx(0.5)


def throttle(system: System) -> None:
    system.throttled_us += 1


def heat(system: System) -> None:
    put(system.root, "sys/devices/system/cpu/cpu2/thermal_throttle/core_throttle_count", "4\n")


def wait_for_memory(system: System) -> None:
    system.stall_us += 10_000


def swap(system: System) -> None:
    system.swapped_in += 256


@pytest.mark.parametrize(
    ("strike", "reason", "column", "value"),
    [
        (throttle, WarningKind.CGROUP_THROTTLING, "throttled_ns", 1000),
        (heat, WarningKind.THERMAL_THROTTLING, "thermal_events", 1),
        (wait_for_memory, WarningKind.MEMORY_PRESSURE, "memory_stall_share", 0.01),
        (swap, WarningKind.SWAPPING, "swap_in_pages", 256),
    ],
)
def test_every_kind_of_disturbance_marks_its_round(system, strike, reason, column, value):
    monitor = system.monitor()
    monitor.begin("throughput")
    strike(system)  # type: ignore[operator]
    system.spend(1000, own_ms=500)
    state = monitor.end_of_round(0)
    assert state.reasons == (reason,)
    assert state.to_row()[column] == pytest.approx(value)
    (warning,) = disturbance.summary([state, monitor.end_of_round(1)])
    assert warning.text.startswith("1 of 2 rounds were disturbed by ")
    assert (warning.kind, warning.advice) == (reason, reason.advice)


def test_stolen_time_marks_a_round(system: System) -> None:
    state = system.round(own_ms=1000, stolen_ms=100)
    assert state.reasons == (WarningKind.STEAL,)
    (warning,) = disturbance.summary([state])
    assert "up to 5% of CPU time" in warning.text


def test_several_marks_stand_together_worst_first(system: System) -> None:
    monitor = system.monitor()
    monitor.begin("latency")
    throttle(system)
    system.spend(1000, own_ms=500, others_ms=1000)
    state = monitor.end_of_round(0)
    assert state.to_row()["reason"] == "cgroup_throttling,load"
    quiet = RoundState("latency", 1, 5)
    texts = [warning.text for warning in disturbance.summary([state, quiet, quiet])]
    assert texts == [
        "1 of 3 rounds were disturbed by the CPU quota of a control group",
        "1 of 3 rounds were disturbed by other processes (up to 1 cores busy)",
    ]


class Nvml(types.ModuleType):
    """A stand-in for pynvml. ``values`` are the answers by call; a call that is not in them is not supported."""

    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU, NVML_PERF_POLICY_POWER, NVML_PERF_POLICY_THERMAL = 1, 0, 0, 1

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.open = 0
        self.violations = [0, 0]  # power, thermal
        self.values = {
            "nvmlDeviceGetClockInfo": 1980,
            "nvmlDeviceGetTemperature": 61,
            "nvmlDeviceGetPowerUsage": 512_300,
            "nvmlDeviceGetCurrentClocksEventReasons": 0x2,
            "nvmlDeviceGetComputeRunningProcesses": [types.SimpleNamespace(pid=OWN)],
        }

    def nvmlInit(self) -> None:  # noqa: N802 (NVML's names)
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        if index:
            raise self.NVMLError("Invalid Argument")
        return "by index"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        return f"by {uuid}"

    def nvmlDeviceGetViolationStatus(self, handle: str, policy: int) -> types.SimpleNamespace:  # noqa: N802
        return types.SimpleNamespace(violationTime=self.violations[policy])

    def __getattr__(self, name: str) -> object:
        if not name.startswith(("nvmlDeviceGet", "nvmlSystemGet")):
            raise AttributeError(name)

        def answer(*arguments: object) -> object:
            if name not in self.values:
                raise self.NVMLError("Not Supported")
            return self.values[name]

        return answer


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    module = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module


def test_a_round_on_a_quiet_gpu(system: System, nvml: Nvml) -> None:
    with system.monitor(gpu=disturbance.open_gpu(["cpu", "cuda"])) as monitor:
        monitor.begin("latency")
        system.spend(1000)
        state = monitor.end_of_round(0)
    assert (state.figures["gpu_sm_clock_mhz"], state.figures["gpu_temperature_c"], state.figures["gpu_power_w"]) == (
        1980,
        61,
        512.3,
    )
    assert state.figures["gpu_clock_reasons"] == "application clocks"
    assert (
        state.figures["gpu_thermal_ns"],
        state.figures["gpu_power_cap_ns"],
        state.figures["gpu_other_processes"],
    ) == (0, 0, 0)
    assert not state.disturbed
    assert nvml.open == 0, "closed with the monitor"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"nvmlDeviceGetCurrentClocksEventReasons": 0x40}, WarningKind.GPU_THROTTLING),
        ({"nvmlDeviceGetCurrentClocksEventReasons": 0x88}, WarningKind.GPU_THROTTLING),
        ({"nvmlDeviceGetCurrentClocksEventReasons": 0x5}, WarningKind.GPU_POWER_CAP),
        (
            {"nvmlDeviceGetComputeRunningProcesses": [types.SimpleNamespace(pid=OWN), types.SimpleNamespace(pid=7)]},
            WarningKind.GPU_PROCESSES,
        ),
    ],
)
def test_a_gpu_disturbs(system: System, nvml: Nvml, change: dict[str, object], reason: WarningKind) -> None:
    monitor = system.monitor(gpu=disturbance.open_gpu(["cuda"]))
    monitor.begin("latency")
    nvml.values.update(change)
    system.spend(1000)
    state = monitor.end_of_round(0)
    assert state.reasons == (reason,)
    (warning,) = disturbance.summary([state])
    assert "nvidia-smi" in warning.advice


@pytest.mark.parametrize(("policy", "reason"), enumerate([WarningKind.GPU_POWER_CAP, WarningKind.GPU_THROTTLING]))
def test_time_held_down_within_a_round_counts_though_it_is_over(system, nvml, policy, reason):
    monitor = system.monitor(gpu=disturbance.open_gpu(["cuda"]))
    monitor.begin("latency")
    nvml.violations[policy] = 5 * MS
    system.spend(1000)
    assert monitor.end_of_round(0).reasons == (reason,)
    system.spend(1000)
    assert not monitor.end_of_round(1).disturbed


def test_an_old_driver_and_a_slice_of_a_gpu_tell_less(nvml: Nvml) -> None:
    nvml.values = {"nvmlDeviceGetCurrentClocksThrottleReasons": 0x1}
    state = gpu_state.Gpu("GPU-7").read()
    assert state["clock_reasons"] == ("idle",)
    assert [state[name] for name in ("sm_clock_mhz", "power_w", "process_ids")] == [None] * 3


@pytest.mark.parametrize(("feature", "wrong"), [(1, True), (0, False), (None, False)])
def test_confidential_computing_is_read_and_warned_of(nvml: Nvml, feature: int | None, wrong: bool) -> None:
    nvml.values |= {"nvmlDeviceGetCount": 1, "nvmlSystemGetDriverVersion": "580.1"}
    if feature is not None:  # drivers before 525 have no such call
        nvml.values["nvmlSystemGetConfComputeState"] = types.SimpleNamespace(ccFeature=feature)
    nvidia = gpu_state.describe_gpus()
    assert nvidia["gpus"][0]["confidential_computing"] == (None if feature is None else bool(feature))
    judged = {warning.kind: warning for warning in judgements.judged({"nvidia": nvidia}, {}, ("cuda",))}
    assert bool(judged[WarningKind.GPU_EVENTS].advice) is wrong


def test_a_row_on_a_gpu_has_the_gpu_s_own_energy(nvml: Nvml) -> None:
    assert EnergyAccount.open("cuda").metrics() == {"energy_reason": "the GPU does not tell its energy"}
    nvml.values["nvmlDeviceGetTotalEnergyConsumption"] = 5_000
    account = EnergyAccount.open("cuda")
    before = account.meter.read()
    nvml.values["nvmlDeviceGetTotalEnergyConsumption"] = 7_500  # millijoules
    account.joules, account.images = account.joules + account.meter.joules(before, account.meter.read()), 10
    assert account.metrics() == {"energy_joules_per_image": 0.25}


@pytest.mark.parametrize(
    ("sizes", "more", "room"), [([3, 1], 2, True), ([3, 1], 3, False), ([None], 8, False), ([], 6, True)]
)
def test_a_gpu_holds_workers_as_large_as_its_largest(nvml, sizes, more, room):
    assert gpu_state.Gpu().has_room(99), "where it does not tell"
    nvml.values["nvmlDeviceGetMemoryInfo"] = types.SimpleNamespace(free=8 * 2**30, total=0)
    processes = [types.SimpleNamespace(usedGpuMemory=size and size * 2**30) for size in sizes]
    nvml.values["nvmlDeviceGetComputeRunningProcesses"] = processes
    assert gpu_state.Gpu().has_room(more) is room


def test_no_library_no_driver_no_such_gpu(monkeypatch: pytest.MonkeyPatch, nvml: Nvml) -> None:
    assert disturbance.open_gpu(["cpu"]) is None
    with pytest.raises(LookupError, match="no GPU 3"):
        gpu_state.Gpu(3)
    assert nvml.open == 0

    def no_driver() -> None:
        raise nvml.NVMLError("Driver Not Loaded")

    monkeypatch.setattr(nvml, "nvmlInit", no_driver)
    with pytest.raises(LookupError, match="no NVIDIA driver"):
        gpu_state.Gpu()
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(LookupError, match="not installed"):
        gpu_state.Gpu()
    assert disturbance.open_gpu(["cuda"]) is None


@pytest.mark.parametrize(("visible", "used"), [(None, 0), ("", 0), ("2,3", 2), ("GPU-8a7b,GPU-1", "GPU-8a7b")])
def test_the_gpu_that_cuda_uses(monkeypatch: pytest.MonkeyPatch, visible: str | None, used: int | str) -> None:
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_state.used_gpu() == used


@pytest.mark.parametrize(
    ("listed", "own", "others"),
    [(None, [1], None), ([], [1], 0), ([1, 5], [1], 1), ([900, 901], [1], None), ([5], [], 1)],
)
def test_processes_of_another_namespace_are_not_taken_for_others(listed, own, others):
    assert gpu_state.other_processes(listed, own) == others


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run")


def test_rounds_come_back_with_their_types(folder: RunFolder) -> None:
    struck = RoundState(
        "latency",
        1,
        50 * MS,
        {"cpu_by_others_cores": 0.5, "throttled_ns": 3, "gpu_clock_reasons": "power cap,idle"},
        reasons=(WarningKind.CGROUP_THROTTLING, WarningKind.LOAD),
    )
    folder.write_rounds([RoundState("latency", 0, 40 * MS), struck])
    folder.write_rounds([RoundState("throughput", 0, 60 * MS)])
    rounds = folder.rounds()
    assert rounds["scenario"].tolist() == ["latency", "latency", "throughput"]
    assert rounds["round"].tolist() == [0, 1, 0]
    assert rounds["disturbed"].tolist() == [False, True, False]
    assert rounds["reason"].tolist() == ["", "cgroup_throttling,load", ""]
    assert (rounds["round"].dtype, rounds["duration_ns"].dtype) == (np.int32, np.int64)
    assert rounds["disturbed"].dtype == np.bool_
    assert rounds["throttled_ns"].tolist()[1] == 3
    assert rounds["throttled_ns"].isna().tolist() == [True, False, True]
    assert rounds["gpu_clock_reasons"].tolist()[1] == "power cap,idle"


def test_a_run_without_rounds_has_an_empty_table(folder: RunFolder) -> None:
    folder.write_rounds([])
    rounds = folder.rounds()
    assert rounds.empty
    assert {"scenario", "round", "disturbed", "reason"} <= set(rounds.columns)
    assert folder.next_round("latency") == 0


def test_a_resumed_run_goes_on_counting(folder: RunFolder) -> None:
    folder.write_rounds([RoundState("latency", number, MS) for number in range(3)])
    assert folder.next_round("latency") == 3
    assert folder.next_round("throughput") == 0


def test_a_damaged_table_is_left_out_with_a_warning(folder: RunFolder) -> None:
    (folder.path / "rounds.parquet").write_bytes(b"PAR1")
    with pytest.warns(DamagedRunWarning, match="left out"):
        assert folder.rounds().empty
