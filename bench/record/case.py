"""A Case is one row of the table, and how it ended."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import Enum
from typing import Any

from scarlet.errors import BenchError, unknown_name

# By LoadGen, MLPerf's load generator, as it names them.
LOAD = {"singlestream": "SingleStream", "multistream": "MultiStream", "offline": "Offline", "server": "Server"}
SCENARIOS = ("accuracy", "latency", "throughput", *LOAD)
# What its rules ask of a test at least.
MLPERF_SECONDS, MLPERF_IMAGES = 600.0, 1024
# Of the backend alone, on images in memory.
IN_MEMORY = ("latency", *LOAD)
DEVICES = ("cpu", "cuda")
PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8")

# The runtime that a network is defined in: where it is among a run's, the others are compared with it.
REFERENCE_BACKEND = "pytorch"
# The fields of a Case that runs the exported graph node by node, without a runtime's optimisations.
GRAPH_AS_EXPORTED: Mapping[str, Any] = {"backend": "onnxruntime", "options": (("optimization", "none"),)}

ID_LENGTH = 10


class Status(str, Enum):
    """How a Case ended. Every status but ``ok`` comes with a reason that a person can act on."""

    OK = "ok"
    UNSUPPORTED = "unsupported"  # this combination cannot exist (an ONNX file has no PyTorch module)
    UNAVAILABLE = "unavailable"  # it could, but something is not installed or not there
    FAILED = "failed"  # the code raised
    CRASHED = "crashed"  # the process died
    OOM = "oom"  # memory ran out
    TIMEOUT = "timeout"  # it took longer than --timeout
    FALLBACK = "fallback"  # it ran, but not on what was requested
    INVALID = "invalid"  # it ran, but its proof or its input does not hold
    INTERRUPTED = "interrupted"  # the user stopped the run first


# What ran elsewhere than requested was measured all the same: its row says where it ran, and keeps its figures.
MEASURED = (Status.OK, Status.FALLBACK)


@dataclass(frozen=True, order=True)
class Case:
    """Everything that tells one row of the table from another.

    Attributes:
        model: canonical model name (``scarlet_c``, ``timm/resnet18``, ``onnx:net.onnx``).
        weights: ``official``, ``user``, ``demo`` or ``random``: whose weights these are.
        backend: a name in ``bench.backends.REGISTRY``.
        device: ``cpu`` or ``cuda``.
        precision: arithmetic requested, ``fp32`` and so on.
        pipeline: a name in ``pipelines.REGISTRY``: what made the pixels.
        batch: images per call of the backend.
        threads: intra-op threads of the backend, and of the pipeline where the scenario runs one.
        instances: how many copies of the backend work side by side.
        scenario: ``accuracy``, ``latency``, ``throughput`` or one of ``LOAD``.
        options: further settings as sorted ``(name, value)`` pairs, all text.
        host: the kind of machine that it is to run on, as a cluster's workers declare it; empty for any.
    """

    model: str
    weights: str
    backend: str
    device: str = "cpu"
    precision: str = "fp32"
    pipeline: str = "dali"
    batch: int = 1
    threads: int = 1
    instances: int = 1
    scenario: str = "latency"
    options: tuple[tuple[str, str], ...] = ()
    host: str = ""

    @property
    def case_id(self) -> str:
        """A short hash of the fields: the same Case has the same id in every run and on every machine.

        Fields at their default values are left out of the hash, so that a field added later, with a default
        that means "as before", keeps the ids of Cases already measured.
        """
        described = {
            field_.name: getattr(self, field_.name)
            for field_ in fields(self)
            if getattr(self, field_.name) != field_.default
        }
        text = json.dumps(described, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]

    @property
    def label(self) -> str:
        """A line for people: what distinguishes this Case, without the model's name."""
        reader = [] if self.scenario in IN_MEMORY else [self.pipeline]
        parts = [self.scenario, *reader, self.backend, self.device, self.precision, f"batch {self.batch}"]
        parts += [f"instances {self.instances}"] if self.instances > 1 else []
        parts += [f"{name}={value}" for name, value in self.options]
        parts += [f"on {self.host}"] if self.host else []
        return " ".join(parts)

    def option(self, name: str, default: str = "") -> str:
        """The value of one option, or ``default``."""
        return dict(self.options).get(name, default)

    def having(self, name: str, value: str) -> Case:
        """The same with this value of one option."""
        return replace(self, options=tuple(sorted({**dict(self.options), name: value}.items())))

    def without(self, name: str) -> Case:
        """The same without one option."""
        return replace(self, options=tuple(option for option in self.options if option[0] != name))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; ``Case.from_dict`` reads it back."""
        left_out = () if self.host else ("host",)  # as before there were clusters
        own = {name: value for name, value in asdict(self).items() if name not in left_out}
        return {**own, "options": dict(self.options)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Case:
        """Reads what ``to_dict`` wrote; TypeError where a field is missing, not known, or of another type."""
        case = cls(**{**data, "options": tuple(sorted(dict(data.get("options", {})).items()))})
        for name, kind in cls.__annotations__.items():
            value = getattr(case, name)
            if type(value).__name__ != kind.partition("[")[0]:
                raise TypeError(f"'{name}' is {type(value).__name__}, not {kind}")
        if not all(isinstance(text, str) for pair in case.options for text in pair):
            raise TypeError("'options' holds what is no text")
        return case


def checked_names(kind: str, names: Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
    """The names, once each and in order, or a ``BenchError`` that suggests near ones.

    Raises:
        BenchError: a name is not in ``known``, or there is none.
    """
    choices = tuple(known)
    wanted = tuple(dict.fromkeys(name.strip().lower() for name in names if name.strip()))
    for name in wanted:
        if name not in choices:
            raise unknown_name(kind, name, choices)
    if not wanted:
        raise BenchError(f"no {kind} was named", f"Choose from: {', '.join(choices)}.")
    return wanted
