"""DALI that fails on chosen files, as it does on damaged ones: the run raises, and the graph is dead."""

from collections.abc import Callable
from typing import Any

# What DALI and nvJPEG have said to users where memory ran out or a GPU failed (issues
# 1137, 1434, 2084, 2836 and 6149 of NVIDIA/DALI; the last in the same words), and the status of the row that it means.
DEVICE_FAULTS = {
    "Error when executing Mixed operator ImageDecoder encountered:\nCUDA allocation failed\nCurrent": "oom",
    "Error when executing Mixed operator ImageDecoder encountered:\nCan't allocate 129499136 bytes on device 0": "oom",
    'Error in thread 0: [nvjpeg_decoder.h:355] NVJPEG error "5" : NVJPEG_STATUS_ALLOCATOR_FAILURE n0/1.JPEG': "oom",
    "Error in thread 0: CUDA runtime API error cudaErrorIllegalAddress (700):\nan illegal memory access": "failed",
    "CUDA runtime API error cudaErrorStreamCaptureUnsupported (900):\noperation not permitted": "failed",
}


def failing_on(
    faulty: list[bytes], sizes: list[int], build: Callable[..., Any], text: str = "Critical error in pipeline"
) -> type:
    """A class of graphs that stands in for a function that makes them.

    Args:
        faulty: files to fail on.
        sizes: takes down the largest chunk of each graph that is made.
        build: ``graph_of``.
        text: of the error.
    """

    class Graph:
        def __init__(self, steps: Any, source: Callable[[], Any], load: Any, *more: Any) -> None:
            self.failing: list[bool] = []
            sizes.append(load.chunk)
            self.graph = build(steps, self.watched(source), load, *more)

        def watched(self, source: Callable[[], Any]) -> Callable[[], Any]:
            def watching() -> Any:
                fed = source()
                self.failing.append(any(data.tobytes() in faulty for data in fed.images))
                return fed

            return watching

        def build(self) -> None:
            self.graph.build()

        def run(self, *stream: Any) -> Any:
            out = self.graph.run(*stream)
            if self.failing.pop(0):
                self.failing.insert(0, True)  # dead for good
                raise RuntimeError(text)
            return out

    return Graph
