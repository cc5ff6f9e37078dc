"""For all tests: Ctrl-C is heard, whoever started them.

A shell without job control makes what it starts in the background ignore SIGINT, and children inherit that: tests of
Ctrl-C would fail there for no fault of the code.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
