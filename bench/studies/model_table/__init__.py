"""Several models in one table, each measured in a run of its own."""
