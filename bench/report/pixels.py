"""What a report says of the pixels: how far each pipeline of a run is from the reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.report.text import number, percent, whole


def pixel_lines(info: Mapping[str, Any]) -> tuple[str, ...]:
    """A sentence on each pipeline that was compared with the reference, or could not be.

    Args:
        info: the content of ``run.json``; runs of before this check have nothing to say.
    """
    lines = []
    for name, found in (info.get("preprocessing") or {}).items():
        if found["status"] == "ok":
            images = found["report"]["images"]
            lines.append(f"{name}: {difference(images['whole'])} on {whole(images['n_images'])} images")
        elif found["status"] == "invalid":
            lines.append(f"{found['reason']}: rows of this pipeline are invalid")
        else:
            lines.append(f"{name}: not compared with the reference: {found['reason']}")
    return tuple(lines)


def difference(part: Mapping[str, Any]) -> str:
    """How far one stage, or the whole path, is from the reference's.

    Args:
        part: ``pipelines.parity.differences.StageDifference`` as plain JSON types.
    """
    if part["max_level_diff"] is None:
        return part["mismatch"] or "nothing was compared with the reference"
    if not part["max_level_diff"]:
        return "the same pixels as the reference"
    levels = number(part["max_level_diff"])
    share = percent(100.0 * part["share_of_pixels_differing"], 1000)
    return f"at most {levels} grey levels from the reference, in {share} % of the pixels"
