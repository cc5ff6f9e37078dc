"""Top-5 predictions and their margins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bench.record.raw_tables import TOP


@dataclass
class Predictions:
    """One row an image, in columns. At 50,000 images these columns take under 2 MB.

    Attributes:
        index: place of the image in the run's list of images.
        top: class indices by falling logit, ``TOP`` of them (fewer classes leave -1).
        margin: softmax probability of the first class minus that of the second, 0..1.
    """

    index: list[NDArray[np.int64]] = field(default_factory=list)
    top: list[NDArray[np.int16]] = field(default_factory=list)
    margin: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, indices: NDArray[np.int64], logits: NDArray[np.float32]) -> None:
        """Keeps what is needed of a batch's logits.

        Args:
            indices: int64, ``(n,)``.
            logits: float32, ``(n, classes)``; every value finite.

        Raises:
            ValueError: a logit is not finite, or the counts differ.
        """
        if len(indices) != len(logits):
            raise ValueError(f"{len(indices)} images went in and {len(logits)} rows of logits came out")
        top, margin = top_and_margin(logits)
        self.index.append(np.asarray(indices, dtype=np.int64))
        self.top.append(top)
        self.margin.append(margin)

    @property
    def n_images(self) -> int:
        return sum(len(part) for part in self.index)

    def columns(self) -> tuple[NDArray[np.int64], NDArray[np.int16], NDArray[np.float32]]:
        """``(index, top, margin)`` of all images: shapes ``(n,)``, ``(n, TOP)``, ``(n,)``."""
        return (
            _joined(self.index, np.zeros(0, dtype=np.int64)),
            _joined(self.top, np.zeros((0, TOP), dtype=np.int16)),
            _joined(self.margin, np.zeros(0, dtype=np.float32)),
        )


def _joined(parts: Iterable[NDArray], empty: NDArray) -> NDArray:  # type: ignore[type-arg]
    return np.concatenate([empty, *parts])


def top_and_margin(logits: NDArray[np.float32]) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """The ``TOP`` classes of each row, and how far the first leads.

    Equal logits are ordered by class index, so that the order never depends on the sorting method.

    Args:
        logits: float32, ``(n, classes)``.

    Returns:
        int16 ``(n, TOP)``, and float32 ``(n,)``: difference of the two largest softmax probabilities.

    Raises:
        ValueError: a logit is not finite.
    """
    if not np.isfinite(logits).all():
        raise ValueError("the logits hold NaN or infinite values")
    kept = min(TOP, logits.shape[1])
    order = np.argsort(-logits, axis=1, kind="stable")[:, :kept]
    top = np.full((len(logits), TOP), -1, dtype=np.int16)
    top[:, :kept] = order
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    rows = np.arange(len(logits))
    first = probabilities[rows, order[:, 0]]
    second = probabilities[rows, order[:, 1]] if kept > 1 else np.zeros(len(logits))
    return top, (first - second).astype(np.float32)
