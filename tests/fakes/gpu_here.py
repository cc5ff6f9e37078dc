"""Whether there is a GPU to test on; every file in this folder begins with ``pytestmark = needs_gpu``."""

import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.backends import make_backend
from bench.backends.base import Backend, ModelFiles, Unavailable, Unsupported
from bench.backends.graphs import needed
from bench.record.case import Case
from bench.run.model_files import Requirements, prepare_files, prepare_request
from pipelines.imagenet.find import Image

BACKENDS = ("pytorch", "onnxruntime", "tensorrt")
LOWER = ("tf32", "fp16", "bf16")
BATCH = 16

# Why a test may be skipped: a package is absent, the GPU has no such arithmetic, ONNX Runtime has no BF16 at all.
MAY_LACK = re.compile(r"is not installed|compute capability|no BF16 kernels")


def why_not() -> str:
    """Why nothing in this folder can run here; empty on a machine with a GPU."""
    if torch.version.cuda is None:
        return f"this PyTorch ({torch.__version__}) is a CPU build"
    return "" if torch.cuda.is_available() else "PyTorch sees no CUDA device"


needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(bool(why_not()), reason=why_not() or "there is a GPU")]


def case_of(backend: str, device: str = "cuda", **more: Any) -> Case:
    options = tuple(sorted(more.pop("options", {}).items()))
    return Case("scarlet_c", "demo", backend, device=device, batch=BATCH, options=options, **more)


def prepared(weights: str, data: str, images: Sequence[Image], log: Path) -> ModelFiles:
    """SCARLET-C's files and every graph that a Case of these tests needs."""
    cases = [case_of(backend, precision=precision) for backend in BACKENDS for precision in LOWER]
    return prepare_files(
        prepare_request("scarlet_c", weights, data, images), log, 4, 300.0, Requirements(needed(cases))
    )


@contextmanager
def loaded(files: ModelFiles, backend: str, device: str = "cuda", **more: Any) -> Iterator[Backend]:
    """A loaded backend. Skips where something cannot be had here (``MAY_LACK``); any other refusal is a failure."""
    made = make_backend(backend)
    try:
        made.load(case_of(backend, device, **more), files)
    except (Unavailable, Unsupported) as reason:
        if not MAY_LACK.search(str(reason)):
            raise
        pytest.skip(str(reason))
    with closing(made):
        yield made
