"""What backends on a GPU share, on a GPU made of the CPU: order of work, stages, buffers, facts."""

import copy
import dataclasses
import types
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from fake_cuda import FakeCuda, faked
from numpy.typing import NDArray

from bench.backends import cuda
from bench.backends.base import OnDevice, TimesStages, Unavailable, Unsupported
from bench.backends.onnxruntime.backend import OnnxRuntime
from bench.backends.pytorch.backend import PyTorch
from bench.record.case import PRECISIONS, Case
from pipelines.base import DevicePixels

CASE = Case("scarlet_c", "random", "pytorch", device="cuda")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    yield from faked(monkeypatch)


def pixels_of(n: int) -> NDArray[np.float32]:
    return np.arange(n * 3 * 2 * 2, dtype=np.float32).reshape(n, 3, 2, 2)


def doubled(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.flatten(1)[:, :5] * 2


def test_a_stage_lasts_from_its_mark_to_the_next(gpu: FakeCuda) -> None:
    times = iter([10.0, 10.5, 13.0, 13.25, 20.0, 21.0, 22.0, 23.5])
    gpu.event_ms = lambda: next(times)
    clock = cuda.StageClock(torch.cuda.Stream())
    for expected in (
        {"h2d": 500_000, "compute": 2_500_000, "d2h": 250_000},
        {"h2d": 1_000_000, "compute": 1_000_000, "d2h": 1_500_000},
    ):
        for name in ("h2d", "compute", "d2h"):
            clock.mark(name)
        assert clock.finish() == expected
    assert gpu.events_made == 4, "events are made once"


def test_a_stage_that_comes_twice_has_the_sum(gpu: FakeCuda) -> None:
    clock = cuda.StageClock(torch.cuda.Stream())
    for name in ("compute", "d2h", "compute"):
        clock.mark(name)
    assert clock.finish() == {"compute": 2_000_000, "d2h": 1_000_000}


def test_nothing_waits_for_the_device_between_the_first_event_and_the_last(gpu: FakeCuda) -> None:
    lane = cuda.Lane(doubled)
    lane.infer(pixels_of(2))  # the first call makes buffers
    gpu.log.clear()
    logits, stages = lane.infer_stages(pixels_of(2))
    assert gpu.log == ["record"] * 4 + ["wait for event"]
    assert list(stages) == ["h2d", "compute", "d2h", "enqueue"]
    assert np.array_equal(logits, pixels_of(2).reshape(2, -1)[:, :5] * 2)
    gpu.log.clear()
    assert np.array_equal(lane.infer(pixels_of(2)), logits)
    assert gpu.log == ["wait for stream"]


def test_the_logits_are_the_callers_own(gpu: FakeCuda) -> None:
    lane = cuda.Lane(doubled)
    first = lane.infer(pixels_of(2))
    kept = first.copy()
    lane.infer(pixels_of(2) + 1)
    assert np.array_equal(first, kept)


def test_each_batch_size_has_memory_of_its_own_which_never_moves(gpu: FakeCuda) -> None:
    seen: dict[int, set[int]] = {}

    def compute(pixels: torch.Tensor) -> torch.Tensor:
        seen.setdefault(len(pixels), set()).add(pixels.data_ptr())
        return doubled(pixels)

    lane = cuda.Lane(compute)
    for n in (4, 2, 4, 2, 4):
        lane.infer(pixels_of(n))
    lane.infer_on_device(DevicePixels(torch.from_numpy(pixels_of(4))))
    assert {n: len(addresses) for n, addresses in seen.items()} == {4: 1, 2: 1}
    lane.close()


def test_a_small_batch_is_filled_up_where_the_network_is_made_for_one_size(gpu: FakeCuda) -> None:
    sizes: list[int] = []

    def compute(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        return doubled(pixels)

    lane = cuda.Lane(compute, any_address=True, least=4)
    expected = doubled(torch.from_numpy(pixels_of(3))).numpy()
    assert np.array_equal(lane.infer(pixels_of(3)), expected)
    assert np.array_equal(lane.infer_on_device(DevicePixels(torch.from_numpy(pixels_of(3)))), expected)
    assert sizes == [4, 4]


def test_pixels_on_the_device_are_taken_after_what_made_them(gpu: FakeCuda) -> None:
    taken: list[int] = []

    def compute(pixels: torch.Tensor) -> torch.Tensor:
        taken.append(pixels.data_ptr())
        return doubled(pixels)

    lane = cuda.Lane(compute, any_address=True)
    pixels, written = torch.from_numpy(pixels_of(2)), torch.cuda.Event(enable_timing=True)
    written.record(torch.cuda.Stream())
    logits = lane.infer_on_device(DevicePixels(pixels, written))
    assert taken == [pixels.data_ptr()], "used where they lie"
    assert np.array_equal(logits, doubled(pixels).numpy())
    assert gpu.log.index("after event") < gpu.log.index("wait for stream")


def test_without_a_gpu_the_reason_names_the_missing_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(Unavailable, match=r"is a CPU build; .*make clean setup"):
        cuda.require_cuda(CASE)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(Unavailable, match=r"no CUDA device \(.*doctor"):
        cuda.require_cuda(CASE)


@pytest.mark.parametrize("allowed", [True, False])
def test_both_switches_of_tf32_follow(gpu: FakeCuda, allowed: bool) -> None:
    cuda.set_tf32(not allowed)
    cuda.set_tf32(allowed)
    state = cuda.tf32_state()
    assert (state["matmul_allow_tf32"], state["cudnn_allow_tf32"]) == (allowed, allowed)


def test_facts_of_the_gpu(gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 92000, raising=False)
    facts = cuda.gpu_facts()
    assert (facts["name"], facts["compute_capability"], facts["cuda"]) == ("Fake GPU", "9.0", "13.0")
    assert facts["l2_bytes"] == 1000


@pytest.mark.parametrize(("number", "name"), [(92000, "9.20.0"), (91301, "9.13.1"), (8902, "8.9.2"), (None, None)])
def test_cudnn_versions_are_written_as_people_do(number: int | None, name: str | None) -> None:
    assert cuda._cudnn_version(number) == name


@pytest.mark.parametrize("precision", PRECISIONS)
def test_older_gpus_lack_tf32_and_bf16(gpu: FakeCuda, precision: str) -> None:
    case = dataclasses.replace(CASE, precision=precision)
    cuda.require_cuda(case)
    gpu.capability = (7, 5)
    if precision in ("tf32", "bf16"):
        with pytest.raises(Unsupported, match=f"Fake GPU has no {precision.upper()}; .* 8"):
            cuda.require_cuda(case)
    else:
        cuda.require_cuda(case)


@pytest.mark.parametrize(("bits", "sentence"), [(23, ""), (10, "TF32 or less computed")])
def test_fp32_is_proven_by_its_numbers(bits: int, sentence: str) -> None:
    """TF32 keeps 10 of 23 bits of each factor."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 5)
    )

    class Rounding:
        def infer(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
            rounded = copy.deepcopy(network)
            for parameter in rounded.parameters():
                parameter.data = (parameter.data.view(torch.int32) >> (23 - bits) << (23 - bits)).view(torch.float32)
            return rounded(torch.from_numpy(pixels)).detach().numpy()

    files = types.SimpleNamespace(network=lambda: network, fixed_batch=None, input_size=8)
    proof = cuda.distance_from_cpu(Rounding(), CASE, files)  # type: ignore[arg-type]
    assert sentence in proof.get("fallback", "")
    assert bool(proof.get("fallback")) is bool(sentence)
    assert cuda.distance_from_cpu(Rounding(), dataclasses.replace(CASE, precision="fp16"), files) == {}  # type: ignore[arg-type]


def test_a_range_ends_whatever_happens_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(torch.cuda.nvtx, "range_push", said.append)
    monkeypatch.setattr(torch.cuda.nvtx, "range_pop", lambda: said.append("end"))
    with pytest.raises(ZeroDivisionError), cuda.named_range("round 3"):
        raise ZeroDivisionError
    assert said == ["round 3", "end"]


def test_the_state_of_the_l2_is_told(gpu: FakeCuda) -> None:
    assert cuda.l2_note(CASE).startswith("warm")
    assert cuda.l2_note(dataclasses.replace(CASE, options=(("l2", "cold"),))).startswith("cold")
    assert "before" in cuda.l2_note(dataclasses.replace(CASE, scenario="accuracy"))
    flush = cuda.L2Flush()
    assert flush._buffer.numel() == 2000
    flush()
    assert gpu.log[-1] == "wait for all"


def test_the_backends_offer_what_the_harness_looks_for() -> None:
    for backend in (PyTorch(), OnnxRuntime()):
        assert isinstance(backend, TimesStages)
        assert isinstance(backend, OnDevice)
