"""TensorRT, on NVIDIA GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bench.backends.base import Facts, ModelFiles, Unavailable, read_options, refuse_case
from bench.backends.cuda import Lane, OnLane, gpu_facts, l2_note, require_cuda
from bench.backends.graphs import TypedGraph, graph_for, graph_proof
from bench.backends.tensorrt.engine import Engine
from bench.backends.tensorrt.proof import engine_proof
from bench.record.case import Case
from export.store import Artefact, Store
from export.tensorrt import GPU_FACTS, PlanSpec, TensorRtUnavailable, import_tensorrt, plan_for


@dataclass(frozen=True)
class Options:
    """Options of TensorRT.

    Attributes:
        graph: ``yes`` launches a captured CUDA graph for batches of the Case's size; ``no`` enqueues every call.
            Smaller batches are always enqueued.
        level: the builder's optimisation level; by TensorRT's default 3.
        build: a plan of its own for each number, its kernels timed anew, to tell the spread between builds. Without
            it, the plan that is built with this machine's timing cache.
        dialect: of the graph of an INT8 Case; see ``bench.backends.graphs``.
        recipe: a file that says how that graph is made.
    """

    graph: Literal["no", "yes"] = "no"
    level: Literal["0", "1", "2", "3", "4", "5"] = "3"
    build: int | None = None
    dialect: Literal["symmetric"] | None = None
    recipe: str | None = None


class TensorRt(OnLane):
    """TensorRT with a plan for the Case's batch and smaller ones, strongly typed: precision is what the graph says.

    FP32 runs with TF32 cleared, in all precisions but ``tf32``: what a graph leaves in FP32 is computed in FP32.
    """

    FACTS: ClassVar[Facts] = Facts(
        name="tensorrt",
        display_name="TensorRT",
        colour="#009E73",
        module="tensorrt",
        packages={"cuda": "tensorrt"},
        dialects={"fp16": ("",), "bf16": ("",), "int8": ("symmetric",)},
        options=Options,
        default="always",
        profiler="bench.backends.tensorrt.profiler:TensorRtProfiler",
    )

    def __init__(self) -> None:
        self.engine: Engine | None = None
        self._proof: dict[str, Any] = {}

    def load(self, case: Case, files: ModelFiles) -> None:
        options = read_options(Options, case)
        refuse_case(self.FACTS, case, files)
        require_cuda(case)
        import torch

        typed = graph_for(case, files.typed)
        self._onnx = Path(typed.path if typed else files.onnx)
        facts = gpu_facts()
        try:
            trt = import_tensorrt()
            plan = _plan(case, options, files, typed, facts, str(trt.__version__))
        except TensorRtUnavailable as missing:
            raise Unavailable(str(missing)) from missing
        torch.set_num_threads(case.threads)  # they copy pixels to where the GPU fetches them
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        shape = (case.batch, 3, files.input_size, files.input_size)
        graph = options.graph == "yes"
        self.engine = Engine(trt, plan.path, stream, shape, files.classes, graph)
        self._lane = Lane(self.engine.compute, any_address=not graph, stream=stream)
        self._case = case
        # What a first call does besides (loading kernels, capturing) belongs to loading.
        self._lane.infer(np.zeros(shape, np.float32))
        self._proof = {
            "version": str(trt.__version__),
            "gpu": facts,
            "plan": str(plan.path),
            "plan_sha256": plan.sha256,
            "plan_bytes": plan.path.stat().st_size,
            "build": {**plan.facts, "level": int(options.level), "number": options.build or 0},
            "cuda_graph": graph,
            "l2": l2_note(case),
            **graph_proof(typed),
        }

    def infer(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        assert self._lane is not None
        return self._lane.infer(pixels)

    def proof(self) -> dict[str, Any]:
        from export.precision.audit import requested_by_onnx

        assert self.engine is not None
        return {
            **self._proof,
            "profile": self.engine.profile,
            "other_batches": self.engine.other_batches,
            **engine_proof(self.engine.information(), requested_by_onnx(self._onnx), self._case.precision),
        }

    def close(self) -> None:
        if self._lane is not None:
            self._lane.close()
        self.engine = self._lane = None


def _plan(
    case: Case, options: Options, files: ModelFiles, typed: TypedGraph | None, facts: Mapping[str, Any], version: str
) -> Artefact:
    """The Case's plan, from the store or built."""
    spec = PlanSpec(
        onnx=typed.path if typed else files.onnx,
        onnx_sha256=typed.sha256 if typed else files.onnx_sha256,
        opt_batch=case.batch,
        max_batch=case.batch,
        tf32=case.precision == "tf32",
        level=int(options.level),
        build=options.build or 0,
    )
    gpu = {name: str(facts[name] or "unknown") for name in GPU_FACTS}
    return plan_for(spec, gpu, version, Store())
