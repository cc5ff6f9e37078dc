"""One recipe with what was measured of it, whether it keeps within the margin, and who has a worker measure it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from bench.analysis.stats import paired
from bench.studies.quantize.groups import Node
from bench.worker import channel
from bench.worker.channel import WorkerHandle
from export.precision.recipe import Recipe
from scarlet.errors import BenchError

BOUND, ESTIMATE = "bound", "estimate"


@dataclass(frozen=True)
class Measured:
    """A recipe's predictions against FP32's on the same images, on the same backend.

    Attributes:
        fp32_right: of them, how many FP32 gets right.
        changed: images whose first class differs.
        margin_shift: mean change of the softmax margin between the two first classes, 0..1: tells recipes apart where
            few predictions change.
        not_as_asked: those that the graph quantises and the runtime computes in float.
        seconds: what making the graph and predicting took.
    """

    label: str
    recipe: Recipe
    n: int
    fp32_right: int
    wins: int
    losses: int
    changed: int
    margin_shift: float
    asked: int
    layers: int
    not_as_asked: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def right(self) -> int:
        """Images that the recipe gets right."""
        return self.fp32_right + self.wins - self.losses

    @property
    def top1_percent(self) -> float:
        return 100.0 * self.right / self.n

    @property
    def fp32_top1_percent(self) -> float:
        return 100.0 * self.fp32_right / self.n

    @property
    def difference(self) -> paired.Bound:
        """Of the two accuracies, with its 95 % interval, as shares."""
        return paired.paired_bound(self.wins, self.losses, self.n, 0.025)

    @property
    def order(self) -> tuple[float, ...]:
        """The larger, the closer to FP32: by images lost, then by images right, then by margins.

        Not by images right at first: a rounding that turns a few predictions to the good by chance has turned as many
        to the bad elsewhere, and the number of losses tells damage from luck with fewer images.
        """
        return -self.losses, self.right, -self.margin_shift

    def holds(self, margin_percent: float) -> str:
        """Whether top-1 falls by no more than a margin.

        Args:
            margin_percent: in per cent of FP32's top-1, not in points.

        Returns:
            ``bound`` where the lower end of the difference's 95 % interval is within the margin (non-inferiority, with
            an error of 2.5 % on that side), ``estimate`` where only the difference itself is; else nothing.
        """
        accepted = -margin_percent / 100.0 * self.fp32_right / self.n
        if self.difference.low >= accepted:
            return BOUND
        return ESTIMATE if self.difference.difference >= accepted else ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        low, high = (100.0 * end for end in self.difference[1:])
        return {
            **asdict(self),
            "recipe": self.recipe.to_dict(),
            "top1_percent": self.top1_percent,
            "fp32_top1_percent": self.fp32_top1_percent,
            "difference_points": 100.0 * self.difference.difference,
            "difference_points_95": [low, high],
        }


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
            figures = self._worker.ask(message, limit_seconds)["figures"]
        except channel.WorkerFailed as failure:
            self._say(f"{label}: no such graph: {failure.reason}")
            return None
        return Measured(label, recipe, **{**figures, "not_as_asked": tuple(figures["not_as_asked"])})

    def close(self) -> None:
        """Ends the worker, whatever it is doing."""
        self._worker.kill()
