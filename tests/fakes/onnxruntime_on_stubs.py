"""Makes sessions of the real onnxruntime-gpu, as our backend does, and prints what became of them as JSON.

Run by ``onnxruntime_wheel.ask``. A question holds ``graph`` (a file), ``options`` of the Case, ``precision``, and
``more``: further options of the provider.
"""

import ctypes
import json
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime

from bench.backends.base import Unavailable, Unsupported
from bench.backends.onnxruntime import cuda
from bench.backends.onnxruntime.backend import session_options
from bench.backends.onnxruntime.proof import final_layers
from bench.record.case import Case

# The address of a stream that nothing is ever queued on.
STREAM = 4096


def called_from_two_threads(question: dict[str, Any]) -> dict[str, Any]:
    """What the stubs counted while a session with CUDA graphs was called as a throughput row calls it.

    It is loaded and called in this thread, then in one that infers, while a pipeline's threads allocate and free: from
    before the first call there, or (``blank``) from after it.
    """
    stubs = ctypes.CDLL("libcudart.so.13")
    case = Case("m", "user", "onnxruntime", "cuda", options=(("graph", "yes"),))
    session = cuda._made(onnxruntime, question["graph"], configured(case), cuda.provider_options(case, STREAM))
    places = [np.zeros(question["shape"], np.float32) for _ in range(2)]
    binding, run_options = session.io_binding(), onnxruntime.RunOptions()
    for name, bind, place in zip(("input", "output"), (binding.bind_input, binding.bind_output), places, strict=True):
        bind(name, "cuda", 0, np.float32, place.shape, place.ctypes.data)
    for key, value in cuda.run_config(len(places[0]), True).items():
        run_options.add_run_config_entry(key, value)

    def call() -> str:
        try:
            session.run_with_iobinding(binding, run_options)
        except Exception as error:  # what it is, is what the test asks
            return str(error)
        return ""

    counts = (ctypes.c_int * 6).in_dll(stubs, "stub_counts")
    call()
    loading = list(counts)
    over = threading.Event()

    def decode() -> None:
        memory = ctypes.c_void_p()
        while not over.is_set():
            if not stubs.cudaMalloc(ctypes.byref(memory), ctypes.c_size_t(64)):
                stubs.cudaFree(memory)

    pipeline = threading.Thread(target=decode)
    with ThreadPoolExecutor(1) as thread:
        errors = [thread.submit(call).result()] if question["blank"] else []
        pipeline.start()
        errors += [thread.submit(call).result() for _ in range(5)]
        over.set()
        pipeline.join()
    return {"errors": errors, "loading": loading, "counts": list(counts)}


def configured(case: Case) -> Any:
    config = session_options(onnxruntime, 1)
    cuda.configure(config, case.precision)
    return config


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """What became of one session."""
    if "blank" in question:
        return called_from_two_threads(question)
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
