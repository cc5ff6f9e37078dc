"""What a backend promises: load, infer, proof, close."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.case import Case
from pipelines.base import Preprocess


@dataclass(frozen=True)
class ModelFiles:
    """What the preparing step left for the workers to load. Paths point into the artefact store.

    Attributes:
        model: canonical model name.
        weights: ``official``, ``user``, ``demo`` or ``random``.
        weights_sha256: digest of the weights' values (of the file, for ``onnx:``).
        state: safetensors file with the state dict, or None where the model is an ONNX file.
        onnx: the FP32 ONNX graph.
        onnx_sha256: digest of that file.
        input_size: height and width of the input in pixels.
        preprocess: keywords of ``pipelines.base.Preprocess``.
        fixed_batch: the only batch size the graph takes, or None where it is dynamic.
        classes: length of the logits.
        parity: figures of the export's check against PyTorch; empty for ``onnx:``.
        parameters: number of parameters, or None where it is not known.
        multiply_adds: multiply-adds of convolutions and linear layers for one image, or None.
    """

    model: str
    weights: str
    weights_sha256: str
    onnx: str
    onnx_sha256: str
    state: str | None = None
    input_size: int = 224
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    fixed_batch: int | None = None
    classes: int = 1000
    parity: Mapping[str, Any] = field(default_factory=dict)
    parameters: int | None = None
    multiply_adds: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; ``ModelFiles(**data)`` reads it back."""
        return {**asdict(self), "parity": dict(self.parity), "preprocess": dict(self.preprocess)}

    @property
    def preprocessing(self) -> Preprocess:
        """How images become this model's input."""
        numbers: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in self.preprocess.items()
        }
        return Preprocess(**numbers)


class Unavailable(Exception):
    """The backend could run this Case, but something is missing here. The text says what and how to get it."""


class Unsupported(Exception):
    """The backend can never run this Case. The text says why."""


class Backend(Protocol):
    """One inference runtime. A worker makes one, loads one Case, and closes it.

    A backend is one file in ``bench/backends`` and one line in its registry. It keeps to the Case: device,
    precision and threads are settings to obey or to refuse (``Unsupported``), never hints.
    """

    name: ClassVar[str]

    def load(self, case: Case, files: ModelFiles) -> None:
        """Makes ready to infer batches of ``case.batch`` images and smaller ones.

        Raises:
            Unavailable: a package, driver or device is missing; the text says how to get it.
            Unsupported: this backend cannot run such a Case at all.
        """
        ...

    def infer(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits for a batch.

        Args:
            pixels: float32, ``(n, 3, size, size)``, C-contiguous, on the host.

        Returns:
            float32, ``(n, classes)``, on the host, complete: nothing is still running when this returns.
        """
        ...

    def proof(self) -> dict[str, Any]:
        """What really executed, as JSON types: versions, providers per node, threads, precision switches.

        Called after at least one ``infer``. The key ``fallback``, where present and not empty, says in a
        sentence what ran elsewhere than asked.
        """
        ...

    def close(self) -> None: ...
