"""The options that several commands take, each with one name and one meaning, and how they become a RunSpec.

A command lists those that it takes as its parameters, with defaults of its own; ``spec_of`` reads them from its
context.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scarlet.errors import BenchError

if TYPE_CHECKING:
    from bench.run.spec import RunSpec

Model = Annotated[
    str, typer.Option(help="scarlet_a, scarlet_b, scarlet_c, timm/<name>, onnx:<file> and more: docs/models.md.")
]
Checkpoint = Annotated[
    str | None,
    typer.Option(
        help="Weights file (FILE#KEY for those under a key, such as state_dict_ema), demo, random or pretrained "
        "(published ones). Default: demo weights where they exist."
    ),
]
Output = Annotated[str | None, typer.Option(help="Output of an ONNX file that holds the logits, where it has several.")]
Data = Annotated[str | None, typer.Option(help="ImageNet validation folder. Default: a demo set.")]
Calibration = Annotated[
    str | None, typer.Option(help="Folder of images that int8 is calibrated on; none of them is scored.")
]
Pipeline = Annotated[
    str,
    typer.Option(
        help="What makes the pixels, comma-separated: turbo, dali, dali_gpu, dali_gpu_engine, reference. Default: "
        "turbo, or dali_gpu for cuda."
    ),
]
Backend = Annotated[str, typer.Option(help="One backend.")]
Backends = Annotated[
    str, typer.Option(help="Comma-separated. Default: pytorch,onnxruntime and, where it is installed, openvino.")
]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Devices = Annotated[str, typer.Option(help="Comma-separated: cpu, cuda.")]
Precision = Annotated[str, typer.Option(help="fp32, tf32, fp16, bf16 or int8.")]
Precisions = Annotated[str, typer.Option(help="Comma-separated: fp32, tf32, fp16, bf16, int8.")]
Batch = Annotated[int, typer.Option(help="Images per call.")]
Batches = Annotated[str, typer.Option(help="Images per call, comma-separated; accuracy has a batch of its own.")]
Threads = Annotated[str, typer.Option(help="Threads of a backend, comma-separated. Default: all cores.")]
OneThreads = Annotated[int | None, typer.Option(help="Threads of the backend. Default: all cores.")]
Instances = Annotated[str, typer.Option(help="Copies of a backend that work side by side, comma-separated.")]
Scenarios = Annotated[
    str, typer.Option(help="accuracy, latency, throughput; by LoadGen singlestream, multistream, offline, server.")
]
Images = Annotated[str, typer.Option(help="How many images to take, evenly over the classes, or all.")]
Classes = Annotated[
    str | None,
    typer.Option(
        help="File with a class a line, in the order of the network's logits, named as folders or labels are; or "
        "background: class 0 before ImageNet's 1000."
    ),
]
Labels = Annotated[
    str | None, typer.Option(help="File with a line 'name label' for each image of a folder without class folders.")
]
FirstLabel = Annotated[int | None, typer.Option(help="What that file calls the first class: 0 or 1.")]
RestrictClasses = Annotated[
    bool, typer.Option("--restrict-classes", help="Choose among the classes that have images alone, as of ImageNet-R.")
]
Real = Annotated[str | None, typer.Option(help="ReaL labels (real.json) to tell top-1 by as well.")]
Budget = Annotated[
    float, typer.Option(help="Seconds for all timed Cases together, with the starts of their processes.")
]
LatencyLimit = Annotated[float | None, typer.Option(help="Of a server's p99. Default: 3 times its median latency.")]
Lives = Annotated[
    int | None,
    typer.Option(
        help="Fresh processes that measure a timed Case, one after the other: even, at least 4, or 1 (then no interval "
        "holds what processes differ by). Default: what suits the budget."
    ),
]
RotateCores = Annotated[
    bool, typer.Option("--rotate-cores", help="Where cores are left: all Cases of a round on the same ones, in turn.")
]
Timeout = Annotated[float, typer.Option(help="Seconds that one process of a Case, or a step of it, may take.")]
Seed = Annotated[int, typer.Option(help="Of the order of turns.")]
Option = Annotated[
    list[str] | None,
    typer.Option(help="backend.name=value, for example pytorch.form=plain; may be repeated, and value may be a list."),
]
Builds = Annotated[int, typer.Option(help="TensorRT plans to build of each kind, to tell their spread.")]
PlanFile = Annotated[
    Path | None, typer.Option("--plan", help="YAML file with any of these settings, and what to exclude.")
]
RunFolder = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="Folder for this run (default: a new one in results/runs), or a file for what is shown, as of compare.",
    ),
]
Tolerance = Annotated[
    float | None, typer.Option(help="Per cent that it may be slower. Default: 3, or what the machine resolves.")
]
Caption = Annotated[str, typer.Option(help="Of the LaTeX table: plain text.")]
Label = Annotated[str, typer.Option(help="Of the LaTeX table, such as tab:latency.")]

_STATED = {
    "mean": "Subtracted from the pixels: one number, or three for R, G, B, on the 0..1 scale or (above 1) 0..255.",
    "std": "Divided by afterwards, likewise.",
    "resize": "Pixels of the resized side.",
    "crop": "Pixels of the square that is kept: the input's size.",
    "crop_pct": "The kept share of the resized side, instead of --resize.",
    "crop_mode": "center, squash or border, as timm has them.",
    "interpolation": "bilinear, bicubic, lanczos, hamming, box or nearest.",
    "input_size": "The input's size: pixels, or test or train as timm publishes them.",
    "channels": "Order of the input's planes: rgb or bgr.",
}


def preprocessing(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for all that can be stated of a model's preprocessing, for the order of its classes
    and for the labels of images; ``given`` reads them. What is not stated is as the model, or a file beside it, says.
    """
    hints: dict[str, Any] = {name: Annotated[str | None, typer.Option(help=text)] for name, text in _STATED.items()}
    hints |= {"classes": Classes, "labels": Labels, "first_label": FirstLabel}
    signature = inspect.signature(command, eval_str=True)
    new = {name: hint for name, hint in hints.items() if name not in signature.parameters}

    @functools.wraps(command)
    def called(**values: Any) -> None:
        command(**{name: value for name, value in values.items() if name not in new})

    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [inspect.Parameter(name, keyword, default=None, annotation=hint) for name, hint in new.items()]
    called.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])  # type: ignore[attr-defined]
    called.__annotations__ = {name: each.annotation for name, each in called.__signature__.parameters.items()}  # type: ignore[attr-defined]
    return called


# Fields of RunSpec whose options have other names.
FIELDS = {
    "backend": "backends",
    "device": "devices",
    "precision": "precisions",
    "batch": "batches",
    "budget": "budget_seconds",
    "timeout": "timeout_seconds",
    "option": "options",
}


def given(context: typer.Context, explicit: bool = False) -> dict[str, Any]:
    """What the options of a command say, as fields of ``RunSpec``.

    Args:
        explicit: only those that the command line names, without defaults.
    """
    from bench.run.spec import RunSpec

    values = {
        FIELDS.get(name, name): value
        for name, value in context.params.items()
        if value is not None and (not explicit or _is_explicit(context, name))
    }
    stated = {name: value for name, value in values.items() if name in _STATED}
    fields = {name: value for name, value in values.items() if name in RunSpec.model_fields}
    return {**fields, "preprocess": stated} if stated else fields


def spec_of(context: typer.Context, **fixed: Any) -> RunSpec:
    """What the options of a command say, and ``fixed``, which the user cannot choose.

    Raises:
        BenchError: a name is unknown, a number is wrong; it names the option as this command does.
    """
    from bench.run.spec import RunSpec

    try:
        return RunSpec(**{**given(context), **fixed})
    except BenchError as mistake:
        what, do = mistake.what, mistake.do
        for name, field in FIELDS.items():
            if name in context.params:
                what, do = (text.replace(f"--{field} ", f"--{name} ") for text in (what, do))
        raise BenchError(what, do) from None


def run_spec(context: typer.Context) -> RunSpec:
    """As ``spec_of``, for `run`: the plan file says what the command line does not; several builds are an option."""
    from bench.report.sentences import build_options
    from bench.run.spec import RunSpec, read_plan

    settings, plan_file = given(context), context.params["plan_file"]
    if plan_file is not None:
        plan, explicit = read_plan(plan_file), given(context, explicit=True)
        stated = {**plan.get("preprocess", {}), **explicit.get("preprocess", {})}
        settings |= plan | explicit | ({"preprocess": stated} if stated else {})
    if builds := build_options(context.params["builds"]):
        settings["options"] = (*(context.params["option"] or ()), *builds)
    return RunSpec(**settings)


def _is_explicit(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
