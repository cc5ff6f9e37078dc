"""How far two values of a layer lie apart, taken up one batch at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RTOL = 1e-3
ATOL = 1e-6


@dataclass(frozen=True)
class Tolerance:
    """Two values of a layer agree if their largest difference is at most ``rtol * spread + atol``.

    ``spread`` is the standard deviation of the reference's value over everything (images, channels, pixels).
    """

    rtol: float = RTOL
    atol: float = ATOL


@dataclass(frozen=True)
class Difference:
    """How a layer's value differs from the reference, over all images.

    Attributes:
        max_abs: the largest difference; infinite where one side is not finite and the other is not the same.
        spread: standard deviation of the reference.
        relative: ``max_abs / spread``; 0 where nothing differs, infinite where only the reference does not vary.
        worst_channel: the index on the second axis where ``max_abs`` is found; None without such an axis, or where
            nothing differs.
        sqnr_db: signal-to-quantisation-noise ratio, ``10 log10(sum(reference^2) / sum((reference - other)^2))``;
            infinite where nothing differs.
        shapes: both shapes without the batch, where they are not the same; ``max_abs`` is infinite then.
    """

    max_abs: float
    spread: float
    relative: float
    worst_channel: int | None
    sqnr_db: float
    shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    def beyond(self, tolerance: Tolerance) -> bool:
        """Whether the two values do not agree."""
        return not self.max_abs <= tolerance.rtol * self.spread + tolerance.atol


class Collector:
    """Takes up two values of a layer batch by batch, and keeps sums and maxima of them alone."""

    def __init__(self) -> None:
        self._count = 0
        self._sum = self._squares = self._noise = 0.0
        self._worst: NDArray[np.float64] | None = None
        self._shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    def add(self, reference: NDArray[Any], other: NDArray[Any]) -> None:
        """Both ``(n, ...)``, floating-point, of the same images."""
        if reference.shape != other.shape:
            self._shapes = reference.shape[1:], other.shape[1:]
            return
        for image, its_other in zip(reference, other, strict=True):  # an image at a time: float64 needs room
            self._add(image.astype(np.float64), its_other.astype(np.float64))

    def _add(self, image: NDArray[np.float64], other: NDArray[np.float64]) -> None:
        self._count += image.size
        self._sum += float(image.sum())
        self._squares += float(np.square(image).sum())
        with np.errstate(invalid="ignore"):
            apart = np.abs(image - other)
        # Equal infinities, and NaN on both sides, are no difference; NaN on one side is the largest.
        apart[(image == other) | (np.isnan(image) & np.isnan(other))] = 0.0
        apart[np.isnan(apart)] = np.inf
        self._noise += float(np.square(apart).sum())
        worst = apart.reshape(len(apart), -1).max(axis=1) if apart.ndim else apart.reshape(1)
        self._worst = worst if self._worst is None else np.maximum(self._worst, worst)

    def difference(self) -> Difference:
        """The figures over everything taken up; at least one batch."""
        if self._shapes is not None or self._worst is None:
            return Difference(math.inf, math.nan, math.inf, None, -math.inf, self._shapes)
        mean = self._sum / self._count
        spread = math.sqrt(max(self._squares / self._count - mean * mean, 0.0))
        largest = float(self._worst.max())
        relative = largest / spread if spread > 0 else (math.inf if largest else 0.0)
        ratio = self._squares / self._noise if self._noise else math.inf
        return Difference(
            max_abs=largest,
            spread=spread,
            relative=relative,
            worst_channel=int(self._worst.argmax()) if largest and self._worst.size > 1 else None,
            sqnr_db=10 * math.log10(ratio) if ratio > 0 else -math.inf,
        )
