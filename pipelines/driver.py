"""Whether a GPU can be used here: asked of NVIDIA's driver itself, so that no framework has to be imported."""

from __future__ import annotations

import ctypes
import importlib.util
import re
from pathlib import Path

DRIVER = "libcuda.so.1"


def usable_gpu_is_there() -> bool:
    """Whether the driver finds a GPU and the installed PyTorch is built for it."""
    return torch_has_cuda() and has_gpu()


def has_gpu(driver: str = DRIVER) -> bool:
    """Whether the driver names at least one device (``cuInit``, ``cuDeviceGetCount`` of the CUDA Driver API).

    A library or a tool alone proves nothing: images for GPUs carry both, and run on machines without one.

    Args:
        driver: the driver's library, as the system's loader finds it.
    """
    try:
        library = ctypes.CDLL(driver)
    except OSError:
        return False
    count = ctypes.c_int(0)
    return library.cuInit(0) == 0 and library.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def torch_has_cuda(version_file: Path | None = None) -> bool:
    """Whether PyTorch is a CUDA build, by the file that says so in every build; importing it would take seconds.

    Args:
        version_file: PyTorch's ``version.py``; that of the installed one where None.
    """
    if version_file is None:
        found = importlib.util.find_spec("torch")
        if found is None or found.origin is None:
            return False
        version_file = Path(found.origin).with_name("version.py")
    try:
        text = version_file.read_text(encoding="utf-8")
    except OSError:
        return False
    return re.search(r"^cuda\b[^=\n]*= *['\"]", text, re.MULTILINE) is not None
