"""Asks a worker for figures of recipes; a candidate that kills the worker is that candidate's failure alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from bench.studies.quantize.groups import Node
from bench.studies.quantize.measured import Measured, measured
from bench.worker import channel
from bench.worker.channel import WorkerHandle
from export.precision.recipe import Recipe
from scarlet.errors import BenchError


class Evaluator:
    """Measures recipes on sets of images, each once.

    Args:
        request: what a worker is opened with: ``bench.studies.quantize.worker.QuantizeWorker``.
        timeout_seconds: for opening a worker, and for each recipe.
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
        self._worker = channel.Renewed(self._opened)
        self._known: dict[tuple[str, str], Measured | None] = {}
        self.opened: dict[str, Any] = {}

    def open(self) -> tuple[Node, ...]:
        """Starts a worker and has it decode the images; gives the graph's nodes.

        Raises:
            BenchError: the images or the model are at fault, or the worker cannot be opened.
        """
        self._worker.open()
        return tuple(Node(**node) for node in self.opened["nodes"])

    def _opened(self) -> WorkerHandle:
        worker = self._start()
        try:
            self.opened = worker.ask(self._request, self._timeout)
        except channel.WorkerFailed as failure:
            worker.kill()
            what = f"the search could not begin: {failure.reason}"
            raise BenchError(what, failure.do or "See its log.") from None
        return worker

    def measure(
        self, label: str, recipe: Recipe, images: str = "search", limit_seconds: float | None = None
    ) -> Measured | None:
        """Figures of a recipe on a set of images; None where no such graph can be made or run.

        Args:
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
        message = {"do": "evaluate", "recipe": recipe.to_dict(), "set": images}
        try:
            answer = self._worker.ask(message, limit_seconds)
        except channel.WorkerFailed as failure:
            self._say(f"{label}: no such graph: {failure.reason}")
            return None
        return measured(label, recipe, answer["figures"])

    def close(self) -> None:
        """Ends the worker, whatever it is doing."""
        self._worker.kill()
