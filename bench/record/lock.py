"""One run at a time works in a folder."""

from __future__ import annotations

import fcntl
import os
import platform
from datetime import datetime, timezone
from pathlib import Path

from bench.record.files import disk_errors
from scarlet.errors import BenchError

LOCK = ".lock"


class Lock:
    """Keeps other runs out of a folder until it is released, or the process ends however it ends: none goes stale.

    Raises:
        BenchError: another run is at work in the folder, or the folder is not writable or knows no locks.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK
        with disk_errors(path):
            self._stream = path.open("a+", encoding="utf-8")
            try:
                fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._stream.seek(0)
                holder = self._stream.read(200).strip() or "another process"
                self.release()
                what = f"a run is at work in {folder}: {holder}"
                raise BenchError(what, "Wait until it ends, or stop it.") from None
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            self._stream.truncate(0)
            self._stream.write(f"process {os.getpid()} on {platform.node()} since {now}")
            self._stream.flush()

    def release(self) -> None:
        """Lets others in."""
        self._stream.close()
