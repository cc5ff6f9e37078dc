"""What a backend promises: load, infer, proof, close."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bench.record.case import Case
from pipelines.base import Preprocess

if TYPE_CHECKING:
    import torch


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
        typed: graphs of lower precision; see ``bench.backends.graphs``.
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
    typed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

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


# The values that an option of a backend may have: these, or any whole number above 0, or any text.
Choices = tuple[str, ...] | Literal["count", "text"]

# Options that the harness heeds, whatever the backend; backends need not know them.
#   aa              tells the two copies of an A/A run apart, and nothing else
#   ahead           batches that wait decoded in a throughput Case while others are computed
#   decode_threads  threads of the pipeline, where they are not as many as the backend's
#   l2              cold: on a GPU, its L2 cache is emptied before each call of a latency Case
#   pin             whether copies that work side by side are bound to cores of their own
HARNESS_OPTIONS: Mapping[str, Choices] = {
    "aa": "text",
    "ahead": "count",
    "decode_threads": "count",
    "l2": ("warm", "cold"),
    "pin": ("yes", "no"),
}


class Backend(Protocol):
    """One inference runtime. A worker makes one, loads one Case, and closes it.

    A backend is one file in ``bench/backends`` and one line in its registry. It keeps to the Case: device,
    precision and threads are settings to obey or to refuse (``Unsupported``), never hints.

    ``OPTIONS`` names the options that it takes in ``Case.options``, with their values; one without it takes none.
    """

    name: ClassVar[str]
    OPTIONS: ClassVar[Mapping[str, Choices]]

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


@runtime_checkable
class Concurrent(Protocol):
    """What a backend has besides if it can work on several batches at the same time.

    Attributes:
        slots: how many.
    """

    slots: int

    def submit(self, pixels: NDArray[np.float32]) -> Future[NDArray[np.float32]]:
        """Begins to infer one batch, as soon as one of the slots is free. ``pixels`` must stay as they are."""
        ...


@runtime_checkable
class Twinned(Protocol):
    """What a backend has besides if its copies had better share what is loaded."""

    def twin(self) -> Backend:
        """Another copy, for an instance of its own. Called after ``load`` with ``case.instances`` above 1."""
        ...


@runtime_checkable
class TimesStages(Protocol):
    """What a backend on a GPU has besides: it times its stages by events on its own stream."""

    def infer_stages(self, pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], Mapping[str, int]]:
        """``infer``, and what its stages took.

        Nothing waits for the device between the first event and the last, so that the stages are those of ``infer``.

        Returns:
            the logits, and nanoseconds of ``h2d``, ``compute`` and ``d2h``.
        """
        ...


@runtime_checkable
class OnDevice(Protocol):
    """What a backend on a GPU has besides if it takes pixels that lie there already, without a copy over the host."""

    def infer_on_device(self, pixels: torch.Tensor) -> NDArray[np.float32]:
        """Logits of a batch on the device.

        Args:
            pixels: float32, ``(n, 3, size, size)``, C-contiguous, on the Case's device, written by work that was
                queued on the caller's current stream: the backend's own stream waits for that.

        Returns:
            as of ``infer``.
        """
        ...


def options_fault(name: str, choices: Mapping[str, Choices], given: Mapping[str, str]) -> tuple[str, str]:
    """What is wrong with the options given to a backend, and what to write instead; two empty texts if nothing.

    Args:
        name: of the backend.
        choices: its ``OPTIONS``; ``HARNESS_OPTIONS`` besides are always taken.
        given: values by name.
    """
    for option, value in given.items():
        values = choices.get(option, HARNESS_OPTIONS.get(option))
        if values is None:
            near = difflib.get_close_matches(option, [*choices, *HARNESS_OPTIONS], n=1)
            meant = f"Did you mean {name}.{near[0]}? " if near else ""
            known = ", ".join(f"{name}.{known}" for known in choices)
            return f"{name} has no option '{option}'", meant + (
                f"It takes: {known}." if known else "It takes none."
            )
        if values == "count" and not (value.isdecimal() and int(value) > 0):
            return f"{name}.{option} is '{value}'", "It can be a whole number above 0."
        if isinstance(values, tuple) and value not in values:
            return f"{name}.{option} is '{value}'", f"It can be {' or '.join(values)}."
    return "", ""


def refuse_bad_options(backend: Backend, case: Case) -> None:
    """The first thing that ``load`` does: no misspelt option may pass in silence.

    Raises:
        Unsupported: an option of the Case is not known to the backend, or has a value that it does not take.
    """
    what, do = options_fault(backend.name, backend.OPTIONS, dict(case.options))
    if what:
        raise Unsupported(f"{what}; {do[0].lower()}{do[1:].rstrip('.')}")
