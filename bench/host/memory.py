"""How much memory a process took, and whether the system killed one for it; as far as the system tells."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bench.host.counters import keyed_lines

CGROUP = Path("/sys/fs/cgroup")


def peak_rss_bytes(status: Path = Path("/proc/self/status")) -> int | None:
    """Largest resident memory of this process so far.

    ``VmHWM`` and not ``ru_maxrss``: the latter also counts the process that started this one (Linux keeps the
    larger of the two across exec).
    """
    return _kib(keyed_lines(status).get("VmHWM"))


def thread_count(tasks: Path = Path("/proc/self/task")) -> int | None:
    """Threads that this process really has, those of all libraries together; None where the system does not say."""
    with suppress(OSError):
        return sum(1 for _ in tasks.iterdir())
    return None


def oom_kills(cgroup: Path = CGROUP) -> int:
    """How many processes of this control group the system has killed for want of memory; 0 where it does not say.

    cgroup v2 counts them in ``memory.events``, v1 in ``memory/memory.oom_control``.
    """
    for source in (cgroup / "memory.events", cgroup / "memory" / "memory.oom_control"):
        if count := keyed_lines(source, " ").get("oom_kill"):
            return int(count)
    return 0


def _kib(size: str | None) -> int | None:
    """``12 kB`` in bytes."""
    return int(size.removesuffix("kB")) * 1024 if size else None


# Until a worker's own size is known: a runtime, a network and a pipeline's buffers.
FIRST_GUESS_BYTES = 1024**3


def available_bytes(proc: Path = Path("/proc"), cgroup: Path = CGROUP) -> int | None:
    """Memory that could still be taken: what the kernel calls available, within this control group's limit."""
    known = _kib(keyed_lines(proc / "meminfo").get("MemAvailable"))
    found = [] if known is None else [known]
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):  # "max" means that there is no limit
            found.append(int((cgroup / limit).read_text()) - int((cgroup / used).read_text()))
    return max(0, min(found)) if found else None


def has_room(pids: Sequence[int], more: int = 1, proc: Path = Path("/proc"), cgroup: Path = CGROUP) -> bool:
    """Whether so many more workers fit beside these: each as large as the largest of them, and a quarter more.

    True where the system does not say.
    """
    available = available_bytes(proc, cgroup)
    sizes = [size for pid in pids if (size := peak_rss_bytes(proc / str(pid) / "status"))]
    return available is None or available > 1.25 * more * max(sizes, default=FIRST_GUESS_BYTES)
