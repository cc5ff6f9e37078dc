"""How images become a model's input: settled before anything is prepared, and what must be said of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pipelines
from bench.record.case import Case
from bench.run.spec import WEIGHTS, RunSpec
from bench.worker import channel
from bench.worker.prepare import Request, describe
from scarlet.errors import BenchError
from scarlet.preprocess import Preprocess

REFERENCE = "reference"
TIMEOUT_SECONDS = 300.0


def settle(spec: RunSpec, source: str) -> tuple[RunSpec, dict[str, Any]]:
    """Asks the model how it wants to be fed, and the pipelines whether they can.

    Args:
        spec: as the user gave it.
        source: the model, with a path from the root.

    Returns:
        the spec with all differences from what its model is usually fed, and with pipelines that can make it; for
        ``run.json`` the ``preprocess``, its ``source`` and the pipelines that the reference stands in for
        (``replaced``: by name, why), or nothing where the model cannot be asked: preparing it will tell why.

    Raises:
        BenchError: the model or a statement of its preprocessing is at fault.
    """
    checkpoint = spec.checkpoint or ""
    if checkpoint not in ("", *WEIGHTS) and not any(map(os.path.exists, (checkpoint, checkpoint.rpartition("#")[0]))):
        raise BenchError(f"checkpoint '{checkpoint}' does not exist", "Check the path, or leave --checkpoint out.")
    request: dict[str, Any] = {"model": source, "preprocess": spec.preprocess}
    try:
        if spec.network.kind in ("scarlet", "onnx"):
            answer = describe(Request(**request))
        else:  # frameworks are for workers
            message = {"do": "describe", "request": request}
            answer = channel.ask_once(message, Path(os.devnull), 1, TIMEOUT_SECONDS)
    except channel.WorkerFailed as failure:
        if failure.is_mistake:
            raise BenchError(failure.reason, failure.do) from None
        return spec, {}
    preprocess = Preprocess.from_dict(answer["preprocess"])
    asked = spec.lists["pipeline"]
    replaced = {name: reason for name in asked if (reason := pipelines.refusal(name, preprocess))}
    able = dict.fromkeys(REFERENCE if name in replaced else name for name in asked)
    settled = spec.but(preprocess=answer["differences"], pipeline=tuple(able))
    return settled, {"preprocess": answer["preprocess"], "source": answer["source"], "replaced": replaced}


def warnings_of(model_input: Mapping[str, Any], cases: Sequence[Case]) -> list[dict[str, Any]]:
    """What must be said of rows fed as ``settle`` told, with the ids of their Cases, as ``run.json`` keeps it."""
    found = []

    def add(kind: str, text: str, advice: str, of: Iterable[Case]) -> None:
        found.append({"kind": kind, "text": text, "advice": advice, "case_ids": [case.case_id for case in of]})

    if model_input.get("source") == "":
        add(
            "assumed_preprocessing",
            "nothing states this model's preprocessing: ImageNet's usual one was assumed",
            "State it: --mean, --std, --resize and so on, or <model>.preprocess.yaml beside the file.",
            (case for case in cases if case.scenario != "latency"),
        )
    tried = model_input.get("tried") or {}
    if tried.get("better"):
        usual = f"{tried['n_right']} of {tried['n_images']} images are right as they were fed"
        text = f"{usual}, {tried['n_right_better']} with {tried['better']}"
        advice = "The model was most likely trained so: run again with these options."
        add("other_preprocessing", text, advice, (case for case in cases if case.scenario == "accuracy"))
    for name, reason in (model_input.get("replaced") or {}).items():
        by_reference = (case for case in cases if case.pipeline == REFERENCE and case.scenario != "latency")
        add("replaced_pipeline", f"the reference made the pixels: {reason}", f"{name} cannot.", by_reference)
    return found
