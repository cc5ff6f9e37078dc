"""Which layers take the time."""
