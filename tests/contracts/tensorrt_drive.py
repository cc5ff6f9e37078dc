"""Drives our TensorRT code over the fake runtime: a graph, a stand-in for CUDA streams, two walks through it all."""

import contextlib
import importlib
import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import fake_tensorrt as fake
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from export.tensorrt import make_log
from pipelines.base import DevicePixels
from scarlet.errors import BenchError

CLASSES, SIZE = 10, 8


def small_graph(path: Path, batch: str | int = "batch", size: str | int = SIZE, outputs: int = 1) -> Path:
    """Writes a graph from ``(batch, 3, size, size)`` to ``(batch, 10)``: mean colour, then one matrix product."""
    weight = np.random.default_rng(1).standard_normal((3, CLASSES)).astype(np.float32)
    names = ["logits", "flat"][:outputs]
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["input"], ["pooled"], name="pool"),
            helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
            helper.make_node("MatMul", ["flat", "weight"], ["logits"], name="classifier"),
        ],
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, None]) for name in names],
        [numpy_helper.from_array(weight, "weight")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def right_logits(graph: Path, pixels: Any) -> Any:
    """What ONNX Runtime makes of them."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"input": pixels})[0]


def some_pixels(n: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((n, 3, SIZE, SIZE)).astype(np.float32)


class FakeStream:
    """A stream whose work is done at once, unless it is captured."""

    handles = itertools.count(0x5000)

    def __init__(self) -> None:
        self.cuda_stream = next(self.handles)
        self.capture: list[Callable[[], None]] | None = None
        fake.STREAMS[self.cuda_stream] = self

    def synchronize(self) -> None:
        assert self.capture is None, "a stream that is captured cannot be waited for"
        fake.CALLS.append(("synchronize",))


class FakeGraph:
    """What ``torch.cuda.CUDAGraph`` is to our code."""

    def __init__(self) -> None:
        self.work: list[Callable[[], None]] = []

    def replay(self) -> None:
        for step in self.work:
            step()


@contextlib.contextmanager
def fake_capture(graph: FakeGraph, stream: FakeStream, capture_error_mode: str) -> Iterator[None]:
    """What ``torch.cuda.graph`` is to our code."""
    assert capture_error_mode == "thread_local"
    stream.capture = graph.work
    try:
        yield
    finally:
        stream.capture = None
    assert graph.work, "nothing was captured"


class CpuLane:
    """``bench.backends.cuda.Lane`` without a GPU: the same calls of ``compute``, on the host's memory."""

    def __init__(self, compute: Any, any_address: bool = False, least: int = 0, stream: Any = None) -> None:
        assert stream is not None
        assert least == 0
        self._compute, self._any_address = compute, any_address
        self._buffers: dict[int, torch.Tensor] = {}

    def infer(self, pixels: Any) -> Any:
        buffer = self._buffers.setdefault(len(pixels), torch.zeros(pixels.shape))
        buffer.copy_(torch.from_numpy(pixels))
        return self._compute(buffer).numpy().copy()

    def infer_stages(self, pixels: Any) -> tuple[Any, dict[str, int]]:
        return self.infer(pixels), {"h2d": 1, "compute": 2, "d2h": 1}

    def infer_on_device(self, pixels: DevicePixels) -> Any:
        there = pixels.tensor
        return self._compute(there).numpy().copy() if self._any_address else self.infer(there.numpy())

    def close(self) -> None:
        self._buffers.clear()


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the fakes in place of TensorRT and of what PyTorch has of CUDA."""
    fake.reset()
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", fake_capture)


def on_the_host(monkeypatch: pytest.MonkeyPatch, engine: ModuleType) -> None:
    """Has the engine's module work on the host's memory."""
    monkeypatch.setattr(engine, "DEVICE", "cpu")
    monkeypatch.setattr(engine, "ALIGNMENT_BYTES", 64)  # what PyTorch aligns to on the host


def without_gpu(monkeypatch: pytest.MonkeyPatch, backend: ModuleType) -> None:
    """Has the backend's module do without a GPU."""
    monkeypatch.setattr(backend, "Lane", CpuLane)
    monkeypatch.setattr(backend, "require_cuda", lambda case: None)
    monkeypatch.setattr(backend, "gpu_facts", lambda: dict(GPU_FACTS))


GPU_FACTS = {"name": "a GPU", "compute_capability": "9.0", "multiprocessors": 132, "driver": "580.1", "cuda": "13.0"}


def module_of(code: Any, name: str) -> ModuleType:
    """A module made of compiled source, beside the one that is imported under this name."""
    importlib.import_module(name)  # dataclasses look their module up
    spec = importlib.util.spec_from_loader(name, loader=None)
    assert spec is not None
    made = importlib.util.module_from_spec(spec)
    exec(code, made.__dict__)
    return made


# Each fails, by an AssertionError or otherwise, if any call of TensorRT is left out.


def spec_of(module: Any, graph: Path, **other: Any) -> Any:
    return module.PlanSpec(str(graph), "0" * 64, opt_batch=4, max_batch=4, **other)


def refusal(work: Callable[[], Any], kind: type[BaseException] | tuple[type[BaseException], ...], words: str) -> None:
    """Makes sure that the work is refused with these words."""
    with pytest.raises(kind, match=words):
        work()


def walk_export(module: Any, folder: Path) -> None:
    """Builds plans with ``export.tensorrt``, well and badly."""
    graph, target = small_graph(folder / "g.onnx"), folder / "g.plan"
    timing = folder / "timing" / "t.cache"
    fake.reset()
    facts = module.write_plan(spec_of(module, graph, level=4), target, timing)
    assert ("create_network", 1 << 5) in fake.CALLS
    assert ("build", 1 << 5, False, 4) in fake.CALLS
    assert (facts["profile"], facts["timing_cache"], facts["network_layers"]) == ("dynamic", "new", 3)
    assert timing.read_bytes() == b"timed;"
    log = make_log(fake)
    engine = fake.Runtime(log).deserialize_cuda_engine(target.read_bytes())
    rest = (3, SIZE, SIZE)
    assert engine.get_tensor_profile_shape("input", 0) == [(1, *rest), (4, *rest), (4, *rest)]
    assert engine._plan["detailed"]
    assert not engine._plan["tf32"]

    facts = module.write_plan(spec_of(module, graph, tf32=True), target, timing)
    assert facts["timing_cache"] == "reused"
    assert ("set_flag", fake.BuilderFlag.TF32) in fake.CALLS
    assert ("set_timing_cache", b"timed;") in fake.CALLS
    assert timing.read_bytes() == b"timed;timed;"
    assert ("build", 1 << 5, True, 3) in fake.CALLS
    facts = module.write_plan(spec_of(module, graph, build=1), target, None)
    assert facts["timing_cache"] == "none"

    fake.FAULTS.add("timing_mismatch")
    assert module.write_plan(spec_of(module, graph), target, timing)["timing_cache"] == "new"
    assert timing.read_bytes() == b"timed;"
    for fault, words in (
        ("parse", r"node 'stem/odd' \(OddOp\): no importer for it"),
        ("parse_silently", "protobuf is broken"),
        ("no_profile", "refused batches of 1 to 4"),
        ("no_plan", "no kernel fits"),
    ):
        fake.reset()
        fake.FAULTS.add(fault)
        refusal(lambda: module.write_plan(spec_of(module, graph), target, None), BenchError, words)
    fake.reset()
    fixed = small_graph(folder / "fixed.onnx", batch=4)
    assert module.write_plan(spec_of(module, fixed), target, None)["profile"] == "static"
    odd = small_graph(folder / "odd.onnx", size="height")
    refusal(lambda: module.write_plan(spec_of(module, odd), target, None), BenchError, "'input' leaves other sizes")


def plan_file(folder: Path, batch: str | int = "batch", **other: Any) -> tuple[Path, Path]:
    """A graph, and a plan of it for batches up to 4, built over the fake."""
    from export import tensorrt as builder

    graph, target = small_graph(folder / "graph.onnx", batch), folder / "graph.plan"
    builder.write_plan(spec_of(builder, graph, **other), target, None)
    return graph, target


def engine_on(module: Any, plan: Path, graph: bool = False) -> Any:
    return module.Engine(fake, plan, FakeStream(), (4, 3, SIZE, SIZE), CLASSES, graph)


def walk_engine(module: Any, folder: Path) -> None:
    """Runs plans with ``bench.backends.tensorrt.engine.Engine``, well and badly."""
    fake.reset()
    onnx_path, plan = plan_file(folder)
    engine = engine_on(module, plan)
    for n in (4, 1, 3, 4):
        pixels = some_pixels(n, seed=n)
        logits = engine.compute(torch.from_numpy(pixels.copy()).clone()).numpy()
        np.testing.assert_allclose(logits, right_logits(onnx_path, pixels), rtol=1e-6)
    assert ("infer_shapes",) in fake.CALLS
    assert engine.profile["max"] == [4, 3, SIZE, SIZE]
    assert '"LayerType": "gemm"' in engine.information()
    heard: list[tuple[str, float]] = []
    engine.report_to(lambda *layer: heard.append(layer))
    engine.compute(torch.zeros(4, 3, SIZE, SIZE))
    assert ("Reformatting CopyNode", 0.125) in heard
    held = torch.zeros(4, 3, SIZE, SIZE)
    captured = engine_on(module, plan, graph=True)
    fake.CALLS.clear()
    for seed in range(3):
        pixels = some_pixels(4, seed)
        held.copy_(torch.from_numpy(pixels))
        np.testing.assert_allclose(captured.compute(held).numpy(), right_logits(onnx_path, pixels), rtol=1e-6)
    assert [call for call in fake.CALLS if call[0] in ("execute", "replay", "synchronize")] == [
        ("execute", False),
        ("synchronize",),
        ("execute", True),
        ("replay",),
        ("replay",),
    ]
    refusals = (
        ("no_engine", BenchError, "the plan is of another version"),
        ("no_context", RuntimeError, "out of memory"),
        ("profile", RuntimeError, "take profile 0"),
        ("shape", RuntimeError, "take the shape"),
        ("open", RuntimeError, r"infer shapes; open: \['input'\]"),
        ("address", RuntimeError, "address"),
        ("enqueue", RuntimeError, "enqueue an inference"),
        ("half", BenchError, "is not float32"),
    )
    for fault, kind, words in refusals:
        fake.reset()
        fake.FAULTS.add(fault)
        refusal(lambda: engine_on(module, plan).compute(torch.zeros(4, 3, SIZE, SIZE)), kind, words)
