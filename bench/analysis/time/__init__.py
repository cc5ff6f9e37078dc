"""What timed samples say: quantiles, efficiency, verdicts."""
