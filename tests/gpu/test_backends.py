"""The backends on a real GPU: the CPU's predictions, the precision that was asked for, no copy over the host."""

import numpy as np
import pytest
import torch
from gpu_here import BACKENDS, BATCH, LOWER, loaded, needs_gpu
from numpy.typing import NDArray

from bench.backends.base import Backend, ModelFiles, OnDevice, TimesStages
from pipelines.device import DevicePixels, written_event

pytestmark = needs_gpu


def logits(backend: Backend, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits of all images, batch by batch."""
    return np.concatenate([backend.infer(pixels[first : first + BATCH]) for first in range(0, len(pixels), BATCH)])


@pytest.fixture(scope="module")
def expected(scarlet: ModelFiles, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    with loaded(scarlet, "pytorch", "cpu", options={"form": "plain"}) as backend:
        return logits(backend, pixels)


@pytest.mark.parametrize("graph", ["no", "yes"])
@pytest.mark.parametrize("name", BACKENDS)
def test_fp32_gives_the_predictions_of_the_cpu(name, graph, scarlet, pixels, expected):
    with loaded(scarlet, name, options={"graph": graph}) as backend:
        got = logits(backend, pixels)
        again = logits(backend, pixels)
        proof = backend.proof()
    assert (got.argmax(axis=1) == expected.argmax(axis=1)).all()
    # TF32 would be off by about a thousandth of the largest logit, Winograd's convolutions are by up to 3 in 10,000.
    assert np.abs(got - expected).max() <= 3e-4 * np.abs(expected).max()
    np.testing.assert_allclose(again, got, rtol=1e-4, atol=1e-4)
    assert not proof.get("fallback"), proof["fallback"]


@pytest.mark.parametrize("precision", LOWER)
@pytest.mark.parametrize("name", BACKENDS)
def test_lower_precision_really_is_lower_and_predicts_alike(name, precision, scarlet, pixels, expected):
    with loaded(scarlet, name, precision=precision) as backend:
        got = logits(backend, pixels)
        proof = backend.proof()
    apart = np.abs(got - expected).max() / np.abs(expected).max()
    assert 1e-6 < apart < 0.1
    assert (got.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.95
    assert not proof.get("fallback"), proof["fallback"]


@pytest.mark.parametrize("name", BACKENDS)
def test_pixels_on_the_device_give_the_logits_of_those_on_the_host(name, scarlet, pixels):
    with loaded(scarlet, name) as backend:
        assert isinstance(backend, OnDevice)
        for n in (BATCH, 3, 1):
            some = pixels[:n]
            there = torch.from_numpy(some).cuda()
            torch.cuda.synchronize()
            np.testing.assert_allclose(
                backend.infer_on_device(DevicePixels(there)), backend.infer(some), rtol=1e-4, atol=1e-4
            )


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_waits_for_what_its_caller_has_queued(name, scarlet, pixels):
    """The pixels are written behind a second of other work: a backend that did not wait would read zeros."""
    with loaded(scarlet, name) as backend:
        assert isinstance(backend, OnDevice)
        right = backend.infer(pixels[:BATCH])
        source = torch.from_numpy(pixels[:BATCH]).cuda()
        stream = torch.cuda.Stream()
        for _ in range(3):
            target = torch.zeros_like(source)
            torch.cuda.synchronize()
            with torch.cuda.stream(stream):
                torch.cuda._sleep(200_000_000)  # clock ticks
                target.copy_(source)
            got = backend.infer_on_device(DevicePixels(target, written_event(stream)))
            np.testing.assert_allclose(got, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", BACKENDS)
def test_stages_are_timed_by_the_device(name, scarlet, pixels):
    with loaded(scarlet, name) as backend:
        assert isinstance(backend, TimesStages)
        backend.infer_stages(pixels[:BATCH])
        got, stages = backend.infer_stages(pixels[:BATCH])
        np.testing.assert_allclose(got, backend.infer(pixels[:BATCH]), rtol=1e-4, atol=1e-4)
    assert set(stages) == {"h2d", "compute", "d2h", "enqueue"}
    assert all(taken > 0 for taken in stages.values())
