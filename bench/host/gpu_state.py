"""NVIDIA GPUs as their management library sees them: what they are, how they are doing, what slows them down.

The library (the package nvidia-ml-py, imported as ``pynvml``) is optional. Every figure is asked for by itself: one
that a GPU, a driver or a virtual slice of a GPU does not give is None, and the others are unharmed. Names and units
are those of NVML's API reference: clocks in MHz, power in mW, policy times in ns.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any

from bench.host.memory import FIRST_GUESS_BYTES
from scarlet.gpu import DRIVER, ask_driver

# Bits of nvmlDeviceGetCurrentClocksEventReasons: why the clock is not higher.
CLOCK_REASONS: Mapping[int, str] = {
    0x1: "idle",
    0x2: "application clocks",
    0x4: "power cap",
    0x8: "hardware slow-down",
    0x10: "sync boost",
    0x20: "thermal slow-down (software)",
    0x40: "thermal slow-down (hardware)",
    0x80: "power brake",
    0x100: "display clock",
}
# Those that mean "too hot or too little supply", by no choice of the user's.
SLOW_DOWNS = tuple(CLOCK_REASONS[bit] for bit in (0x8, 0x20, 0x40, 0x80))
POWER_CAP = CLOCK_REASONS[0x4]


def _text(answer: str | bytes) -> str:
    return answer.decode(errors="replace") if isinstance(answer, bytes) else answer


def _watts(milliwatts: int) -> float:
    return milliwatts / 1000


_violation_ns: Callable[[Any], int] = attrgetter("violationTime")
# By figure NVML's call, the name of the constant that it is given besides, and what is read of its answer.
_STATE: Mapping[str, tuple[Any, ...]] = {
    "sm_clock_mhz": ("nvmlDeviceGetClockInfo", "NVML_CLOCK_SM"),
    "temperature_c": ("nvmlDeviceGetTemperature", "NVML_TEMPERATURE_GPU"),
    "power_w": ("nvmlDeviceGetPowerUsage", "", _watts),
    "process_ids": (
        "nvmlDeviceGetComputeRunningProcesses",
        "",
        lambda processes: tuple(int(each.pid) for each in processes),
    ),
    "thermal_ns": ("nvmlDeviceGetViolationStatus", "NVML_PERF_POLICY_THERMAL", _violation_ns),
    "power_ns": ("nvmlDeviceGetViolationStatus", "NVML_PERF_POLICY_POWER", _violation_ns),
}
_SET_UP: Mapping[str, tuple[Any, ...]] = {
    "name": ("nvmlDeviceGetName", "", _text),
    "memory_bytes": ("nvmlDeviceGetMemoryInfo", "", lambda memory: int(memory.total)),
    "compute_capability": ("nvmlDeviceGetCudaComputeCapability", "", lambda pair: "{}.{}".format(*pair)),
    "compute_mode": ("nvmlDeviceGetComputeMode",),
    "confidential_computing": ("nvmlSystemGetConfComputeState", "", lambda state: bool(state.ccFeature)),
    "sm_clock_max_mhz": ("nvmlDeviceGetMaxClockInfo", "NVML_CLOCK_SM"),
    "sm_clock_set_mhz": ("nvmlDeviceGetApplicationsClock", "NVML_CLOCK_SM"),
    "sm_clock_default_mhz": ("nvmlDeviceGetDefaultApplicationsClock", "NVML_CLOCK_SM"),
    "power_limit_w": ("nvmlDeviceGetEnforcedPowerLimit", "", _watts),
    "power_limit_default_w": ("nvmlDeviceGetPowerManagementDefaultLimit", "", _watts),
}


def _opened() -> Any:
    """The management library, ready to be asked; its ``nvmlShutdown`` lets go of it.

    Raises:
        LookupError: it is not installed, or there is no driver.
    """
    try:
        import pynvml
    except ImportError:
        raise LookupError("nvidia-ml-py is not installed") from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise LookupError(f"no NVIDIA driver: {error}") from None
    return pynvml


class Gpu:
    """One GPU that can be asked again and again. Close it when done.

    Raises:
        LookupError: no library, no driver or no such GPU; the text says which.
    """

    def __init__(self, index: int | str = 0) -> None:
        self._nvml = pynvml = _opened()
        try:
            by_id = pynvml.nvmlDeviceGetHandleByUUID
            self._handle = by_id(index) if isinstance(index, str) else pynvml.nvmlDeviceGetHandleByIndex(index)
        except pynvml.NVMLError as error:
            pynvml.nvmlShutdown()
            raise LookupError(f"the NVIDIA driver has no GPU {index}: {error}") from None

    def close(self) -> None:
        """Lets go of the library."""
        self._nvml.nvmlShutdown()

    def read(self) -> dict[str, Any]:
        """How it is doing now; None where it does not tell.

        Keys: ``sm_clock_mhz``; ``clock_reasons``, why that is not higher, names of ``CLOCK_REASONS``;
        ``temperature_c``; ``power_w``; ``process_ids`` of what computes on it (in a container perhaps ids of the host);
        ``thermal_ns`` and ``power_ns``, how long heat and the power cap have held the clock down, since the driver was
        loaded.
        """
        # The second is the first's name in drivers before 535.
        bits = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        if bits is None:
            bits = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        reasons = None if bits is None else tuple(name for bit, name in CLOCK_REASONS.items() if bits & bit)
        return {"clock_reasons": reasons, **self._ask_all(_STATE)}

    def energy_mj(self) -> int | None:
        """What it has used since the driver was loaded, in millijoules. Renewed every 20 to 100 ms."""
        energy: int | None = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return energy

    def has_room(self, more: int) -> bool:
        """Whether so many more workers fit: each as large as the largest process there, and a quarter more.

        True where it does not tell.
        """
        memory, processes = self._ask("nvmlDeviceGetMemoryInfo"), self._ask("nvmlDeviceGetComputeRunningProcesses")
        sizes = [size for process in processes or () if (size := getattr(process, "usedGpuMemory", None))]
        return memory is None or memory.free > 1.25 * more * max(sizes, default=FIRST_GUESS_BYTES)

    def describe(self) -> dict[str, Any]:
        """What it is and how it is set up and doing, as JSON types.

        Keys: ``name``, ``memory_bytes``, ``compute_capability``, ``compute_mode`` (NVML's number), whether
        ``confidential_computing`` is on, ``sm_clock_max_mhz``, ``sm_clock_set_mhz`` and ``sm_clock_default_mhz``
        (application clocks), ``power_limit_w``, ``power_limit_default_w``, and those of ``read``.
        """
        return {**self._ask_all(_SET_UP), **self.read()}

    def _ask_all(self, questions: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
        return {name: self._ask(*question) for name, question in questions.items()}

    def _ask(self, call: str, constant: str = "", read: Callable[[Any], Any] = lambda answer: answer) -> Any:
        """What is read of the answer to one question; None where GPU, driver or library does not know it."""
        function: Callable[..., Any] | None = getattr(self._nvml, call, None)
        if function is None:
            return None
        try:
            place = () if call.startswith("nvmlSystem") else (self._handle,)
            return read(function(*place, *([getattr(self._nvml, constant)] if constant else [])))
        except self._nvml.NVMLError:
            return None


def used_gpu(driver: str = DRIVER) -> int | str:
    """The GPU that CUDA calls its first: its UUID by the driver, else what the environment says, perhaps an index.

    CUDA counts the fastest first, NVML in the order of the bus; and the environment may shorten a UUID.
    """
    told = ask_driver(driver)
    if told is not None and told.uuid:
        is_slice = os.environ.get("CUDA_VISIBLE_DEVICES", "").startswith("MIG-")
        return f"{'MIG' if is_slice else 'GPU'}-{told.uuid}"
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    return int(first) if first.isdecimal() else first or 0


def other_processes(process_ids: Iterable[int] | None, own_pids: Iterable[int]) -> int | None:
    """How many processes that are not ours compute on a GPU.

    None where it cannot be told: the list is not given, or none of ours is in it though there are some, which means
    that its ids are those of another pid namespace (a container sees the host's).
    """
    if process_ids is None:
        return None
    listed, own = set(process_ids), set(own_pids)
    if listed and own and not listed & own:
        return None
    return len(listed - own)


def describe_gpus() -> dict[str, Any]:
    """Driver and GPUs, or the reason why there are none to tell of: ``driver``, ``gpus``, ``reason``."""
    nothing: dict[str, Any] = {"driver": None, "gpus": []}
    try:
        pynvml = _opened()
    except LookupError as missing:
        return {**nothing, "reason": str(missing)}
    try:
        gpus = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            gpu = Gpu(index)
            gpus.append(gpu.describe())
            gpu.close()
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        return {"driver": driver, "gpus": gpus, "reason": None if gpus else "the driver sees no GPU"}
    except (pynvml.NVMLError, LookupError) as error:
        return {**nothing, "reason": f"the NVIDIA driver does not answer: {error}"}
    finally:
        pynvml.nvmlShutdown()
