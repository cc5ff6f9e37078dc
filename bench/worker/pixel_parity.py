"""Which predictions change with a pipeline, and by which of its stages. Runs in a worker's process."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import pipelines
from bench.analysis.accuracy.top5 import top_and_margin
from bench.backends import default_names, make_backend, runs_module
from bench.backends.base import Backend, ModelFiles, Unavailable, Unsupported
from bench.record.case import Case
from pipelines.base import STAGES, Preprocess
from pipelines.imagenet.find import Image
from pipelines.parity.check import check, swapped
from pipelines.parity.differences import WHOLE

if TYPE_CHECKING:
    Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]

BATCH = 16


@dataclass(frozen=True)
class Request:
    """What to check.

    Attributes:
        pipeline: a name in ``pipelines.REGISTRY``.
        images: ``(image_id, label)`` of those to compare on.
        preprocess: keywords of ``pipelines.base.Preprocess``.
        threads: of the decoding, and of the network.
        files: of the model, to count changed predictions with; None to compare pixels only.
    """

    pipeline: str
    data: str
    images: Sequence[tuple[str, int]]
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 1
    files: ModelFiles | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Request:
        """Reads what ``dataclasses.asdict`` made."""
        files = data["files"]
        return cls(**{**data, "files": files and ModelFiles.from_dict(files)})

    def image_list(self) -> list[Image]:
        """The images, with their paths."""
        root = Path(self.data)
        return [Image(image_id, root / image_id, label) for image_id, label in self.images]


def answer(request: Request) -> dict[str, Any]:
    """Checks a pipeline, and counts flips where the request names a model. Plain JSON types.

    Raises:
        PipelineUnavailable, PipelineUnsupported: the pipeline cannot be opened.
        Unavailable: no backend can run the model.
    """
    images, preprocess = request.image_list(), Preprocess.from_dict(request.preprocess)
    report = check(images, request.pipeline, preprocess, request.threads).to_dict()
    if request.files is None:
        return {"report": report, "flips": None}
    with predictor(request.files, request.threads) as (backend, predict):
        counted = count_flips(images, request.pipeline, preprocess, predict, request.threads)
    return {"report": report, "flips": counted | {"backend": backend}}


# What networks are fed besides ImageNet's mean and deviation, as options say it.
CONVENTIONS: Mapping[str, Mapping[str, Any]] = {
    "--mean 0 --std 1": {"mean": 0, "std": 1},
    "--mean 0.5 --std 0.5": {"mean": 0.5, "std": 0.5},
    "--mean 127 --std 128": {"mean": 127, "std": 128},
    "--mean 0 --std 1/255": {"mean": 0, "std": "1/255"},
    "--channels bgr": {"channels": "bgr"},
    "--std 1/255 --channels bgr": {"std": "1/255", "channels": "bgr"},
}
# Of the hypothesis that the best of them is right no oftener than what was assumed.
CONVENTION_P = 0.001


def try_conventions(request: Request) -> dict[str, Any]:
    """Whether a common scaling of the same crops gets more top-1 classes right than the one that was assumed.

    The exact one-sided test of McNemar on images that either gets right alone, for as many conventions as are tried.

    Returns:
        ``n_images``; ``n_right`` with what was assumed; ``better``: the options of the best one, or an empty text;
        ``n_right_better``: with it.
    """
    from pipelines.reference.pipeline import UnreadableImage, normalise, reference_pixels
    from scarlet.preprocess import Preprocess, applied, checked

    assumed, crops, labels = Preprocess.from_dict(request.preprocess), [], []
    for image in request.image_list():
        with suppress(UnreadableImage):
            crops.append(reference_pixels(image.path, assumed))
            labels.append(image.label)
    assert request.files is not None
    with predictor(request.files, request.threads) as (_, predict):

        def right(statement: Mapping[str, Any]) -> list[bool]:
            fed = applied(assumed, checked(statement))
            some = (crops[first : first + BATCH] for first in range(0, len(crops), BATCH))
            tops = chain(*(_top1(predict, [normalise(crop, fed) for crop in each]) for each in some))
            return list(map(operator.eq, tops, labels))

        usual, better, most = right({}), "", 0
        for text, statement in CONVENTIONS.items():
            found = right(statement)
            won, lost = (sum(map(operator.gt, *pair)) for pair in ((found, usual), (usual, found)))
            n = won + lost
            p = len(CONVENTIONS) * sum(math.comb(n, k) for k in range(won, n + 1)) / 2**n
            if sum(found) > most and p < CONVENTION_P:
                better, most = text, sum(found)
    return {"n_images": len(labels), "n_right": sum(usual), "better": better, "n_right_better": most}


def count_flips(
    images: Sequence[Image],
    pipeline: str,
    preprocess: Preprocess,
    predict: Predict,
    threads: int = 1,
    batch: int = BATCH,
) -> dict[str, Any]:
    """How many top-1 predictions change when one stage of the reference is swapped for the pipeline's.

    The batches are made up alike every time, and equal batches are not predicted twice: what changes is due to the
    pixels alone.

    Args:
        predict: logits, float32 ``(n, classes)``, of pixels, float32 ``(n, 3, crop, crop)``.

    Returns:
        ``n_images``, and ``by_stage``: changed by each stage alone, and by the whole path (``WHOLE``); None where the
        pixels do not fit the network.

    Raises:
        what ``pipelines.open_pipeline`` raises.
    """
    right: dict[int, int] = {}
    changed: dict[str, int | None] = dict.fromkeys((*STAGES, WHOLE), 0)
    each = swapped(images, pipeline, preprocess)
    while some := list(islice(each, batch)):
        top = _top1(predict, [item.reference for item in some])
        right |= {item.index: best for item, best in zip(some, top, strict=True)}
        for stage in STAGES:
            planes = [item.by_stage[stage] for item in some]
            fitting = [own for own in planes if own is not None]
            before = changed[stage]
            if before is None or len(fitting) < len(planes):
                changed[stage] = None
            elif any(item.by_stage[stage] is not item.reference for item in some):
                changed[stage] = before + sum(map(int.__ne__, _top1(predict, fitting), top))
    with closing(pipelines.open_pipeline(pipeline, images, batch, threads, preprocess)) as opened:
        for read in opened:
            before = changed[WHOLE]
            if before is None or read.pixels.shape[1:] != (3, preprocess.crop, preprocess.crop):
                changed[WHOLE] = None
                break
            pairs = zip(read.indices.tolist(), _top1(predict, list(read.pixels)), strict=True)
            changed[WHOLE] = before + sum(best != right[index] for index, best in pairs if index in right)
    return {"n_images": len(right), "by_stage": changed}


def _top1(predict: Predict, planes: Sequence[NDArray[np.float32]]) -> list[int]:
    top, _ = top_and_margin(predict(np.ascontiguousarray(np.stack(planes), dtype=np.float32)))
    best: list[int] = top[:, 0].tolist()
    return best


@contextmanager
def predictor(files: ModelFiles, threads: int) -> Iterator[tuple[str, Predict]]:
    """A backend that is there, by name, and its logits for any number of images; Unavailable where none is there."""
    name, backend = _first_backend(files, threads)
    with closing(backend):
        yield name, lambda pixels: _logits(backend, pixels, files.fixed_batch)


def _first_backend(files: ModelFiles, threads: int) -> tuple[str, Backend]:
    missing: list[str] = []
    # Any will do: what the pixels change is the same for all. The first that is there predicts, graphs first.
    for name in sorted(default_names(), key=runs_module):
        batch = files.fixed_batch or BATCH
        backend = make_backend(name)
        try:
            backend.load(
                Case(files.model, files.weights, name, batch=batch, threads=threads, scenario="accuracy"), files
            )
        except (Unavailable, Unsupported) as reason:
            missing.append(str(reason))
        else:
            return name, backend
    raise Unavailable("; ".join(missing))


def _logits(backend: Backend, pixels: NDArray[np.float32], fixed_batch: int | None) -> NDArray[np.float32]:
    """Logits of any number of images; a graph of fixed batch gets them in such batches, the last filled with zeros."""
    if fixed_batch is None:
        return backend.infer(pixels)
    n = len(pixels)
    filling = np.zeros((-n % fixed_batch, *pixels.shape[1:]), dtype=pixels.dtype)
    filled = np.concatenate([pixels, filling])
    parts = [backend.infer(filled[first : first + fixed_batch]) for first in range(0, len(filled), fixed_batch)]
    return np.concatenate(parts)[:n]
