"""How far one stage of a pipeline is from the reference's, over some images, and how far it may be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines import ON_GPU
from pipelines.base import Preprocess
from pipelines.reference.pipeline import crop_offset

WHOLE = "whole path"

# Grey levels of the whole path are recovered from float32 planes: their last digits are rounding, not difference.
LEVEL_DECIMALS = 3


@dataclass(frozen=True)
class Tolerance:
    """How far a stage may be from the reference's, in grey levels (0..255): any value, and the mean over all.

    Attributes:
        usual_levels, share_beyond: a larger share (0..1) of all values than this may not differ by more levels.
    """

    max_levels: float
    mean_levels: float
    usual_levels: float = math.inf
    share_beyond: float = 0.0


# A resized value that lies half-way between two levels may be rounded either way, in each of Pillow's two passes: 2
# levels in about one of ten million values. Cutting fractions off instead of rounding them would be 0.5 in the mean.
_ROUNDING = Tolerance(2.0, 0.25)

TOLERANCES: Mapping[str, Tolerance] = {
    # DALI on the CPU and Pillow both decode with libjpeg-turbo, to equal pixels.
    "decode": Tolerance(0.0, 0.0),
    "resize": _ROUNDING,
    # It moves pixels and computes none.
    "crop": Tolerance(0.0, 0.0),
    # The order of the operations in float32 moves a value by up to 0.00003 levels.
    "normalise": Tolerance(0.001, 0.001),
    WHOLE: Tolerance(_ROUNDING.max_levels + 0.001, _ROUNDING.mean_levels + 0.001),
}

# nvJPEG is another decoder than libjpeg-turbo. What may differ by the standards: each inverse transform is within a
# level of the exact one (IEEE 1180), so that two differ by up to two levels in luma and chroma; interpolating chroma
# rounds once more; and blue is luma plus 1.772 times chroma (ITU-T T.871): 2 + 1.772 * 3, and half a level of rounding,
# are 8. That takes all of it in one place: pydicom's tests of nvImageCodec found 5 at most, and 3 in 99.99 % of values.
# Without the interpolation it is tens of levels at every coloured edge. The mean is half of what DALI allows its own
# decoders in its tests (one level, test_fancy_upsampling). Not yet confirmed on hardware.
_NVJPEG = Tolerance(8.0, 0.5, 3.0, 1e-4)
_ON_GPU: Mapping[str, Tolerance] = {
    **TOLERANCES,
    "decode": _NVJPEG,
    WHOLE: Tolerance(
        _NVJPEG.max_levels + TOLERANCES[WHOLE].max_levels,
        _NVJPEG.mean_levels + TOLERANCES[WHOLE].mean_levels,
        _NVJPEG.usual_levels + TOLERANCES[WHOLE].max_levels,
        _NVJPEG.share_beyond,
    ),
}


def tolerances_of(pipeline: str) -> Mapping[str, Tolerance]:
    """How far each stage of a pipeline may be from the reference, and its whole path: by the stage's name."""
    return _ON_GPU if pipeline in ON_GPU else TOLERANCES


@dataclass(frozen=True)
class StageDifference:
    """One stage, or the whole path, against the reference's; levels are grey levels, 0..255.

    Resized images are compared in the part that the crop keeps: the rest never reaches a network.

    Attributes:
        stage: a name of ``STAGES``, or ``WHOLE``.
        n_outside: how many images differ by more than ``max_levels_allowed``, or cannot be compared.
        max_level_diff: largest difference of any channel of any pixel; None where nothing could be compared.
        mean_level_diff: mean absolute difference over all channels of all pixels; likewise.
        share_of_pixels_differing: share (0..1) of pixels with a difference in any channel; likewise.
        max_levels_allowed, mean_levels_allowed: the tolerance.
        worst_image_id: the image with the largest difference, the first of them; None where none differs.
        mismatch: what cannot be compared, such as another size: a few words on the first such image; or that too many
            values are far off; else empty.
    """

    stage: str
    n_images: int
    n_outside: int
    max_level_diff: float | None
    mean_level_diff: float | None
    share_of_pixels_differing: float | None
    max_levels_allowed: float
    mean_levels_allowed: float
    worst_image_id: str | None = None
    mismatch: str = ""

    @property
    def within(self) -> bool:
        """Whether the stage is within its tolerance."""
        if self.mismatch or self.n_outside:
            return False
        return self.mean_level_diff is None or self.mean_level_diff <= self.mean_levels_allowed

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: the fields, and ``within``."""
        return {**asdict(self), "within": self.within}

    def words(self, which: str = "images") -> str:
        """What is outside the tolerance, in a few words; ``which`` names the images."""
        if self.mismatch:
            return self.mismatch
        if self.n_outside:
            return (
                f"{self.n_outside} of {self.n_images} {which} differ by more than {self.max_levels_allowed:.3g} grey "
                f"levels, by up to {self.max_level_diff:.3g}"
            )
        return (
            f"{self.n_images} {which} differ by {self.mean_level_diff or 0.0:.3g} grey levels in the mean, "
            f"more than {self.mean_levels_allowed:.3g}"
        )


@dataclass
class Tally:
    """Gathers the differences of one stage, image by image; ``preprocess`` turns normalised values into grey levels."""

    stage: str
    preprocess: Preprocess
    tolerance: Tolerance
    _largest: dict[str, float] = field(default_factory=dict)
    _means: list[float] = field(default_factory=list)
    _shares: list[float] = field(default_factory=list)
    _beyond: list[float] = field(default_factory=list)
    _n_outside: int = 0
    _n_failed: int = 0
    _mismatch: str = ""

    def add(self, image_id: str, expected: NDArray[Any], got: NDArray[Any]) -> None:
        """Counts one image in: what the reference makes of it, and what the pipeline does."""
        if mismatch := _mismatch(expected, got):
            self.fails(image_id, mismatch)
            return
        levels = level_differences(self.stage, self._seen(expected), self._seen(got), self.preprocess)
        self._largest[image_id] = float(levels.max())
        self._means.append(float(levels.mean()))
        self._shares.append(float((levels > 0).any(axis=2).mean()))
        self._beyond.append(float((levels > self.tolerance.usual_levels).mean()))
        self._n_outside += self._largest[image_id] > self.tolerance.max_levels

    def _seen(self, made: NDArray[Any]) -> NDArray[Any]:
        """What can reach the network: of a resized image only the centre, which the crop keeps."""
        if self.stage != "resize":
            return made
        side = self.preprocess.crop
        top, left = (max(0, offset) for offset in crop_offset(made.shape[0], made.shape[1], side))
        return made[top:, left:][:side, :side]

    def fails(self, image_id: str, reason: str) -> None:
        """Counts one image in that cannot be compared."""
        self._n_failed += 1
        self._mismatch = self._mismatch or f"{reason} ({image_id})"

    def difference(self) -> StageDifference:
        """What was gathered."""
        worst, largest = max(self._largest.items(), key=lambda item: item[1], default=("", 0.0))
        return StageDifference(
            stage=self.stage,
            n_images=len(self._means) + self._n_failed,
            n_outside=self._n_outside + self._n_failed,
            max_level_diff=largest if self._means else None,
            mean_level_diff=float(np.mean(self._means)) if self._means else None,
            share_of_pixels_differing=float(np.mean(self._shares)) if self._means else None,
            max_levels_allowed=self.tolerance.max_levels,
            mean_levels_allowed=self.tolerance.mean_levels,
            worst_image_id=worst if largest else None,
            mismatch=self._mismatch or self._crowd(),
        )

    def _crowd(self) -> str:
        share, allowed = float(np.mean(self._beyond or [0.0])), self.tolerance
        if share <= allowed.share_beyond:
            return ""
        most = f"{allowed.usual_levels:.3g} grey levels, and {allowed.share_beyond:.2%} may"
        return f"{share:.2%} of values differ by more than {most}"


def _mismatch(expected: NDArray[Any], got: NDArray[Any]) -> str:
    """Why the two cannot be compared value by value, in a few words; else empty."""
    if got.shape != expected.shape:
        return f"it gives {_sides(got.shape)}, not {_sides(expected.shape)}"
    if got.dtype != expected.dtype:
        return f"it gives {got.dtype}, not {expected.dtype}"
    return "" if np.isfinite(got).all() else "it gives values that are not finite"


def _sides(shape: Sequence[int]) -> str:
    """An array's shape for people: ``224 x 224 x 3``."""
    return " x ".join(map(str, shape))


def level_differences(
    stage: str, expected: NDArray[Any], got: NDArray[Any], preprocess: Preprocess
) -> NDArray[np.float64]:
    """Absolute differences in grey levels, the channel last.

    Args:
        stage: what made both.
        expected, got: uint8, ``(height, width, 3)``; of ``normalise`` and whole paths float32, ``(3, height, width)``.
        preprocess: its std turns normalised values into grey levels.
    """
    levels: NDArray[np.float64] = np.abs(expected.astype(np.float64) - got)
    if stage not in ("normalise", WHOLE):
        return levels
    levels = levels.transpose(1, 2, 0) * np.asarray(preprocess.levels_per_unit)
    return np.round(levels, LEVEL_DECIMALS) if stage == WHOLE else levels
