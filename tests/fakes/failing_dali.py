"""DALI that fails on chosen files, as it does on damaged ones: the run raises, and the graph is dead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def failing_on(faulty: list[bytes], sizes: list[int], build: Callable[..., Any]) -> type:
    """A class of graphs that stands in for a function that makes them.

    Args:
        faulty: files to fail on.
        sizes: takes down the largest chunk of each graph that is made.
        build: makes a real graph of a source, a chunk's size and more.
    """

    class Graph:
        def __init__(self, source: Callable[[], Any], chunk: int, *more: Any) -> None:
            self.failing: list[bool] = []
            sizes.append(chunk)
            self.graph = build(self.watched(source), chunk, *more)

        def watched(self, source: Callable[[], Any]) -> Callable[[], Any]:
            def watching() -> Any:
                fed = source()
                self.failing.append(any(data.tobytes() in faulty for data in fed.images))
                return fed

            return watching

        def build(self) -> None:
            self.graph.build()

        def run(self) -> Any:
            out = self.graph.run()
            if self.failing.pop(0):
                self.failing.insert(0, True)  # dead for good
                raise RuntimeError("Critical error in pipeline")
            return out

    return Graph
