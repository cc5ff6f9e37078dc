"""The weights trained on the demo set, shipped with the project."""

from scarlet.demo.weights import available, card, load_state, path_of

__all__ = ["available", "card", "load_state", "path_of"]
