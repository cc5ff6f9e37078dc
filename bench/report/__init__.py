"""Reports of a run: every form in which it is written, all made from one table."""

from bench.report.forms import FORMATS, Format, write_all

__all__ = ["FORMATS", "Format", "write_all"]
