"""How validation images become batches of pixels: which pipelines there are, and how one is chosen and opened."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.base import Pipeline, Preprocess, Stages
from pipelines.imagenet.find import Image
from scarlet.errors import unknown_name
from scarlet.gpu import usable_gpu_is_there

# A pipeline is one line in each of these. It is imported when it is opened, not before.
REGISTRY = {
    "reference": "pipelines.reference.pipeline:ReferencePipeline",
    "dali": "pipelines.dali.pipeline:DaliPipeline",
    "turbo": "pipelines.turbo.pipeline:TurboPipeline",
    "dali_gpu": "pipelines.dali.pipeline:DaliGpuPipeline",
    "dali_gpu_engine": "pipelines.dali.pipeline:engine_pipeline",
}
STAGE_REGISTRY = {
    "reference": "pipelines.reference.pipeline:ReferenceStages",
    "dali": "pipelines.dali.stages:DaliStages",
    "turbo": "pipelines.turbo.pipeline:TurboStages",
    "dali_gpu": "pipelines.dali.stages:DaliGpuStages",
    "dali_gpu_engine": "pipelines.dali.stages:engine_stages",
}
# Their batches lie on a GPU.
ON_GPU = ("dali_gpu", "dali_gpu_engine")


def names() -> tuple[str, ...]:
    """The names of all pipelines."""
    return tuple(REGISTRY)


def default_name(
    devices: Iterable[str],
    cpuinfo: Path = Path("/proc/cpuinfo"),
    gpu_is_there: Callable[[], bool] = usable_gpu_is_there,
) -> str:
    """The pipeline to take where none is named: DALI on a GPU that is to infer, else the fastest that runs here.

    On a CPU ``turbo`` decodes more than twice as many images a second as DALI set up to give the same pixels
    (docs/experiments/decode.py); it needs simplejpeg and a processor with AVX2. Rows of the CPU beside those of a GPU
    get the GPU's pixels too, copied to the host: all rows of a run see the same input.

    Args:
        devices: that are to infer.
        cpuinfo: what Linux tells of the processor.
        gpu_is_there: asks the driver; only where ``cuda`` is among the devices. Without a GPU there, or with one that
            PyTorch's build does not fit, its rows will be unavailable, and those of other devices need a pipeline all
            the same.
    """
    has_dali = _has_dali()
    if has_dali and "cuda" in devices and gpu_is_there():
        return "dali_gpu"
    if importlib.util.find_spec("simplejpeg") is not None and _has_avx2(cpuinfo):
        return "turbo"
    return "dali" if has_dali else "reference"


def fast_names(gpu_is_there: Callable[[], bool] = usable_gpu_is_there) -> tuple[str, ...]:
    """The pipelines that stand in for the reference here: those on a GPU only where there is one."""
    return ("turbo", "dali", *(ON_GPU if _has_dali() and gpu_is_there() else ()))


def _has_dali() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("nvidia", "nvidia.dali"))


def _has_avx2(cpuinfo: Path) -> bool:
    try:
        return "avx2" in cpuinfo.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False


def open_pipeline(name: str, images: Sequence[Image], batch: int, threads: int, preprocess: Preprocess) -> Pipeline:
    """Makes a pipeline ready to iterate over ``images``.

    Args:
        name: a name in ``REGISTRY``.
        batch: images a batch; the last one may be smaller.

    Raises:
        BenchError: the name, or the interpolation, is not known.
        PipelineUnavailable: a package is missing; the text says how to get it.
        PipelineUnsupported: this pipeline cannot do what ``preprocess`` asks.
    """
    opened: Pipeline = _load(REGISTRY, name)(images, batch, threads, preprocess)
    return opened


def refusal(name: str, preprocess: Preprocess) -> str:
    """Why a pipeline can never make a model's pixels as the reference does; empty where it can.

    Whether its packages are here is another question.
    """
    reason: str = _load(REGISTRY, "dali_gpu" if name in ON_GPU else name).refusal(preprocess)
    return reason


def open_stages(name: str, preprocess: Preprocess, threads: int = 1) -> Stages:
    """A pipeline's steps, one at a time.

    Args:
        name: a name in ``REGISTRY``.
        threads: of ``decode_all`` and ``preprocess_all``.

    Raises:
        what ``open_pipeline`` raises.
    """
    opened: Stages = _load(STAGE_REGISTRY, name)(preprocess, threads)
    return opened


def _load(registry: Mapping[str, str], name: str) -> Any:
    if name not in registry:
        raise unknown_name("pipeline", name, registry)
    module, _, cls = registry[name].partition(":")
    return getattr(importlib.import_module(module), cls)
