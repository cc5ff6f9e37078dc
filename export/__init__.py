"""How a model becomes a file that a backend runs."""
