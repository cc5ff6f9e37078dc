"""What a run is asked for, and whether it makes sense."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pipelines
from bench import host
from bench.backends import REGISTRY, check_options, default_names, option_values, runs_nowhere
from bench.record.case import (
    DEVICES,
    PRECISIONS,
    SCENARIOS,
    Case,
    Plan,
    checked_counts,
    checked_names,
    option_sets,
)
from bench.worker.sampling import STOPS
from scarlet import zoo
from scarlet.errors import BenchError, unknown_name


@dataclass(frozen=True)
class Settings:
    """What `scarlet-bench run` was asked for, as text and numbers; kept in run.json so that --resume repeats it.

    Attributes: as the options of the same names. ``images`` is a count, ``all`` or empty for the default;
    ``pipeline`` and ``backends`` empty mean what suits this machine, ``threads`` empty all cores that this process may
    use; ``pipeline`` may name several, comma-separated; ``options`` holds ``backend.name=value`` texts, of which
    several may name one option, and a value may be a list with commas; ``exclude`` the rules of a plan file, as of
    ``bench.run.plan_file.Rule``.
    """

    model: str = "scarlet_c"
    checkpoint: str | None = None
    data: str | None = None
    pipeline: str = ""
    backends: str = ""
    devices: str = "cpu"
    precisions: str = "fp32"
    batches: str = "1,8"
    threads: str = ""
    instances: str = "1"
    scenarios: str = "accuracy,latency"
    images: str = ""
    budget_seconds: float = 60.0
    timeout_seconds: float = 1800.0
    seed: int = 0
    stop: str = "precision"
    calibration: str | None = None
    options: tuple[str, ...] = ()
    exclude: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Checked:
    """The settings with every name and number checked, before anything slow begins."""

    spec: zoo.ModelSpec
    pipelines: tuple[str, ...]
    backends: tuple[str, ...]
    devices: tuple[str, ...]
    precisions: tuple[str, ...]
    batches: tuple[int, ...]
    threads: tuple[int, ...]
    instances: tuple[int, ...]
    scenarios: tuple[str, ...]
    n_images: int | None
    options: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)

    def one_of(self, backend: str) -> tuple[tuple[str, str], ...]:
        """The options of one backend as of ``Case.options``, for a command that measures one configuration.

        Raises:
            BenchError: an option was given several values.
        """
        sets = option_sets(self.options.get(backend, {}))
        if len(sets) > 1:
            raise BenchError(
                f"an option of {backend} has several values",
                "Give one; `scarlet-bench run` compares several.",
            )
        return sets[0]


def check(settings: Settings) -> Checked:
    """Checks what can be checked without touching data or frameworks.

    Raises:
        BenchError: a name is unknown, a number is wrong.
    """
    for kind, seconds in (("budget", settings.budget_seconds), ("timeout", settings.timeout_seconds)):
        if not seconds > 0:
            raise BenchError(
                f"--{kind} {seconds:g} is not a time", f"Give seconds above 0, for example --{kind} 60."
            )
    checked_names("stop rule", [settings.stop], STOPS)
    devices = checked_names("device", settings.devices.split(","), DEVICES)
    named = settings.pipeline or pipelines.default_name(devices)
    return Checked(
        spec=zoo.resolve(settings.model),
        pipelines=checked_names("pipeline", named.split(","), pipelines.names()),
        backends=checked_names(
            "backend", settings.backends.split(",") if settings.backends else default_names(devices), REGISTRY
        ),
        devices=devices,
        precisions=checked_names("precision", settings.precisions.split(","), PRECISIONS),
        batches=checked_counts("batches", settings.batches.split(",")),
        threads=checked_counts("threads", (settings.threads or str(host.allowed_cores())).split(",")),
        instances=checked_counts("instances", settings.instances.split(",")),
        scenarios=checked_names("scenario", settings.scenarios.split(","), SCENARIOS),
        n_images=image_count(settings.images),
        options=_backend_options(settings.options),
    )


def image_count(text: str) -> int | None:
    """The number of images that ``--images`` asks for; 0 for all, None for the default.

    Raises:
        BenchError: the text is neither empty, a number above 0 nor ``all``.
    """
    wanted = text.strip().lower()
    if not wanted:
        return None
    if wanted == "all":
        return 0
    if not wanted.isdecimal() or int(wanted) < 1:
        raise BenchError(
            f"--images '{text}' is neither a number above 0 nor 'all'", "Write --images 500 or all."
        )
    return int(wanted)


def _backend_options(texts: tuple[str, ...]) -> dict[str, dict[str, tuple[str, ...]]]:
    """The values of each option of each backend: of one that was given twice both, and of a list all of it."""
    options: dict[str, dict[str, tuple[str, ...]]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        backend, dot, option = name.partition(".")
        if not (equals and dot and option):
            raise BenchError(
                f"--option '{text}' is not of the form backend.name=value",
                "Write --option pytorch.form=plain.",
            )
        if backend not in REGISTRY:
            raise unknown_name("backend", backend, REGISTRY)
        values = option_values(backend, option, value)
        for one in filter(None, values):
            check_options(backend, {option: one})
        known = options.setdefault(backend, {}).get(option, ())
        options[backend][option] = tuple(dict.fromkeys([*known, *values]))
    return options


@dataclass(frozen=True)
class Planned:
    """The Cases of a run, and what is to be said about those left out."""

    plan: Plan
    cases: tuple[Case, ...]
    notes: tuple[str, ...]


def _without_graph_options(case: Case) -> Case:
    """The Case without what chooses a graph of lower precision, where it runs on the FP32 one."""
    if case.precision not in ("fp32", "tf32"):
        return case
    kept = tuple((name, value) for name, value in case.options if name not in ("dialect", "recipe"))
    return replace(case, options=kept)


def planned(settings: Settings, checked: Checked, weights: str, fixed_batch: int | None = None) -> Planned:
    """Expands the matrix, and leaves out what the plan file excludes.

    Args:
        settings: as given.
        checked: of ``check(settings)``.
        weights: the label of the weights.
        fixed_batch: the only batch that the graph takes, or None.
    """
    from bench.run import plan_file

    plan = Plan(
        model=checked.spec.name,
        weights=weights,
        backends=checked.backends,
        devices=checked.devices,
        precisions=checked.precisions,
        pipelines=checked.pipelines,
        batches=checked.batches,
        threads=checked.threads,
        instances=checked.instances,
        scenarios=checked.scenarios,
        accuracy_batch=fixed_batch or Plan.accuracy_batch,
        options=checked.options,
    )
    cases = tuple(dict.fromkeys(map(_without_graph_options, plan.cases())))
    if not settings.backends:
        cases = tuple(case for case in cases if not runs_nowhere(case.backend, case.device))
    kept = plan_file.exclude(cases, plan_file.rules_from(settings.exclude))
    return Planned(plan, kept.cases, kept.notes)
