"""Scores the images of a baseline for a check: all at once, or in growing blocks that end when the verdict is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from bench.backends.base import ModelFiles
from bench.record.case import Case, Status
from bench.record.run_folder import RunFolder
from bench.run import session
from bench.run.images import choose_images
from bench.run.model_files import PreparationFailed
from bench.run.progress import make_listener
from bench.run.runner import Limits, Runner
from bench.run.schedule import by_scenario
from bench.run.spec import RunSpec
from bench.studies.check import baseline as baselines
from bench.studies.check import rows
from bench.studies.check.align import aligned
from bench.studies.check.report import Judged, Report
from bench.studies.check.rows import Order
from bench.studies.check.rules import Verdict, changed_ground
from bench.studies.check.sequential import block_sizes
from bench.studies.check.snapshot import NOT_SCORED, Row, Snapshot, ids_digest, of_run
from bench.studies.check.tolerances import Config, load
from bench.worker.messages import Context
from pipelines.imagenet.find import Image, ImageSet, subset
from scarlet import zoo
from scarlet.errors import BenchError


def check(
    baseline: Path | None,
    model: str,
    current: Path | None,
    config_file: Path | None,
    data: str | None,
    checkpoint: str | None,
    sequential: bool,
    latency: bool,
    console: Console,
) -> tuple[Report, Path | None]:
    """Compares a run with a baseline; gives the report, and the run's folder where one was begun.

    Args: as the options of the command.

    Raises:
        BenchError: a file, a name or a path is at fault. What a change under test broke is not: it is in the report.
        KeyboardInterrupt: the user stopped the run.
    """
    config = load(config_file)
    name = zoo.resolve(model).name
    known = baselines.read(baseline or baselines.default_path(name, baselines.is_demo(data)))
    timed = (latency or config.latency.enabled) and bool(known.timed)
    if current is not None:
        order = np.random.default_rng(config.sequential.seed).permutation(known.n_images)
        run = RunFolder.open(current.resolve())
        scored = Scored(of_run(run, with_timed=timed), Order(order) if sequential else None, run.path)
    else:
        spec = baselines.spec_of(known, data, checkpoint, timed)
        try:
            scored = score(known, spec, config, sequential, console)
        except BenchError as mistake:
            # What the change under test broke is its failure; a wrong path or name is the caller's mistake.
            if not (mistake.stage or isinstance(mistake, PreparationFailed)):
                raise
            reason = mistake.what if mistake.stage else f"{mistake.what}. {mistake.do}"
            return rows.every_row_failed(known, reason, mistake.stage), None
    return rows.judge(known, scored.current, config, latency=timed, order=scored.order), scored.run


def compare_pair(
    run: Path, option: str, names: tuple[str, str], config: Path | None, timed: Sequence[Judged]
) -> Report:
    """The accuracy of two models in one run, image by image; what was said of their times becomes rows of the report.

    Leads move with any change of the weights: only top-1 and its margin are judged.

    Args:
        option: that tells the copies of a Case apart.
        names: its values: of the old model, and of the new one.
    """
    limits = load(config)
    limits = limits.model_copy(update={"classes": {name: each.margin_alone for name, each in limits.classes.items()}})
    both = of_run(RunFolder.open(run))

    def side(name: str) -> Snapshot:
        own = [row for row in both.rows if row.case.option(option) == name]
        return replace(both, name=name, rows=tuple(replace(row, case=row.case.without(option)) for row in own))

    old, new = map(side, names)
    known = replace(old, rows=tuple(row for row in old.rows if row.top1 is not None))
    report = rows.judge(known, new, limits)
    failed = [row.verdict is Verdict.FAIL and row.status == Status.OK.value for row in report.rows]
    # The same code on the same images: only the model differs.
    judged = [
        replace(row, stage=row.stage or "weights") if bad else row for row, bad in zip(report.rows, failed, strict=True)
    ]
    return replace(report, rows=(*judged, *timed))


@dataclass(frozen=True)
class Scored:
    """What was scored.

    Attributes:
        current: the rows; without any where the images are not the baseline's, so that nothing was run.
        order: how a sequential check looks at them; None for all at once.
        run: the run's folder, None where nothing was run.
    """

    current: Snapshot
    order: Order | None = None
    run: Path | None = None


def score(baseline: Snapshot, spec: RunSpec, config: Config, sequentially: bool, console: Console) -> Scored:
    """Runs what a check of this baseline needs, sequentially in blocks; the spec is that of ``baseline.spec_of``.

    Raises:
        BenchError: options, data or checkpoint are at fault.
        KeyboardInterrupt: the user stopped the run.
    """
    image_set, images = choose_images(spec.data, baseline.n_images, console)
    found = _before_running(baseline, image_set, images)
    if found.n_images != baseline.n_images or changed_ground(baseline, found):
        return Scored(found)
    sizes = list(block_sizes(baseline.n_images, config)) if sequentially else [baseline.n_images]
    first = _run(spec.but(data=str(image_set.root), images=sizes[0]), console)
    current = of_run(first, with_timed=spec.scenarios != ("accuracy",))
    if len(sizes) == 1:
        ends = np.array([baseline.n_images])
        order = Order(np.arange(baseline.n_images), ends) if sequentially else None
        return Scored(current, order, first.path)
    return _in_blocks(baseline, aligned(current, baseline), first, images, config, console)


def _before_running(baseline: Snapshot, image_set: ImageSet, images: Sequence[Image]) -> Snapshot:
    """The images as they are now; weights as in the baseline, since none were loaded yet."""
    ids = tuple(image.image_id for image in images)
    return Snapshot(
        name="",
        model=baseline.model,
        dataset={
            "fingerprint": image_set.fingerprint,
            "n_images": len(images),
            "root": str(image_set.root),
            "is_demo": image_set.is_demo,
        },
        ids_sha256=ids_digest(ids),
        labels=np.array([image.label for image in images], dtype=np.int16),
        weights=baseline.weights,
        rows=(),
        ids=ids,
    )


def _run(spec: RunSpec, console: Console) -> RunFolder:
    ended = session.run(spec, None, console)
    if ended.interrupted:
        raise KeyboardInterrupt
    return RunFolder.open(ended.run)


def _in_blocks(
    baseline: Snapshot, current: Snapshot, first: RunFolder, images: Sequence[Image], config: Config, console: Console
) -> Scored:
    """Goes on with new images only, for the rows that are not decided yet.

    Later blocks are runs of their own in the first one's folder, with its model files; pixels were checked there.
    """
    place = {image.image_id: place for place, image in enumerate(images)}
    order = [place[image_id] for image_id, _ in first.read_images()]
    ends = [len(order)]
    for size in list(block_sizes(baseline.n_images, config))[1:]:
        cases = _undecided(baseline, current, config, Order(np.array(order), np.array(ends)))
        if not cases or changed_ground(baseline, current):
            break
        seen = set(order)
        block = [image for image in subset(images, size) if place[image.image_id] not in seen]
        folder = _run_block(first, first.path / "blocks" / str(size), cases, block, console)
        current = _merged(current, aligned(of_run(folder), baseline))
        order += [place[image.image_id] for image in block]
        ends.append(len(order))
    return Scored(current, Order(np.array(order), np.array(ends)), first.path)


def _run_block(
    first: RunFolder, path: Path, cases: Sequence[Case], images: Sequence[Image], console: Console
) -> RunFolder:
    """Scores further images, with the model files of the first run."""
    info = first.read_run_info()
    folder = RunFolder.create(path)
    plan = {"model": (info.get("plan") or {}).get("model"), "cases": [case.to_dict() for case in cases]}
    folder.write_run_info({**{name: info.get(name) for name in ("dataset", "model_files", "packages")}, "plan": plan})
    folder.write_images((image.image_id, image.label) for image in images)
    files, data = ModelFiles.from_dict(info["model_files"]), str(info["dataset"]["root"])
    limits = Limits(float(info["settings"]["timeout_seconds"]))
    with make_listener(console, len(cases)) as listener:
        context = Context(run=str(folder.path), data=data, files=files)
        Runner(folder, context, listener, limits).execute(cases, by_scenario(cases))
    folder.merge_parts()
    return folder


def _undecided(baseline: Snapshot, current: Snapshot, config: Config, order: Order) -> list[Case]:
    """The rows of the run whose verdict is still open."""
    pairs = rows.paired(baseline, current)[0].values()
    n_rows = rows.n_comparisons((pair.current for pair in pairs), config, current)
    cases = [
        pair.current.case
        for pair in pairs
        if rows.judge_row(pair, current, config, n_rows, order).verdict is Verdict.UNRESOLVED
    ]
    # What a row is compared with is needed on the same images.
    bases = [rows.fp32_row(pair.current, current, config) for pair in pairs if pair.current.case in cases]
    return list(dict.fromkeys([*cases, *(base.case for base in bases if base)]))


def _merged(current: Snapshot, block: Snapshot) -> Snapshot:
    """The rows with a further block's predictions; a row that ended otherwise in the block is no longer ok."""
    new = {row.case: row for row in block.rows}
    return replace(current, rows=tuple(_with(row, new[row.case]) if row.case in new else row for row in current.rows))


def _with(row: Row, new: Row) -> Row:
    if row.top1 is None or new.top1 is None or row.margin is None or new.margin is None:
        return new
    scored = new.top1 != NOT_SCORED
    return replace(
        row,
        top1=np.where(scored, new.top1, row.top1).astype(np.int16),
        margin=np.where(scored, new.margin, row.margin).astype(np.float32),
        top1_right=row.top1_right + new.top1_right,
    )
