"""Whether there is a GPU to test on; every file in this folder begins with ``pytestmark = needs_gpu``."""

from __future__ import annotations

import pytest
import torch


def why_not() -> str:
    """Why nothing in this folder can run here; empty on a machine with a GPU."""
    if torch.version.cuda is None:
        return f"this PyTorch ({torch.__version__}) is a CPU build"
    return "" if torch.cuda.is_available() else "PyTorch sees no CUDA device"


needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(bool(why_not()), reason=why_not() or "there is a GPU")]
