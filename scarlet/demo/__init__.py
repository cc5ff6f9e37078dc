"""The weights trained on the demo set, shipped with the project: FP16 safetensors, loaded as FP32.

``card.json`` holds their hashes, how they were trained and what they reach; ``MODEL_CARD.md`` says it in words.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scarlet.errors import BenchError

if TYPE_CHECKING:
    import torch

FOLDER = Path(__file__).parent
RETRAIN = "Restore the file from the repository, or retrain it with `make demo-weights`."


def available(name: str) -> bool:
    """Whether demo weights for the model ``name`` (``scarlet_c``) ship with this copy of the project."""
    return name in _cards() and path_of(name).is_file()


def path_of(name: str) -> Path:
    """Where the weights of ``name`` are."""
    return FOLDER / f"{name}.safetensors"


def card(name: str) -> dict[str, Any]:
    """What the card says of one model's weights: ``sha256``, ``training``, ``measured`` and so on."""
    found: dict[str, Any] = _cards()[name]
    return found


def load_state(name: str) -> dict[str, torch.Tensor]:
    """The state dict of ``scarlet.networks.scarlet(name)``: FP32, and int64 for BatchNorm's counters.

    Raises:
        BenchError: there are no weights for ``name``, or the file is not the one that the card describes.
    """
    from safetensors.torch import load

    expected = card(name)["sha256"]
    path = path_of(name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BenchError(f"the demo weights {path} cannot be read: {error.strerror}", RETRAIN) from error
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise BenchError(
            f"the demo weights {path} are not the card's: SHA-256 {found[:16]}, expected {expected[:16]}",
            RETRAIN,
            stage="weights",
        )
    return {key: value.float() if value.is_floating_point() else value for key, value in load(content).items()}


def _cards() -> dict[str, Any]:
    cards: dict[str, Any] = json.loads((FOLDER / "card.json").read_text("utf-8"))["models"]
    return cards
