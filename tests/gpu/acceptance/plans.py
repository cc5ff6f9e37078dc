"""What is measured on a GPU, as plan files of ``scarlet-bench run``; they are kept beside the results."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

MODEL = "scarlet_c"
BACKENDS = ("pytorch", "onnxruntime", "tensorrt")
PACKAGES = {"pytorch": "torch", "onnxruntime": "onnxruntime", "tensorrt": "tensorrt"}
PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8")
BATCHES = (1, 64, 256, 8)  # by what they tell: the last are the first to be left out where time is short
IMAGES = 512  # the demo set: more would take longer to make than to measure

QUICK_PRECISIONS = ("fp32", "fp16")
QUICK_BATCHES = (1, 64)
QUICK_IMAGES = 64

# Where the launching of kernels takes longer than they do, CUDA graphs matter.
GRAPH_BATCH = 1
GRAPH_PRECISIONS = ("fp32", "fp16")
GRAPH_OPTION = "graph"

# Passes from files to top-5: a batch and a precision in which the GPU has something to do.
PASS_BATCH = 64
PASS_PRECISION = "fp16"

# The first decodes on the GPU, the second with its JPEG engine's help, the third on the CPU.
PIPELINES = ("dali_gpu", "dali_gpu_engine", "turbo")

Plan = Mapping[str, Any]


def accuracy(precisions: Sequence[str] = PRECISIONS, images: int = IMAGES) -> Plan:
    """Every backend and precision on the reference's pixels, PyTorch on the CPU to compare with, and the GPU's pixels.

    Backends differ by themselves where all see the reference's pixels; pipelines, where one backend sees all of them.
    """
    others = [precision for precision in precisions if precision != "fp32"]
    on_gpu = [name for name in PIPELINES if name.startswith("dali_gpu")]
    rules: list[dict[str, Any]] = [
        {"device": "cpu", "backend": [name for name in BACKENDS if name != "pytorch"]},
        {"device": "cpu", "pipeline": on_gpu},
        {"pipeline": on_gpu, "backend": [name for name in BACKENDS if name != "pytorch"]},
    ]
    if others:
        rules += [{"device": "cpu", "precision": others}, {"pipeline": on_gpu, "precision": others}]
    return {
        **_common(precisions, images),
        "scenarios": ["accuracy"],
        "devices": ["cpu", "cuda"],
        "pipeline": ["reference", *on_gpu],
        "exclude": rules,
    }


def latency(batch: int, precisions: Sequence[str] = PRECISIONS, images: int = IMAGES) -> Plan:
    """Every backend and precision at one batch, kernel by kernel."""
    return {
        **_common(precisions, images),
        "scenarios": ["latency"],
        "devices": ["cuda"],
        "pipeline": ["reference"],  # the pixels are made before anything is timed, and are the same for all
        "batches": [batch],
    }


def graphs(images: int = IMAGES) -> Plan:
    """Every backend at batch 1, with and without CUDA graphs, in turns."""
    return {
        **latency(GRAPH_BATCH, GRAPH_PRECISIONS, images),
        "options": {backend: {GRAPH_OPTION: ["no", "yes"]} for backend in BACKENDS},
    }


def throughput(images: int = IMAGES) -> Plan:
    """Whole passes from files to top-5: every backend on the GPU's pixels, PyTorch on other pipelines' too."""
    return {
        **_common((PASS_PRECISION,), images),
        "scenarios": ["throughput"],
        "devices": ["cuda"],
        "pipeline": list(PIPELINES),
        "batches": [PASS_BATCH],
        "exclude": [
            {"pipeline": list(PIPELINES[1:]), "backend": [name for name in BACKENDS if name != "pytorch"]}
        ],
    }


def absent_backends() -> tuple[str, ...]:
    """Backends whose package is not installed here: their rows can only say so."""
    return tuple(name for name in BACKENDS if importlib.util.find_spec(PACKAGES[name]) is None)


def fewer_of(absent: Sequence[str], plan: Plan) -> Plan:
    """The plan with the first precision alone of backends that are not there: one row says it as well as five.

    Each further one would start a process that imports PyTorch, looks for a GPU, and says the same.
    """
    others = list(plan["precisions"][1:])
    if not absent or not others:
        return plan
    return {**plan, "exclude": [*plan.get("exclude", ()), {"backend": list(absent), "precision": others}]}


def _common(precisions: Sequence[str], images: int) -> dict[str, Any]:
    return {
        "model": MODEL,
        "checkpoint": "demo",
        "backends": list(BACKENDS),
        "precisions": list(precisions),
        "images": images,
    }
