"""How much memory a process took, and whether the system killed one for it; as far as the system tells."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def peak_rss_bytes(status: Path = Path("/proc/self/status")) -> int | None:
    """Largest resident memory of this process so far.

    ``VmHWM`` and not ``ru_maxrss``: the latter also counts the process that started this one (Linux keeps the
    larger of the two across exec).
    """
    with suppress(OSError):
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


def oom_kills(cgroup: Path = CGROUP) -> int:
    """How many processes of this control group the system has killed for want of memory; 0 where it does not say.

    cgroup v2 counts them in ``memory.events``, v1 in ``memory/memory.oom_control``.
    """
    for source in (cgroup / "memory.events", cgroup / "memory" / "memory.oom_control"):
        with suppress(OSError):
            for line in source.read_text(encoding="ascii").splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
    return 0
