"""Where people read: a console from which no name or reason of a file's can steer the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from scarlet.errors import visible


class Terminal(Console):
    """Prints what is ``visible``, whatever it is part of: a line, a table, a bar; and rich's own codes as they are."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Segments of a renderable; see ``rich.console.Console``."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)
