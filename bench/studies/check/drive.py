"""Scores the images of a baseline for a check: all at once, or in growing blocks that end when the verdict is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from bench.backends.base import ModelFiles
from bench.record.case import Case
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
from bench.studies.check.report import Report
from bench.studies.check.rows import Order
from bench.studies.check.rules import Verdict, changed_ground
from bench.studies.check.sequential import block_sizes
from bench.studies.check.snapshot import NOT_SCORED, Row, Snapshot, ids_digest, of_run
from bench.studies.check.tolerances import Config, load
from bench.worker.messages import Context
from pipelines.imagenet.find import Image, subset
from scarlet import zoo
from scarlet.errors import BenchError

Scored = tuple[Snapshot, Order | None, Path | None]


@dataclass(frozen=True)
class Request:
    """What is to be checked: fields as the options of the command."""

    baseline: Path | None
    model: str
    current: Path | None
    config: Path | None
    data: str | None
    checkpoint: str | None
    sequential: bool
    latency: bool


def check(request: Request, console: Console) -> tuple[Report, Path | None]:
    """Compares a run with a baseline; gives the report, and the run's folder where one was begun.

    Raises:
        BenchError: a file, a name or a path is at fault. What a change under test broke is not: it is in the report.
        KeyboardInterrupt: the user stopped the run.
    """
    config, name = load(request.config), zoo.resolve(request.model).name
    path = request.baseline or baselines.default_path(name, baselines.is_demo(request.data))
    known = baselines.read(path)
    timed = (request.latency or config.latency.enabled) and bool(known.timed)
    if request.current is not None:
        order = Order(np.random.default_rng(config.sequential.seed).permutation(known.n_images))
        run = RunFolder.open(request.current.resolve())
        scored: Scored = of_run(run, with_timed=timed), order if request.sequential else None, run.path
    else:
        spec = baselines.spec_of(known, request.data, request.checkpoint, timed)
        try:
            scored = score(known, spec, config, request.sequential, console)
        except BenchError as mistake:
            # What the change under test broke is its failure; a wrong path or name is the caller's mistake.
            if not (mistake.stage or isinstance(mistake, PreparationFailed)):
                raise
            reason = mistake.what if mistake.stage else f"{mistake.what}. {mistake.do}"
            return rows.every_row_failed(known, reason, mistake.stage), None
    snapshot, looks, folder = scored
    return rows.judge(known, snapshot, config, latency=timed, order=looks), folder


def score(baseline: Snapshot, spec: RunSpec, config: Config, sequentially: bool, console: Console) -> Scored:
    """Runs what a check of this baseline needs, sequentially in blocks; the spec is that of ``baseline.spec_of``.

    Returns:
        the rows, none where the images are not the baseline's, so that nothing was run; how a sequential check looks at
        them, None for all at once; and the run's folder, None where nothing was run.

    Raises:
        BenchError: options, data or checkpoint are at fault.
        KeyboardInterrupt: the user stopped the run.
    """
    image_set, images = choose_images(spec.data, baseline.n_images, console, spec.labelling)
    ids, labels = [image.image_id for image in images], [image.label for image in images]
    # Weights as in the baseline: none were loaded yet.
    found = replace(
        baseline,
        name="",
        dataset={"fingerprint": image_set.fingerprint},
        ids=tuple(ids),
        ids_sha256=ids_digest(ids),
        labels=np.array(labels, dtype=np.int16),
        rows=(),
    )
    if changed_ground(baseline, found):
        return found, None, None
    sizes = list(block_sizes(baseline.n_images, config)) if sequentially else [baseline.n_images]
    first = _run(spec.but(data=str(image_set.root), images=sizes[0]), console)
    current, place = of_run(first, with_timed=spec.scenarios != ("accuracy",)), {id_: n for n, id_ in enumerate(ids)}
    if len(sizes) == 1:
        return current, Order(np.arange(len(ids)), np.array(sizes)) if sequentially else None, first.path
    order = np.array([place[id_] for id_ in current.ids])
    rows_ = tuple(_unscored(row, len(ids)) for row in current.rows)
    whole = replace(current, ids=found.ids, ids_sha256=found.ids_sha256, labels=found.labels, rows=rows_)
    current, ends = _joined(whole, current, order), [len(order)]
    # Later blocks, of the rows that are not decided yet, are runs of their own in the first one's folder, with its
    # model files; pixels were checked there.
    for size in sizes[1:]:
        cases = _undecided(baseline, current, config, Order(order, np.array(ends)))
        if not cases or changed_ground(baseline, current):
            break
        seen = set(order.tolist())
        block = [image for image in subset(images, size) if place[image.image_id] not in seen]
        places = np.array([place[image.image_id] for image in block])
        folder = _run_block(first, first.path / "blocks" / str(size), cases, block, console)
        current, order = _joined(current, of_run(folder), places), np.append(order, places)
        ends.append(len(order))
    return current, Order(order, np.array(ends)), first.path


def _run(spec: RunSpec, console: Console) -> RunFolder:
    ended = session.run(spec, None, console)
    if ended.interrupted:
        raise KeyboardInterrupt
    return RunFolder.open(ended.run)


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


def _unscored(row: Row, n: int) -> Row:
    """The row of no image of n yet, where it is ok; digests and top-5 counts are of all images or none."""
    if row.top1 is None:
        return row
    top1, margin = np.full(n, NOT_SCORED, dtype=np.int16), np.zeros(n, dtype=np.float32)
    return Row(row.case, top1=top1, margin=margin, no_accuracy=row.no_accuracy)


def _joined(current: Snapshot, block: Snapshot, places: NDArray[np.intp]) -> Snapshot:
    """The rows with the predictions of a block, whose images have these places; a row that ended otherwise in the block
    is no longer ok.
    """
    new = {row.case: row for row in block.rows}

    def join(row: Row) -> Row:
        other = new.get(row.case, row)
        if row.top1 is None or row.margin is None or other.top1 is None or other is row:
            return other
        top1, margin = row.top1.copy(), row.margin.copy()
        top1[places], margin[places] = other.top1, other.margin
        return replace(row, top1=top1, margin=margin, top1_right=row.top1_right + other.top1_right)

    return replace(current, rows=tuple(map(join, current.rows)))
