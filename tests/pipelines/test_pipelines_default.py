"""Which pipeline is taken where none is named."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import pipelines


@pytest.mark.parametrize(
    ("installed", "flags", "devices", "expected"),
    [
        ({"simplejpeg", "nvidia.dali"}, "sse2 avx2", ["cpu"], "turbo"),
        ({"simplejpeg", "nvidia.dali"}, "sse2 avx2", ["cpu", "cuda"], "dali"),
        ({"simplejpeg"}, "avx2", ["cuda"], "turbo"),
        ({"simplejpeg", "nvidia.dali"}, "sse2", ["cpu"], "dali"),
        ({"nvidia.dali"}, "avx2", ["cpu"], "dali"),
        (set(), "avx2", ["cuda"], "reference"),
    ],
)
def test_the_fastest_that_runs_here(
    installed: set[str],
    flags: str,
    devices: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = installed | {name.partition(".")[0] for name in installed}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in known else None)
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags}\n")
    assert pipelines.default_name(devices, tmp_path / "cpuinfo") == expected


def test_where_the_processor_is_not_known_turbo_is_not_taken(tmp_path: Path) -> None:
    assert pipelines.default_name(["cpu"], tmp_path / "absent") != "turbo"
