"""The rows of the models table: what is published of each model, what its network costs, and what its run measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from bench.analysis.table import DEMO_NOTE, load_frame, load_info
from bench.record.case import Status
from bench.record.run_folder import RUN_INFO, RunFolder
from bench.report.sentences import records
from scarlet.errors import BenchError
from scarlet.zoo import Published, published, rows

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Setup:
    """What a latency was measured with: a column of the table."""

    backend: str
    device: str
    precision: str
    batch: int
    threads: int
    instances: int
    options: str = ""


@dataclass(frozen=True)
class FieldRow:
    """One model.

    Attributes:
        model: canonical name; for a row that is only published the name that papers print.
        status: ``ok`` where a Case of it was measured, ``published`` where it was never requested, else how it ended.
        reason: why, for every status but these two.
        weights: whose; empty where nothing was prepared.
        parameters: of the network; None where it is not known.
        multiply_adds: of convolutions and linear layers for one image; None where they are not known.
        top1_percent: measured, of the run's reference row; None where it has no meaning or was not measured.
        is_demo: data or weights are the demo's.
        latencies: rows of the run's frame, by what they were measured with.
        accuracy: the row of the run's frame that top-1 is of; None where there is none.
    """

    model: str
    status: str
    reason: str = ""
    weights: str = ""
    parameters: int | None = None
    multiply_adds: int | None = None
    published: Published | None = None
    top1_percent: float | None = None
    top5_percent: float | None = None
    n_images: int | None = None
    is_demo: bool = False
    latencies: Mapping[Setup, Row] = field(default_factory=dict)
    accuracy: Row | None = None
    run: Path | None = None
    info: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        times = [
            {
                **asdict(setup),
                **{name: row[name] for name in ("case_id", "status", "reason", "stage", "n_samples")},
                **{name: row[f"latency_ns_{name}"] for name in ("p50", "p50_low", "p50_high")},
            }
            for setup, row in self.latencies.items()
        ]
        left_out = ("info", "accuracy", "latencies", "run", "published")
        own = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in left_out}
        return {
            **own,
            "published": asdict(self.published) if self.published else None,
            "run": str(self.run) if self.run else None,
            "latencies": times,
        }


def row_of_run(path: Path) -> FieldRow:
    """The row of the model that a run measured, from its raw files; BenchError where the folder holds no run."""
    frame, info = records(load_frame(path)), load_info(path)
    if not frame:  # preparing the model failed
        model = str((info.get("settings") or {}).get("model") or path.name)
        return failed_row(model, Status.FAILED, f"run {path.name} stopped before it had a Case: see its logs")
    model = frame[0]["model"]
    scored = [row for row in frame if row["scenario"] == "accuracy"]
    accuracy = _accuracy(scored)
    measured = [row for row in frame if row["status"] in ("ok", "fallback")]
    failed = next((row for row in frame if row["status"] not in ("ok", "fallback")), frame[0])
    files = info.get("model_files") or {}
    return FieldRow(
        model=model,
        status="ok" if measured else failed["status"],
        reason="" if measured else failed["reason"],
        weights=frame[0]["weights"],
        published=published(model),
        top1_percent=accuracy["top1_percent"] if accuracy else None,
        top5_percent=accuracy["top5_percent"] if accuracy else None,
        n_images=accuracy["n_images"] if accuracy else None,
        is_demo=any(DEMO_NOTE in row["note"] for row in frame),
        latencies={
            Setup(**{name: row[name] for name in Setup.__dataclass_fields__}): row
            for row in frame
            if row["scenario"] == "latency"
        },
        accuracy=accuracy,
        run=path,
        info=info,
        **_cost(files),
    )


def failed_row(model: str, status: Status, reason: str) -> FieldRow:
    """The row of a model whose run never began."""
    return FieldRow(model, status.value, " ".join(reason.split()), published=published(model))


def published_rows(besides: Iterable[str]) -> list[FieldRow]:
    """A row for each published model that is not among these: figures of papers alone."""
    taken = set(besides)
    return [FieldRow(row.name, "published", published=row) for row in rows() if row.model not in taken]


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """The runs in these folders: each folder that is one, or else those directly in it, in the order of their names.

    Of the latter those that were stopped before they had a Case are passed over.

    Raises:
        BenchError: a folder holds no run.
    """
    runs = []
    for path in paths:
        inside = [path] if (path / RUN_INFO).is_file() else []
        below = [] if inside else sorted(file.parent for file in path.glob(f"*/{RUN_INFO}"))
        inside = inside or [run for run in below if RunFolder.open(run).planned_cases()]
        if not inside:
            raise BenchError(
                f"{path} holds no run: there is no {RUN_INFO} in it or one folder below",
                "Name the folder of a run, or the folder that an earlier table was written to.",
            )
        runs += inside
    return list(dict.fromkeys(runs))


def setups(rows: Sequence[FieldRow]) -> tuple[Setup, ...]:
    """Every column of latencies, in the order in which the rows have them."""
    return tuple(dict.fromkeys(setup for row in rows for setup in row.latencies))


def _accuracy(scored: Sequence[Row]) -> Row | None:
    """The run's reference row, else the first with a top-1, else the first that was measured."""
    usable = [row for row in scored if row["status"] in ("ok", "fallback")]
    reference = [row for row in usable if row["case_id"] == row["reference_case_id"]]
    known = [row for row in usable if row["top1_percent"] is not None]
    return next(iter([*reference, *known, *usable]), None)


def _cost(files: Mapping[str, Any]) -> dict[str, int | None]:
    """Parameters and multiply-adds, as the run counted them; of a user's graph counted now, where it is still there."""
    if files.get("parameters") or not str(files.get("model", "")).startswith("onnx:"):
        return {name: files.get(name) for name in ("parameters", "multiply_adds")}
    if not Path(str(files.get("onnx", ""))).is_file():
        return {}
    return dict(zip(("parameters", "multiply_adds"), graph_cost(Path(files["onnx"])), strict=True))


def graph_cost(path: Path) -> tuple[int, int | None]:
    """Floating-point numbers among an ONNX file's weights, and its multiply-adds for one image; None for the latter
    where a shape is not known.

    Of a graph whose BatchNorms were folded away the numbers are fewer than its network's parameters.
    """
    import onnx

    from export.compare.values import OnnxValues

    graph = OnnxValues.load(path)
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    sizes = [prod(tensor.dims) for tensor in graph.model.graph.initializer if tensor.data_type in floats]
    costs = list(graph.multiply_adds().values())
    known = [cost for cost in costs if cost is not None]
    return sum(sizes), sum(known) if len(known) == len(costs) else None
