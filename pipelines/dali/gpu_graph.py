"""The graphs of ``pipelines.dali.graph`` on a GPU: the same operators and numbers, from JPEG to the network's input.

What matches them to the CPU's graphs, besides what is said there: ``jpeg_fancy_upsampling``, which makes nvJPEG
interpolate the chroma as libjpeg-turbo does (without it edges are tens of levels off). There is no decoder cache, which
would measure memory instead of decoding. Decoder threads are left to the system instead of tied to cores 0, 1, 2 and
on, where other workers' threads are too.

The graphs are the very same functions for a GPU and for the CPU (``Place(None)``): tests run them there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.base import PipelineUnavailable, Preprocess
from pipelines.dali.graph import QUEUE_DEPTH, Source, decoded, import_dali, inputs, resized


@dataclass(frozen=True)
class Place:
    """Where a graph runs.

    Attributes:
        gpu: CUDA's number of the GPU; None for the CPU.
        engine_share: share (0..1) of the images that the GPU's JPEG engine decodes, where it has one; its other
            multiprocessors and the CPU decode the rest. NVIDIA's Ampere (A100) and Hopper have engines.
    """

    gpu: int | None
    engine_share: float = 0.0


def whole_graph(source: Source, chunk: int, threads: int, preprocess: Preprocess, place: Place) -> Any:
    """A DALI pipeline, not built yet, from encoded bytes to the network's input.

    The dynamic executor allocates each run's outputs anew, so that a batch that somebody still holds is not
    overwritten by later runs (with ``exec_dynamic=False`` it is).

    Args:
        source: as of ``dali_graph.build_graph``.
        chunk: most images in one run.
        threads: DALI's worker threads: even on a GPU the CPU does the Huffman decoding, unless the engine does.
        preprocess: mean and std are used; the regions are the source's.
        place: where it runs.

    Returns:
        ``nvidia.dali.Pipeline`` with one output: float32, ``(n, 3, crop, crop)``, RGB, normalised.
    """
    dali, _, _ = import_dali()
    with dali.Pipeline(
        batch_size=chunk,
        num_threads=threads,
        device_id=place.gpu,
        prefetch_queue_depth=QUEUE_DEPTH,
        exec_dynamic=True,
    ) as graph:
        encoded, *numbers = inputs(source, dimensions=1)
        graph.set_outputs(normalised(resized(_decoded(encoded, place), numbers), preprocess))
    return graph


def decoder(source: Source, chunk: int, threads: int, place: Place) -> Any:
    """A DALI pipeline, not built yet, that decodes and does nothing else; answers what it was just fed."""
    with _answering(chunk, threads, place) as graph:
        (encoded,) = inputs(source, dimensions=1, regions=False)
        graph.set_outputs(_decoded(encoded, place))
    return graph


def resizer(source: Source, chunk: int, threads: int, place: Place) -> Any:
    """A DALI pipeline, not built yet, that takes decoded pixels from the host and resizes their regions."""
    with _answering(chunk, threads, place) as graph:
        pixels, *numbers = inputs(source, dimensions=3)
        graph.set_outputs(resized(_there(pixels, place), numbers))
    return graph


def normaliser(source: Source, chunk: int, threads: int, preprocess: Preprocess, place: Place) -> Any:
    """A DALI pipeline, not built yet, that takes cropped pixels from the host and normalises them."""
    with _answering(chunk, threads, place) as graph:
        (pixels,) = inputs(source, dimensions=3, regions=False)
        graph.set_outputs(normalised(_there(pixels, place), preprocess))
    return graph


def built(graph: Any) -> Any:
    """Builds a graph.

    Raises:
        PipelineUnavailable: DALI cannot use the GPU; the text has DALI's reason.
    """
    try:
        graph.build()
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise PipelineUnavailable(
            f"DALI cannot build its graph for the GPU ({reason}); `scarlet-bench doctor` tells of driver and versions, "
            "or name another --pipeline"
        ) from error
    return graph


def normalised(levels: Any, preprocess: Preprocess) -> Any:
    """``(levels / 255 - mean) / std`` as float32 planes; the last digits may differ from the reference's."""
    _, fn, types = import_dali()
    return fn.crop_mirror_normalize(
        levels,
        dtype=types.FLOAT,
        output_layout="CHW",
        mean=[255.0 * value for value in preprocess.mean],
        std=[255.0 * value for value in preprocess.std],
    )


def _decoded(encoded: Any, place: Place) -> Any:
    return decoded(
        encoded,
        device="cpu" if place.gpu is None else "mixed",
        jpeg_fancy_upsampling=True,
        hw_decoder_load=place.engine_share,
        use_fast_idct=False,
        cache_size=0,
        affine=False,
    )


def _there(pixels: Any, place: Place) -> Any:
    return pixels if place.gpu is None else pixels.gpu()


def _answering(chunk: int, threads: int, place: Place) -> Any:
    """A graph without prefetching: a run answers what it was fed, not what was fed before."""
    dali, _, _ = import_dali()
    return dali.Pipeline(
        batch_size=chunk,
        num_threads=threads,
        device_id=place.gpu,
        prefetch_queue_depth=1,
        exec_pipelined=False,
        exec_async=False,
    )
