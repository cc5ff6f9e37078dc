"""A plan file: what to measure, as YAML. Its keys are the options of ``scarlet-bench run``; lists expand against one
another, and ``exclude`` takes combinations out::

    model: scarlet_c
    backends: [pytorch, onnxruntime]
    batches: [1, 8, 64]
    threads: [1, 2]
    budget: 120
    options:
      pytorch: {form: [plain, tuned]}
    exclude:
      - {backend: pytorch, batch: 64}
      - {threads: 1, batch: [8, 64]}

A rule of ``exclude`` takes out the Cases that match all its keys; a list means any of its values. Accuracy Cases have
a batch of their own, which no rule means that does not name ``scenario: accuracy``. Paths are relative to the folder
that the command is called from, as they are on the command line.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
)
from pydantic_core import ErrorDetails

import pipelines
from bench.backends import REGISTRY
from bench.record.case import DEVICES, PRECISIONS, SCENARIOS, Case
from bench.record.files import one_line
from scarlet.errors import BenchError

Count = Annotated[StrictInt, Field(ge=1)]
Seconds = Annotated[StrictInt | StrictFloat, Field(gt=0, allow_inf_nan=False)]


def _listed(value: Any) -> Any:
    """One value stands for a list of it; text is split at commas, as on the command line."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value if isinstance(value, list) else [value]


def _counted(value: Any) -> Any:
    """As ``_listed``, with numbers for the digits in text."""
    return [int(item) if isinstance(item, str) and item.isdecimal() else item for item in _listed(value)]


Names = Annotated[list[StrictStr], BeforeValidator(_listed), Field(min_length=1)]
Counts = Annotated[list[Count], BeforeValidator(_counted), Field(min_length=1)]


OptionValues = Annotated[
    list[StrictStr | StrictInt | StrictFloat],
    BeforeValidator(lambda value: value if isinstance(value, list) else [value]),
    Field(min_length=1),
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rule(_Strict):
    """One combination that is not measured: fields of a Case, each with the values that match."""

    backend: Names | None = None
    device: Names | None = None
    precision: Names | None = None
    pipeline: Names | None = None
    batch: Counts | None = None
    threads: Counts | None = None
    instances: Counts | None = None
    scenario: Names | None = None

    def matches(self, case: Case) -> bool:
        """All keys of the rule match; a rule without keys matches nothing."""
        given = self.model_dump(exclude_none=True)
        if case.scenario == "accuracy" and "batch" in given and "accuracy" not in given.get("scenario", ()):
            return False
        return bool(given) and all(getattr(case, name) in values for name, values in given.items())

    def __str__(self) -> str:
        given = self.model_dump(exclude_none=True)
        pairs = (f"{name}: {values[0] if len(values) == 1 else values}" for name, values in given.items())
        return "{" + ", ".join(pairs) + "}"


class PlanFile(_Strict):
    """The contents of a plan file. Keys that are not given keep the defaults of the command line."""

    model: StrictStr | None = None
    checkpoint: StrictStr | None = None
    data: StrictStr | None = None
    pipeline: Names | None = None
    backends: Names | None = None
    devices: Names | None = None
    precisions: Names | None = None
    batches: Counts | None = None
    threads: Counts | None = None
    instances: Counts | None = None
    scenarios: Names | None = None
    images: Count | StrictStr | None = None
    budget: Seconds | None = None
    timeout: Seconds | None = None
    seed: StrictInt | None = None
    stop: StrictStr | None = None
    calibration: StrictStr | None = None
    options: dict[StrictStr, dict[StrictStr, OptionValues]] = Field(default_factory=dict)
    exclude: list[Rule] = Field(default_factory=list)

    def settings(self) -> dict[str, Any]:
        """What was given, as fields of ``bench.run.settings.Settings``."""
        fields: dict[str, Any] = {}
        for name, value in self.model_dump(exclude_none=True, exclude={"options", "exclude"}).items():
            if name in ("budget", "timeout"):
                fields[f"{name}_seconds"] = float(value)
            elif isinstance(value, list):
                fields[name] = ",".join(map(str, value))
            else:
                fields[name] = value if name == "seed" else str(value)
        if self.options:
            fields["options"] = tuple(
                f"{backend}.{name}={value}"
                for backend, pairs in self.options.items()
                for name, values in pairs.items()
                for value in values
            )
        if self.exclude:
            fields["exclude"] = tuple(rule.model_dump(exclude_none=True) for rule in self.exclude)
        return fields


@dataclass(frozen=True)
class Kept:
    """What a plan's rules leave.

    Attributes:
        cases: those to measure, in order.
        n_excluded: how many the rules took out.
        notes: sentences on rules that matched nothing.
    """

    cases: tuple[Case, ...]
    n_excluded: int
    notes: tuple[str, ...]


def exclude(cases: Iterable[Case], rules: Sequence[Rule]) -> Kept:
    """Takes out the Cases that a rule matches.

    Raises:
        BenchError: nothing is left to measure.
    """
    planned = tuple(cases)
    kept = tuple(case for case in planned if not any(rule.matches(case) for rule in rules))
    if planned and not kept:
        raise BenchError(
            f"the plan's exclude takes out all {len(planned)} Cases",
            "Make its rules narrower, or remove some.",
        )
    idle = [rule for rule in rules if not any(rule.matches(case) for case in planned)]
    notes = tuple(f"exclude: {rule} matches no Case of this plan" for rule in idle)
    return Kept(kept, len(planned) - len(kept), notes)


def rules_from(data: Iterable[Mapping[str, Any]]) -> list[Rule]:
    """Rules out of plain JSON types: ``rule.model_dump(exclude_none=True)`` of each, as a run stores them."""
    return [Rule.model_validate(dict(rule)) for rule in data]


def read(path: Path) -> PlanFile:
    """Reads a plan file.

    Raises:
        BenchError: it is not there, is not YAML, or says something that cannot be: one line that names the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise BenchError(
            f"the plan {path} cannot be read: {reason}", "Give a YAML file with --plan."
        ) from None
    try:
        data = yaml.load(text, Loader=_UniqueKeys)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        said = getattr(error, "problem", None) or one_line(error)
        raise BenchError(
            f"{path}{where}: {said}", "Mend the YAML: a key and a value a line, such as batches: [1, 8]."
        ) from None
    if not isinstance(data, dict):
        what = f"{path} holds {'nothing' if data is None else 'no mapping of keys to values'}"
        raise BenchError(what, "Write for example: backends: [pytorch, onnxruntime].")
    try:
        plan = PlanFile.model_validate(data)
    except ValidationError as error:
        raise _mistake(path, error.errors(include_url=False)) from None
    _check_rules(path, plan.exclude)
    return plan


class _UniqueKeys(yaml.SafeLoader):
    """The safe loader, which runs no code; a key given twice is a mistake, where YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key '{key}' is given twice", key_node.start_mark
                    )
                seen.add(key)
        return super().construct_mapping(node, deep)


def _mistake(path: Path, errors: Sequence[ErrorDetails]) -> BenchError:
    """The first mistake as one clear line, in the file's own terms."""
    first = min(
        errors, key=lambda error: error["type"] != "extra_forbidden"
    )  # a misspelt key explains others
    names = _names(first)
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in names).lstrip(".")
    others = {_names(error) for error in errors} - {names}
    more = f" (and {len(others)} more)" if others else ""
    if first["type"] == "extra_forbidden":
        known = Rule.model_fields if str(names[0]) == "exclude" else PlanFile.model_fields
        near = get_close_matches(str(names[-1]).lower(), list(known), n=3, cutoff=0.5)
        do = f"Did you mean {' or '.join(near)}?" if near else f"Choose from: {', '.join(known)}."
        return BenchError(f"{path}: unknown key '{place}'{more}", do)
    found = "no value" if first["input"] is None else repr(first["input"])
    return BenchError(f"{path}: {place} is {found}{more}", f"It must be {_expected(names)}.")


def _names(error: ErrorDetails) -> tuple[str | int, ...]:
    """The keys and places that lead to a mistake, without the names that pydantic gives to alternatives of a type."""
    internal = ("constrained-", "int", "float", "str", "[key]")
    return tuple(
        part
        for part in error["loc"]
        if isinstance(part, int) or (part not in internal and not part.startswith(internal[0]))
    )


def _expected(names: Sequence[str | int]) -> str:
    """What a key takes, in words."""
    top = str(names[0])
    if top == "exclude":
        top = next((str(part) for part in names[1:] if isinstance(part, str)), "")
        if not top:
            return "a list of combinations, such as [{backend: pytorch, batch: 64}]"
    if top in ("batches", "batch", "threads", "instances"):
        return "a whole number of at least 1, or a list of such"
    if top in ("budget", "timeout"):
        return "a number of seconds above 0"
    if top == "images":
        return "a whole number of at least 1, or all"
    if top == "seed":
        return "a whole number"
    if top == "options":
        return (
            "backend: {name: value}, with text, a number or a list of such as the value; put yes, no, true and the "
            "like in quotes"
        )
    if top in ("model", "checkpoint", "data"):
        return "one text: a run has one of it"
    return "a name, or a list of names"


def _check_rules(path: Path, rules: Sequence[Rule]) -> None:
    """Names in rules: those of the lists are checked with the other settings."""
    known: dict[str, Iterable[str]] = {
        "backend": REGISTRY,
        "device": DEVICES,
        "precision": PRECISIONS,
        "pipeline": pipelines.names(),
        "scenario": SCENARIOS,
    }
    for number, rule in enumerate(rules):
        if not rule.model_dump(exclude_none=True):
            raise BenchError(
                f"{path}: exclude[{number}] names nothing", f"Use {', '.join(Rule.model_fields)}."
            )
        for name, names in known.items():
            for value in getattr(rule, name) or ():
                if value not in names:
                    near = get_close_matches(value.lower(), list(names), n=3, cutoff=0.5) or sorted(names)
                    what = f"{path}: exclude[{number}].{name}: unknown {name} '{value}'"
                    raise BenchError(what, f"Did you mean {' or '.join(near)}?")
