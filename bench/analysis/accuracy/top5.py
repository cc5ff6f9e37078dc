"""Top-5 predictions and their margins."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.record.files import encodable
from bench.record.raw_tables import TOP

SUM_OFF = 2e-3  # of a row of probabilities in FP16 or BF16
TINY = 1e-30  # in place of a probability of 0


@dataclass
class Predictions:
    """What is kept of each image of a run. At 50,000 images it takes under 2 MB.

    Attributes:
        ids: of the images.
        among: the classes that are chosen from; empty for all.
        are_probabilities: every batch so far held probabilities in place of logits: rows that sum to 1.
    """

    ids: Sequence[str]
    among: Sequence[int] = ()
    are_probabilities: bool = True
    parts: list[tuple[NDArray[np.int64], NDArray[np.int16], NDArray[np.float32]]] = field(default_factory=list)

    def add(self, indices: NDArray[np.int64], logits: NDArray[np.float32]) -> None:
        """Keeps what is needed of a batch's logits, float32 ``(n, classes)``, of the images at these places.

        Raises:
            ValueError: a logit is not finite, or the counts differ.
        """
        if len(indices) != len(logits):
            raise ValueError(f"{len(indices)} images went in and {len(logits)} rows of logits came out")
        self.are_probabilities &= are_probabilities(logits)
        top, margin = top_and_margin(as_logits(logits), [self.ids[place] for place in indices], self.among)
        self.parts.append((np.asarray(indices, dtype=np.int64), top, margin))

    @property
    def n_images(self) -> int:
        return sum(len(index) for index, _, _ in self.parts)

    def columns(self) -> tuple[NDArray[np.int64], NDArray[np.int16], NDArray[np.float32]]:
        """``(index, top, margin)`` of all images: shapes ``(n,)``, ``(n, TOP)``, ``(n,)``.

        Place in the run's list of images; classes by falling logit, fewer than ``TOP`` leave -1; lead of the first: its
        softmax probability minus that of the second, 0..1, and 0 only where they tie.
        """
        empty = (np.zeros(0, dtype=np.int64), np.zeros((0, TOP), np.int16), np.zeros(0, np.float32))
        index, top, margin = (np.concatenate(column) for column in zip(empty, *self.parts, strict=True))
        return index, top, margin


def top_and_margin(
    logits: NDArray[np.floating[Any]], ids: Sequence[str] = (), among: Sequence[int] = ()
) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """The ``TOP`` classes of each row, and how far the first leads.

    The last layer of an INT8 network has few values, and the first two classes of one image in a hundred tie. Classes
    of equal logits are ordered by a hash of the image's id and the class, so that no class is favoured, and that every
    backend decides the same tie alike; without ids by class index.

    Args:
        logits: float32, ``(n, classes)``.
        ids: of the images, ``n`` of them or none.
        among: the classes that are chosen from; empty for all.

    Returns:
        int16 ``(n, TOP)``, and float32 ``(n,)``: difference of the two largest softmax probabilities.

    Raises:
        ValueError: a logit is not finite.
    """
    if not np.isfinite(logits).all():
        raise ValueError("the logits hold NaN or infinite values")
    if len(among):
        top, margin = top_and_margin(logits[:, among], ids)
        return np.where(top < 0, top, np.asarray(among, np.int16)[top]), margin
    kept, rows = min(TOP, logits.shape[1]), np.arange(len(logits))
    order = np.argsort(-logits, axis=1, kind="stable")[:, : kept + 1]
    ordered = np.take_along_axis(logits, order, axis=1)
    order = order[:, :kept]
    for row in np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1)).tolist() if ids else ():
        order[row] = _ranked(logits[row], ids[row])[:kept]
    top = np.full((len(logits), TOP), -1, dtype=np.int16)
    top[:, :kept] = order
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    first = probabilities[rows, order[:, 0]]
    second = probabilities[rows, order[:, 1]] if kept > 1 else np.zeros(len(logits))
    return top, (first - second).astype(np.float32)


def are_probabilities(logits: NDArray[np.floating[Any]]) -> bool:
    """Whether rows are what softmax gives: none below 0, and each sums to 1."""
    return logits.shape[1] > 1 and bool((logits >= 0).all() and (np.abs(logits.sum(axis=1) - 1) < SUM_OFF).all())


def as_logits(logits: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
    """The same, or of probabilities their logarithm: a softmax of it gives them back."""
    return np.log(np.maximum(logits.astype(np.float64), TINY)) if are_probabilities(logits) else logits


def _ranked(logits: NDArray[np.floating[Any]], image_id: str) -> list[int]:
    """The classes that may be among the first ``TOP``, those of equal logits by the hash."""
    least = np.sort(logits)[-TOP:][0]

    def rank(place: int) -> tuple[float, bytes]:
        return -float(logits[place]), hashlib.sha256(encodable(f"{image_id}\n{place}").encode()).digest()

    return sorted(np.flatnonzero(logits >= least).tolist(), key=rank)
