"""Trains a SCARLET network on the demo set, from nothing, in well under an hour on two CPU cores.

A demo class is a shape, a pattern and a hue, ten of each, so the network is trained with three 10-way heads
(the factors), which learns in a fraction of the images that 1000 labels would need. The logit of a class is
the sum of its three factors' logits, so the heads fold into the published 1000-way classifier exactly: the row of
a class is the sum of its factors' rows.

Low resolution first, then short tuning on pictures of the validation set's sizes through the reference
preprocessing (Resize 256, CenterCrop 224). SCARLET-A and -B start from C's weights where names and shapes are the same:
from nothing, A learned no pattern in the four passes in which C learned nearly all. Images come from
``pipelines.demo.make``, splits ``train`` and ``tune``:

    python -m scarlet.demo.train --model scarlet_c --data DIR --tune DIR --out scarlet_c.safetensors
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from scarlet.demo import load_state
from scarlet.errors import BenchError
from scarlet.networks import BLOCK_TABLES, InvertedResidual, Scarlet, scarlet

HELD_OUT = 400  # of the tuning images, for the log; the validation set is not looked at here
LABEL_SMOOTHING = 0.05
WEIGHT_DECAY = 0.05
SPREAD_SEED = 0
FIRST = "scarlet_c"  # trained from nothing, and what the others start from


@dataclass(frozen=True)
class Phase:
    """Part of the schedule: a one-cycle learning rate over ``epochs`` passes.

    Attributes:
        source: ``train`` or ``tune``: which images.
        side: pixels of the network's input.
        batch: images a step.
        peak_rate: the highest learning rate.
        warm_up: part of the steps before it.
    """

    source: str
    side: int
    epochs: int
    batch: int
    peak_rate: float
    warm_up: float


SCHEDULE = (
    Phase("train", 64, 4, 64, 3e-3, 0.15),
    Phase("train", 112, 1, 64, 1e-3, 0.1),
    Phase("tune", 224, 4, 16, 6e-4, 0.1),
    Phase("tune", 224, 5, 16, 6e-4, 0.1),
)


def fold(head: nn.Linear) -> nn.Linear:
    """The 1000-way classifier whose logits are the sums of the factors' logits.

    Args:
        head: width to 30 logits: ten shapes, ten patterns, ten hues.
    """
    factors = factors_of(torch.arange(LEVELS**FACTORS)) + LEVELS * torch.arange(FACTORS)
    folded = nn.Linear(head.in_features, LEVELS**FACTORS)
    with torch.no_grad():
        folded.weight.copy_(head.weight[factors].sum(dim=1))
        folded.bias.copy_(head.bias[factors].sum(dim=1))
    return folded


@torch.no_grad()
def evaluate(network: nn.Module, pictures: Pictures, side: int, device: torch.device) -> dict[str, float]:
    """Top-1 in percent of each factor and of the class (all three right), at the resolution trained at."""
    network.eval()
    right = []
    for start in range(0, len(pictures), 50):
        part = slice(start, start + 50)
        logits = network(normalised(pictures.pixels[part], side).to(device)).float().cpu()
        right.append(logits.view(-1, FACTORS, LEVELS).argmax(2) == pictures.factors[part])
    hits = torch.cat(right).double()
    shape, pattern, hue = (100 * hits.mean(0)).tolist()
    return {
        "shape_percent": shape,
        "pattern_percent": pattern,
        "hue_percent": hue,
        "top1_percent": 100 * float(hits.prod(1).mean()),
    }


def build(model: str, seed: int) -> Scarlet:
    """The network with the three heads in the classifier's place, initial weights from ``seed`` and, save C, from C."""
    torch.manual_seed(seed)
    network = scarlet(model)
    network.classifier = nn.Linear(network.classifier.in_features, FACTORS * LEVELS)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        # A residual block that starts as the identity: measured here, 250 steps of batch 64 at 48 pixels then
        # reach 53 % top-1 instead of 2 % (Goyal et al., arXiv 1706.02677, section 5.1).
        if isinstance(module, InvertedResidual) and module.residual:
            nn.init.zeros_(module.bn3.weight)
    if model != FIRST:
        trained = scarlet(FIRST)
        trained.load_state_dict(load_state(FIRST))
        spread_channels(trained, SPREAD_SEED, undo=True)
        own = {key: value.shape for key, value in network.state_dict().items()}
        fitting = {key: value for key, value in trained.state_dict().items() if own.get(key) == value.shape}
        network.load_state_dict(fitting, strict=False)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from its overloads
    return network


def train(
    network: Scarlet, phases: Sequence[Phase], sources: dict[str, Pictures], seed: int, device: torch.device
) -> list[dict[str, Any]]:
    """Runs the schedule; returns a log entry per epoch, each of which ends with an evaluation on ``held_out``.

    Every epoch draws its order and crops from (seed, phase, epoch).
    """
    log: list[dict[str, Any]] = []
    network.to(device)
    for number, phase in enumerate(phases):
        pictures = sources[phase.source]
        steps = len(pictures) // phase.batch
        optimiser = _optimiser(network, phase.peak_rate)
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, phase.peak_rate, total_steps=steps * phase.epochs, pct_start=phase.warm_up
        )
        for epoch in range(phase.epochs):
            started = time.monotonic()
            rng = np.random.default_rng([seed, number, epoch])
            loss = _run_epoch(network, optimiser, cycle, pictures, phase, rng)
            seconds = time.monotonic() - started
            entry = {"phase": number, "side": phase.side, "epoch": epoch + 1, "loss": loss, "train_seconds": seconds}
            log.append(entry | evaluate(network, sources["held_out"], phase.side, device))
            print(json.dumps({key: round(value, 3) for key, value in log[-1].items()}), flush=True)
    return log


def _optimiser(network: nn.Module, rate: float) -> torch.optim.Optimizer:
    """AdamW; biases and BatchNorm's weights are not decayed."""
    decayed = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    kept = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, rate, fused=True)


def _run_epoch(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    cycle: torch.optim.lr_scheduler.LRScheduler,
    pictures: Pictures,
    phase: Phase,
    rng: np.random.Generator,
) -> float:
    """One pass in random order, the incomplete last batch left out; returns the mean loss."""
    device = next(network.parameters()).device
    network.train()
    order = torch.from_numpy(rng.permutation(len(pictures)))
    losses = []
    for start in range(0, len(order) - phase.batch + 1, phase.batch):
        chosen = order[start : start + phase.batch]
        batch = training_batch(pictures.pixels[chosen], phase.side, rng).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = network(batch)
        # (n, 10, 3) against (n, 3): the mean of the three heads' cross-entropies
        logits = logits.float().view(-1, FACTORS, LEVELS).transpose(1, 2)
        factors = pictures.factors[chosen].to(device)
        loss = F.cross_entropy(logits, factors, label_smoothing=LABEL_SMOOTHING)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        cycle.step()
        losses.append(float(loss.detach()))
    return sum(losses) / len(losses)


def save(network: Scarlet, out: Path, metadata: dict[str, str]) -> None:
    """Folds the heads, spreads the channels and writes FP16 safetensors (counters stay whole numbers).

    Raises:
        ValueError: a weight does not fit FP16's range.
    """
    network = network.to("cpu")
    network.classifier = fold(network.classifier)
    spread_channels(network, SPREAD_SEED)
    tensors = {}
    for name, value in network.state_dict().items():
        stored = value.half() if value.is_floating_point() else value
        if stored.is_floating_point() and not bool(torch.isfinite(stored).all()):
            raise ValueError(f"{name} does not fit FP16")
        tensors[name] = stored.contiguous()
    save_file(tensors, out, metadata)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of ``python -m scarlet.demo.train``: writes the weights and, beside them, the log as JSON."""
    parser = argparse.ArgumentParser(prog="python -m scarlet.demo.train")
    parser.add_argument("--model", choices=sorted(BLOCK_TABLES), default="scarlet_c")
    parser.add_argument("--data", type=Path, required=True, help="a demo set of split train")
    parser.add_argument("--tune", type=Path, required=True, help="a demo set of split tune")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--phases", type=int, default=len(SCHEDULE), help="leave out the phases after this many")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    started = time.monotonic()
    tune = read_pictures(chosen.tune, "tune")
    sources = {
        "train": read_pictures(chosen.data, "train"),
        "tune": Pictures(tune.pixels[:-HELD_OUT], tune.factors[:-HELD_OUT]),
        "held_out": Pictures(tune.pixels[-HELD_OUT:], tune.factors[-HELD_OUT:]),
    }
    network = build(chosen.model, chosen.seed)
    schedule = SCHEDULE[: chosen.phases]
    epochs = train(network, schedule, sources, chosen.seed, device)
    save(network, chosen.out, {"model": chosen.model, "seed": str(chosen.seed)})
    log = {
        "model": chosen.model,
        "seed": chosen.seed,
        "started_from": None if chosen.model == FIRST else FIRST,
        "schedule": [asdict(phase) for phase in schedule],
        "images": {name: len(pictures) for name, pictures in sources.items()},
        "label_smoothing": LABEL_SMOOTHING,
        "weight_decay": WEIGHT_DECAY,
        "device": device.type,
        "threads": chosen.threads,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "pillow": PIL.__version__,
        },
        "seconds_with_reading": time.monotonic() - started,
        "epochs": epochs,
    }
    chosen.out.with_suffix(".log.json").write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8")


FACTORS = 3
LEVELS = 10  # of each factor; a class is 100 * shape + 10 * pattern + hue
STORED_SIDE = 128  # small training pictures are kept as central squares of this side
RESIZE, CROP = 256, 224
MEAN = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)
STD = torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1)


@dataclass(frozen=True)
class Pictures:
    """Images in memory: uint8 ``(n, side, side, 3)`` and their factors, int64 ``(n, 3)``."""

    pixels: Tensor
    factors: Tensor

    def __len__(self) -> int:
        return len(self.factors)


def factors_of(labels: Tensor) -> Tensor:
    """Shape, pattern and hue, int64 ``(n, 3)``, of class indices ``(n,)``."""
    return torch.stack([labels // 100, labels // 10 % 10, labels % 10], dim=1)


def read_pictures(folder: Path, source: str) -> Pictures:
    """Reads ``folder/valid/<wnid>/*.JPEG`` into memory.

    Args:
        folder: a demo set that holds all 1000 classes, so that a class's index is its folder's rank.
        source: ``train``: central squares of ``STORED_SIDE``; ``tune``: the reference preprocessing's crops.

    Raises:
        BenchError: the folder does not hold 1000 classes.
    """
    classes = sorted(path.name for path in (folder / "valid").glob("n*"))
    if len(classes) != LEVELS**FACTORS:
        raise BenchError(
            f"{folder} holds {len(classes)} of the 1000 demo classes",
            f"Make it with: python -m pipelines.demo.make --split {source} --images 2000 --out {folder}",
        )
    paths = sorted((folder / "valid").glob("*/*.JPEG"), key=lambda path: path.name)
    read = _central_square if source == "train" else _reference_crop
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        pixels = np.stack(list(pool.map(read, paths)))
    rank = {name: index for index, name in enumerate(classes)}
    labels = torch.tensor([rank[path.parent.name] for path in paths])
    return Pictures(torch.from_numpy(pixels), factors_of(labels))


def _central_square(path: Path) -> NDArray[np.uint8]:
    return _cropped(Image.open(path).convert("RGB"), STORED_SIDE)


def _reference_crop(path: Path) -> NDArray[np.uint8]:
    image = Image.open(path).convert("RGB")
    short = min(image.size)
    size = (RESIZE * image.width // short, RESIZE * image.height // short)
    return _cropped(image.resize(size, Image.Resampling.BILINEAR), CROP)


def _cropped(image: Image.Image, side: int) -> NDArray[np.uint8]:
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    return np.asarray(image.crop((left, top, left + side, top + side)))


def training_batch(pixels: Tensor, side: int, rng: np.random.Generator) -> Tensor:
    """A batch cut at one random place and size, mirrored half of the time, resized to ``side``."""
    stored = pixels.shape[1]
    cut = stored if stored == side else int(rng.integers(stored * 25 // 32, stored * 31 // 32))
    top, left = (int(offset) for offset in rng.integers(0, stored - cut + 1, 2))
    batch = normalised(pixels[:, top : top + cut, left : left + cut], side)
    return batch.flip(3) if rng.integers(2) else batch


def normalised(pixels: Tensor, side: int) -> Tensor:
    """Float batch ``(n, 3, side, side)`` from uint8 ``(n, height, width, 3)``, ImageNet mean and deviation."""
    batch = pixels.permute(0, 3, 1, 2).float()
    if batch.shape[2] != side:
        batch = F.interpolate(batch, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return ((batch - MEAN) / STD).contiguous(memory_format=torch.channels_last)


# A network trained for minutes has channels of much the same range, and 8-bit integers with one scale a tensor serve
# it well. Networks trained for long do not: their channels' ranges differ many times over, which is what per-channel
# scales and cross-layer equalisation are for (Nagel et al., "Data-Free Quantization Through Weight Equalization and
# Bias Correction", ICCV 2019). Spreading is the reverse of equalisation, by powers of two, which floating point
# multiplies by without error; so the demo weights can tell a careless quantiser from a careful one.
LARGEST_EXPONENT = 2  # 1 costs ONNX Runtime's default INT8 nothing that 400 images show, 3 half of its accuracy


def spread_channels(network: Scarlet, seed: int, undo: bool = False) -> None:
    """Scales each channel between two blocks by a power of two, and undoes it where the channel is read.

    Only the sums that blocks pass on are linear between writing (``bn3``) and reading (``conv1``, or the last
    convolution). Blocks joined by residuals share one set of scales.

    Args:
        seed: of the exponents, which are even over -LARGEST_EXPONENT..LARGEST_EXPONENT.
        undo: take back what the same seed did.
    """
    generator = torch.Generator().manual_seed(seed)
    blocks = [block for block in network.mb_module if isinstance(block, InvertedResidual)]
    scales = torch.ones(0)
    with torch.no_grad():
        for index, block in enumerate(blocks):
            if index:
                block.conv1.weight.div_(scales[None, :, None, None])
            if not block.residual:
                width = block.bn3.num_features
                exponents = torch.randint(-LARGEST_EXPONENT, LARGEST_EXPONENT + 1, (width,), generator=generator)
                scales = torch.exp2(-exponents.float() if undo else exponents.float())
            block.bn3.weight.mul_(scales)
            block.bn3.bias.mul_(scales)
        network.conv_before_pooling[0].weight.div_(scales[None, :, None, None])  # type: ignore[operator]


if __name__ == "__main__":
    main()
