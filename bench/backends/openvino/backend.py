"""OpenVINO's CPU plugin."""

from __future__ import annotations

import functools
import queue
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bench.backends.base import Facts, ModelFiles, Unsupported, read_options, refuse_case
from bench.backends.graphs import TypedGraph, graph_for, graph_proof
from bench.backends.openvino.proof import arithmetic, execution_layers, layer_counts, other_precision
from bench.backends.precision import fallback_sentence
from bench.record.case import Case

# What the plugin is told to compute in where the graph does not say it. Always told: on a CPU with BF16
# instructions it computes FP32 graphs in BF16 unless it is told not to.
INFER_PRECISION = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}

# What the layers that do the arithmetic must then run in, in the words of the execution graph.
LAYER_PRECISIONS = {"fp32": ("f32",), "bf16": ("bf16",), "fp16": ("f16",), "int8": ("i8", "u8")}

# What a precision is called among the capabilities of the plugin.
CAPABILITY = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16", "int8": "INT8"}


@dataclass(frozen=True)
class Options:
    """Options of OpenVINO.

    Attributes:
        hint: OpenVINO's performance hints.
        streams: how many batches one copy works on at the same time, each with an equal part of the threads.
            Without it one; with the throughput hint and one instance, as many as OpenVINO chooses.
        dialect: of the graph of an INT8 Case; see ``bench.backends.graphs``.
        recipe: a file that says how that graph is made.
    """

    hint: Literal["latency", "throughput"] = "latency"
    streams: int | None = None
    dialect: Literal["nncf", "ort", "symmetric"] | None = None
    recipe: str | None = None


class OpenVino:
    """OpenVINO on the CPU, compiled for the shape of the Case's batch.

    A call of ``infer`` occupies one stream, with an infer request of its own, so that several threads may call at the
    same time. The gain of several streams shows only where as many batches are at work, as by ``submit``; a
    synchronous call does not become faster.

    The instances of a Case share one compiled model with streams of their own. OpenVINO gives the streams of one
    model disjoint cores; models compiled apart are all pinned from the first core on.
    """

    FACTS: ClassVar[Facts] = Facts(
        name="openvino",
        display_name="OpenVINO",
        colour="#CC79A7",
        module="openvino",
        packages={"cpu": "openvino"},
        dialects={"int8": ("nncf", "ort", "symmetric")},
        options=Options,
        default="installed",
        profiler="bench.backends.openvino.profiler:OpenVinoProfiler",
        deploys="bench.backends.openvino.backend:write_ir",
    )

    def __init__(self) -> None:
        self.slots = 1
        self._model: _Model | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._graph: TypedGraph | None = None

    def load(self, case: Case, files: ModelFiles) -> None:
        read_options(Options, case)
        refuse_case(self.FACTS, case, files)
        if case.precision not in INFER_PRECISION:
            raise Unsupported(f"OpenVINO's CPU plugin has no {case.precision}")
        graph = graph_for(case, files.typed)
        path = graph.path if graph else files.onnx
        self._model = _Model(import_openvino(), path, case, files)
        self._graph = graph
        self.slots = self._model.streams // case.instances

    def twin(self) -> OpenVino:
        """Another copy, which shares the compiled model and has streams of its own in it."""
        twin = OpenVino()
        twin._model, twin._graph, twin.slots = self._model, self._graph, self.slots
        return twin

    def infer(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        assert self._model is not None
        return self._model.graph(len(pixels)).infer(pixels)

    def submit(self, pixels: NDArray[np.float32]) -> Future[NDArray[np.float32]]:
        """Logits of one batch, from the next free stream."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.slots, thread_name_prefix="stream")
        return self._threads.submit(self.infer, pixels)

    def proof(self) -> dict[str, Any]:
        assert self._model is not None
        return {**self._model.proof(), **graph_proof(self._graph)}

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown()
        self._model = self._threads = None


def import_openvino() -> Any:
    """The package, imported without its telemetry.

    ``import openvino`` sends an event to a web analytics service if the package ``openvino_telemetry`` can be
    imported, and takes a stub of its own if not. A benchmark has nobody to tell, and no time for it.

    Raises:
        Unavailable: it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return OpenVino.FACTS.import_runtime("cpu")


def write_ir(onnx_path: Path, target: Path) -> Path:
    """Writes a graph as OpenVINO IR, weights as they are, and gives the path of the ``.xml``."""
    xml = target.with_suffix(".xml")
    import_openvino().save_model(core().read_model(onnx_path), xml, compress_to_fp16=False)
    return xml


@functools.cache
def core() -> Any:
    """The one ``openvino.Core`` of this process.

    OpenVINO's CPU plugin gives the thread that makes it an alternate stack for signals, and puts back the one before
    when it goes. Of two Cores that go in the order they came, the second leaves the freed stack of the first behind:
    the next signal that Python handles, a Ctrl-C, is then a segmentation fault (seen in OpenVINO 2026.4).

    Raises:
        Unavailable: OpenVINO is not installed.
    """
    made = import_openvino().Core()
    made.set_property({"CACHE_DIR": ""})  # what was compiled in an earlier run is not read again
    return made


class _Graph:
    """A compiled graph, and the infer requests that are free."""

    def __init__(self, openvino: Any, compiled: Any, requests: int) -> None:
        self.compiled, self._tensor = compiled, openvino.Tensor
        self._free: queue.SimpleQueue[_Request] = queue.SimpleQueue()
        for _ in range(requests):
            self._free.put(_Request(compiled.create_infer_request()))

    def infer(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        request = self._free.get()
        try:
            if request.bound is not pixels:
                # OpenVINO reads pixels where they lie, but would take no array there that it may not write to. An
                # array that is given again is where it was: binding it anew would cost about a hundredth of the call.
                shared = bool(pixels.flags.writeable)
                request.runtime.set_input_tensor(self._tensor(pixels, shared_memory=shared))
                request.bound = pixels if shared else None
            # As ``infer`` does it, without the table of outputs that it makes of each call.
            request.runtime.start_async()
            request.runtime.wait()
            # A copy: the request writes over its output the next time.
            logits: NDArray[np.float32] = request.runtime.get_output_tensor(0).data.astype(np.float32)
        finally:
            self._free.put(request)
        return logits


@dataclass
class _Request:
    """An infer request, and the array that it reads its input from, if that is the caller's own."""

    runtime: Any
    bound: NDArray[np.float32] | None = None


class _Model:
    """A graph compiled for the Case's batch and, when a batch of another size comes, once more for all sizes.

    Raises:
        Unsupported: OpenVINO cannot do here what the Case orders.
    """

    def __init__(self, openvino: Any, path: str, case: Case, files: ModelFiles) -> None:
        self._openvino, self._case, self._path = openvino, case, path
        self._size, self._fixed_batch = files.input_size, files.fixed_batch
        self._core = core()
        self._capabilities = list(self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        if CAPABILITY[case.precision] not in self._capabilities:
            offered = ", ".join(self._capabilities)
            raise Unsupported(f"OpenVINO has no {case.precision} on this CPU; its capabilities: {offered}")
        self._settings = settings(case)
        compiled = self._compiled(case.batch)
        refuse_other_settings(self._settings, compiled)
        self.streams = int(compiled.get_property("NUM_STREAMS"))
        self._exact = _Graph(openvino, compiled, self.streams)
        self._any: _Graph | None = None
        self._compiling = threading.Lock()

    def _compiled(self, batch: int) -> Any:
        """The graph for batches of this size; of any size for -1."""
        model = self._core.read_model(self._path)
        if self._fixed_batch is None:
            model.reshape({0: [batch, 3, self._size, self._size]})
        return self._core.compile_model(model, "CPU", self._settings)

    def graph(self, batch: int) -> _Graph:
        """The graph that takes batches of this size."""
        if batch == self._case.batch or self._fixed_batch is not None:
            return self._exact
        with self._compiling:
            if self._any is None:
                self._any = _Graph(self._openvino, self._compiled(-1), self.streams)
            return self._any

    def proof(self) -> dict[str, Any]:
        get = self._exact.compiled.get_property
        layers = execution_layers(self._exact.compiled.get_runtime_model())
        checked = list(layers)
        if self._any is not None:
            checked += execution_layers(self._any.compiled.get_runtime_model())
        threads = int(get("INFERENCE_NUM_THREADS"))
        wanted, asked = LAYER_PRECISIONS[self._case.precision], self._asked()
        quantised = None if asked is None else [name for name, type_ in asked.items() if type_ == "int8"]
        other = other_precision(checked, wanted, quantised)
        counted = {} if asked is None else {"asked_counts": dict(sorted(Counter(asked.values()).items()))}
        n_asked = len({layer["name"] for layer in arithmetic(checked)} if quantised is None else quantised)
        return {
            "version": self._openvino.get_version(),
            "session": {"device": "CPU", **self._settings},
            "device": self._core.get_property("CPU", "FULL_DEVICE_NAME"),
            "execution_devices": list(get("EXECUTION_DEVICES")),
            "capabilities": self._capabilities,
            "infer_precision": _text(get("INFERENCE_PRECISION_HINT")),
            "hint": _text(get("PERFORMANCE_HINT")).lower(),
            "streams": self.streams,
            "inference_threads": threads,
            "intra_op_threads": threads // self.streams,
            "cpu_pinning": bool(get("ENABLE_CPU_PINNING")),
            "shapes": f"static, batch {self._case.batch}",
            "other_batches": "none" if self._any is None else "dynamic shapes, compiled at the first of them",
            "layer_counts": layer_counts(layers),
            "layers": [{name: value for name, value in layer.items() if name != "became"} for layer in layers],
            **counted,
            "not_as_asked": other,
            "fallback": fallback_sentence(other, n_asked, wanted),
        }

    def _asked(self) -> dict[str, str] | None:
        """What the graph of an INT8 Case asks of each layer; None where all are to run in the Case's precision."""
        if self._case.precision != "int8":
            return None
        from export.precision.audit import requested_by_openvino

        return requested_by_openvino(self._core.read_model(self._path))


def settings(case: Case) -> dict[str, Any]:
    """What the CPU plugin is told, for all instances of the Case together.

    Returns:
        Properties by OpenVINO's names. ``NUM_STREAMS`` is left out where OpenVINO is to choose.
    """
    options = read_options(Options, case)
    told: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": INFER_PRECISION[case.precision],
        "PERFORMANCE_HINT": options.hint.upper(),
        "INFERENCE_NUM_THREADS": case.threads * case.instances,
    }
    if options.streams or options.hint == "latency" or case.instances > 1:
        told["NUM_STREAMS"] = (options.streams or 1) * case.instances
    return told


def refuse_other_settings(told: Mapping[str, Any], compiled: Any) -> None:
    """OpenVINO takes what it cannot obey for a wish; a Case gives orders.

    Raises:
        Unsupported: the compiled model has another precision, number of threads or of streams than it was told.
    """
    for name, wanted in told.items():
        found = _text(compiled.get_property(name))
        if found != str(wanted):
            advice = "; use fewer threads, instances or streams" if name.endswith(("THREADS", "STREAMS")) else ""
            raise Unsupported(f"OpenVINO was told {name}={wanted} and took {found} on this machine{advice}")


def _text(value: Any) -> str:
    """A property's value in the words that set it: ``f32``, ``LATENCY``, ``2``."""
    if hasattr(value, "to_string"):  # an element type
        return str(value.to_string())
    return str(getattr(value, "name", value))
