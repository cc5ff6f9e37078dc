"""Predictions against a kept baseline: pass, fail or unresolved."""
