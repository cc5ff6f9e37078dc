"""The three runtimes tell of their nodes: recorded pieces, and a tiny network in each of them."""

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from bench.backends.base import ModelFiles, Unsupported
from bench.backends.onnxruntime.profiler import OnnxRuntimeProfiler
from bench.backends.onnxruntime.profiler import nodes_of as onnxruntime_nodes
from bench.backends.openvino.profiler import last_call
from bench.backends.openvino.profiler import nodes_of as openvino_nodes
from bench.backends.profiler import (
    CALLS_PER_TURN,
    DROPPED_CALLS,
    FIRST_DROPPED_CALLS,
    Node,
    Recording,
    measure,
    node_names,
    record,
)
from bench.backends.pytorch.profiler import KernelProfiler, PyTorchProfiler
from bench.record.case import Case
from bench.studies.profile.layers import NETWORK, join, join_modules, modules_of, network_nodes, nodes_of
from bench.worker import channel
from bench.worker.inputs import first_batch
from bench.worker.pixel_parity import Request
from bench.worker.serve import Worker
from export.compare.values import OnnxValues
from pipelines.imagenet.find import Image, find_images
from scarlet.cost import measure_cost
from scarlet.errors import BenchError


def event(name: str, op: str, dur: int, index: str) -> dict[str, Any]:
    args = {"op_name": op, "node_index": index, "output_type_shape": [{"float": [1, 1000]}]}
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": dur, "ts": 0, "args": args}


def run_of(*durations: int) -> list[dict[str, Any]]:
    return [
        event("classifier/Gemm", "Gemm", durations[0], "177"),
        {"cat": "Node", "name": "classifier/Gemm_fence_after", "dur": 1, "ts": 0, "args": {}},
        event("Mul_670", "Mul", durations[1], "670"),
        {"cat": "Session", "name": "SequentialExecutor::Execute", "dur": 99, "ts": 0},
        {"cat": "Session", "name": "model_run", "dur": 100, "ts": 0, "args": {}},
    ]


EVENTS = [{"cat": "Session", "name": "session_initialization", "dur": 5, "ts": 0, "args": {}}]
EVENTS += run_of(9000, 900) + run_of(400, 20) + run_of(410, 21)


def test_onnx_runtimes_events_become_nodes_of_the_runs_that_count() -> None:
    gemm, mul = onnxruntime_nodes(EVENTS, [False, True, True])
    assert gemm == Node("classifier/Gemm", "Gemm", "float", ("classifier/Gemm",), (400_000.0, 410_000.0))
    assert (mul.name, mul.samples_ns) == ("Mul_670", (20_000.0, 21_000.0))


def test_onnx_runtimes_launches_are_no_times_of_kernels() -> None:
    with pytest.raises(Unsupported, match="take to be launched"):
        OnnxRuntimeProfiler(Case("small", "user", "onnxruntime", device="cuda"), cast(Any, None), cast(Any, None))


def test_a_profile_that_was_cut_off_is_refused() -> None:
    with pytest.raises(BenchError, match="holds 3 of 4 calls"):
        onnxruntime_nodes(EVENTS, [True] * 4)


def test_openvinos_running_means_become_times_of_calls() -> None:
    # 4 calls of 10 us, then one of 60: the mean goes from 10 to 20.
    assert last_call({"a": 10_000.0}, {"a": 20_000.0, "new": 3_000.0}, 5) == {"a": 60_000.0, "new": 15_000.0}


def test_openvinos_counters_meet_the_execution_graph() -> None:
    described = [
        {"name": name, "op": op, "kernel": "brgconv_avx512_1x1_I8", "originals": originals}
        for name, op, originals in (
            ("input", "Input", ("input",)),
            ("a/Conv/WithoutBiases", "Convolution", ("a/Conv",)),
            ("a/Pool", "Reduce", ("a/Pool",)),
            ("a/Pool_abcd_acdb_b", "Reorder", ()),
        )
    ]
    nothing = dict.fromkeys(("input", "a/Pool", "a/Pool_abcd_acdb_b"), 0.0)
    samples = [{"a/Conv/WithoutBiases": 5.0, "stranger": 1.0, **nothing}, {"a/Conv/WithoutBiases": 6.0}]
    conv, pool, stranger = openvino_nodes(described, samples)
    assert (pool.name, pool.samples_ns) == ("a/Pool", (0.0, 0.0)), "too fast for the clock, yet not fused away"
    assert (conv.samples_ns, conv.originals) == ((5.0, 6.0), ("a/Conv",))
    assert (stranger.name, stranger.samples_ns) == ("stranger", (1.0, 0.0)), "its time is shown all the same"


def test_turns_alternate_and_their_first_calls_are_dropped() -> None:
    said: list[str] = []
    profiler = SimpleNamespace(
        resolution_ns=7,
        turn=lambda pixels, dropped, calls: said.append(f"profiled {dropped}+{calls}") or [2] * calls,
        nodes=list,
    )
    backend: Any = SimpleNamespace(infer=lambda pixels: said.append("plain"))
    ticks, cpu_ticks = iter(range(1000)), iter(range(0, 3000, 3))
    clocks: Any = [lambda: next(ticks), lambda: next(cpu_ticks)]
    recording = measure(backend, cast(Any, profiler), np.zeros(1, np.float32), CALLS_PER_TURN + 1, *clocks)
    first = ["plain"] * (FIRST_DROPPED_CALLS + CALLS_PER_TURN) + [f"profiled {FIRST_DROPPED_CALLS}+5"]
    second = ["plain"] * (DROPPED_CALLS + CALLS_PER_TURN) + [f"profiled {DROPPED_CALLS}+5"]
    assert said == first + second
    assert recording.plain_ns == ((1,) * CALLS_PER_TURN,) * 2
    assert recording.plain_cpu_ns == ((3,) * CALLS_PER_TURN,) * 2
    assert recording.resolution_ns == 7


class Gate(nn.Module):
    """Computes something in its own ``forward``."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.pool(x)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 7, 16, bias=False), nn.BatchNorm2d(4), nn.ReLU6())
        self.gate = Gate()
        self.same = nn.Identity()
        self.head = nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.same(self.gate(self.stem(x))).mean((2, 3)))
        return logits


@pytest.fixture(scope="module")
def small() -> Small:
    return Small().eval()


@pytest.fixture(scope="module")
def small_files(small: Small, tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    from export.onnx import export_onnx

    path = tmp_path_factory.mktemp("small") / "small.onnx"
    export_onnx(small, path, 64, {})
    return ModelFiles("small", "user", "", str(path), "", input_size=64, preprocess=preprocess(64))


def preprocess(size: int) -> dict[str, Any]:
    return {"resize": size, "crop": size, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.fixture(scope="module")
def images(image_folder: Path) -> list[Image]:
    return list(find_images(image_folder).images)


def recorded(case: Case, files: ModelFiles, images: list[Image]) -> Recording:
    return record(case, files, first_batch(case, files, images), 5)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_graph_in_a_runtime_is_joined_whole(runtime, small, small_files, images):
    pytest.importorskip(runtime)
    case = Case("small", "user", runtime, pipeline="reference", batch=2)
    recording = recorded(case, small_files, images)
    assert np.array(recording.plain_ns).shape == np.array(recording.profiled_ns).shape == (1, 5)
    nodes = network_nodes(small, OnnxValues.load(Path(small_files.onnx)), 64)
    rows = join(recording.nodes, nodes)
    assert sum(len(row.nodes) for row in rows) == len(recording.nodes)
    joined = {row.name: row for row in rows if row.members}
    assert joined.keys() >= {"stem.0 + .1 + .2", "head"}
    # Every layer is in some row, whatever was fused into what.
    assert {member.name for row in rows for member in row.members} == {node.name for node in nodes}
    total = measure_cost(small, 64).multiply_adds
    assert sum(row.multiply_adds or 0 for row in rows) == total
    if runtime == "onnxruntime":
        assert all(min(node.samples_ns) >= 0 for node in recording.nodes)
    else:
        assert any("Convolution" in node.op for node in recording.nodes)


def test_a_graph_whose_nodes_have_no_names_gets_some(tiny_graph: Path, images: list[Image]) -> None:
    pytest.importorskip("onnxruntime")
    files = ModelFiles(
        f"onnx:{tiny_graph}", "user", "", str(tiny_graph), "", input_size=224, preprocess=preprocess(224)
    )
    case = Case(files.model, "user", "onnxruntime", pipeline="reference", batch=9)  # more than there are images
    recording = recorded(case, files, images)
    rows = join(recording.nodes, nodes_of(files))
    assert [row.name for row in rows] == ["pooled", "flat", "logits"]
    assert [row.multiply_adds for row in rows] == [0, 0, 3000]


def test_names_for_nodes_without_or_with_the_same() -> None:
    nodes = [
        onnx.helper.make_node("Relu", ["x"], [output], name=name)
        for name, output in (("a", "1"), ("", "2"), ("b", "3"), ("b", "4"))
    ]
    assert node_names(nodes) == ["a", "2", "3", "4"]


def test_multiply_adds_of_a_graph_without_a_network(small: Small, small_files: ModelFiles) -> None:
    graph = OnnxValues.load(Path(small_files.onnx))
    known = graph.multiply_adds()
    assert sum(filter(None, known.values())) == measure_cost(small, 64).multiply_adds
    for value in graph.shapes:
        graph.shapes[value] = (None, None, None, None)
    assert set(graph.multiply_adds().values()) == {None}


def test_a_graph_of_another_network_keeps_its_own_names(small: Small, tiny_graph: Path) -> None:
    nodes = network_nodes(small, OnnxValues.load(tiny_graph), 64)
    assert [node.layer for node in nodes] == ["pooled", "flat", "logits"]


def profiled(network: nn.Module, pixels: Any, calls: int = 2) -> Any:
    """A profiler after one turn, on a backend that only calls the network."""

    def infer(pixels: Any) -> Any:
        with torch.inference_mode():
            return network(torch.from_numpy(pixels)).numpy()

    backend: Any = SimpleNamespace(infer=infer)
    profiler = PyTorchProfiler(Case("small", "user", "pytorch"), ModelFiles("small", "", "", "", ""), backend)
    assert len(profiler.turn(pixels, 1, calls)) == calls
    return profiler


def test_pytorchs_modules_with_times_of_their_own(small: Small) -> None:
    profiler = profiled(small, np.ones((1, 3, 64, 64), np.float32))
    nodes = {node.name: node for node in profiler.nodes()}
    assert nodes.keys() == {"", "stem", "stem.0", "stem.1", "stem.2", "gate", "gate.pool", "same", "head"}
    assert all(len(node.samples_ns) == 2 and min(node.samples_ns) >= 0 for node in nodes.values())
    assert not torch.nn.modules.module._global_forward_hooks
    profiler.close()


def test_pytorchs_own_profiler_tells_of_the_same_modules(small: Small) -> None:
    """On the CPU its events hold processor time; on a GPU the same events hold that of their kernels."""
    backend: Any = SimpleNamespace(infer=lambda pixels: small(torch.from_numpy(pixels)))
    files = ModelFiles("small", "", "", "", "")
    profiler = KernelProfiler(Case("small", "user", "pytorch"), files, backend)
    profiler.spent = "self_cpu_time_total"
    assert len(profiler.turn(np.ones((1, 3, 64, 64), np.float32), 1, 2)) == 2
    nodes = {node.name: node for node in profiler.nodes()}
    assert nodes.keys() == {"", "stem", "stem.0", "stem.1", "stem.2", "gate", "gate.pool", "same", "head"}
    assert all(len(node.samples_ns) == 2 and min(node.samples_ns) >= -1 for node in nodes.values())
    assert min(nodes["stem.0"].samples_ns) > 1_000
    assert hasattr(torch.autograd.profiler_util.FunctionEvent, KernelProfiler.spent)
    with pytest.raises(Unsupported, match=r"leave pytorch\.graph out"):
        KernelProfiler(Case("small", "user", "pytorch", device="cuda", options=(("graph", "yes"),)), files, backend)


def test_kernels_belong_to_the_innermost_module_around_their_launch(small: Small) -> None:
    """Copies are no module's, and the device's side of a mark counts nothing."""

    def event(name: str, start: int, us: float, around: Any = None, device: str = "CPU") -> Any:
        time_range, device_type = SimpleNamespace(start=start), SimpleNamespace(name=device)
        return SimpleNamespace(
            name=name, time_range=time_range, self_device_time_total=us, cpu_parent=around, device_type=device_type
        )

    files, backend = ModelFiles("small", "", "", "", ""), cast(Any, None)
    profiler = KernelProfiler(Case("small", "user", "pytorch"), files, backend)
    profiler._root = small
    root, head = (f"scarlet-bench module {id(module)}" for module in (small, small.head))
    events = []
    for at, us in ((0, 30.0), (10, 40.0)):
        copy = event("aten::copy_", at, 9.0)
        outer = event(root, at + 1, 0.0)
        add = event("aten::add", at + 2, us, outer)
        inner = event(head, at + 3, 0.0, outer)
        linear = event("aten::linear", at + 4, 0.0, inner)
        gemm = event("aten::addmm", at + 5, 20.0, linear)
        events += [gemm, linear, inner, add, outer, copy, event(root, at + 1, 99.0, None, "CUDA")]
    assert profiler._by_module(events) == [
        {id(small): 30_000.0, id(small.head): 20_000.0},
        {id(small): 40_000.0, id(small.head): 20_000.0},
    ]


def test_own_times_leave_out_what_is_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    # A clock that only modules move: the pool takes 100, the gate 10 before and after it.
    now = [0]
    monkeypatch.setattr("bench.backends.pytorch.profiler.time.perf_counter_ns", lambda: now[0])

    class Slow(nn.Module):
        def __init__(self, takes: int, inner: nn.Module | None = None) -> None:
            super().__init__()
            self.takes, self.inner = takes, inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            now[0] += self.takes
            if self.inner is not None:
                x = self.inner(self.inner(x))
                now[0] += self.takes
            return x

    profiler = profiled(Slow(10, Slow(100)), np.zeros((1, 1), np.float32))
    assert [(node.name, node.samples_ns) for node in profiler.nodes()] == [
        ("inner", (200.0, 200.0)),
        ("", (20.0, 20.0)),
    ]


def test_hooks_go_even_when_the_network_fails() -> None:
    with pytest.raises(RuntimeError):
        profiled(nn.Linear(3, 3), np.zeros((1, 2), np.float32))
    assert not torch.nn.modules.module._global_forward_hooks


def test_a_compiled_network_cannot_be_watched() -> None:
    case = Case("small", "user", "pytorch", options=(("compile", "default"),))
    with pytest.raises(Unsupported, match=r"pytorch\.compile"):
        PyTorchProfiler(case, ModelFiles("small", "", "", "", ""), SimpleNamespace())  # type: ignore[arg-type]


def test_pytorch_from_its_backend_to_rows(small, tmp_path, images, monkeypatch):
    from safetensors.torch import save_file

    from scarlet import zoo

    save_file(small.state_dict(), tmp_path / "state.safetensors")
    monkeypatch.setattr(zoo, "resolve", lambda name: name)
    monkeypatch.setattr(zoo, "untrained", lambda spec: Small())
    threads = torch.get_num_threads()
    files = ModelFiles(
        "small", "user", "", "", "", state=str(tmp_path / "state.safetensors"), input_size=64, preprocess=preprocess(64)
    )
    case = Case("small", "user", "pytorch", pipeline="reference")
    try:
        recording = recorded(case, files, images)
    finally:
        torch.set_num_threads(threads)
    rows = join_modules(recording.nodes, modules_of(case, files))
    assert sum(row.multiply_adds or 0 for row in rows) == measure_cost(small, 64).multiply_adds
    names = [row.name for row in rows]
    assert {"stem.0", "stem.1", "gate", "head", NETWORK, "(runtime) Sequential"} <= set(names)


def test_the_worker_answers_what_went_wrong(tiny_graph: Path, image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "no.JPEG").write_bytes(b"no picture")
    files = ModelFiles("onnx:tiny.onnx", "user", "", str(tiny_graph), "", input_size=224, preprocess=preprocess(224))
    image = next(image_folder.rglob("*.JPEG")).relative_to(image_folder)

    def reply(root: Path, image_id: str, **more: Any) -> dict[str, Any]:
        case = Case("onnx:tiny.onnx", "user", pipeline="reference", **more)
        request = asdict(Request("reference", str(root), [(image_id, 0)], files=files))
        message = {"do": "profile", "case": case.to_dict(), "request": request, "repeats": 5}
        return channel.reply(Worker().answer, message)

    told = reply(tmp_path, "no.JPEG", backend="onnxruntime")
    assert (told["ok"], told["reason"]) == (False, "none of the first images could be read")
    for more, reason in (
        ({"backend": "pytorch"}, "an ONNX file has no PyTorch module; use another backend"),
        ({"backend": "onnxruntime", "device": "cuda"}, "this ONNX Runtime has no CUDAExecutionProvider"),
    ):
        refused = reply(image_folder, str(image), **more)
        assert not refused["ok"]
        assert refused["reason"].startswith(reason)
