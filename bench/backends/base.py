"""What a backend is: its facts, its options, and what it promises (load, infer, proof, close)."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Literal,
    Protocol,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
    runtime_checkable,
)

from bench.record.case import Case

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from pipelines.base import DevicePixels, Preprocess


@dataclass(frozen=True)
class ModelFiles:
    """What the preparing step left for the workers to load. Paths point into the artefact store.

    Attributes:
        weights: ``official``, ``user``, ``demo`` or ``random``.
        weights_sha256: digest of the weights' values (of the file, for ``onnx:``).
        state: safetensors file with the state dict, or None where the model is an ONNX file.
        input_size: height and width of the input in pixels.
        preprocess: keywords of ``pipelines.base.Preprocess``.
        fixed_batch: the only batch size the graph takes, or None where it is dynamic.
        classes: length of the logits.
        parity: figures of the export's check against PyTorch; empty for ``onnx:``.
        multiply_adds: multiply-adds of convolutions and linear layers for one image, or None.
        typed: graphs of lower precision; see ``bench.backends.graphs``.
        notes: what was taken for what where there was a choice: sentences for every row.
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
    notes: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; ``from_dict`` reads it back."""
        return {**asdict(self), "parity": dict(self.parity), "preprocess": dict(self.preprocess)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelFiles:
        """Reads what ``to_dict`` wrote."""
        return cls(**data)

    @property
    def preprocessing(self) -> Preprocess:
        """How images become this model's input."""
        from pipelines.base import Preprocess

        return Preprocess.from_dict(self.preprocess)

    def network(self) -> nn.Module:
        """The network with its weights, in eval mode. Imports torch.

        Raises:
            Unavailable: a package that the network needs is missing.
            Unsupported: the model is an ONNX file, which has no module.
        """
        if self.state is None:
            raise Unsupported("an ONNX file has no PyTorch module; use another backend")
        from safetensors.torch import load_file

        from scarlet import zoo
        from scarlet.errors import ModelUnavailable

        try:
            module: nn.Module = zoo.untrained(zoo.resolve(self.model))
        except ModelUnavailable as missing:
            raise Unavailable(str(missing)) from missing
        module.load_state_dict(load_file(self.state), strict=True)
        return module.eval()


class Unavailable(Exception):
    """The backend could run this Case, but something is missing here. The text says what and how to get it."""


class Unsupported(Exception):
    """The backend can never run this Case. The text says why."""


# The values that an option of a backend may have: these, or any whole number above 0, or any text.
Choices = tuple[str, ...] | Literal["count", "text"]
Options = TypeVar("Options")

# Options that the harness heeds, whatever the backend; backends need not know them.
#   aa              tells the two copies of an A/A run apart, and nothing else
#   ahead           batches that wait decoded in a throughput Case while others are computed
#   decode_threads  threads of the pipeline, where they are not as many as the backend's
#   delay_us        that a Server Case's batch waits for more images, where it is not full
#   l2              cold: on a GPU, its L2 cache is emptied before each call of a latency Case
#   limit_us        of a Server Case's 99th percentile, as --latency-limit-ms gives it
#   pass            whole: a throughput Case times passes from empty queues to the last image, not slices of a stream
#   pin             whether copies that work side by side are bound to cores of their own
#   revision        tells the two that ``against`` measures apart, and nothing else
HARNESS_OPTIONS: Mapping[str, Choices] = {
    "aa": "text",
    "ahead": "count",
    "decode_threads": "count",
    "delay_us": "count",
    "l2": ("warm", "cold"),
    "limit_us": "count",
    "pass": ("stream", "whole"),
    "pin": ("yes", "no"),
    "revision": "text",
}


@dataclass(frozen=True)
class NoOptions:
    """The options of a backend that takes none."""


@dataclass(frozen=True)
class Facts:
    """What the program and its reports know of a runtime without importing it.

    Attributes:
        name: as in ``Case.backend``, in the registry and on the command line.
        display_name: in reports.
        colour: in charts, ``#rrggbb``.
        module: what is imported of the runtime.
        packages: the distribution to install, by device; a backend runs on these devices only.
        graph: which file of a model in FP32 it loads: its ONNX graph (``onnx``), its weights, for the network itself
            (``module``), or what a converter makes of the graph (its module's name, see ``export.convert``).
        dialects: of the graphs of lower precision that it takes, its own first, by precision. A precision that is not
            here is a setting of the runtime, on the FP32 file, or not possible at all.
        options: dataclass of its options; see ``choices_of``.
        default: whether ``run`` compares it when ``--backends`` is not given: ``always`` (its rows say how to get it
            where it is missing), where it is ``installed``, or never.
        deploys: ``<module>:<name>`` of what writes an ONNX graph in the format that is deployed: takes the paths of the
            graph and of a copy, gives that of the file. Empty where the graph itself is.
        profiler: ``<module>:<name>`` of what measures its layers one by one; empty where nothing does.
    """

    name: str
    display_name: str
    colour: str
    module: str
    packages: Mapping[str, str]
    graph: str = "onnx"
    dialects: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    options: type[Any] = NoOptions
    default: Literal["always", "installed", "never"] = "never"
    profiler: str = ""
    deploys: str = ""

    @property
    def devices(self) -> tuple[str, ...]:
        """Where it runs."""
        return tuple(self.packages)

    @property
    def choices(self) -> dict[str, Choices]:
        """The values that each of its options may have."""
        return choices_of(self.options)

    def import_runtime(self, device: str) -> Any:
        """The runtime's module; Unavailable where it is not installed; the text says how to get it."""
        try:
            return importlib.import_module(self.module)
        except ImportError as missing:
            package = self.packages[device]
            raise Unavailable(f"the package {package} is not installed; run: pip install {package}") from missing


class Backend(Protocol):
    """One inference runtime. A worker makes one, loads one Case, and closes it.

    A backend is one file in ``bench/backends`` and one line in its registry. It keeps to the Case: device,
    precision and threads are settings to obey or to refuse (``Unsupported``), never hints. Its file imports the
    runtime in ``load``, not before: whoever asks for its facts imports the file.
    """

    FACTS: ClassVar[Facts]

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
    """What a backend has besides if it can work on several batches at the same time."""

    slots: int

    def submit(self, pixels: NDArray[np.float32] | DevicePixels) -> Future[NDArray[np.float32]]:
        """Begins to infer one batch, as soon as one of the slots is free. ``pixels`` must stay as they are.

        They are on the host, or on the Case's device where the copies are ``OnDevice``.
        """
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
            the logits, and nanoseconds of ``h2d``, ``compute`` and ``d2h``, and of ``enqueue``: the host's for queueing
            what computes, which may lie behind the copy before it.
        """
        ...


@runtime_checkable
class OnDevice(Protocol):
    """What a backend on a GPU has besides if it takes pixels that lie there already, without a copy over the host."""

    def infer_on_device(self, pixels: DevicePixels) -> NDArray[np.float32]:
        """Logits of a batch on the device.

        Args:
            pixels: on the Case's device, perhaps still being written: the backend's own stream waits for that.

        Returns:
            as of ``infer``.
        """
        ...


@runtime_checkable
class RunsModule(Protocol):
    """What a backend has besides if it runs the network itself, and not a graph of it."""

    def network(self, case: Case, files: ModelFiles) -> nn.Module:
        """The network in the form in which the Case runs it; layers may be folded into others."""
        ...


def choices_of(options: type[Any]) -> dict[str, Choices]:
    """The values that each field of a dataclass of options may have.

    A field is a ``Literal`` of texts, an ``int`` (any whole number above 0) or a ``str`` (any text), or one of these or
    None. Its default is what counts where the option is left out.
    """
    choices: dict[str, Choices] = {}
    for name, hint in get_type_hints(options).items():
        if get_origin(hint) is not Literal and get_args(hint):  # one of these or None
            hint = get_args(hint)[0]
        choices[name] = "count" if hint is int else "text" if hint is str else get_args(hint)
    return choices


def options_fault(name: str, choices: Mapping[str, Choices], given: Mapping[str, str]) -> tuple[str, str]:
    """What is wrong with the options given to a backend, and what to write instead; two empty texts if nothing.

    Args:
        choices: see ``choices_of``; ``HARNESS_OPTIONS`` besides are always taken.
    """
    for option, value in given.items():
        values = choices.get(option, HARNESS_OPTIONS.get(option))
        if values is None:
            near = difflib.get_close_matches(option, [*choices, *HARNESS_OPTIONS], n=1)
            meant = f"Did you mean {name}.{near[0]}? " if near else ""
            known = ", ".join(f"{name}.{known}" for known in choices)
            return f"{name} has no option '{option}'", meant + (f"It takes: {known}." if known else "It takes none.")
        if values == "count" and not (value.isdecimal() and int(value) > 0):
            return f"{name}.{option} is '{value}'", "It can be a whole number above 0."
        if isinstance(values, tuple) and value not in values:
            return f"{name}.{option} is '{value}'", f"It can be {' or '.join(values)}."
    return "", ""


def read_options(options: type[Options], case: Case) -> Options:
    """The options of a Case as its backend's dataclass. The first thing that ``load`` does: no misspelt option may
    pass in silence.

    Raises:
        Unsupported: an option is not known to the backend, or has a value that it does not take.
    """
    choices = choices_of(options)
    what, do = options_fault(case.backend, choices, dict(case.options))
    if what:
        raise Unsupported(f"{what}; {do[0].lower()}{do[1:].rstrip('.')}")
    given = {name: value for name, value in case.options if name in choices}
    return options(**{name: int(value) if choices[name] == "count" else value for name, value in given.items()})


def refuse_case(facts: Facts, case: Case, files: ModelFiles) -> None:
    """Refuses what no setting of a runtime could change.

    Raises:
        Unsupported: the runtime has no such device, or the graph no such batch.
    """
    if case.device not in facts.devices:
        where = " and ".join(facts.devices)
        raise Unsupported(f"{facts.display_name} runs on {where} only; use --devices {','.join(facts.devices)}")
    if files.fixed_batch not in (None, case.batch):
        raise Unsupported(f"the graph takes batches of {files.fixed_batch} only")
