"""A pipeline's stages against the reference's, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.report.tables import Table
from bench.report.text import number, whole

_HEADER = ("Stage", "Max levels", "Mean levels", "Pixels %", "Flips", "Verdict")


def stage_table(pipeline: str, found: Mapping[str, Any]) -> Table:
    """A pipeline's stages against the reference's: a row a stage, and one for the whole path.

    Args:
        pipeline: its name.
        found: what ``bench.run.pixel_gate.ask`` gave.
    """
    report, flips = found["report"], found["flips"] or {}
    images, probes = report["images"], report["probes"]
    counted = flips.get("by_stage", {})
    parts = zip([*images["stages"], images["whole"]], [*probes["stages"], probes["whole"]], strict=True)
    return Table(
        title=f"{pipeline} against reference, {whole(images['n_images'])} images",
        header=_HEADER,
        rows=tuple(_stage_row(part, probed, counted) for part, probed in parts),
        numeric=(False, True, True, True, True, False),
        notes=tuple(_stage_notes(found, images, probes, flips)),
    )


def _stage_row(
    part: Mapping[str, Any], probed: Mapping[str, Any], flips: Mapping[str, int | None]
) -> tuple[str, ...]:
    verdict = "within" if part["within"] else "outside"
    share = part["share_of_pixels_differing"]
    return (
        part["stage"],
        number(part["max_level_diff"]),
        number(part["mean_level_diff"]),
        "" if share is None else number(100.0 * share),
        whole(flips.get(part["stage"])),
        "outside, on probes" if part["within"] and not probed["within"] else verdict,
    )


def _stage_notes(
    found: Mapping[str, Any], images: Mapping[str, Any], probes: Mapping[str, Any], flips: Mapping[str, Any]
) -> Iterator[str]:
    if found["reason"]:
        yield found["reason"]
    yield "each stage is given what the reference's stage before it made; levels are grey levels, 0 to 255"
    if flips:
        yield (
            f"flips: changed top-1 predictions of {whole(flips['n_images'])} images, with this one stage swapped "
            f"({flips['backend']})"
        )
    yield f"probes: {whole(probes['n_images'])} images made to show what these may not: odd sizes, EXIF orientation"
    for n, words in (
        (images["n_fallbacks"], "left to the reference, and not compared stage by stage"),
        (images["n_bad"], "unreadable"),
    ):
        if n:
            yield f"{whole(n)} of the images: {words}"
