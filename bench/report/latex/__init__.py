"""The LaTeX table of a run."""
