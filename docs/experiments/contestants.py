"""The contestants of end_to_end.py, each in a process of its own: whole passes from files to the top-1 of every image.

``published`` does what the published evaluation of SCARLET does, ``tuned`` what somebody would who cares about speed
and stays with PyTorch and its DataLoader. torchvision cannot be imported beside every build of PyTorch: its transform
is written out here. ``ours`` is a throughput Case, driven as ``bench.worker.tasks.throughput`` drives it, with
its parts timed
after each pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.analysis.accuracy.top5 import top_and_margin
from bench.backends import make_backend
from bench.backends.base import Backend
from bench.backends.instances import Instances
from bench.record.case import Case
from bench.worker import channel
from bench.worker.messages import Context
from bench.worker.tasks.overlap import AHEAD, Overlap
from bench.worker.tasks.parts import Parts

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Contestant(Protocol):
    """One way of evaluating all images."""

    def top1(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """One pass from empty queues: places and top-1 of some images at a time."""
        ...

    def parts(self) -> dict[str, float]:
        """Nanoseconds an image of each part of a pass, alone; empty where they are not told apart."""
        ...


class Files:
    """A map-style data set: torchvision's ImageFolder with Resize(256), CenterCrop(224), ToTensor and Normalize."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, place: int) -> Any:
        import torch
        from PIL import Image

        with self._paths[place].open("rb") as file:
            image = Image.open(file).convert("RGB")
        short, side = 256, 224
        width, height = image.size
        size = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
        image = image.resize(size, Image.Resampling.BILINEAR)
        left, top = round((size[0] - side) / 2.0), round((size[1] - side) / 2.0)
        image = image.crop((left, top, left + side, top + side))
        planes = torch.from_numpy(np.array(image, copy=True)).permute(2, 0, 1).contiguous()
        pixels = planes.to(torch.float32).div(255)
        mean, std = (torch.tensor(numbers).view(-1, 1, 1) for numbers in (MEAN, STD))
        return pixels.sub_(mean).div_(std)


class Published:
    """As published: 8 loader workers, batches of 128, eager, NCHW, gradients on. All threads that PyTorch takes."""

    def __init__(self, case: Case, context: Context) -> None:
        from safetensors.torch import load_file
        from torch.utils.data import DataLoader

        from scarlet import zoo

        files = context.files
        assert files.state is not None
        self._module = zoo.untrained(zoo.resolve(files.model)).eval()
        self._module.load_state_dict(load_file(files.state), strict=True)
        paths = [image.path for image in context.images()]
        self._loader: Any = DataLoader(Files(paths), batch_size=128, shuffle=False, num_workers=8)  # type: ignore[arg-type]

    def top1(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        seen = 0
        for images in self._loader:
            # The values would keep the batch's graph alive beside that of the next: 12 GB instead of 6.
            predicted = self._module(images).topk(5, 1, True, True)[1]
            yield np.arange(seen, seen + len(images)), predicted[:, 0].numpy()
            seen += len(images)

    def parts(self) -> dict[str, float]:
        return {}


class Tuned:
    """PyTorch by the book: no gradients, channels last, BatchNorm folded, 2 loader workers that stay, batches of 32."""

    def __init__(self, case: Case, context: Context) -> None:
        from torch.utils.data import DataLoader

        self._backend = make_backend("pytorch")  # its default form
        self._backend.load(case, context.files)
        paths = [image.path for image in context.images()]
        self._loader: Any = DataLoader(
            Files(paths),  # type: ignore[arg-type]
            batch_size=case.batch,
            shuffle=False,
            num_workers=2,
            persistent_workers=True,
        )

    def top1(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        seen = 0
        for images in self._loader:
            yield np.arange(seen, seen + len(images)), self._backend.infer(images.numpy()).argmax(axis=1)
            seen += len(images)

    def parts(self) -> dict[str, float]:
        return {}


class Ours:
    """A throughput Case."""

    def __init__(self, case: Case, context: Context) -> None:
        backend: Backend = (
            make_backend(case.backend) if case.instances == 1 else Instances(lambda: make_backend(case.backend))
        )
        backend.load(case, context.files)
        self._overlap = Overlap(backend, int(case.option("ahead", str(AHEAD))))
        self._pipeline = context.open_pipeline(case, context.images())
        self._parts = Parts(case, context, self._overlap.infer_all, self._overlap.slots, time.perf_counter_ns)

    def top1(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        for indices, logits in self._overlap.whole_pass(self._pipeline):
            top, _ = top_and_margin(logits)
            yield indices, top[:, 0].astype(np.int64)

    def parts(self) -> dict[str, float]:
        return {stage: taken / self._parts.n_images for stage, taken in self._parts.measure().items()}


KINDS: dict[str, Callable[[Case, Context], Contestant]] = {"published": Published, "tuned": Tuned, "ours": Ours}


def one_pass(contestant: Contestant, n_images: int) -> tuple[int, NDArray[np.int64]]:
    """Nanoseconds of a pass, and the top-1 of every image (-1 where it was not read)."""
    top1 = np.full(n_images, -1, np.int64)
    started = time.perf_counter_ns()
    for places, classes in contestant.top1():
        top1[places] = classes
    return time.perf_counter_ns() - started, top1


def answer(contestant: Contestant, message: channel.Message, n_images: int) -> channel.Message:
    """Makes a pass, writes its top-1 to the file asked for, and times the parts."""
    taken, top1 = one_pass(contestant, n_images)
    np.save(message["top1"], top1)
    return {"pass_ns": taken, "parts": contestant.parts()}


class Process:
    """Answers ``start``, then any number of passes."""

    def answer(self, message: channel.Message) -> channel.Message:
        if message["do"] == "start":
            context = Context.from_dict(message["context"])
            self._n_images = len(context.images())
            self._contestant = KINDS[message["kind"]](Case.from_dict(message["case"]), context)
            return {}
        return answer(self._contestant, message, self._n_images)


def main() -> None:
    """The main loop; the process ends with it."""
    channel.serve(Process().answer)


if __name__ == "__main__":
    main()
