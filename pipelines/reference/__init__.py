"""The definition of the right pixels: PIL."""
