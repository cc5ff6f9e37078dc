"""Questions that take more than one run, or another kind of run: one file or folder each."""
