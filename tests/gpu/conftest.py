"""What the GPU tests share: demo images, and SCARLET-C with its demo weights, prepared once."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.backends.base import ModelFiles
from pipelines import open_pipeline
from pipelines.base import Preprocess
from pipelines.imagenet.find import Image

IMAGES = 32


@pytest.fixture(scope="session")
def demo_images(tmp_path_factory: pytest.TempPathFactory) -> list[Image]:
    """Demo images of the classes that the demo weights know."""
    from pipelines.demo.make import make_demo
    from pipelines.imagenet.find import find_images, subset

    root = tmp_path_factory.mktemp("demo")
    make_demo(root, IMAGES)
    return list(subset(find_images(root).images, IMAGES))


@pytest.fixture(scope="session")
def pixels(demo_images: list[Image]) -> NDArray[np.float32]:
    """The demo images as the reference makes them: float32, ``(n, 3, 224, 224)``."""
    pipeline = open_pipeline("reference", demo_images, IMAGES, 4, Preprocess())
    (batch,) = list(pipeline)
    pipeline.close()
    return batch.pixels


@pytest.fixture(scope="session")
def scarlet(demo_images: list[Image], tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    """SCARLET-C with demo weights, and its FP16 graph."""
    from bench.worker.prepare import Request, prepare
    from export.store import ROOT_VARIABLE

    kept = os.environ.get(ROOT_VARIABLE)
    os.environ[ROOT_VARIABLE] = str(tmp_path_factory.mktemp("store"))
    try:
        root = Path(os.path.commonpath([image.path for image in demo_images]))
        names = [(image.path.relative_to(root).as_posix(), image.label) for image in demo_images]
        return prepare(Request("scarlet_c", "demo", str(root), names, threads=4))
    finally:
        os.environ.pop(ROOT_VARIABLE)
        if kept is not None:
            os.environ[ROOT_VARIABLE] = kept
