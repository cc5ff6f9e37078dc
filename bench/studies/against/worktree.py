"""Another revision of this project as files: a git worktree that goes when it is no longer needed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import host
from scarlet.errors import BenchError, error_text

# Set in hooks of git: they would send us to another repository, or to an index that is being committed.
_GIT_VARIABLES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR")


@dataclass(frozen=True)
class Revision:
    """A state of this project's files.

    Attributes:
        name: as people call it: ``this tree``, or what was given, such as ``HEAD~1``.
        commit: the commit it is, or stems from.
        dirty: whether it differs from that commit.
        home: the folder with its packages.
    """

    name: str
    commit: str
    dirty: bool
    home: Path

    @property
    def label(self) -> str:
        """``HEAD~1 (5f9e716b)``."""
        return f"{self.name} ({self.commit[:8]}{', changed' if self.dirty else ''})"


def this_revision(home: Path) -> Revision:
    """The tree as it is, changes and new files included.

    Raises:
        BenchError: it is no checkout.
    """
    state = host.git_revision(home / "bench")
    if state is None:
        raise BenchError(
            f"{home} is no git checkout: there is no other revision to compare with",
            "Clone the repository, and run this in the clone.",
        )
    return Revision("this tree", state["commit"], bool(state["dirty"]), home)


@contextmanager
def worktree(home: Path, ref: str) -> Iterator[Revision]:
    """Another revision's files, in a git worktree in a temporary folder, gone when this ends.

    Args:
        home: the folder with this revision's packages, in a git checkout.
        ref: a commit, branch or tag.

    Raises:
        BenchError: there is no such revision, or git cannot make the worktree.
    """
    found = _git(home, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    if found.returncode or not found.stdout.strip():
        said = f": {error_text(found.stderr)}" if found.stderr.strip() else ""
        raise BenchError(
            f"'{ref}' is no revision of {home}{said}",
            "Name a commit, branch or tag, such as HEAD~1; in a shallow clone run first: git fetch --unshallow",
        )
    commit, prefix = found.stdout.strip(), _git(home, "rev-parse", "--show-prefix").stdout.strip()
    parent = Path(tempfile.mkdtemp(prefix="scarlet-bench-")).resolve()
    tree = parent / "tree"
    try:
        # Hooks are for people's own checkouts.
        made = _git(home, "-c", f"core.hooksPath={os.devnull}", "worktree", "add", "--detach", str(tree), commit)
        if made.returncode:
            raise BenchError(
                f"git cannot make a worktree of '{ref}': {error_text(made.stderr)}",
                "Free some space in the temporary folder, or see what git says of the repository: git fsck",
            )
        yield Revision(ref, commit, False, tree / prefix)
    finally:
        with _unhurried():
            # Twice forced: a worktree that was interrupted while it was made is locked.
            _git(home, "worktree", "remove", "--force", "--force", str(tree))
            shutil.rmtree(parent, ignore_errors=True)


def _git(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in _GIT_VARIABLES}
    try:
        return subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            env={**environment, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"},
        )
    except FileNotFoundError:
        raise BenchError("git is not installed", "Install git: it makes the other revision's files.") from None


@contextmanager
def _unhurried() -> Iterator[None]:
    """A second Ctrl-C does not stop the tidying up after the first, which takes a moment."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.signal(each, signal.SIG_IGN) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
