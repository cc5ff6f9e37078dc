"""NVIDIA DALI on the CPU and on a GPU, set up to give the reference's pixels (``pipelines.dali.graph`` says how)."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.base import BadImage, Batch, Passes, PipelineReport, PipelineUnavailable, PipelineUnsupported, Preprocess
from pipelines.dali.chunks import driven, read_chunks, refusal
from pipelines.dali.graph import CPU, QUEUE_DEPTH, STEPS, Load, Pixels, Place, Source, built, graph_of, import_dali
from pipelines.device import Filler, new_stream, on_stream, usable_gpu
from pipelines.imagenet.find import Image
from pipelines.reference.pipeline import UnreadableImage, normalise, reference_pixels
from scarlet.gpu import jpeg_engines

if TYPE_CHECKING:
    import torch

# Images in one run of the graph. Independent of the batch: small runs stay in the processor's cache and bound
# the memory that decoded photographs take; DALI spreads the images of a run over its threads.
CHUNK_MIN = 8
CHUNK_PER_THREAD = 4
# On a GPU, whatever the batch: enough to keep a large one's multiprocessors and its JPEG engine busy, few enough that
# the first batch of a pass does not wait for long. Of large photographs fewer (``MOST_PIXELS``).
CHUNK = 64

# Runs whose files are read by the pool's threads while DALI works: reading must never be what a GPU waits for.
READ_AHEAD = 2

# DALI's default for ``hw_decoder_load``; the best share depends on the threads and is to be found by trying.
ENGINE_SHARE = 0.65


class DaliPipeline(Passes):
    """DALI for ordinary JPEGs, the reference for whatever else a data set holds (``pipelines.dali.chunks``).

    What DALI does not take, CMYK and PNG among it, is decoded by the reference and listed in ``report.fallbacks``, or
    in ``report.bad`` where it cannot either, so that both pipelines agree on what is bad. Building DALI anew after a
    file on which it failed takes a few milliseconds.
    """

    name = "dali"
    refusal = staticmethod(refusal)
    steps: Sequence[str] = STEPS[:2]
    read_ahead, place = 0, CPU

    def __init__(self, images: Sequence[Image], batch: int, threads: int, preprocess: Preprocess) -> None:
        super().__init__(images, batch, threads, preprocess)
        import_dali()
        self._chunk = max(CHUNK_MIN, CHUNK_PER_THREAD * threads)
        self.ahead = (QUEUE_DEPTH + 1) * self._chunk

    def _batches(self, report: PipelineReport) -> Generator[Batch, None, None]:
        indices: list[int] = []
        side = self._preprocess.crop
        with closing(self._parts(report)) as parts:
            for index, pixels in ((index, row) for some, rows in parts for index, row in zip(some, rows, strict=True)):
                if not indices:
                    planes = np.empty((self._batch, 3, side, side), np.float32)
                normalise(pixels, self._preprocess, out=planes[len(indices)])
                indices.append(index)
                if len(indices) == self._batch:
                    yield Batch(np.array(indices, np.int64), planes)
                    indices = []
            if indices:
                yield Batch(np.array(indices, np.int64), planes[: len(indices)].copy())

    def _parts(self, report: PipelineReport) -> Generator[tuple[Sequence[int], Any], None, None]:
        """All readable images in order: indices, and a row for each."""
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="fallback")
        chunks = read_chunks(self._images, self._chunk, self._preprocess, pool, self.read_ahead)
        decoding = driven(chunks, self._build, self._run, report)
        try:
            for chunk, indices, rows in decoding:
                if rows is not None:
                    yield indices, rows
                    continue
                for index in indices:
                    image = self._images[index]
                    try:
                        waiting = chunk.by_reference.get(index)
                        pixels = waiting.result() if waiting else reference_pixels(image.path, self._preprocess)
                    except UnreadableImage as error:
                        report.bad.append(BadImage(image.image_id, str(error)))
                    else:
                        report.fallbacks.append(image.image_id)
                        yield [index], self._row(pixels)[None]
        finally:
            decoding.close()
            pool.shutdown(wait=True, cancel_futures=True)

    def _build(self, source: Source, is_alone: bool) -> Any:
        load = Load(1, 1, True) if is_alone else Load(self._chunk, self._threads, True)
        return built(graph_of(self.steps, source, load, self._preprocess, self.place))

    def _run(self, graph: Any) -> Any:
        (decoded,) = graph.run()
        return decoded.as_array()

    def _row(self, pixels: Pixels) -> Any:
        """What the reference read, as a run gives it."""
        return pixels


class DaliGpuPipeline(DaliPipeline):
    """As ``dali`` with the ``mixed`` decoder and the GPU's operators, from JPEG files to batches that lie there.

    DALI's results are copied within the GPU into batches of their own: images of the reference come between them, a run
    of the graph is not a batch, and nobody has to give memory back to DALI. At 224 x 224 that is 0.6 MB an image, under
    a microsecond on a GPU of 1 TB/s and more.

    A batch's ``on_device`` is for readers on the same GPU; its ``pixels`` are copied to the host when they are asked
    for. The last digits of the normalised values may differ from those of the CPU's pipelines, and so may the decoded
    pixels by a few levels: nvJPEG computes another inverse transform than libjpeg-turbo
    (``pipelines.parity.differences`` has the tolerances). Without a share for the GPU's JPEG engine the multiprocessors
    decode, with the CPU's help: the same on every GPU.
    """

    name = "dali_gpu"
    steps, read_ahead = STEPS, READ_AHEAD

    @staticmethod
    def refusal(preprocess: Preprocess) -> str:
        """As of ``dali``; and DALI's last step on a GPU has one order of the planes."""
        return refusal(preprocess) or (
            "DALI on a GPU makes planes in RGB order" if preprocess.channels == "bgr" else ""
        )

    def __init__(
        self, images: Sequence[Image], batch: int, threads: int, preprocess: Preprocess, engine_share: float = 0.0
    ) -> None:
        super().__init__(images, batch, threads, preprocess)
        self._chunk = CHUNK
        self.ahead = (QUEUE_DEPTH + 1) * CHUNK
        self._device = usable_gpu()
        self.place = Place(self._device.index, engine_share)
        self._stream = new_stream(self._device)

    def _batches(self, report: PipelineReport) -> Generator[Batch, None, None]:
        filler = Filler(self._batch, self._preprocess.crop, self._device, self._stream)
        with closing(self._parts(report)) as parts:
            for indices, planes in parts:
                yield from filler.add(indices, planes)
            yield from filler.rest()

    def _run(self, graph: Any) -> torch.Tensor:
        return handed_over(graph, self._stream)

    def _row(self, pixels: Pixels) -> torch.Tensor:
        import torch

        return torch.from_numpy(normalise(pixels, self._preprocess))


def handed_over(graph: Any, stream: torch.cuda.Stream | None) -> torch.Tensor:
    """One run as a PyTorch tensor, by DLPack: the same memory, which DALI frees when the tensor is gone.

    Work on ``stream`` (None on the CPU) waits for it; the host does not.
    """
    from torch.utils.dlpack import from_dlpack

    (result,) = graph.run() if stream is None else graph.run(stream)
    with on_stream(stream):
        return from_dlpack(result.as_tensor())


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
