"""How validation images become batches of pixels."""

from pipelines.registry import (
    ON_GPU,
    REGISTRY,
    STAGE_REGISTRY,
    default_name,
    fast_names,
    names,
    open_pipeline,
    open_stages,
    refusal,
)

__all__ = [
    "ON_GPU",
    "REGISTRY",
    "STAGE_REGISTRY",
    "default_name",
    "fast_names",
    "names",
    "open_pipeline",
    "open_stages",
    "refusal",
]
