"""What the gate tolerates: ``gate.yaml``, which ships with the project, and what a user's file changes in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bench.record.case import PRECISIONS
from scarlet.errors import BenchError
from scarlet.files import read_yaml

SHIPPED = Path(__file__).with_name("gate.yaml")
# What it is to be, and what to do where it is not; see ``read_yaml``.
_AS = ("the tolerances", "Give a YAML file with --config.", f"alpha: 0.01 (see {SHIPPED})")

Percent = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tolerance(_Strict):
    """One class of tolerance.

    Attributes:
        lead_percent: how far an image's lead may move, in per cent of the median of the baseline's leads, or None.
        lead_images: images whose lead may move farther.
        agreement_percent: share of the images whose top-1 class must be the baseline's, where it holds no leads, or
            None.
        margin_points: points of top-1 that may be lost, or None.
        margin_relative_percent: the same in per cent of the baseline's top-1, or None. One of the two is given.
        against_fp32: compare with the run's own row in FP32 too.
    """

    lead_percent: Percent | None = None
    lead_images: Annotated[int, Field(ge=0)] = 0
    agreement_percent: Percent | None = None
    margin_points: Percent | None = None
    margin_relative_percent: Percent | None = None
    against_fp32: bool = False

    @model_validator(mode="after")
    def _one_margin(self) -> Tolerance:
        if (self.margin_points is None) == (self.margin_relative_percent is None):
            raise ValueError("give margin_points or margin_relative_percent, one of the two")
        return self

    @property
    def margin_alone(self) -> Tolerance:
        """Without what must be identical."""
        return self.model_copy(update={"lead_percent": None, "agreement_percent": None})

    def margin(self, baseline_top1: float) -> float:
        """The margin as a share, 0..1.

        Args:
            baseline_top1: share of these images that the baseline got right. It is taken as it is: its own chance
                error moves a margin of 1 % of it by a hundredth of that error.
        """
        if self.margin_points is not None:
            return self.margin_points / 100.0
        return (self.margin_relative_percent or 0.0) / 100.0 * baseline_top1


class Latency(_Strict):
    """Whether ratios of times are gated, and how far they may grow beyond the baseline's."""

    enabled: bool = False
    tolerance_percent: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10.0


class Sequential(_Strict):
    """The blocks of ``--sequential``: images of the first, growth of all together, seed of the order."""

    first_block: Annotated[int, Field(ge=1)] = 256
    growth: Annotated[float, Field(ge=1.1, allow_inf_nan=False)] = 2.0
    seed: int = 0


class Config(_Strict):
    """The contents of ``gate.yaml``."""

    alpha: Annotated[float, Field(gt=0, lt=0.5)]
    classes: dict[str, Tolerance]
    precisions: dict[str, str]
    unchanged_passes: bool = True
    latency: Latency = Latency()
    sequential: Sequential = Sequential()

    @model_validator(mode="after")
    def _known_names(self) -> Config:
        for precision, name in self.precisions.items():
            if precision not in PRECISIONS:
                raise ValueError(f"precisions: '{precision}' is none of {', '.join(PRECISIONS)}")
            if name not in self.classes:
                raise ValueError(f"precisions: {precision} names the class '{name}', which is not in classes")
        return self

    def of(self, precision: str) -> tuple[str, Tolerance]:
        """Name and tolerance of a precision's class."""
        name = self.precisions[precision]
        return name, self.classes[name]


def load(path: Path | None = None) -> Config:
    """The shipped tolerances, with what a user's file changes.

    Its keys replace the shipped ones: of ``classes`` a whole class at a time, of ``precisions``, ``latency`` and
    ``sequential`` a key at a time.

    Raises:
        BenchError: the file is not there, is no YAML, or says something that cannot be.
    """
    data = read_yaml(SHIPPED, *_AS)
    if path is not None:
        for key, value in read_yaml(path, *_AS).items():
            known = data.get(key)
            data[key] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        what = f"{path or SHIPPED}: {f'{place}: ' if place else ''}{said[:1].lower()}{said[1:]}"
        raise BenchError(what, f"See {SHIPPED} for every key and what it means.") from None
