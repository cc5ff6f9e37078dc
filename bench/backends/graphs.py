"""Which Case runs on which graph: the FP32 one, or one that the preparing step made of it for the Case.

The prepared graphs are kept by key in ``ModelFiles.typed``. The key says what was asked for: ``fp16``, ``bf16``,
``int8/ort``, ``int8/symmetric``, ``int8/nncf``, ``int8@<file>`` for a recipe of the user's, or ``fp32/<backend>`` for
the FP32 graph in the format of a backend. A value is
``{"path", "sha256", "facts"}``, or ``{"status", "reason"}`` where the graph could not be made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.backends import facts
from bench.backends.base import Unavailable, Unsupported
from bench.record.case import Case, Status
from scarlet.errors import BenchError


@dataclass(frozen=True)
class TypedGraph:
    """A prepared graph of lower precision.

    Attributes:
        path: ``.onnx``, or ``.xml`` with its ``.bin`` beside it.
        facts: see ``export.precision.lower.make_typed``.
    """

    path: str
    sha256: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, order=True)
class Wanted:
    """A graph that some Case needs.

    Attributes:
        recipe: the user's file, or empty for the default recipe.
        converter: module of ``export`` that makes it of the FP32 graph; then nothing else is about it.
    """

    key: str
    precision: str
    dialect: str = ""
    recipe: str = ""
    converter: str = ""


def wanted_by(case: Case) -> Wanted | None:
    """The graph that a Case needs besides the FP32 one, or None.

    Options ``dialect`` and ``recipe`` (a file) of the Case are heeded where its backend takes such a graph.

    Raises:
        Unsupported: the backend does not take the dialect that the Case asks for.
    """
    stated = facts(case.backend)
    if case.precision == "fp32" and stated.graph not in ("onnx", "module"):
        return Wanted(f"fp32/{case.backend}", "fp32", converter=stated.graph)
    dialects = stated.dialects.get(case.precision)
    if dialects is None:
        return None
    recipe = case.option("recipe")
    if recipe:
        return Wanted(f"{case.precision}@{recipe}", case.precision, case.option("dialect"), recipe)
    dialect = case.option("dialect", dialects[0])
    if dialect not in dialects:
        raise _other_dialect(case, dialect)
    key = f"{case.precision}/{dialect}" if dialect else case.precision
    return Wanted(key, case.precision, dialect)


def needed(cases: Iterable[Case]) -> tuple[Wanted, ...]:
    """Every graph that some of the Cases need, once, in order of the keys."""
    found = set()
    for case in cases:
        try:
            wanted = wanted_by(case)
        except Unsupported:  # the Case says so itself when it is run
            continue
        if wanted is not None:
            found.add(wanted)
    return tuple(sorted(found))


def graph_for(case: Case, typed: Mapping[str, Mapping[str, Any]]) -> TypedGraph | None:
    """The prepared graph of a Case; None where it runs on the FP32 one.

    Raises:
        Unavailable: a package was missing when the graph was to be made, or nobody made it.
        Unsupported: the backend takes no such graph.
        BenchError: the graph could not be made.
    """
    wanted = wanted_by(case)
    if wanted is None:
        return None
    entry = typed.get(wanted.key)
    if entry is None:
        raise Unavailable(f"the {wanted.key} graph was not prepared")
    if "path" in entry:
        graph = TypedGraph(entry["path"], entry["sha256"], entry["facts"])
        if not wanted.converter:
            _check_taken(case, graph)
        return graph
    if entry["status"] == Status.UNAVAILABLE.value:
        raise Unavailable(entry["reason"])
    raise BenchError(f"the {wanted.key} graph could not be made: {entry['reason']}", entry.get("do", "See its log."))


def graph_proof(graph: TypedGraph | None) -> dict[str, Any]:
    """What a row's proof says of the graph that it ran: nothing of the FP32 one, whose digest the run has."""
    return {} if graph is None else {"graph_sha256": graph.sha256, "graph": dict(graph.facts)}


def _check_taken(case: Case, graph: TypedGraph) -> None:
    """A recipe's file decides its dialect, which the backend may not take."""
    recipe = graph.facts["recipe"]
    if recipe["precision"] != case.precision:
        raise Unsupported(f"the recipe {case.option('recipe')} is of precision {recipe['precision']}")
    if recipe["dialect"] not in facts(case.backend).dialects[case.precision]:
        raise _other_dialect(case, recipe["dialect"])


def _other_dialect(case: Case, dialect: str) -> Unsupported:
    takes = ", ".join(facts(case.backend).dialects[case.precision])
    return Unsupported(f"{case.backend} takes no {case.precision} graph of dialect '{dialect}'; it takes: {takes}")
