"""Pipelines for the tests of the gate, reached by worker processes too (through ``PYTHONPATH``)."""

import os
import signal

import numpy as np

from pipelines.base import Batch, PipelineUnavailable, PipelineUnsupported
from pipelines.reference.pipeline import ReferencePipeline, ReferenceStages


class BgrStages(ReferenceStages):
    def decode(self, data):
        return np.ascontiguousarray(super().decode(data)[:, :, ::-1])


class Bgr(ReferencePipeline):
    def __iter__(self):
        mean, std = (np.array(numbers)[:, None, None] for numbers in (self._preprocess.mean, self._preprocess.std))
        for batch in super().__iter__():
            levels = (batch.pixels * std + mean)[:, ::-1]
            yield Batch(batch.indices, ((levels - mean) / std).astype(np.float32))


class Twin(ReferencePipeline):
    """Right in all."""


class Crashing(ReferencePipeline):
    def __iter__(self):
        if os.environ.get("PLANTED_MAIN") != str(os.getpid()):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__iter__()


class Absent(ReferencePipeline):
    def __init__(self, images, batch, threads, preprocess) -> None:
        raise PipelineUnavailable("it is not installed here")


class Unfit(ReferencePipeline):
    def __init__(self, images, batch, threads, preprocess) -> None:
        raise PipelineUnsupported("it has no bicubic filter")


def register() -> None:
    """Adds them under their names in lower case."""
    import pipelines

    for name, stages in (
        ("Bgr", "planted_pipelines:BgrStages"),
        *((name, "pipelines.reference.pipeline:ReferenceStages") for name in ("Twin", "Crashing", "Absent", "Unfit")),
    ):
        pipelines.REGISTRY[name.lower()] = f"planted_pipelines:{name}"
        pipelines.STAGE_REGISTRY[name.lower()] = stages
