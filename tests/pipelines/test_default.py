"""Which pipeline is taken where none is named."""

import importlib.util
from pathlib import Path

import pytest

import pipelines


@pytest.mark.parametrize(
    ("installed", "flags", "devices", "gpu", "expected"),
    [
        ({"simplejpeg", "nvidia.dali"}, "sse2 avx2", ["cpu"], True, "turbo"),
        ({"simplejpeg", "nvidia.dali"}, "sse2 avx2", ["cpu", "cuda"], True, "dali_gpu"),
        ({"simplejpeg", "nvidia.dali"}, "sse2 avx2", ["cpu", "cuda"], False, "turbo"),
        ({"simplejpeg"}, "avx2", ["cuda"], True, "turbo"),
        ({"simplejpeg", "nvidia.dali"}, "sse2", ["cpu"], True, "dali"),
        ({"nvidia.dali"}, "avx2", ["cpu"], False, "dali"),
        ({"nvidia.dali"}, "avx2", ["cuda"], False, "dali"),
        (set(), "avx2", ["cuda"], True, "reference"),
    ],
)
def test_the_fastest_that_runs_here(installed, flags, devices, gpu, expected, tmp_path, monkeypatch):
    known = installed | {name.partition(".")[0] for name in installed}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in known else None)
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags}\n")
    assert pipelines.default_name(devices, tmp_path / "cpuinfo", lambda: gpu) == expected


def test_where_the_processor_is_not_known_turbo_is_not_taken(tmp_path: Path) -> None:
    assert pipelines.default_name(["cpu"], tmp_path / "absent") != "turbo"


def test_pipelines_of_a_gpu_are_compared_where_there_is_one() -> None:
    assert pipelines.fast_names(lambda: False) == ("turbo", "dali")
    assert pipelines.fast_names(lambda: True) == ("turbo", "dali", "dali_gpu", "dali_gpu_engine")
