"""For all tests: eight images, a store, and Ctrl-C is heard, whoever started them.

A shell without job control makes what it starts in the background ignore SIGINT, and children inherit that: tests of
Ctrl-C would fail there for no fault of the code.
"""

import os
import signal
from pathlib import Path

import pytest

from pipelines.imagenet.find import wnids

signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of model files for tests that need a real network: it is exported once for all test processes."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "store"


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight JPEGs in three class folders."""
    import numpy as np
    from PIL import Image

    root = tmp_path_factory.mktemp("data")
    source = np.random.default_rng(0)
    for number in range(8):
        folder = root / "valid" / wnids()[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        coarse = source.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((320, 240)).save(folder / f"image_{number}.JPEG")
    return root
