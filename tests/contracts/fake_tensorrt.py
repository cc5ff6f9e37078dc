"""A TensorRT for machines without a GPU: the names of the real one, its refusals, and logits by ONNX Runtime.

It drives the control flow of our code and proves nothing of TensorRT itself; ``test_contracts_tensorrt.py`` holds its
names against the real bindings. Device memory is the host's: addresses are read and written where they lie.

``FAULTS`` names what shall go wrong, ``CALLS`` keeps what was called. A process of its own takes faults from the
environment variable ``FAKE_TENSORRT_FAULTS``.
"""

from __future__ import annotations

import ctypes
import enum
import json
import os
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

__version__ = "11.4.0.106"

FAULTS: set[str] = set(filter(None, os.environ.get("FAKE_TENSORRT_FAULTS", "").split(",")))
CALLS: list[tuple[Any, ...]] = []
# By handle: what stands for CUDA streams. Work for any other handle, the default stream's 0 among them, is refused.
STREAMS: dict[int, Any] = {}


def reset() -> None:
    """As new."""
    FAULTS.clear()
    CALLS.clear()
    STREAMS.clear()


class NetworkDefinitionCreationFlag(enum.IntEnum):
    """The bits are none that a real version has, so that nobody can write them down."""

    STRONGLY_TYPED = 5


class BuilderFlag(enum.IntEnum):
    TF32 = 9


class ProfilingVerbosity(enum.IntEnum):
    LAYER_NAMES_ONLY = 0
    DETAILED = 1


class TensorIOMode(enum.IntEnum):
    INPUT = 1
    OUTPUT = 2


class DataType(enum.IntEnum):
    FLOAT = 0
    HALF = 1


class LayerInformationFormat(enum.IntEnum):
    ONELINE = 0
    JSON = 1


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3

    def __init__(self) -> None:
        self._made = True

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


def _checked(logger: Any) -> Any:
    if not getattr(logger, "_made", False):
        raise TypeError("ILogger.__init__() must be called when overriding __init__")
    return logger


class IHostMemory(bytes):
    """Bytes of TensorRT's."""


class ITimingCache:
    def __init__(self, blob: bytes) -> None:
        self._blob = blob

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._blob)


class ITensor:
    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.name, self.shape = name, shape


class INetworkDefinition:
    def __init__(self, flags: int) -> None:
        self._flags, self._onnx = flags, b""
        self._inputs: list[ITensor] = []
        self.num_layers = 0

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]


class ParserError:
    def desc(self) -> str:
        return "no importer\nfor it"

    def node_name(self) -> str:
        return "stem/odd"

    def node_operator(self) -> str:
        return "OddOp"


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._logger = network, _checked(logger)
        self.num_errors = 0

    def parse(self, model: bytes, path: str | None = None) -> bool:
        import onnx

        if "parse" in FAULTS:
            self.num_errors = 1
            return False
        if "parse_silently" in FAULTS:
            self._logger.log(ILogger.Severity.ERROR, "protobuf is broken")
            return False
        assert path is not None
        graph = onnx.load_from_string(model).graph
        for value in graph.input:
            dims = value.type.tensor_type.shape.dim
            shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims)
            self._network._inputs.append(ITensor(value.name, shape))
        self._network._onnx, self._network.num_layers = bytes(model), len(graph.node)
        return True

    def get_error(self, index: int) -> ParserError:
        assert index < self.num_errors
        return ParserError()


class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:  # noqa: A002 -- the real names
        self._shapes[input] = tuple(map(tuple, (min, opt, max)))


class IBuilderConfig:
    def __init__(self) -> None:
        self._tf32, self._cache = True, None
        self._profiles: list[IOptimizationProfile] = []
        self.builder_optimization_level = 3
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY

    def set_flag(self, flag: BuilderFlag) -> None:
        assert flag is BuilderFlag.TF32
        self._tf32 = True
        CALLS.append(("set_flag", flag))

    def clear_flag(self, flag: BuilderFlag) -> None:
        assert flag is BuilderFlag.TF32
        self._tf32 = False
        CALLS.append(("clear_flag", flag))

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if "timing_mismatch" in FAULTS and cache._blob:
            return False
        self._cache = cache
        CALLS.append(("set_timing_cache", cache._blob))
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        if "no_profile" in FAULTS:
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1


class Builder:
    def __init__(self, logger: ILogger) -> None:
        self._logger = _checked(logger)
        if "no_builder" in FAULTS:
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        CALLS.append(("create_network", flags))
        return INetworkDefinition(flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        if "crash" in FAULTS:
            os.kill(os.getpid(), 11)
        for fault, words in (("no_plan", "no kernel fits"), ("oom", "CUDA out of memory")):
            if fault in FAULTS:
                self._logger.log(ILogger.Severity.WARNING, "about to fail")
                self._logger.log(ILogger.Severity.ERROR, words)
                return None
        shapes = config._profiles[0]._shapes if config._profiles else {}
        for tensor in network._inputs:
            if -1 in tensor.shape and tensor.name not in shapes:
                self._logger.log(ILogger.Severity.ERROR, f"{tensor.name} has open dimensions and no profile")
                return None
            shapes.setdefault(tensor.name, (tensor.shape,) * 3)
        if config._cache is not None:
            config._cache._blob += b"timed;"
        CALLS.append(("build", network._flags, config._tf32, config.builder_optimization_level))
        plan = {
            "onnx": network._onnx,
            "shapes": shapes,
            "tf32": config._tf32,
            "detailed": config.profiling_verbosity is ProfilingVerbosity.DETAILED,
        }
        return IHostMemory(pickle.dumps(plan))


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self._logger = _checked(logger)

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        if "no_engine" in FAULTS:
            self._logger.log(ILogger.Severity.ERROR, "the plan is of another version")
            return None
        return ICudaEngine(pickle.loads(serialized_engine), self._logger)


class ICudaEngine:
    def __init__(self, plan: dict[str, Any], logger: Any) -> None:
        import onnxruntime

        self._plan, self._logger = plan, logger
        self._session = onnxruntime.InferenceSession(plan["onnx"], providers=["CPUExecutionProvider"])
        ends = ((self._session.get_inputs(), TensorIOMode.INPUT), (self._session.get_outputs(), TensorIOMode.OUTPUT))
        self._modes = {value.name: mode for values, mode in ends for value in values}

    @property
    def num_io_tensors(self) -> int:
        return len(self._modes)

    def get_tensor_name(self, index: int) -> str:
        return list(self._modes)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return self._modes[name]

    def get_tensor_dtype(self, name: str) -> DataType:
        assert name in self._modes
        return DataType.HALF if "half" in FAULTS else DataType.FLOAT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        least, _, most = self._plan["shapes"][name]
        return tuple(low if low == high else -1 for low, high in zip(least, most, strict=True))

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        assert profile_index == 0
        assert -1 in self.get_tensor_shape(name)
        return list(self._plan["shapes"][name])

    def create_execution_context(self) -> IExecutionContext | None:
        if "no_context" in FAULTS:
            self._logger.log(ILogger.Severity.ERROR, "CUDA out of memory")
            return None
        return IExecutionContext(self)

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self)


class IProfiler:
    def __init__(self) -> None:
        self._made = True

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        raise NotImplementedError


class IExecutionContext:
    profiler: IProfiler | None = None

    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._profile: int | None = None
        self._shape: tuple[int, ...] | None = None
        self._addresses: dict[str, int] = {}
        self._warm: set[tuple[int, ...]] = set()

    def _refuse(self, words: str) -> bool:
        self._engine._logger.log(ILogger.Severity.ERROR, words)
        return False

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        if "profile" in FAULTS or stream_handle not in STREAMS:
            return self._refuse("no such profile")
        self._profile = profile_index
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self._engine._plan["shapes"][name]
        fits = all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True))
        if "shape" in FAULTS or not fits:
            return self._refuse(f"{shape} is outside of the profile")
        self._shape = shape
        CALLS.append(("set_input_shape", id(self), shape))
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if "address" in FAULTS or memory % 64:
            return self._refuse("bad address")
        self._addresses[name] = memory
        CALLS.append(("set_tensor_address", name, memory))
        return True

    def infer_shapes(self) -> list[str]:
        CALLS.append(("infer_shapes",))
        return ["input"] if "open" in FAULTS else []

    def execute_async_v3(self, stream_handle: int) -> bool:
        stream = STREAMS.get(stream_handle)
        if "enqueue" in FAULTS or stream is None:
            return self._refuse("enqueue failed")
        if self._profile is None or self._shape is None or len(self._addresses) != 2:
            return self._refuse("profile, shape or address is missing")
        state = (self._shape, dict(self._addresses))
        if stream.capture is None:
            self._warm.add(self._shape)
            self._run(*state)
        elif self._shape not in self._warm:
            return self._refuse("the first enqueue may not be captured")
        else:
            stream.capture.append(self._replayed(state))
        CALLS.append(("execute", stream.capture is not None))
        return True

    def _replayed(self, state: tuple[Any, ...]) -> Callable[[], None]:
        def run() -> None:
            assert state == (self._shape, self._addresses), "the context was changed after it was captured"
            CALLS.append(("replay",))
            self._run(*state)

        return run

    def _run(self, shape: tuple[int, ...], addresses: dict[str, int]) -> None:
        session = self._engine._session
        (input_,), (output,) = session.get_inputs(), session.get_outputs()
        logits = session.run(None, {input_.name: _memory(addresses[input_.name], shape)})[0]
        _memory(addresses[output.name], logits.shape)[:] = logits
        if self.profiler is not None and _checked(self.profiler):
            for layer in _nodes(self._engine):
                self.profiler.report_layer_time(f"{layer.op_type}_layer", 0.25)
            self.profiler.report_layer_time("Reformatting CopyNode", 0.125)


def _nodes(engine: ICudaEngine) -> Any:
    import onnx

    return onnx.load_from_string(engine._plan["onnx"]).graph.node


def _memory(address: int, shape: tuple[int, ...]) -> Any:
    count = int(np.prod(shape))
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address)).reshape(shape)


class EngineInspector:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self.execution_context: IExecutionContext | None = None

    def get_engine_information(self, format: LayerInformationFormat) -> str:  # noqa: A002 -- the real name
        """One layer for each node, in the form of TensorRT 11."""
        assert format is LayerInformationFormat.JSON
        assert self.execution_context is not None
        assert self.execution_context._shape is not None
        nodes = _nodes(self._engine)
        if not self._engine._plan["detailed"]:
            return json.dumps({"Layers": [node.name or node.op_type for node in nodes]})
        tactic = "sm90_tf32f32" if self._engine._plan["tf32"] else "sm90_f32f32"
        layers = [
            {
                "Name": f"{node.op_type}_layer",
                "LayerType": "gemm" if node.op_type in ("MatMul", "Gemm", "Conv") else "kgen",
                "Inputs": [{"Name": name, "Format/Datatype": "Float"} for name in node.input[:1]],
                "Outputs": [{"Name": name, "Format/Datatype": "Float"} for name in node.output],
                "TacticName": tactic if node.op_type in ("MatMul", "Gemm", "Conv") else "",
                "Metadata": f"[ONNX Layer: {node.name or node.output[0]}]",
            }
            for node in nodes
        ]
        return json.dumps({"Layers": layers, "I/O Tensors": ["input", "logits"]})
