"""What is measured: network definitions, checkpoints, costs."""
