"""A TensorRT plan made ready to run on one CUDA stream."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.backends.base import Unavailable
from bench.backends.cuda import DEVICE, captured
from export.tensorrt import make_log
from scarlet.errors import BenchError

if TYPE_CHECKING:
    import tensorrt as trt
    import torch

# TensorRT's documentation of IExecutionContext.set_tensor_address: what tensors must be aligned to.
ALIGNMENT_BYTES = 256


class Engine:
    """A plan made ready to run on one stream.

    Batches of the largest size have an execution context to themselves, whose shape never changes after the first
    call: a captured CUDA graph holds the context's state. All other sizes share a second one.

    Args:
        stream: what everything is queued on; not the default stream, where TensorRT would synchronise more.
        shape: of the largest batch, ``(batch, 3, size, size)``.

    Raises:
        BenchError: the plan cannot be read.
        RuntimeError: TensorRT refused a step; the text holds its last message.
    """

    _runtime: trt.Runtime
    _engine: trt.ICudaEngine

    def __init__(
        self,
        trt: Any,
        plan: Path,
        stream: torch.cuda.Stream,
        shape: tuple[int, int, int, int],
        classes: int,
        graph: bool,
    ) -> None:
        import torch

        self._trt, self._stream, self._shape, self._graph = trt, stream, shape, graph
        self._log = make_log(trt)
        try:
            self._runtime = trt.Runtime(self._log)
        except TypeError as error:  # its factory gave nothing: CUDA cannot be initialised
            raise Unavailable(
                f"TensorRT {trt.__version__} cannot start here: {self._last()}; `scarlet-bench doctor` tells whether "
                "driver and libraries fit together"
            ) from error
        engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
        if engine is None:
            raise BenchError(
                f"TensorRT cannot read the plan {plan}: {self._last()}", "Delete that file, so that it is built anew."
            )
        self._engine = engine
        self._input, self._output = self._tensor_names()
        self._logits = torch.empty((shape[0], classes), dtype=torch.float32, device=DEVICE)
        self._exact = self._new_context()
        self._other: Context | None = None
        self._replay: Callable[[], None] | None = None
        self._captured_address = 0

    def compute(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits of pixels on the device, queued on the engine's stream; the next call overwrites them.

        Raises:
            RuntimeError: TensorRT refused a step.
            ValueError: the batch is larger than the plan's, or lies elsewhere than the captured graph reads.
        """
        n = len(pixels)
        if n > self._shape[0]:
            raise ValueError(f"the plan takes batches of up to {self._shape[0]}, and got one of {n}")
        address = pixels.data_ptr()
        if address % ALIGNMENT_BYTES:
            pixels = pixels.clone()
            address = pixels.data_ptr()
        if self._replay is not None and n == self._shape[0]:
            if address != self._captured_address:
                raise ValueError("a captured CUDA graph reads its pixels from one place only")
            self._replay()
            return self._logits
        context = self._context_for(n)
        context.bind((n, *self._shape[1:]), address)
        context.enqueue()
        if self._graph and n == self._shape[0]:
            # That enqueue was the one outside of capture that TensorRT wants first.
            self._stream.synchronize()
            self._replay, self._captured_address = captured(context.enqueue, self._stream), address
        return self._logits[:n]

    def _context_for(self, n: int) -> Context:
        if n == self._shape[0]:
            return self._exact
        if self._other is None:
            self._other = self._new_context()
        return self._other

    def _new_context(self) -> Context:
        context = self._engine.create_execution_context()
        if context is None:
            raise RuntimeError(f"TensorRT made no execution context: {self._last()}")
        return Context(
            context, self._input, self._output, self._logits.data_ptr(), self._stream.cuda_stream, self._last
        )

    def _tensor_names(self) -> tuple[str, str]:
        """The names of the one input and the one output, both float32.

        Raises:
            BenchError: there are others, or they are of another type.
        """
        inputs: list[str] = []
        outputs: list[str] = []
        for place in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(place)
            is_input = self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT
            (inputs if is_input else outputs).append(name)
            if self._engine.get_tensor_dtype(name) != self._trt.DataType.FLOAT:
                raise BenchError(f"the graph's tensor '{name}' is not float32", "Give a graph whose ends are.")
        if (len(inputs), len(outputs)) != (1, 1):
            raise BenchError(
                f"the graph has {len(inputs)} inputs and {len(outputs)} outputs",
                "Give one with images in and logits out.",
            )
        return inputs[0], outputs[0]

    @property
    def profile(self) -> dict[str, list[int]]:
        """The shapes that the plan was built for: ``min``, ``opt`` and ``max``; a graph of fixed batch has one."""
        fixed = list(self._engine.get_tensor_shape(self._input))
        if -1 not in fixed:
            return dict.fromkeys(("min", "opt", "max"), fixed)
        shapes = self._engine.get_tensor_profile_shape(self._input, 0)
        return {name: list(shape) for name, shape in zip(("min", "opt", "max"), shapes, strict=True)}

    @property
    def other_batches(self) -> str:
        """Whether batches of other sizes came, and how they ran."""
        return "none" if self._other is None else "enqueued in a second execution context"

    def information(self) -> str:
        """The inspector's JSON on the layers that the largest batch runs."""
        inspector = self._engine.create_engine_inspector()
        inspector.execution_context = self._exact.context
        text: str = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        return text

    def report_to(self, hear: Callable[[str, float], None]) -> None:
        """From now on each inference of the largest batch tells its layers' names and milliseconds."""
        base = self._trt.IProfiler

        class Listener(base):  # type: ignore[misc, valid-type]
            def __init__(self) -> None:
                base.__init__(self)  # its bindings take no super()

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                hear(layer_name, ms)

        self._listener = Listener()  # the context holds no reference to it
        self._exact.context.profiler = self._listener

    def _last(self) -> str:
        return self._log.errors[-1] if self._log.errors else "it gave no reason"


class Context:
    """An execution context, which remembers what it is bound to."""

    def __init__(
        self,
        context: trt.IExecutionContext,
        input_name: str,
        output_name: str,
        output_address: int,
        stream_handle: int,
        reason: Callable[[], str],
    ) -> None:
        self.context: trt.IExecutionContext = context
        self._input, self._output, self._handle, self._reason = input_name, output_name, stream_handle, reason
        self._shape: tuple[int, ...] | None = None
        self._address: int | None = None
        self._check(self.context.set_optimization_profile_async(0, self._handle), "take profile 0")
        self._check(self.context.set_tensor_address(self._output, output_address), "take the output's address")

    def bind(self, shape: tuple[int, ...], address: int) -> None:
        """Sets shape and address of the input, where they are not what they were."""
        if shape != self._shape:
            self._check(self.context.set_input_shape(self._input, shape), f"take the shape {shape}")
            open_ = self.context.infer_shapes()
            self._check(not open_, f"infer shapes; open: {open_}")
            self._shape = shape
        if address != self._address:
            self._check(self.context.set_tensor_address(self._input, address), "take the input's address")
            self._address = address

    def enqueue(self) -> None:
        """Queues one inference on the stream."""
        self._check(self.context.execute_async_v3(self._handle), "enqueue an inference")

    def _check(self, done: bool, step: str) -> None:
        if not done:
            raise RuntimeError(f"TensorRT would not {step}: {self._reason()}")
