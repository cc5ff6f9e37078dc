"""What a run measures: one model for the command line, the plan file and run.json, which expands to Cases.

A plan file is YAML. Its keys are the options of ``scarlet-bench run``; lists expand against one another, and
``exclude`` takes combinations out::

    model: scarlet_c
    backends: [pytorch, onnxruntime]
    batches: [1, 8, 64]
    threads: [1, 2]
    budget: 160
    options:
      pytorch: {form: [plain, tuned]}
    exclude:
      - {backend: pytorch, batch: 64}
      - {threads: 1, batch: [8, 64]}

A rule of ``exclude`` takes out the Cases that match all its keys; a list means any of its values. Accuracy Cases have
a batch of their own, which no rule means that does not name ``scenario: accuracy``. Paths are relative to the plan's
folder where there is such a file, else to the folder that the command is called from, as they are on the command line.

A new dimension of the matrix is one more field of ``Matrix`` and of ``Case``, with the same values or their singular.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

import pipelines
from bench import host
from bench.backends import REGISTRY, check_options, default_names, option_values, runs_nowhere
from bench.record.case import DEVICES, IN_MEMORY, LOAD, PRECISIONS, SCENARIOS, Case, checked_names
from bench.run.lives import LEAST_LIVES
from pipelines.imagenet.labels import BACKGROUND, Labelling
from scarlet import zoo
from scarlet.errors import BenchError, shown
from scarlet.files import read_yaml
from scarlet.preprocess import ModelSpec, checked, described

# A prediction does not depend on the batch; of accuracy's time more would save little.
ACCURACY_BATCH = 32

# A few lists of some kB expand to more Cases than memory holds, or anybody has time for.
CASES_MAX = 10_000
# Demo images by which an INT8 row without a loss passes in 91 to 100 % of checks; by 512 it does in 32 to 64 %
# (docs/accuracy.md). In FP32 all leads speak, and the usual number is enough.
LOWERED_IMAGES = 2000
_SAID = "said"  # type of a mistake that is told in its own words
# Values of --checkpoint that are no files.
WEIGHTS = ("demo", "random", "pretrained")


def _telling(check: Callable[..., Any]) -> Callable[..., Any]:
    """A validator whose mistakes are told in their own words; pydantic adds where they are."""

    @functools.wraps(check)
    def told(*given: Any) -> Any:
        try:
            return check(*given)
        except BenchError as mistake:
            raise PydanticCustomError(_SAID, "{what}", {"what": mistake.what, "do": mistake.do}) from None

    return told


def _listed(value: Any) -> Any:
    """One value stands for a list of it; text is split at commas. Nothing stands for the default."""
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list) and not value:
        raise ValueError("an empty list")
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _counted(value: Any) -> Any:
    """As ``_listed``, with numbers for the digits in text."""
    items = _listed(value)
    return tuple(int(item) if isinstance(item, str) and item.isdecimal() else item for item in items)


def _image_count(value: Any) -> str:
    """``all``, a number above 0, or nothing for the default."""
    text = "" if value is None else str(value).strip().lower()
    if isinstance(value, bool) or not (text in ("", "all") or (text.isdecimal() and int(text) > 0)):
        raise ValueError("no such count")
    return text


def _text(value: Any) -> str:
    """Text or a number, as text; YAML's ``yes`` is neither."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("neither text nor a number")
    return str(value)


@_telling
def _by_backend(value: Any) -> Any:
    """Texts such as ``pytorch.form=plain`` as a mapping; a mapping, as a plan file holds one, as it is."""
    if isinstance(value, Mapping) or not isinstance(value, list | tuple):
        return value
    options: dict[str, dict[str, list[str]]] = {}
    for text in value:
        name, equals, setting = str(text).partition("=")
        backend, dot, option = name.partition(".")
        if not (equals and dot and option):
            what = f"--option '{text}' is not of the form backend.name=value"
            raise BenchError(what, "Write --option pytorch.form=plain.")
        options.setdefault(backend, {}).setdefault(option, []).append(setting)
    return options


@_telling
def _known_options(options: Options) -> Options:
    """The values of each option of each backend, once each, of a list with commas all of it."""
    known: dict[str, dict[str, tuple[str, ...]]] = {}
    for backend, given in options.items():
        for option, texts in given.items():
            values = [value for text in texts for value in option_values(backend, option, text)]
            for value in filter(None, values):
                check_options(backend, {option: value})
            known.setdefault(backend, {})[option] = tuple(dict.fromkeys(values))
    return known


def _lives(value: int | None) -> int | None:
    if value is not None and value != 1 and (value < LEAST_LIVES or value % 2):
        raise ValueError("no such number")
    return value


@_telling
def _statement(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise BenchError(f"preprocess is {shown(value)}", "Write a mapping, such as {mean: 0.5, std: 0.5}.")
    return checked(value)


@_telling
def _known_model(name: str) -> str:
    zoo.resolve(name)
    return name


Names = Annotated[tuple[StrictStr, ...], BeforeValidator(_listed)]
Counts = Annotated[tuple[Annotated[StrictInt, Field(ge=1)], ...], BeforeValidator(_counted)]
Seconds = Annotated[StrictFloat, Field(gt=0, allow_inf_nan=False)]
OptionValues = Annotated[
    tuple[Annotated[str, BeforeValidator(_text)], ...],
    BeforeValidator(lambda value: value if isinstance(value, list | tuple) else [value]),
    Field(min_length=1),
]
Options = dict[StrictStr, dict[StrictStr, OptionValues]]


@dataclass(frozen=True)
class Axis:
    """Marks a field as a dimension of the matrix.

    Attributes:
        case: the field of ``Case`` that takes one of the values.
        names: those that are known; None where the values are counts.
        default: gives the values where the field is empty; None where it must not be.
        only_timed: a prediction does not depend on it: accuracy Cases keep the default of ``Case``.
    """

    case: str
    names: Callable[[], Iterable[str]] | None = None
    default: Callable[[Any], tuple[Any, ...]] | None = None
    only_timed: bool = False


class _Checked(BaseModel):
    """A model whose fields with an ``Axis`` hold names that are known, or counts, once each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*")
    @classmethod
    @_telling
    def _check(cls, value: Any, info: ValidationInfo) -> Any:
        axis = _axes(cls).get(str(info.field_name))
        if axis is None or (not value and axis.default):
            return value
        if axis.names is None and value:
            return tuple(dict.fromkeys(value))
        return checked_names(axis.case, value, axis.names() if axis.names else ("1", "8", "32"))


class Matrix(_Checked):
    """The dimensions of the matrix, from the outermost to the innermost: so Cases are ordered."""

    scenarios: Annotated[Names, Axis("scenario", lambda: SCENARIOS)] = ("accuracy", "latency")
    threads: Annotated[Counts, Axis("threads", default=lambda spec: (host.allowed_cores(),))] = ()
    devices: Annotated[Names, Axis("device", lambda: DEVICES)] = ("cpu",)
    precisions: Annotated[Names, Axis("precision", lambda: PRECISIONS)] = ("fp32",)
    batches: Annotated[Counts, Axis("batch")] = (1, 8)
    instances: Annotated[Counts, Axis("instances", only_timed=True)] = (1,)
    pipeline: Annotated[
        Names, Axis("pipeline", pipelines.names, lambda spec: (pipelines.default_name(spec.devices),))
    ] = ()
    backends: Annotated[
        Names, Axis("backend", lambda: REGISTRY, lambda spec: default_names(spec.devices, spec.network.kind != "onnx"))
    ] = ()


def _axes(model: type[BaseModel]) -> dict[str, Axis]:
    return {
        name: mark for name, field in model.model_fields.items() for mark in field.metadata if isinstance(mark, Axis)
    }


AXES = _axes(Matrix)


class _Rule(_Checked):
    """One combination that is not measured: fields of a Case, each with the values that match."""

    @model_validator(mode="after")
    @_telling
    def _names_something(self) -> _Rule:
        if not self.given:
            raise BenchError("it names nothing", f"Use {', '.join(type(self).model_fields)}.")
        return self

    @property
    def given(self) -> dict[str, tuple[Any, ...]]:
        """The values of the fields that are named."""
        return {name: values for name, values in self if values}

    def matches(self, case: Case) -> bool:
        """All keys of the rule match."""
        given = self.given
        if case.scenario == "accuracy" and "batch" in given and "accuracy" not in given.get("scenario", ()):
            return False
        return all(getattr(case, name) in values for name, values in given.items())

    def __str__(self) -> str:
        pairs = (f"{name}: {values[0] if len(values) == 1 else list(values)}" for name, values in self.given.items())
        return "{" + ", ".join(pairs) + "}"


if TYPE_CHECKING:
    Rule = _Rule
else:
    # A rule names what a Case has: a field for each dimension of the matrix.
    Rule = create_model(
        "Rule",
        __base__=_Rule,
        **{
            axis.case: (Annotated[Names if axis.names else Counts, replace(axis, default=lambda spec: ())], ())
            for axis in AXES.values()
        },
    )


class RunSpec(Matrix):
    """What `scarlet-bench run` measures, checked when it is made, before anything slow begins.

    Lists may be given as text with commas. An empty ``backends``, ``pipeline`` or ``threads`` means what suits this
    machine: ``lists`` has it. ``options`` may be given as texts ``backend.name=value``, of which several may name one
    option, and a value may be a list with commas.

    Attributes:
        model: ``scarlet_c``, ``timm/<name>``, ``onnx:<file>``.
        output: the output of an ONNX file that holds the logits; it becomes part of ``model``.
        checkpoint: a file, ``demo``, ``random``, ``pretrained`` or None for the default.
        data: the user's folder of images, or None for the demo set.
        images: how many to score: a count, ``all``, or empty for the default.
        classes, labels, first_label: how images are labelled: see ``pipelines.imagenet.labels.Labelling``.
        real: file with ReaL labels, by which top-1 is told as well.
        restrict_classes: choose among the classes that have images alone.
        budget_seconds: wall time of all timed Cases together, their starts and warm-up included.
        latency_limit_ms: of a ``server`` Case's 99th percentile; three times its median latency where None.
        lives: how many fresh workers measure a timed Case, one after the other: an even number, at least 4, or 1; what
            suits the budget where None.
        rotate_cores: see ``bench.run.runner.Limits``.
        timeout_seconds: that one worker of a Case may take.
        seed: of the order of turns.
        calibration: the user's folder of images for INT8, or None.
        preprocess: what is stated of the model's preprocessing: see ``scarlet.preprocess``. In a run, all of it that
            differs from what the model would be fed otherwise.
        options: the values of each option of each backend; an empty one stands for the option not being given.
        exclude: combinations that are not measured.

    Raises:
        BenchError: a name is unknown, a number is wrong.
    """

    model: Annotated[StrictStr, AfterValidator(_known_model)] = "scarlet_c"
    output: StrictStr | None = None
    checkpoint: StrictStr | None = None
    data: StrictStr | None = None
    images: Annotated[str, BeforeValidator(_image_count)] = ""
    classes: StrictStr | None = None
    labels: StrictStr | None = None
    first_label: Annotated[StrictInt | None, Field(ge=0, le=1)] = None
    restrict_classes: StrictBool = False
    real: StrictStr | None = None
    budget_seconds: Seconds = 160.0
    latency_limit_ms: Seconds | None = None
    lives: Annotated[StrictInt | None, AfterValidator(_lives)] = None
    rotate_cores: StrictBool = False
    timeout_seconds: Seconds = 1800.0
    seed: StrictInt = 0
    calibration: StrictStr | None = None
    preprocess: Annotated[dict[str, Any], BeforeValidator(_statement)] = Field(default_factory=dict)
    options: Annotated[Options, BeforeValidator(_by_backend), AfterValidator(_known_options)] = Field(
        default_factory=dict
    )
    exclude: tuple[Rule, ...] = ()

    def __init__(self, /, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise _mistake(error) from error

    @model_validator(mode="before")
    @classmethod
    def _named_output(cls, given: dict[str, Any]) -> dict[str, Any]:
        """``output`` is part of the model's name, so that results tell one from another."""
        output, model = given.get("output"), str(given.get("model", ""))
        return {**given, "model": f"{model}{zoo.OUTPUT}{output}", "output": None} if output else given

    @model_validator(mode="after")
    @_telling
    def _real_has_its_own_classes(self) -> RunSpec:
        if self.real and self.classes:
            what = "--real has ImageNet's 1000 classes in their own order, and --classes gives the model others"
            raise BenchError(what, "Leave one of the two out.")
        return self

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> RunSpec:
        """Reads what ``to_dict`` wrote, in whatever version; keys that are not known are left out."""
        return cls(**{name: value for name, value in stored.items() if name in cls.model_fields})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, as ``run.json`` keeps them under ``settings``: lists as text with commas."""
        lists = {name: ",".join(map(str, getattr(self, name))) for name in AXES}
        options = [
            f"{backend}.{name}={value}"
            for backend, given in self.options.items()
            for name, values in given.items()
            for value in values
        ]
        rules = [{name: list(values) for name, values in rule.given.items()} for rule in self.exclude]
        return {**dict(self), **lists, "options": options, "exclude": rules}

    def but(self, **changes: Any) -> RunSpec:
        """The same with other values."""
        return RunSpec(**{**dict(self), **changes})

    # --- what follows from it ---

    @property
    def network(self) -> ModelSpec:
        """What is known of the model by its name."""
        return zoo.resolve(self.model)

    @property
    def labelling(self) -> Labelling:
        """How images are labelled."""
        return Labelling(self.classes, self.labels, self.first_label)

    @property
    def named(self) -> str:
        """The model's name in Cases, with what it is fed otherwise than usual: another input is another model."""
        return f"{self.network.name} ({described(self.preprocess)})" if self.preprocess else self.network.name

    @property
    def weights(self) -> str:
        """The label that the weights will bear, before anything is loaded."""
        if self.checkpoint is not None:
            return self.checkpoint if self.checkpoint in WEIGHTS else "user"
        return zoo.default_weights(self.network)

    @property
    def n_images(self) -> int | None:
        """How many images to score; 0 for all, None for the default.

        On demo images the default of a run with predictions of a lower precision is ``LOWERED_IMAGES``, of all its
        rows: they are compared with each other image by image.
        """
        if self.images:
            return 0 if self.images == "all" else int(self.images)
        lowered = "accuracy" in self.scenarios and any(name != "fp32" for name in self.precisions)
        return LOWERED_IMAGES if lowered and self.data is None else None

    @property
    def lists(self) -> dict[str, tuple[Any, ...]]:
        """The values of every dimension by its field, with what suits this machine where none are given."""
        return {
            name: getattr(self, name) or (axis.default(self) if axis.default else ()) for name, axis in AXES.items()
        }

    def absolute(self) -> RunSpec:
        """With every path but the model's from the root: workers start in a folder of their own.

        ``model`` stays as it was written, since a graph's path is a name in results, too: see ``source``.
        """
        return self.located(path_from_root)

    def located(self, place: Callable[[str], str]) -> RunSpec:
        """With every path but the model's as ``place`` gives it."""
        names = ("data", "calibration", "classes", "labels", "real", "checkpoint")
        files = {name: path for name in names if (path := getattr(self, name)) not in (None, BACKGROUND, *WEIGHTS)}
        options = {
            backend: {
                name: tuple(value and place(value) for value in values) if name == "recipe" else values
                for name, values in given.items()
            }
            for backend, given in self.options.items()
        }
        return self.but(**{name: place(path) for name, path in files.items()}, options=options)

    @property
    def source(self) -> str:
        """``model`` for a worker: a path in it from the root."""
        network = self.network
        which = f"{zoo.OUTPUT}{network.output}" if network.output else ""
        return self.model if network.path is None else f"{network.kind}:{path_from_root(network.path)}{which}"

    # --- Cases ---

    def cases(self, weights: str = "", fixed_batch: int | None = None) -> tuple[Case, ...]:
        """Every Case of the matrix but those that ``exclude`` names, once each; the first backend leads.

        Every list is expanded against every other, save that ``accuracy`` Cases use one batch and one instance (the
        time depends on them; a prediction does not), that ``latency`` Cases use the first pipeline only (their
        pixels are made before anything is timed), and that ``throughput`` Cases beside those use the largest batch. So
        do LoadGen's, but for ``singlestream`` Cases, which use single images.

        Args:
            weights: the label of the weights; the expected one where empty.
            fixed_batch: the only batch that the graph takes, or None.

        Raises:
            BenchError: nothing is left to measure.
        """
        cases = self._matrix(weights, fixed_batch)
        kept = tuple(case for case in cases if not any(rule.matches(case) for rule in self.exclude))
        if cases and not kept:
            raise BenchError(
                f"the plan's exclude takes out all {len(cases)} Cases", "Make its rules narrower, or remove some."
            )
        return kept

    @property
    def own_precision(self) -> str:
        """What an ONNX file computes in as it is, where that is less than FP32: then it is its rows' precision."""
        if self.network.kind != "onnx":
            return ""
        from export.precision.audit import precision_of

        return precision_of(Path(self.network.path or "")).replace("fp32", "")

    def notes(self) -> tuple[str, ...]:
        """Sentences on rules that match nothing, and on what a number of lives leaves out."""
        cases = self._matrix()
        idle = [rule for rule in self.exclude if not any(rule.matches(case) for case in cases)]
        notes = [f"exclude: {rule} matches no Case of this plan" for rule in idle]
        if own := self.own_precision:
            notes.append(f"the graph computes in {own}: it is run as it is, and its rows are {own}")
        if self.lives == 1:
            notes.append("--lives 1: what differs between processes of the same Case is in no interval of this run")
        return tuple(notes)

    def only_case(self) -> Case:
        """The one Case of a command that measures one configuration.

        Raises:
            BenchError: a list or an option has several values.
        """
        several = [(AXES[name].case, values) for name, values in self.lists.items() if len(values) > 1]
        cases = self.cases()
        if len(cases) == 1:
            return cases[0]
        what = f"an option of {cases[0].backend} has several values"
        for name, values in several[:1]:
            what = f"--{name} names {len(values)} values: {', '.join(map(str, values))}"
        raise BenchError(what, "Measure one after another; `scarlet-bench run` compares several.")

    def _matrix(self, weights: str = "", fixed_batch: int | None = None) -> tuple[Case, ...]:
        lists = self.lists
        sets = [math.prod(map(len, given.values())) for given in self.options.values()]
        if (n := math.prod(map(len, lists.values())) * max(sets, default=1)) > CASES_MAX:
            raise BenchError(f"the plan has {n:,} Cases", f"Name fewer values: {CASES_MAX:,} are the most.")
        once = {axis.case for axis in AXES.values() if axis.only_timed}
        accuracy = {field.name: field.default for field in fields(Case) if field.name in once}
        accuracy["batch"] = fixed_batch or ACCURACY_BATCH

        own_precision = self.own_precision

        def expanded() -> Iterator[Case]:
            for values in itertools.product(*lists.values()):
                chosen = dict(zip((axis.case for axis in AXES.values()), values, strict=True))
                if not self.backends and runs_nowhere(chosen["backend"], chosen["device"]):
                    continue  # a pair that nobody requested by name need not be a row
                if chosen["scenario"] == "accuracy":
                    chosen |= accuracy
                if own_precision and chosen["precision"] in ("fp32", "tf32"):
                    chosen["precision"] = own_precision
                if chosen["scenario"] in IN_MEMORY:
                    chosen["pipeline"] = lists["pipeline"][0]
                if chosen["scenario"] in LOAD or (chosen["scenario"] == "throughput" and "latency" in self.scenarios):
                    chosen["batch"] = fixed_batch or (max(self.batches) if chosen["scenario"] != "singlestream" else 1)
                given = self.options.get(chosen["backend"], {})
                if chosen["scenario"] == "server" and self.latency_limit_ms:
                    given = {"limit_us": (str(round(1000 * self.latency_limit_ms)),), **given}
                for options in _option_sets(given):
                    case = Case(self.named, weights or self.weights, options=options, **chosen)
                    yield _without_graph_options(case)

        return tuple(dict.fromkeys(expanded()))

    def plan(self, cases: Sequence[Case], weights: str, fixed_batch: int | None = None) -> dict[str, Any]:
        """The matrix and its Cases as plain JSON types, as ``run.json`` keeps them."""
        lists = {name: list(values) for name, values in self.lists.items()}
        lists["pipelines"] = lists.pop("pipeline")
        options = {
            backend: {name: list(values) for name, values in given.items()} for backend, given in self.options.items()
        }
        return {
            "model": self.named,
            "weights": weights,
            **lists,
            "accuracy_batch": fixed_batch or ACCURACY_BATCH,
            "options": options,
            "cases": [case.to_dict() for case in cases],
        }


def path_from_root(path: str) -> str:
    """A path that a user wrote, from the root of the file system; an empty one as it is."""
    return str(Path(path).expanduser().absolute()) if path else path


def _option_sets(values: Mapping[str, Iterable[str]]) -> list[tuple[tuple[str, str], ...]]:
    """Every combination of the values of some options, as ``Case.options`` wants them: an empty value is none."""
    pairs = ([(name, value) for value in values[name]] for name in sorted(values))
    return [tuple(pair for pair in chosen if pair[1]) for chosen in itertools.product(*pairs)]


def _without_graph_options(case: Case) -> Case:
    """The Case without what chooses a graph of lower precision, where it runs on the FP32 one."""
    if case.precision not in ("fp32", "tf32"):
        return case
    kept = tuple((name, value) for name, value in case.options if name not in ("dialect", "recipe"))
    return replace(case, options=kept)


_KEYS = {"budget": "budget_seconds", "timeout": "timeout_seconds"}


def read_plan(path: Path) -> dict[str, Any]:
    """What a plan file gives, as fields of ``RunSpec``; what it does not give keeps the default.

    Raises:
        BenchError: it is not there, is not YAML, or says something that cannot be: one line that names the key.
    """
    data = read_yaml(path, "the plan", "Give a YAML file with --plan.", "backends: [pytorch, onnxruntime]")
    given = {_KEYS.get(str(key), str(key)): value for key, value in data.items() if value is not None}

    def beside(name: str) -> str:
        return str(path.parent / name) if name and (path.parent / name).exists() else name

    try:
        spec = RunSpec(**given).located(beside)
    except BenchError as mistake:
        if isinstance(mistake.__cause__, ValidationError):
            raise _mistake(mistake.__cause__, path) from None
        raise
    return {name: getattr(spec, name) for name in given}


def _mistake(error: ValidationError, path: Path | None = None) -> BenchError:
    """The first mistake as one clear line, in the terms of the plan file ``path`` or of the command line."""
    errors = error.errors(include_url=False)
    # A misspelt key explains others.
    first = min(errors, key=lambda each: each["type"] != "extra_forbidden")
    names = _names(first)
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in names).lstrip(".")
    others = {_names(each) for each in errors} - {names}
    more = f" (and {len(others)} more)" if others else ""
    if first["type"] == _SAID:
        what, do = first["ctx"]["what"], first["ctx"]["do"]
        return BenchError(f"{path}: {key}: {what}{more}" if path else what, do)
    if first["type"] == "extra_forbidden":
        fields_ = Rule.model_fields if names[0] == "exclude" else RunSpec.model_fields
        known = [name.removesuffix("_seconds") for name in fields_]
        near = get_close_matches(str(names[-1]).lower(), known, n=3, cutoff=0.5)
        do = f"Did you mean {' or '.join(near)}?" if near else f"Choose from: {', '.join(known)}."
        return BenchError(f"{path or 'run'}: unknown key '{key}'{more}", do)
    expected, example = _expected(names)
    if path is None:
        value = format(first["input"], "g") if isinstance(first["input"], float) else str(first["input"])
        option = str(names[0]).replace("_", "-")
        return BenchError(f"--{option} {value} is not {expected}", f"Write for example --{option} {example}.")
    value = "no value" if first["input"] is None else shown(first["input"])
    several = ", or a list of such" if _axis(names) else ""
    return BenchError(f"{path}: {key} is {value}{more}", f"It must be {expected}{several}.")


def _names(error: ErrorDetails) -> tuple[str | int, ...]:
    """The keys and indices that lead to a mistake."""
    return tuple(
        part.removesuffix("_seconds") if isinstance(part, str) else part for part in error["loc"] if part != "[key]"
    )


def _axis(names: Sequence[str | int]) -> Axis | None:
    """The dimension that a mistake is about, in a list of the matrix or in a rule."""
    texts = [name for name in names if isinstance(name, str)]
    by_case = {axis.case: axis for axis in AXES.values()}
    return by_case.get(texts[1]) if texts[0] == "exclude" and len(texts) > 1 else AXES.get(texts[0])


_EXPECTED = {
    "budget": ("a number of seconds above 0", "60"),
    "timeout": ("a number of seconds above 0", "1800"),
    "latency_limit_ms": ("a number of milliseconds above 0", "20"),
    "lives": (f"an even number of at least {LEAST_LIVES}, or 1", "6"),
    "rotate_cores": ("true or false", "true"),
    "images": ("a whole number of at least 1, or all", "500"),
    "seed": ("a whole number", "1"),
    "first_label": ("0 or 1", "1"),
    "exclude": ("a list of combinations, such as [{backend: pytorch, batch: 64}]", ""),
    "options": (
        "backend: {name: value}, with text, a number or a list of such as the value; put yes, no, true and the like "
        "in quotes",
        "pytorch.form=plain",
    ),
}


def _expected(names: Sequence[str | int]) -> tuple[str, str]:
    """What a key takes, in words, and an example."""
    axis = _axis(names)
    if axis is not None:
        return ("a name", "cpu") if axis.names else ("a whole number of at least 1", "1,8")
    return _EXPECTED.get(str(names[0]), ("one text: a run has one of it", "text"))
