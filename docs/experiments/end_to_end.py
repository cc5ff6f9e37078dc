"""From JPEG files to top-5: ours against the published evaluation's method and against a tuned PyTorch path.

    python docs/experiments/end_to_end.py [--images 1000] [--rounds 6] [--out results/published/end-to-end]
    python docs/experiments/end_to_end.py --ours "turbo openvino 16 hint=throughput decode_threads=1" --ours ...
    python docs/experiments/end_to_end.py --best results/runs/FOLDER  (what `best` found there, beside the two others)

Each contestant lives in a process of its own and is warmed by one pass; then they take turns, a whole pass each, in
interleaved rounds on the same images. Queues are empty when a pass starts. The top-1 of every image is compared
between all contestants. Prints and writes (Markdown, JSON): images/s, how many times as fast as the two others with
intervals (six rounds at least), and the share of what ours could reach at most by its parts.
Exit code 1 where a top-1 differs; of what `best` found, which may be of a lower precision, its accuracy is told.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from common import Prepared
from numpy.typing import NDArray
from rich.console import Console

from bench import host
from bench.analysis.stats import intervals
from bench.analysis.time.quantiles import PARTS, limit_of_parts, threads_of_parts
from bench.backends import package_versions
from bench.record.case import Case, Status
from bench.record.run_folder import CaseResult, utc_now
from bench.report.sentences import host_line
from bench.run import schedule
from bench.run.images import choose_images
from bench.run.model_files import prepare_files, prepare_request, requirements
from bench.run.spec import RunSpec
from bench.worker import channel
from bench.worker.messages import decode_threads

HERE = str(Path(__file__).resolve().parent)
PROGRAM = f"import sys; sys.path.insert(0, {HERE!r}); from contestants import main; main()"
OURS = (
    "turbo openvino 8 hint=throughput",
    "turbo openvino 32 hint=throughput",
    "turbo onnxruntime 8",
    "turbo onnxruntime 8 threads=1 instances=2",
    "dali openvino 8 hint=throughput",
    "reference openvino 8 hint=throughput",
)
PUBLISHED, TUNED = "published method", "tuned PyTorch"
# A pass of the first contestant on a busy machine.
TIMEOUT_SECONDS = 3600.0


@dataclasses.dataclass
class Entry:
    """A contestant and what it did.

    Attributes:
        name: for people.
        kind: of ``contestants.KINDS``.
        case: what it runs; for the published method only the model and the threads count.
        pass_ns: of each round.
        parts_ns: of each round, nanoseconds an image by part.
        top1: of the last pass.
    """

    name: str
    kind: str
    case: Case
    pass_ns: list[int] = dataclasses.field(default_factory=list)
    parts_ns: list[dict[str, float]] = dataclasses.field(default_factory=list)
    top1: NDArray[np.int64] = dataclasses.field(default_factory=lambda: np.array([], np.int64))


def entries(model: Prepared, ours: Sequence[Entry], without: Sequence[str]) -> list[Entry]:
    """The two others, unless they are left out, and ours."""
    made = [
        Entry(PUBLISHED, "published", model.case("pytorch", batch=128, scenario="throughput")),
        Entry(TUNED, "tuned", model.case("pytorch", batch=32, scenario="throughput")),
    ]
    return [*(entry for entry in made if entry.kind not in without), *ours]


def ours_of(model: Prepared, text: str) -> Entry:
    """``pipeline backend batch [name=value ...]``; threads, instances and precision are fields of the Case."""
    pipeline, backend, batch, *rest = text.split()
    given = dict(item.split("=", 1) for item in rest)
    fields: dict[str, Any] = {name: int(given.pop(name)) for name in ("threads", "instances") if name in given}
    if "precision" in given:
        fields["precision"] = given.pop("precision")
    case = model.case(
        backend,
        pipeline=pipeline,
        batch=int(batch),
        scenario="throughput",
        options=tuple(sorted(given.items())),
        **fields,
    )
    return Entry(text, "ours", case)


def ask(worker: channel.LocalWorker, message: channel.Message) -> channel.Message:
    try:
        return worker.ask(message, TIMEOUT_SECONDS)
    except channel.WorkerFailed as failure:
        raise SystemExit(f"{message['do']}: {failure.line}") from None


def compete(model: Prepared, field: Sequence[Entry], rounds: int, seed: int) -> None:
    """Fills in what each contestant did."""
    run = model.folder("end-to-end", [entry.case for entry in field])
    context = model.context(run).to_dict()
    workers: list[channel.LocalWorker] = []
    try:
        for place, entry in enumerate(field):
            workers.append(channel.LocalWorker(run.path / "logs" / f"{place}.log", entry.case.threads, program=PROGRAM))
            start = {"do": "start", "kind": entry.kind, "case": entry.case.to_dict(), "context": context}
            ask(workers[place], start)
        orders = schedule.rounds(range(len(field)), seed)
        for number in range(-1, rounds):  # the first warms
            for place in next(orders):
                entry, path = field[place], run.path / f"top1-{place}.npy"
                told = ask(workers[place], {"do": "pass", "top1": str(path)})
                rate = len(model.images) * 1e9 / told["pass_ns"]
                print(f"round {number + 1:2} of {rounds}: {entry.name}: {rate:.1f} images/s", flush=True)
                if number < 0:
                    entry.top1 = np.load(path)
                    continue
                entry.pass_ns.append(told["pass_ns"])
                entry.parts_ns.append(told["parts"])
                if not np.array_equal(entry.top1, np.load(path)):
                    raise SystemExit(f"{entry.name}: another top-1 than in the pass before")
    finally:
        for worker in workers:
            worker.stop()


def ratio_words(found: intervals.RatioInterval, digits: int = 2) -> str:
    if found.low is None or found.high is None:
        return f"{found.ratio:.{digits}f}"
    return f"{found.ratio:.{digits}f} ({found.low:.{digits}f} to {found.high:.{digits}f})"


def share_of_limit(entry: Entry, n_images: int) -> tuple[intervals.RatioInterval, dict[str, float], str] | None:
    """The limit's time over the pass's, round by round; images/s of the parts; the part that sets the limit."""
    if not all(entry.parts_ns) or not entry.parts_ns:
        return None
    threads = threads_of_parts(
        CaseResult(entry.case, Status.OK, metrics={"decode_threads": decode_threads(entry.case)})
    )
    medians = {stage: statistics.median(parts[stage] for parts in entry.parts_ns) for stage in PARTS}
    limits = [limit_of_parts(parts, threads, host.allowed_cores())[0] for parts in entry.parts_ns]
    share = intervals.ratio_interval([limit * n_images for limit in limits], entry.pass_ns)
    bound = limit_of_parts(medians, threads, host.allowed_cores())[1]
    return share, {stage: 1e9 / taken for stage, taken in medians.items()}, bound


def outcome(model: Prepared, field: Sequence[Entry]) -> dict[str, Any]:
    """What there is to tell, as plain JSON types."""
    n_images = len(model.images)
    by_kind = {entry.kind: entry for entry in field if entry.kind != "ours"}
    first = field[0]
    rows = []
    for entry in field:
        rates = [n_images * 1e9 / taken for taken in entry.pass_ns]
        interval = intervals.sign_test_interval(rates)
        row: dict[str, Any] = {
            "name": entry.name,
            "case": entry.case.to_dict(),
            "images_per_s": statistics.median(rates),
            "interval": list(interval) if interval else None,
            "pass_ns": entry.pass_ns,
            "parts_ns_per_image": entry.parts_ns,
            "top1_different_from_first": int(np.count_nonzero(entry.top1 != first.top1)),
            "top1_percent": 100.0 * float(np.mean(entry.top1 == [label for _, label in model.images])),
            "unread": int(np.count_nonzero(entry.top1 < 0)),
        }
        for kind, other in by_kind.items():
            if other is not entry:
                row[f"times_{kind}"] = list(intervals.ratio_interval(other.pass_ns, entry.pass_ns))
        limit = share_of_limit(entry, n_images)
        if limit is not None:
            row["share_of_limit"] = list(limit[0])
            row["parts_images_per_s"] = limit[1]
            row["bound_by"] = limit[2]
        rows.append(row)
    different = np.zeros(n_images, bool)
    for entry in field:
        different |= entry.top1 != first.top1
    info = host.describe_host()
    return {
        "command": shlex.join(["python", *sys.argv]),
        "at": utc_now(),
        "host": info,
        "packages": package_versions(),
        "model": model.files.model,
        "weights": model.files.weights,
        "weights_sha256": model.files.weights_sha256,
        "onnx_sha256": model.files.onnx_sha256,
        "n_images": n_images,
        "is_demo": model.is_demo,
        "rounds": len(first.pass_ns),
        "images_with_different_top1": [
            image_id for (image_id, _), differs in zip(model.images, different, strict=True) if differs
        ],
        "contestants": rows,
    }


def markdown(found: dict[str, Any]) -> str:
    """The outcome for people."""
    lines = [
        f"# {found['model']} ({found['weights']} weights), {found['n_images']:,} images, from files to top-1",
        "",
        f"- {host_line({'host': found['host'], 'packages': found['packages']})}",
        f"- {found['at']}, `{found['command']}`",
        f"- {found['rounds']} interleaved rounds, a whole pass each, queues empty at the start; medians over rounds "
        "with 95 % sign-test intervals (six rounds at least)",
    ]
    lines += ["- demo data: not ImageNet accuracy"] if found["is_demo"] else []
    different = found["images_with_different_top1"]
    lines += [
        f"- top-1 identical in all contestants on all {found['n_images']:,} images"
        if not different
        else f"- **top-1 differs between contestants on {len(different)} of {found['n_images']:,} images**: "
        + ", ".join(different[:20]),
        "",
        f"| | images/s | times {PUBLISHED} | times {TUNED} | other top-1 | top-1 % | of sum of parts % | decode/s "
        "| preprocess/s | compute/s | bound by |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in found["contestants"]:
        rate = f"{row['images_per_s']:.1f}"
        if row["interval"]:
            rate += f" ({row['interval'][0]:.1f} to {row['interval'][1]:.1f})"
        cells = [row["name"], rate]
        for kind in ("published", "tuned"):
            ratio = row.get(f"times_{kind}")
            cells.append(ratio_words(intervals.RatioInterval(*ratio)) if ratio else "")
        cells += [str(row["top1_different_from_first"]), f"{row['top1_percent']:.2f}"]
        share, low, high = row.get("share_of_limit") or (None, None, None)
        per_cent = [None if end is None else 100 * end for end in (low, high)]
        cells.append(ratio_words(intervals.RatioInterval(100 * share, *per_cent), 1) if share else "")
        parts = row.get("parts_images_per_s", {})
        cells += [f"{parts[stage]:.0f}" if parts else "" for stage in PARTS]
        lines.append("| " + " | ".join([*cells, row.get("bound_by", "")]) + " |")
    lines += [
        "",
        f"{PUBLISHED}: Pillow, torchvision's evaluation transform, 8 loader workers, eager NCHW, gradients on, batches "
        f"of 128. {TUNED}: the same transform, 2 loader workers that stay, inference mode, channels last, BatchNorm "
        "folded, batches of 32. The first alone would flatter. Other top-1: images whose class differs from the first "
        "row's. Of sum of parts: the least time that the parts allow, "
        "timed alone after each pass on the same cores, over the time of the pass.",
        "",
    ]
    return "\n".join(lines)


def prepare(wanted: argparse.Namespace, folder: Path, best: Case | None) -> Prepared:
    """The model's files, those that the best needs too, and the images."""
    image_set, images = choose_images(None, wanted.images, Console(stderr=True, width=160))
    images = images[: wanted.images]
    data = str(image_set.root.resolve())
    spec, cases = RunSpec(model=wanted.model), [best] if best else []
    files = prepare_files(
        prepare_request(wanted.model, None, data, images),
        log=folder / "prepare.log",
        threads=host.allowed_cores(),
        timeout_seconds=900,
        required=requirements(cases, data, images, spec, Console(stderr=True, width=160)),
    )
    pairs = [(image.image_id, image.label) for image in images]
    return Prepared(folder, data, files, pairs, image_set.is_demo)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="scarlet_c")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ours", action="append", help="pipeline backend batch [name=value ...]")
    parser.add_argument("--best", type=Path, help="the folder of a run of `best`: its winner instead of ours")
    parser.add_argument("--without", action="append", choices=("published", "tuned"), default=[])
    parser.add_argument("--out", type=Path, help="folder that takes end_to_end.md and end_to_end.json")
    wanted = parser.parse_args()
    best = None
    if wanted.best:
        best = Case.from_dict(json.loads((wanted.best / "best.json").read_text())["best"]["case"])
        wanted.model = best.model
    with TemporaryDirectory() as folder:
        model = prepare(wanted, Path(folder), best)
        listed = [ours_of(model, text) for text in wanted.ours or (() if best else OURS)]
        ours = [Entry(f"best: {best.label}", "ours", best), *listed] if best else listed
        field = entries(model, ours, wanted.without)
        compete(model, field, wanted.rounds, wanted.seed)
        found = outcome(model, field)
    text = markdown(found)
    print(f"\n{text}")
    if wanted.out:
        wanted.out.mkdir(parents=True, exist_ok=True)
        (wanted.out / "end_to_end.md").write_text(text)
        (wanted.out / "end_to_end.json").write_text(json.dumps(found, indent=1) + "\n")
    return int(bool(found["images_with_different_top1"]) and best is None)


if __name__ == "__main__":
    sys.exit(main())
