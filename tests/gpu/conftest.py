"""What the GPU tests share: demo images, and SCARLET-C with its demo weights, prepared once."""

import os
from dataclasses import replace

import numpy as np
import pytest
from gpu_here import prepared
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
    """SCARLET-C with demo weights and its graphs of lower precision, prepared as a run prepares them, in its store."""
    root = os.path.commonpath([image.path for image in demo_images])
    images = [replace(image, image_id=str(image.path.relative_to(root))) for image in demo_images]
    return prepared("demo", root, images, tmp_path_factory.mktemp("log") / "prepare.log")
