"""Energy counters from a made-up /sys, file sizes, and the share of the peak in the table."""

from pathlib import Path

import pytest
from report_run import add_samples, case, end, make_run

from bench.analysis.table import load_frame
from bench.backends.base import ModelFiles
from bench.host import energy
from bench.worker.footprint import EnergyAccount, model_file_bytes


def package(root: Path, name: str, uj: int, wrap: int = 1_000_000) -> Path:
    zone = root / name
    zone.mkdir()
    (zone / "energy_uj").write_text(f"{uj}\n")
    (zone / "max_energy_range_uj").write_text(f"{wrap}\n")
    return zone / "energy_uj"


def test_packages_are_added_up_and_their_parts_are_not(tmp_path: Path) -> None:
    first, second = package(tmp_path, "intel-rapl:0", 100), package(tmp_path, "intel-rapl:1", 999_000)
    package(tmp_path, "intel-rapl:0:0", 50)
    meter = energy.open_meter(tmp_path)
    assert len(meter.readers) == 2
    before = meter.read()
    first.write_text("500100")
    second.write_text("4000")  # went past its largest value
    assert meter.joules(before, meter.read()) == pytest.approx((500_000 + 5_000) / 1e6)
    second.unlink()
    assert meter.joules(before, meter.read()) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda root: None, "no RAPL"),
        (lambda root: (root / "intel-rapl:0").mkdir(), "cannot be read"),
        (lambda root: package(root, "intel-rapl:0", 1).write_text("much"), "could not convert"),
    ],
)
def test_without_counters_there_is_a_reason(tmp_path: Path, prepare: object, reason: str) -> None:
    prepare(tmp_path)  # type: ignore[operator]
    account = EnergyAccount(energy.open_meter(tmp_path))
    metrics = account.metrics()
    assert set(metrics) <= {"energy_reason"}


def test_a_counter_that_only_root_may_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, "intel-rapl:0", 1)

    def refuse(self: Path, *_: object, **__: object) -> str:
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", refuse)
    assert "only be read by root" in energy.open_meter(tmp_path).reason


def test_energy_an_image(tmp_path: Path) -> None:
    package(tmp_path, "intel-rapl:0", 0)
    account = EnergyAccount(energy.open_meter(tmp_path))
    assert account.metrics() == {"energy_reason": "energy is measured in latency Cases"}
    account.joules, account.images = 3.0, 12
    assert account.metrics() == {"energy_joules_per_image": 0.25}


def files(tmp_path: Path, **more: object) -> ModelFiles:
    for name, size in (("net.onnx", 100), ("state.safetensors", 70), ("small.xml", 10), ("small.bin", 20)):
        (tmp_path / name).write_bytes(b"x" * size)
    return ModelFiles(
        model="m",
        weights="user",
        weights_sha256="",
        onnx=str(tmp_path / "net.onnx"),
        onnx_sha256="",
        state=str(tmp_path / "state.safetensors"),
        typed={"int8/nncf": {"path": str(tmp_path / "small.xml")}},
        **more,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("backend", "precision", "size"),
    [("pytorch", "fp32", 70), ("onnxruntime", "fp32", 100), ("openvino", "int8", 30), ("openvino", "fp32", 100)],
)
def test_the_file_that_the_backend_loads(tmp_path: Path, backend: str, precision: str, size: int) -> None:
    assert model_file_bytes(case(backend=backend, precision=precision), files(tmp_path)) == size


def test_weights_beside_the_graph_count_and_what_is_gone_has_no_size(tmp_path: Path) -> None:
    found = files(tmp_path)
    (tmp_path / "net.onnx.data").write_bytes(b"x" * 1000)
    assert model_file_bytes(case(backend="onnxruntime"), found) == 1100
    (tmp_path / "net.onnx").unlink()
    assert model_file_bytes(case(backend="onnxruntime"), found) is None


def test_the_table_has_arithmetic_and_its_share_of_the_peak(tmp_path: Path) -> None:
    timed = case(scenario="latency", batch=2, threads=2)
    peaks = [{"threads": 2, "gflop_per_s": {"fp32": 40.0}, "copy_gbyte_per_s": 1.0}]
    info = {"model_files": {"multiply_adds": 50_000_000}, "peaks": peaks}
    folder = make_run(tmp_path / "run", [timed], info)
    add_samples(folder, timed, [10_000_000] * 40)
    end(folder, timed, stage="compute", metrics={"model_file_bytes": 7, "energy_joules_per_image": 0.5})
    row = load_frame(folder.path).iloc[0]
    # 2 images in 10 ms are 200 a second, at 0.1 GFLOP each.
    assert row["gflop_per_s"] == pytest.approx(20.0)
    assert row["peak_percent"] == pytest.approx(50.0)
    assert (row["model_file_bytes"], row["energy_joules_per_image"]) == (7, 0.5)
