"""The OpenVINO backend on a graph of one layer, in this process."""

import dataclasses
import importlib.util
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from bench_fakes import make_graph
from numpy.typing import NDArray

from bench import host
from bench.backends import make_backend
from bench.backends.base import Concurrent, ModelFiles, Twinned, Unavailable, Unsupported
from bench.backends.instances import Instances
from bench.backends.openvino import backend as openvino
from bench.backends.openvino.proof import execution_layers, layer_counts, other_precision
from bench.record.case import Case, Status

# Looked for, not imported: importing it without its backend would wake its telemetry.
if importlib.util.find_spec("openvino") is None:
    pytest.skip("openvino is not installed", allow_module_level=True)

two_cores = pytest.mark.skipif(host.allowed_cores() < 2, reason="needs two cores")


@pytest.fixture(scope="module")
def files(tiny_graph: Path) -> ModelFiles:
    return ModelFiles("onnx:tiny.onnx", "user", "0" * 64, str(tiny_graph), "0" * 64)


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.float32]:
    return np.random.default_rng(0).random((5, 3, 224, 224), dtype=np.float32)


def case_of(backend: str = "openvino", options: dict[str, str] | None = None, **changes: Any) -> Case:
    given = tuple(sorted((options or {}).items()))
    return Case("onnx:tiny.onnx", "user", backend, **{"batch": 4, "options": given, **changes})


def loaded(case: Case, files: ModelFiles) -> openvino.OpenVino:
    backend = openvino.OpenVino()
    backend.load(case, files)
    return backend


def test_logits_are_those_of_onnxruntime_for_whole_and_smaller_batches(files, pixels):
    reference = make_backend("onnxruntime")
    reference.load(case_of("onnxruntime"), files)
    backend = loaded(case_of(), files)
    whole = backend.infer(pixels[:4])
    assert backend.proof()["other_batches"] == "none"
    kept = whole.copy()
    locked = pixels.copy()
    locked.flags.writeable = False
    for n in (1, 3, 4):
        logits = backend.infer(pixels[5 - n :])
        assert np.array_equal(backend.infer(locked[5 - n :]), logits), "pixels that may not be written to"
        assert (logits.shape, logits.dtype) == ((n, 1000), np.float32)
        assert np.allclose(logits, reference.infer(pixels[5 - n :]), atol=1e-5)
    assert (whole == kept).all(), "a later call wrote over logits already given"
    assert "dynamic" in backend.proof()["other_batches"]
    backend.close()


def test_the_proof_tells_what_was_compiled(files: ModelFiles, pixels: NDArray[np.float32]) -> None:
    backend = loaded(case_of(), files)
    backend.infer(pixels[:4])
    proof = backend.proof()
    assert proof["infer_precision"] == "f32"
    assert (proof["hint"], proof["streams"], proof["inference_threads"], proof["intra_op_threads"]) == (
        *("latency", 1),
        *(1, 1),
    )
    assert proof["shapes"] == "static, batch 4"
    assert proof["execution_devices"] == ["CPU"]
    assert proof["fallback"] == ""
    (layer,) = [layer for layer in proof["layers"] if layer["type"] == "FullyConnected"]
    assert layer["precision"] == "f32"
    assert proof["layer_counts"][f"FullyConnected {layer['primitive']} f32"] == 1
    assert not any(name.startswith("Const") for name in proof["layer_counts"])


def test_bf16_is_obeyed_layer_by_layer_or_refused(files: ModelFiles, pixels: NDArray[np.float32]) -> None:
    exact = loaded(case_of(), files).infer(pixels[:4])
    case = case_of(precision="bf16")
    if "BF16" not in openvino.core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(Unsupported, match="no bf16 on this CPU"):
            loaded(case, files)
        return
    backend = loaded(case, files)
    logits, proof = backend.infer(pixels[:4]), backend.proof()
    assert proof["infer_precision"] == "bf16"
    assert proof["fallback"] == ""
    assert {layer["precision"] for layer in proof["layers"] if layer["type"] == "FullyConnected"} == {"bf16"}
    assert 0 < np.abs(logits - exact).max() < 0.1 * exact.std()


def test_a_precision_that_the_cpu_lacks_is_refused_with_what_it_has(files, monkeypatch):
    monkeypatch.setitem(openvino.CAPABILITY, "bf16", "BF17")
    with pytest.raises(Unsupported, match=r"no bf16 on this CPU; its capabilities: .*FP32"):
        loaded(case_of(precision="bf16"), files)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (case_of(precision="tf32"), "tf32"),
        (case_of(device="cuda"), "--devices cpu"),
        (case_of(options={"streem": "2"}), r"no option 'streem'; did you mean openvino.streams\?"),
        (case_of(options={"streams": "0"}), "whole number above 0"),
        (case_of(options={"hint": "speed"}), "latency or throughput"),
        (case_of(threads=4096), "told INFERENCE_NUM_THREADS=4096 and took .* fewer threads"),
        (case_of(options={"streams": "2"}), "told NUM_STREAMS=2 and took 1 "),
    ],
)
def test_what_openvino_cannot_do_is_unsupported(files: ModelFiles, case: Case, expected: str) -> None:
    with pytest.raises(Unsupported, match=expected):
        loaded(case, files)


def test_settings_are_for_all_instances_together() -> None:
    assert openvino.settings(case_of(threads=3)) == {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": 3,
        "NUM_STREAMS": 1,
    }
    copies = openvino.settings(case_of(threads=2, instances=3, options={"streams": "2"}))
    assert (copies["INFERENCE_NUM_THREADS"], copies["NUM_STREAMS"]) == (6, 6)
    chosen = openvino.settings(case_of(options={"hint": "throughput"}))
    assert chosen["PERFORMANCE_HINT"] == "THROUGHPUT"
    assert "NUM_STREAMS" not in chosen
    assert openvino.settings(case_of(instances=2, options={"hint": "throughput"}))["NUM_STREAMS"] == 2


@two_cores
def test_streams_work_on_as_many_batches_at_the_same_time(files: ModelFiles, pixels: NDArray[np.float32]) -> None:
    backend = loaded(case_of(threads=2, options={"hint": "throughput", "streams": "2"}), files)
    assert isinstance(backend, Concurrent)
    assert backend.slots == 2
    expected = [backend.infer(np.roll(pixels[:4], n, axis=0)) for n in range(6)]
    futures = [backend.submit(np.roll(pixels[:4], n, axis=0)) for n in range(6)]
    for future, logits in zip(futures, expected, strict=True):
        assert np.array_equal(future.result(), logits)
    proof = backend.proof()
    assert (proof["hint"], proof["streams"], proof["intra_op_threads"]) == ("throughput", 2, 1)
    backend.close()


@two_cores
def test_instances_share_one_model_with_a_stream_for_each(files: ModelFiles, pixels: NDArray[np.float32]) -> None:
    made: list[openvino.OpenVino] = []

    def make() -> openvino.OpenVino:
        made.append(openvino.OpenVino())
        return made[-1]

    instances = Instances(make)
    instances.load(case_of(instances=2), files)
    assert len(made) == 1, "a second compiled model would be pinned to the cores of the first"
    assert isinstance(made[0], Twinned)
    assert instances.slots == 2
    expected = loaded(case_of(), files).infer(pixels[:4])
    assert np.allclose(instances.infer(pixels[:4]), expected, atol=1e-5)
    futures = [instances.submit(pixels[:4]) for _ in range(5)]
    assert all(np.allclose(future.result(), expected, atol=1e-5) for future in futures)
    proof = instances.proof()
    assert (proof["instances"], proof["streams"], proof["intra_op_threads"]) == (2, 2, 1)
    instances.close()


def test_infer_may_be_called_from_several_threads(files: ModelFiles, pixels: NDArray[np.float32]) -> None:
    backend = loaded(case_of(), files)
    batches = [np.ascontiguousarray(np.roll(pixels[:4], n, axis=0)) for n in range(4)]
    expected = [backend.infer(batch) for batch in batches]
    found: dict[int, list[NDArray[np.float32]]] = {}

    def work(n: int) -> None:
        found[n] = [backend.infer(batches[n]) for _ in range(10)]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, results in found.items():
        assert len(results) == 10
        assert all(np.array_equal(logits, expected[n]) for logits in results)


def test_a_graph_of_fixed_batch_runs_that_batch_only(tmp_path, files, pixels):
    path = tmp_path / "fixed.onnx"
    onnx.save(make_graph(2), path)
    fixed = dataclasses.replace(files, onnx=str(path), fixed_batch=2)
    assert loaded(case_of(batch=2), fixed).infer(pixels[:2]).shape == (2, 1000)
    with pytest.raises(Unsupported, match="batches of 2 only"):
        loaded(case_of(batch=4), fixed)


def test_a_missing_package_is_unavailable_with_how_to_install_it(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(Unavailable, match="pip install openvino"):
        loaded(case_of(), files)


def node(name: str, kind: str, precision: str, became: str = "") -> Any:
    """A node of an execution graph, as far as it is read."""
    facts = {"layerType": kind, "primitiveType": f"jit_{precision}", "runtimePrecision": precision}
    facts |= {"originalLayersNames": became} if became else {}
    values = {key: SimpleNamespace(value=value) for key, value in facts.items()}
    return SimpleNamespace(get_rt_info=lambda: values, get_friendly_name=lambda: name)


def test_layers_in_another_precision_are_named() -> None:
    nodes = [node("w", "Const", "f32"), node("in", "Input", "f32"), node("stem", "Convolution", "bf16")]
    nodes += [node(f"block{n}", "Convolution", "f32") for n in range(6)] + [node("fc", "FullyConnected", "f32")]
    layers = execution_layers(SimpleNamespace(get_ordered_ops=lambda: nodes))
    assert layer_counts(layers)["Convolution jit_f32 f32"] == 6
    other = other_precision(layers, ("bf16",))
    assert len(other) == 7
    assert other["block0"] == "f32"
    assert "stem" not in other
    assert other_precision(layers[:2], ("bf16",)) == {}, "inputs may have any precision"
    assert other_precision(layers[-1:], ("i8", "u8")) == {"fc": "f32"}


def test_only_layers_that_the_graph_quantises_must_run_in_integers() -> None:
    nodes = [
        node("a/Conv", "Convolution", "u8"),
        node("b/Conv", "Convolution", "f32"),
        node("fused", "Convolution", "f32", became="c/Conv/WithoutBiases,c/Relu"),
        node("d/Gemm/Dequantization", "FullyConnected", "i8"),
    ]
    layers = execution_layers(SimpleNamespace(get_ordered_ops=lambda: nodes))
    wanted = ("i8", "u8")
    assert other_precision(layers, wanted, ["a/Conv", "d/Gemm"]) == {}, "b was to stay in float"
    assert other_precision(layers, wanted, ["a/Conv", "c/Conv/WithoutBiases"]) == {"c/Conv/WithoutBiases": "f32"}
    assert other_precision(layers, wanted, ["gone"]) == {"gone": "not among the layers"}


def test_a_precision_that_the_plugin_changed_is_refused() -> None:
    compiled = SimpleNamespace(get_property=lambda _: SimpleNamespace(to_string=lambda: "bf16"))
    with pytest.raises(Unsupported, match=r"told INFERENCE_PRECISION_HINT=f16 and took bf16 on this machine$"):
        openvino.refuse_other_settings({"INFERENCE_PRECISION_HINT": "f16"}, compiled)


def test_importing_openvino_for_a_case_leaves_its_telemetry_out() -> None:
    """In a process of its own, as a worker is: what is imported here already would hide it."""
    check = (
        "import sys\n"
        "from bench.backends.openvino.backend import import_openvino\n"
        "import_openvino()\n"
        "from openvino.tools.ovc import telemetry_utils\n"
        "assert telemetry_utils.tm.__name__ == 'openvino.tools.ovc.telemetry_stub', telemetry_utils.tm\n"
        "loaded = [name for name in sys.modules if name.startswith('openvino_telemetry.')]\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", check], check=True, timeout=120)


def test_an_array_that_is_given_again_is_read_again(files: ModelFiles, pixels: NDArray[np.float32]) -> None:
    """It stays bound to the request; what it holds by then counts, and another array in between as well."""
    backend, held = loaded(case_of(), files), pixels[:4].copy()
    first = backend.infer(held)
    assert np.array_equal(backend.infer(held), first)
    held[:] = held[::-1].copy()
    assert np.allclose(backend.infer(held), first[::-1], atol=1e-5)
    assert np.allclose(backend.infer(pixels[:4].copy()), first, atol=1e-5)
    assert np.allclose(backend.infer(held), first[::-1], atol=1e-5)
    held.flags.writeable = False
    assert np.allclose(backend.infer(held), first[::-1], atol=1e-5)


def test_signals_still_arrive_after_backends_have_come_and_gone(files: ModelFiles) -> None:
    """Two Cores of one process would break this: see ``core``."""
    check = (
        "import os, signal, sys\n"
        "from bench.backends.base import ModelFiles\n"
        "from bench.backends.openvino.backend import OpenVino\n"
        "from bench.record.case import Case\n"
        f"case = {case_of()!r}\n"
        f"files = {files!r}\n"
        "backends = [OpenVino(), OpenVino()]\n"
        "for backend in backends:\n"
        "    backend.load(case, files)\n"
        "while backends:\n"
        "    backends.pop(0).close()\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", check], timeout=120).returncode == 7


def test_a_run_has_rows_of_openvino_and_one_for_a_misspelt_option(run_cases):
    timed = case_of(pipeline="reference", batch=2)
    scored = case_of(pipeline="reference", batch=3, scenario="accuracy")
    misspelt = case_of(pipeline="reference", batch=2, options={"streem": "2"})
    folder, _ = run_cases(timed, scored, misspelt, budget_seconds=0.5)
    results = {result.case.case_id: result for result in folder.case_results()}
    assert results[timed.case_id].status == results[scored.case_id].status == Status.OK
    assert "dynamic" in results[scored.case_id].proof["other_batches"], "eight images are not whole batches of 3"
    assert results[misspelt.case_id].status == Status.UNSUPPORTED
    assert "streams" in results[misspelt.case_id].reason
