"""Makes sessions of the real onnxruntime-gpu, as our backend does, and prints what became of them as JSON.

Run by ``onnxruntime_wheel.ask``. A question holds ``graph`` (a file), ``options`` of the Case, ``precision``, and
``more``: further options of the provider.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any

import onnxruntime

from bench.backends.base import Unavailable, Unsupported
from bench.backends.onnxruntime import cuda
from bench.backends.onnxruntime.backend import session_options
from bench.backends.onnxruntime.proof import final_layers
from bench.record.case import Case

# The address of a stream that nothing is ever queued on.
STREAM = 4096


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """What became of one session."""
    options = tuple(sorted(question.get("options", {}).items()))
    case = Case("m", "user", "onnxruntime", "cuda", question.get("precision", "fp32"), options=options)
    settings = {**cuda.provider_options(case, STREAM), **question.get("more", {})}
    config = session_options(onnxruntime, 1)
    cuda.configure(config, case.precision)
    try:
        session = cuda._made(onnxruntime, question["graph"], config, settings)
    except (Unsupported, Unavailable) as refusal:
        return {"refused": type(refusal).__name__, "reason": str(refusal)}
    except Exception as error:  # what it is, is what the test asks
        return {"error": str(error)}
    nodes: dict[str, Counter[str]] = {}
    for subgraph in session.get_provider_graph_assignment_info():
        nodes.setdefault(subgraph.ep_name, Counter()).update(node.op_type for node in subgraph.get_nodes())
    told = session.get_provider_options()[cuda.PROVIDER]
    found = {
        "version": onnxruntime.__version__,
        "providers": session.get_providers(),
        "nodes": {name: dict(counts) for name, counts in nodes.items()},
        "told": told,
        "sentence": cuda.options_sentence(settings, told),
    }
    if question.get("layers"):
        config = session_options(onnxruntime, 1)
        cuda.configure(config, case.precision)
        del settings["user_compute_stream"]
        provider = (cuda.PROVIDER, settings)
        layers = final_layers(onnxruntime, question["graph"], config, [provider])
        found["layers"] = dict(Counter(f"{layer.operation} {layer.type}" for layer in layers))
    return found


if __name__ == "__main__":
    print(json.dumps([answer(question) for question in json.loads(sys.argv[1])]))
