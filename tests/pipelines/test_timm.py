"""The reference makes of a file what timm's own transform makes of it, to one grey level."""

import numpy as np
import pytest
from PIL import Image as PillowImage

from pipelines.reference.pipeline import normalise, reference_pixels
from scarlet import zoo
from scarlet.errors import ModelUnavailable

NAMES = ["mobilenetv3_large_100", "efficientnet_b0", "resnet18", "tf_efficientnet_lite0", "vit_tiny_patch16_224"]
NAMES += ["mobilenetv4_conv_small", "coat_lite_medium_384"]  # the last one squashes


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", ["size 501x333", "size 375x500"])
def test_pixels_are_those_of_timms_own_transform(name, size, odd_paths):
    try:
        spec = zoo.complete(zoo.resolve(f"timm/{name}"))
    except ModelUnavailable:
        pytest.skip("timm is not here")
    from timm.data import create_transform, resolve_data_config
    from timm.models import get_pretrained_cfg

    config = resolve_data_config(pretrained_cfg=get_pretrained_cfg(name).to_dict())
    image = PillowImage.open(odd_paths[size]).convert("RGB")
    expected = create_transform(**config)(image).numpy()
    own = normalise(reference_pixels(odd_paths[size], spec.preprocess), spec.preprocess)
    assert own.shape == expected.shape
    levels = np.abs(own - expected) * np.asarray(spec.preprocess.levels_per_unit)[:, None, None]
    assert levels.max() < 1.01
