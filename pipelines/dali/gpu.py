"""NVIDIA DALI on a GPU: from JPEG files to batches that lie there (``pipelines.dali.graph`` has the graph)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.base import Batch, Passes, PipelineReport, PipelineUnavailable, PipelineUnsupported, Preprocess
from pipelines.dali.chunks import Chunk, driven, failed_alone, once, read_chunks, refusal
from pipelines.dali.cpu import from_reference
from pipelines.dali.graph import QUEUE_DEPTH, Fed, Place, built, import_dali, whole_graph
from pipelines.device import Filler, new_stream, on_stream, usable_gpu
from pipelines.imagenet.find import Image
from pipelines.reference.pipeline import normalise
from scarlet.gpu import jpeg_engines

if TYPE_CHECKING:
    import torch

# Images in one run of the graph, whatever the batch: enough to keep a large GPU's multiprocessors and its JPEG engine
# busy, few enough that the first batch of a pass does not wait for long. Of large photographs fewer (``MOST_PIXELS``).
CHUNK = 64

# Runs whose files are read by the pool's threads while DALI works: reading must never be what DALI waits for.
READ_AHEAD = 2

# DALI's default for ``hw_decoder_load``; the best share depends on the threads and is to be found by trying.
ENGINE_SHARE = 0.65


@dataclass(frozen=True)
class _Rows:
    """What DALI made of a chunk: some of its images, in order.

    Attributes:
        indices: of the images.
        planes: float32, ``(n, 3, crop, crop)``, on the device; None where there are none.
    """

    indices: list[int] = field(default_factory=list)
    planes: torch.Tensor | None = None


class DaliGpuPipeline(Passes):
    """DALI's ``mixed`` decoder and its GPU operators for ordinary JPEGs, the reference for whatever else there is.

    Which files DALI takes, and what becomes of those on which it fails, is as in the pipeline ``dali``: the batches
    are made up alike. DALI's results are copied within the GPU into batches of their own: images of the reference come
    between them, a run of the graph is not a batch, and nobody has to give memory back to DALI. At 224 x 224 that is
    0.6 MB an image, under a microsecond on a GPU of 1 TB/s and more.

    A batch's ``on_device`` is for readers on the same GPU; its ``pixels`` are copied to the host when they are asked
    for. The last digits of the normalised values may differ from those of the CPU's pipelines, and so may the decoded
    pixels by a few levels: nvJPEG computes another inverse transform than libjpeg-turbo
    (``pipelines.parity.differences`` has the tolerances). Without a share for the GPU's JPEG engine the multiprocessors
    decode, with the CPU's help: the same on every GPU.
    """

    name = "dali_gpu"

    @staticmethod
    def refusal(preprocess: Preprocess) -> str:
        return refusal(preprocess) or (
            "DALI on a GPU makes planes in RGB order" if preprocess.channels == "bgr" else ""
        )

    def __init__(
        self, images: Sequence[Image], batch: int, threads: int, preprocess: Preprocess, engine_share: float = 0.0
    ) -> None:
        super().__init__(images, batch, threads, preprocess)
        import_dali()
        self.ahead = (QUEUE_DEPTH + 1) * CHUNK
        self._device = usable_gpu()
        self._place = Place(self._device.index, engine_share)
        self._stream = new_stream(self._device)

    def _batches(self, report: PipelineReport) -> Generator[Batch, None, None]:
        filler = Filler(self._batch, self._preprocess.crop, self._device, self._stream)
        hand_over = _HandOver(self._stream)
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="read")
        chunks = read_chunks(self._images, CHUNK, self._preprocess, pool, READ_AHEAD)
        decoding = driven(
            chunks, self._build, hand_over.run, hand_over.take, hand_over.one_by_one(self._build_one), report
        )
        try:
            for chunk, rows in decoding:
                for indices, planes in self._in_order(chunk, rows, report):
                    yield from filler.add(indices, planes)
            yield from filler.rest()
        finally:
            decoding.close()
            pool.shutdown(wait=True, cancel_futures=True)

    def _build(self, source: Callable[[], Fed]) -> Any:
        return built(whole_graph(source, CHUNK, self._threads, self._preprocess, self._place))

    def _build_one(self, source: Callable[[], Fed]) -> Any:
        return built(whole_graph(source, 1, 1, self._preprocess, self._place))

    def _in_order(self, chunk: Chunk, rows: _Rows, report: PipelineReport) -> Iterator[tuple[list[int], torch.Tensor]]:
        """The chunk's readable images: those of DALI as they follow each other, the reference's one by one."""
        import torch

        place = {index: row for row, index in enumerate(rows.indices)}
        for by_dali, group in itertools.groupby(chunk.indices, place.__contains__):
            indices = list(group)
            if by_dali:
                assert rows.planes is not None
                first = place[indices[0]]
                yield indices, rows.planes[first : first + len(indices)]
                continue
            for index in indices:
                made = from_reference(chunk, index, self._images[index], self._preprocess, report)
                if made is not None:
                    yield [index], torch.from_numpy(normalise(made, self._preprocess))[None]


def engine_pipeline(images: Sequence[Image], batch: int, threads: int, preprocess: Preprocess) -> DaliGpuPipeline:
    """As ``dali_gpu``, with DALI's own share of the images on the GPU's JPEG engine, where it has one (A100, Hopper).

    A pipeline of its own and no option, because the engine may give other pixels: each is compared with the reference
    under its own name before accuracy is measured.
    """
    pipeline = DaliGpuPipeline(images, batch, threads, preprocess, ENGINE_SHARE)
    refuse_without_engine()
    pipeline.name = "dali_gpu_engine"
    return pipeline


def refuse_without_engine() -> None:
    """DALI decodes on the multiprocessors where it finds no engine, and does not say so.

    Raises:
        PipelineUnsupported: this GPU has none, or none is let into this container.
        PipelineUnavailable: it cannot be found out.
    """
    engines = jpeg_engines()
    if engines is None:
        raise PipelineUnavailable("nvJPEG cannot be asked for a JPEG engine; run: pip install nvidia-nvjpeg")
    if not engines:
        raise PipelineUnsupported(
            "this GPU has no JPEG engine (A100, H100 and their successors have), or this container may not use it "
            "(NVIDIA_DRIVER_CAPABILITIES needs 'video'); use the pipeline 'dali_gpu'"
        )


class _HandOver:
    """Runs graphs so that their results are there for work on one stream.

    Args:
        stream: of the work that reads the results; None on the CPU.
    """

    def __init__(self, stream: torch.cuda.Stream | None) -> None:
        self._stream = stream

    def run(self, graph: Any) -> Any:
        """One run; on a GPU the stream waits for its result, and the host does not."""
        (result,) = graph.run() if self._stream is None else graph.run(self._stream)
        return result

    def take(self, chunk: Chunk, result: Any) -> _Rows:
        """The result as a PyTorch tensor, by DLPack: the same memory, which DALI frees when the tensor is gone."""
        if not chunk.encoded:
            return _Rows()
        from torch.utils.dlpack import from_dlpack

        with on_stream(self._stream):
            return _Rows(list(chunk.encoded), from_dlpack(result.as_tensor()))

    def one_by_one(self, build: Callable[[Callable[[], Fed]], Any]) -> Callable[[Chunk], _Rows]:
        """A function that decodes what DALI can of a chunk, each image in a graph of its own."""

        def each(chunk: Chunk) -> _Rows:
            import torch

            indices: list[int] = []
            planes: list[torch.Tensor] = []
            for alone in chunk.singly():
                graph = build(once(alone.fed()))
                try:
                    rows = self.take(alone, self.run(graph))
                except RuntimeError as error:
                    failed_alone(error)
                    continue
                assert rows.planes is not None
                indices += rows.indices
                planes.append(rows.planes)
            with on_stream(self._stream):
                return _Rows(indices, torch.cat(planes)) if planes else _Rows()

        return each
