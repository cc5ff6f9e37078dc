"""Reports of a run: every form in which it is written, all made from one table."""
