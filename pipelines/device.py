"""Pixels on a GPU: batches that are put together there, and handed to whoever waits for them in the right order.

Nothing is waited for on the host: the work of one batch is queued on a stream of its own, an event marks its end, and
the reader's stream waits for that event. On the CPU the same code runs without streams and events; tests use that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.base import Batch, DevicePixels, PipelineUnavailable
from scarlet.gpu import why_torch_cannot

if TYPE_CHECKING:
    import torch


class DeviceBatch(Batch):
    """A batch whose pixels lie on a device. On the host they come into being when somebody asks for them."""

    def __init__(self, indices: NDArray[np.int64], on_device: DevicePixels) -> None:
        # The base class is frozen.
        object.__setattr__(self, "indices", indices)
        object.__setattr__(self, "on_device", on_device)

    @cached_property
    def pixels(self) -> NDArray[np.float32]:
        assert self.on_device is not None
        return self.on_device.to_host()


class Filler:
    """Puts images into batches on a device, in the order in which they come.

    Args:
        batch: images a batch.
        crop: side of an image, in pixels.
        stream: of the work that fills them. One serves all passes of a pipeline: PyTorch has 32 in turn, so that among
            as many new ones there would be the reader's own, behind whose work a pass would wait.
    """

    def __init__(self, batch: int, crop: int, device: torch.device, stream: torch.cuda.Stream | None = None) -> None:
        self._batch, self._crop, self._device, self.stream = batch, crop, device, stream
        self._indices: list[int] = []
        self._planes: torch.Tensor | None = None

    def add(self, indices: Sequence[int], planes: torch.Tensor) -> Iterator[DeviceBatch]:
        """Copies some images to their places; gives the batches that they fill.

        Args:
            indices: of the images.
            planes: float32, ``(n, 3, crop, crop)``, on any device; on this one, written by work on ``stream``.
        """
        import torch

        taken = 0
        while taken < len(indices):
            n = min(self._batch - len(self._indices), len(indices) - taken)
            with on_stream(self.stream):
                if self._planes is None:
                    shape = (self._batch, 3, self._crop, self._crop)
                    self._planes = torch.empty(shape, dtype=torch.float32, device=self._device)
                place = len(self._indices)
                self._planes[place : place + n].copy_(planes[taken : taken + n], non_blocking=True)
            self._indices += indices[taken : taken + n]
            taken += n
            if len(self._indices) == self._batch:
                yield self._filled()

    def rest(self) -> Iterator[DeviceBatch]:
        """The last, smaller batch, if there is one."""
        if self._indices:
            yield self._filled()

    def _filled(self) -> DeviceBatch:
        assert self._planes is not None
        # A part from the front is contiguous still.
        planes = self._planes[: len(self._indices)]
        batch = DeviceBatch(np.array(self._indices, np.int64), DevicePixels(planes, written_event(self.stream)))
        self._planes, self._indices = None, []
        return batch


def new_stream(device: torch.device) -> torch.cuda.Stream | None:
    """A stream of its own on a GPU; None on the CPU."""
    import torch

    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]


def on_stream(stream: torch.cuda.Stream | None) -> AbstractContextManager[Any]:
    """Makes a stream the calling thread's current one; does nothing for None."""
    import torch

    return nullcontext() if stream is None else torch.cuda.stream(stream)


def written_event(stream: torch.cuda.Stream | None) -> torch.cuda.Event | None:
    """An event behind all that is queued on the stream; None for None."""
    import torch

    if stream is None:
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(stream)
    return event


def usable_gpu() -> torch.device:
    """The GPU that this process's PyTorch calls its current one.

    Raises:
        PipelineUnavailable: there is none that PyTorch can use; the text says which half is missing.
    """
    import torch

    if why := why_torch_cannot():
        raise PipelineUnavailable(
            f"pixels decoded on a GPU are handed over through PyTorch: {why}, or name another --pipeline"
        )
    return torch.device("cuda", torch.cuda.current_device())
