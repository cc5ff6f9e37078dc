"""MNN, a runtime made for mobile networks, on the CPU."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.backends.base import Facts, ModelFiles, NoOptions, Unsupported, read_options, refuse_case
from bench.backends.graphs import TypedGraph, graph_for, graph_proof
from bench.record.case import Case
from export.mnn import Session


class Mnn:
    """MNN in FP32, its file made of the ONNX graph, with one session for each size of batch."""

    FACTS: ClassVar[Facts] = Facts(
        name="mnn", display_name="MNN", colour="#E69F00", module="MNN", packages={"cpu": "mnn"}, graph="export.mnn"
    )

    def __init__(self) -> None:
        self._sessions: dict[int, Session] = {}
        self._graph: TypedGraph | None = None

    def load(self, case: Case, files: ModelFiles) -> None:
        read_options(NoOptions, case)
        refuse_case(self.FACTS, case, files)
        if case.precision != "fp32":
            raise Unsupported(f"this backend runs MNN in fp32 only; measure {case.precision} on another backend")
        if case.instances > 1 and case.threads > 1:
            raise Unsupported("MNN's copies in one process share their threads; use --threads 1 with instances")
        self._mnn = self.FACTS.import_runtime(case.device)
        self._graph = graph_for(case, files.typed)
        assert self._graph is not None
        self._interpreter = self._mnn.Interpreter(self._graph.path)
        self._case, self._size = case, files.input_size
        threads = self._session(case.batch).threads
        if threads != case.threads:
            raise Unsupported(f"MNN was told {case.threads} threads and took {threads} on this machine")

    def _session(self, batch: int) -> Session:
        """The session that takes batches of this size."""
        if batch not in self._sessions:
            shape = (batch, 3, self._size, self._size)
            self._sessions[batch] = Session(self._interpreter, shape, self._case.threads)
        return self._sessions[batch]

    def infer(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._session(len(pixels)).infer(pixels)

    def proof(self) -> dict[str, Any]:
        facts = self._session(self._case.batch).facts()
        elsewhere = "" if facts.pop("on_cpu") else f"MNN ran on {facts['kind']}, and the CPU was asked for"
        return {
            "version": self._mnn.version(),
            "precision": "high",
            "batches": sorted(self._sessions),
            **facts,
            **graph_proof(self._graph),
            "fallback": elsewhere,
        }

    def close(self) -> None:
        self._sessions.clear()
        self._interpreter = None
