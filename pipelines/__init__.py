"""How validation images become batches of pixels."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from models.errors import unknown_name

if TYPE_CHECKING:
    from pipelines.base import Pipeline, Preprocess
    from pipelines.imagenet import Image

# A pipeline is one file and one line here. It is imported when it is opened, not before.
REGISTRY = {
    "reference": "pipelines.reference:ReferencePipeline",
    "dali": "pipelines.dali:DaliPipeline",
}


def names() -> tuple[str, ...]:
    """The names of all pipelines."""
    return tuple(REGISTRY)


def open_pipeline(
    name: str, images: Sequence[Image], batch: int, threads: int, preprocess: Preprocess
) -> Pipeline:
    """Makes a pipeline ready to iterate over ``images``.

    Args:
        name: a name in ``REGISTRY``.
        images: what to read, in this order.
        batch: images a batch; the last one may be smaller.
        threads: decoding threads.
        preprocess: the numbers that turn a decoded image into an input.

    Raises:
        BenchError: the name, or the interpolation, is not known.
        PipelineUnavailable: a package is missing; the text says how to get it.
        PipelineUnsupported: this pipeline cannot do what ``preprocess`` asks.
    """
    if name not in REGISTRY:
        raise unknown_name("pipeline", name, REGISTRY)
    module, _, cls = REGISTRY[name].partition(":")
    opened: Pipeline = getattr(importlib.import_module(module), cls)(images, batch, threads, preprocess)
    return opened
