"""The GPU pipelines' steps, one at a time, from the operators of their graphs. Every step comes back to the host."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.base import Preprocess
from pipelines.dali.gpu_graph import Place, built, decoder, normaliser, resizer
from pipelines.dali.graph import Fed, import_dali
from pipelines.dali.stages import CHUNK_PER_THREAD, DaliStages, Graph
from pipelines.device import usable_gpu


class DaliGpuStages(DaliStages):
    """As ``DaliStages``, on the GPU: to compare with the reference, not to time (the copies would be timed too)."""

    def __init__(self, preprocess: Preprocess, threads: int = 1, engine_share: float = 0.0) -> None:
        import_dali()
        self._preprocess = preprocess
        self._chunk = CHUNK_PER_THREAD * threads
        place = Place(usable_gpu().index, engine_share)
        self._decoder = Graph(lambda source: built(decoder(source, self._chunk, threads, place)))
        self._resizer = Graph(lambda source: built(resizer(source, self._chunk, threads, place)))
        self._normaliser = Graph(
            lambda source: built(normaliser(source, self._chunk, threads, preprocess, place))
        )

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.array(self._normaliser.run(Fed([pixels], [])).at(0))

    def preprocess_all(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        planes = [
            np.array(self._normaliser.run(Fed(list(self._cropped(some)), [])).as_array())
            for some in self._chunks(images)
        ]
        return np.concatenate(planes)

    def close(self) -> None:
        super().close()
        self._normaliser.close()


def engine_stages(preprocess: Preprocess, threads: int = 1) -> DaliGpuStages:
    """The steps of ``dali_gpu_engine``: all images go to the engine, so that its pixels are what is compared."""
    return DaliGpuStages(preprocess, threads, engine_share=1.0)
