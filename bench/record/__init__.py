"""What is written down: Cases, run folders, raw tables."""
