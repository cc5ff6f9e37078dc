"""Asks a worker for figures of recipes; a candidate that kills the worker is that candidate's failure alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from bench.run.runner import WorkerHandle
from bench.studies.quantize.groups import Node
from bench.studies.quantize.measured import Measured, measured
from bench.worker import channel
from export.precision.recipe import Recipe
from scarlet.errors import BenchError


class Evaluator:
    """Measures recipes on sets of images, each once.

    Args:
        request: what a worker is opened with: ``bench.studies.quantize.worker.QuantizeWorker``.
        start: starts a worker.
        timeout_seconds: for opening a worker, and for each recipe.
        say: takes a line for people.
    """

    def __init__(
        self,
        request: Mapping[str, Any],
        start: Callable[[], WorkerHandle],
        timeout_seconds: float,
        say: Callable[[str], None],
    ) -> None:
        self._request, self._start = {**request, "do": "open"}, start
        self._timeout, self._say = timeout_seconds, say
        self._worker: WorkerHandle | None = None
        self._known: dict[tuple[str, str], Measured | None] = {}
        self.opened: dict[str, Any] = {}

    def open(self) -> tuple[Node, ...]:
        """Starts a worker and has it decode the images; gives the graph's nodes.

        Raises:
            BenchError: the images or the model are at fault, or the worker cannot be opened.
        """
        self._worker = self._start()
        try:
            answer = self._worker.call(self._request, self._timeout)
        except (channel.WorkerTimeout, channel.WorkerDied) as end:
            self._worker = None
            raise BenchError(
                f"the search could not begin: {_reason(end, self._timeout)}", "See its log."
            ) from None
        if not answer["ok"]:
            raise BenchError(
                f"the search could not begin: {answer['reason']}", answer.get("do", "See its log.")
            )
        self.opened = answer
        return tuple(Node(**node) for node in answer["nodes"])

    def measure(
        self, label: str, recipe: Recipe, images: str = "search", limit_seconds: float | None = None
    ) -> Measured | None:
        """Figures of a recipe on a set of images; None where no such graph can be made or run.

        Args:
            label: what it is, for people.
            recipe: what to measure.
            images: ``search`` or ``confirm``.
            limit_seconds: how long it may take, where that is less than the time-out.

        Raises:
            BenchError: a worker had to be started anew, and cannot be.
        """
        key = (images, recipe.key)
        if key not in self._known:
            limit = min(self._timeout, self._timeout if limit_seconds is None else limit_seconds)
            self._known[key] = self._asked(label, recipe, images, limit)
        found = self._known[key]
        return found and replace(found, label=label)

    def _asked(self, label: str, recipe: Recipe, images: str, limit_seconds: float) -> Measured | None:
        if self._worker is None:
            self.open()
        assert self._worker is not None
        message = {"do": "evaluate", "recipe": recipe.to_dict(), "set": images}
        try:
            answer = self._worker.call(message, limit_seconds)
        except (channel.WorkerTimeout, channel.WorkerDied) as end:
            self._worker = None
            answer = {"ok": False, "reason": _reason(end, limit_seconds)}
        if not answer["ok"]:
            self._say(f"{label}: no such graph: {answer['reason']}")
            return None
        return measured(label, recipe, answer["figures"])

    def close(self) -> None:
        """Ends the worker, whatever it is doing."""
        if self._worker is not None:
            self._worker.kill()
            self._worker = None


def _reason(end: channel.WorkerTimeout | channel.WorkerDied, seconds: float) -> str:
    if isinstance(end, channel.WorkerTimeout):
        return f"it took longer than {seconds:g} s"
    return f"the worker was {end.cause}; its last words: {end.last_words}"
