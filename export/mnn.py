"""MNN's format: the ONNX graph converted, and a session that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import numpy as np
from numpy.typing import NDArray

from scarlet.errors import BenchError
from scarlet.files import file_sha256

SUFFIX = ".mnn"
PACKAGES = ("mnn",)

# Codes of MNN's ``Interpreter.getSessionInfo`` (MNN, include/MNN/Interpreter.hpp, SessionInfoCode).
_MEMORY, _MFLOP, _KIND, _THREADS = 0, 1, 2, 4
# MNN's MNN_FORWARD_CPU and MNN_FORWARD_CPU_EXTENSION: the latter has kernels for this CPU's vector instructions.
_KINDS = {0: "CPU", 13: "CPU, extended instructions"}


def convert(onnx_path: Path, path: Path) -> None:
    """Writes the graph in MNN's format, weights in float32. Equal graphs give equal bytes.

    Raises:
        BenchError: MNN's converter cannot express the graph.
    """
    import _tools  # MNN's converter. Its command ``mnnconvert`` besides installs a package and reports to its makers.
    import MNN

    _tools.mnnconvert(["mnnconvert", "-f", "ONNX", "--modelFile", str(onnx_path), "--MNNModel", str(path)])
    if not path.exists() or not path.stat().st_size:  # it says True whatever happened
        raise BenchError(
            "MNN's converter made no file of the graph",
            "Its log says which node it does not know; measure this model on other backends.",
            stage="export",
        )
    random_id, fixed_id = MNN.get_model_uuid(str(path)), str(uuid5(NAMESPACE_OID, file_sha256(onnx_path)))
    path.write_bytes(path.read_bytes().replace(random_id.encode(), fixed_id.encode()))


def logits(path: Path, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a converted graph answers, ``(n, classes)``."""
    import MNN

    return Session(MNN.Interpreter(str(path)), pixels.shape, 1).infer(pixels)


class Session:
    """A graph planned for one shape of its input, in FP32.

    MNN's older interface: the newer one keeps Python's lock while it computes, so that copies could not work at the
    same time.
    """

    def __init__(self, interpreter: Any, shape: Sequence[int], threads: int) -> None:
        self._interpreter = interpreter
        # ``high`` is FP32; ``low`` would be FP16 or BF16 where the CPU can.
        config = {"backend": "CPU", "precision": "high", "numThread": threads}
        self._session = interpreter.createSession(config)
        self._input = interpreter.getSessionInput(self._session)
        interpreter.resizeTensor(self._input, tuple(shape))
        interpreter.resizeSession(self._session)
        self._pixels = self._input.getNumpyData()  # the session's own memory
        self._output = interpreter.getSessionOutput(self._session)
        self.threads = int(np.float32(self._info(_THREADS)).view(np.int32))  # an integer's bits, handed on as a float

    def _info(self, code: int) -> float:
        return float(self._interpreter.getSessionInfo(self._session, code))

    def infer(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of pixels of the planned shape."""
        np.copyto(self._pixels, pixels)
        code = self._interpreter.runSession(self._session)
        if code:
            raise RuntimeError(f"MNN's runSession ended with code {code}")
        # A copy: the session writes over its output the next time.
        return np.array(self._output.getNumpyData(), np.float32)

    def facts(self) -> dict[str, Any]:
        """What it runs on and what it runs, from MNN itself. Computes once."""
        operations: dict[str, int] = {}

        def count(tensors: Any, operation: Any) -> bool:
            operations[operation.getType()] = operations.get(operation.getType(), 0) + 1
            return True

        self._interpreter.runSessionWithCallBackInfo(self._session, lambda tensors, operation: True, count)
        kind = int(self._info(_KIND))
        return {
            "kind": _KINDS.get(kind, f"forward type {kind}"),
            "on_cpu": kind in _KINDS,
            "intra_op_threads": self.threads,
            "memory_mb": self._info(_MEMORY),
            "mflop": self._info(_MFLOP),
            "operations": dict(sorted(operations.items())),
        }
