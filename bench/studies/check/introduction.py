"""The first words of a worker: whose code it runs.

``bench.studies.check.revisions`` starts this file by its path in a process whose packages are those of another
revision, which may never have heard of it. So it uses the standard library alone, and ``bench`` in here is the other's.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

# The package of the networks was called "models" before it was called "scarlet".
PACKAGES = ("bench", "export", "scarlet", "models", "pipelines")


class OnlyFromPath:
    """Finds modules of our packages in their folders or not at all.

    An editable install brings a finder of its own that is asked last, and PYTHONPATH may name another tree: for a
    package or module that the other revision does not have they would give this tree's. A worker starts in the
    folder of its packages.
    """

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """See ``importlib.abc.MetaPathFinder``.

        Raises:
            ModuleNotFoundError: there is no such module of our packages; no other finder is asked.
        """
        if name.partition(".")[0] not in PACKAGES:
            return None
        spec = PathFinder.find_spec(name, [os.getcwd()] if path is None else path, target)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return spec


def introduction() -> dict[str, Any]:
    """What this process will import, found as imports find it.

    Returns:
        ``packages``: the folders of each of our packages, none where there is no such package.
        ``sources_sha256``: digest of all Python files in them.
        ``protocol``: ``bench.worker.channel.PROTOCOL``; revisions from before it had a number speak protocol 1.
    """
    try:
        from bench.worker import channel
    except ImportError:  # of an older revision
        from bench import wire as channel  # type: ignore[no-redef]
    packages = {name: _folders(name) for name in PACKAGES}
    return {
        "packages": packages,
        "sources_sha256": sources_sha256(folder for folders in packages.values() for folder in folders),
        "protocol": int(getattr(channel, "PROTOCOL", 1)),
    }


def _folders(package: str) -> list[str]:
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        return []
    # A folder without an origin is what an older checkout left behind, with nothing but caches in it.
    return list(spec.submodule_search_locations or ()) if spec is not None and spec.origin else []


def sources_sha256(folders: Iterable[str]) -> str:
    """Digest of the Python files under some folders: their contents, and their names from the folder on."""
    digest = hashlib.sha256()
    for folder in map(Path, folders):
        for path in sorted(folder.rglob("*.py")):
            name = path.relative_to(folder.parent).as_posix()
            digest.update(f"{name}\n{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def main() -> None:
    """Sends the introduction as the first line, and then becomes a worker like any other."""
    sys.meta_path.insert(0, OnlyFromPath)
    from bench.worker import main as work

    line = json.dumps({"introduction": introduction()}).encode() + b"\n"
    while line:
        line = line[os.write(1, line) :]
    work()


if __name__ == "__main__":
    main()
