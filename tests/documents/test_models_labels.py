"""The tables of docs/models.md on labels, on checkpoints and on what is noticed after a row, made by trying each."""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from document_tables import check_table
from safetensors.torch import save_file
from torch import nn

from bench.analysis.accuracy.reading import Read, judge
from pipelines.imagenet.find import find_images
from pipelines.imagenet.labels import BACKGROUND, Labelling, wnids
from scarlet.errors import BenchError
from scarlet.foreign.checkpoint import load_into

TENCH, GOLDFISH = wnids()[:2]
VAL = "val/ILSVRC2012_val_0000000{}.JPEG"
FLAT = [VAL.format(number) for number in (1, 2, 3)]
FIRST = {"from 0": (65, 970, 230), "from 1": (66, 971, 231), "kit": (490, 361, 171)}


def listed(*numbers: object) -> dict[str, str]:
    return {
        "val.txt": "".join(f"{name} {n}\n" for name, n in zip(FLAT, numbers, strict=False)),
        **dict.fromkeys(FLAT, ""),
    }


KAGGLE = {"LOC_val_solution.csv": "".join(f"{Path(name).stem},{TENCH} 1 2 3 4\n" for name in FLAT)}
LABELS: dict[str, tuple[dict[str, str], Labelling]] = {
    "class folders named by wnid": ({f"val/{TENCH}/a.jpg": "", f"val/{GOLDFISH}/b.jpg": ""}, Labelling()),
    "ImageNet-V2: class folders 0 to 999": ({"0/a.jpeg": "", "999/b.jpeg": ""}, Labelling()),
    "class folders 1 to 1000": ({"1/a.jpeg": "", "1000/b.jpeg": ""}, Labelling()),
    "ImageNet-R, -A, Imagenette: some of the wnids": ({f"{TENCH}/a.jpg": "", f"{wnids()[217]}/b.jpg": ""}, Labelling()),
    "class folders of other names": ({"cat/a.jpg": "", "dog/b.jpg": ""}, Labelling()),
    "the same with `--classes FILE`": ({"cat/a.jpg": "", "dog/b.jpg": "", "list": "dog\ncat\n"}, Labelling("list")),
    "wnids with `--classes background`": ({f"{TENCH}/a.jpg": ""}, Labelling(BACKGROUND)),
    "`val.txt` from 0": (listed(0, 7, 9), Labelling()),
    "`val.txt` from 1": (listed(1, 7, 1000), Labelling()),
    "`val.txt` that may be either": (listed(1, 7, 9), Labelling()),
    "the same with `--first-label 1`": (listed(1, 7, 9), Labelling(first_label=1)),
    "`val.txt` from 1, of the official images": (listed(*FIRST["from 1"]), Labelling()),
    "`val.txt` of the development kit's ids": (listed(*FIRST["kit"]), Labelling()),
    "`val.txt` from 0 to 1000": (listed(0, 7, 1000), Labelling()),
    "`val.txt` with wnids": (listed(TENCH, GOLDFISH, TENCH), Labelling()),
    "`val.txt` that names more images": (
        {**listed(0, 7, 9), FLAT[2]: "", "val.txt": listed(0, 7, 9)["val.txt"] + "z.JPEG 3\n"},
        Labelling(),
    ),
    "Kaggle's flat folder and `LOC_val_solution.csv`": ({**dict.fromkeys(FLAT, ""), **KAGGLE}, Labelling()),
    "Hugging Face's archive: names end in the wnid": ({f"ILSVRC2012_val_00000001_{TENCH}.JPEG": ""}, Labelling()),
    "files without labels": (dict.fromkeys(FLAT, ""), Labelling()),
    "pictures of other suffixes": ({f"{TENCH}/a.jpg": "", f"{TENCH}/b.webp": ""}, Labelling()),
    "images a folder deeper": ({f"{TENCH}/a.jpg": "", f"{TENCH}/more/b.jpg": ""}, Labelling()),
    "two folders of images": ({f"valid/{TENCH}/a.jpg": "", f"val/{TENCH}/b.jpg": ""}, Labelling()),
}


def plain(text: str, folder: Path) -> str:
    return text.replace(f"{folder}/", "").replace(str(folder), "DATA")


def of_labels(folder: Path) -> Iterator[tuple[str, str]]:
    for number, (name, (files, how)) in enumerate(LABELS.items()):
        root = folder / str(number)
        for file, text in files.items():
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_text(text)
        classes = str(root / how.classes) if how.classes == "list" else how.classes
        try:
            found = find_images(root, Labelling(classes, how.labels, how.first_label))
            numbers = ", ".join(str(image.label) for image in found.images)
            yield name, plain("; ".join([f"read as {numbers}", *found.notes]), root)
        except BenchError as error:
            yield name, plain(f"refused: {error.what}. {error.do}", root)


def test_labels(tmp_path: Path) -> None:
    check_table("models.md", "labels", ("Given", "What happens"), of_labels(tmp_path))


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def named(prefix: str = "") -> dict[str, torch.Tensor]:
    return {f"{prefix}{key}": tensor for key, tensor in network().state_dict().items()}


CHECKPOINTS: dict[str, tuple[Callable[[], Any], str]] = {
    'a state dict, alone or under "model_state", "state_dict", "model", "net" or any other key': (
        lambda: {"model": named()},
        "",
    ),
    "prefixes `module.`, `_orig_mod.`, `model.` of parallel, compiled and Lightning's networks": (
        lambda: {"state_dict": named("model.module._orig_mod.")},
        "",
    ),
    "EMA weights beside the raw ones": (lambda: {"state_dict": named(), "state_dict_ema": named("module.")}, ""),
    "the same as `FILE#state_dict_ema`": (
        lambda: {"state_dict": named(), "state_dict_ema": named()},
        "#state_dict_ema",
    ),
    "EMA weights alone": (lambda: {"state_dict_ema": named()}, ""),
    "NumPy's numbers, or an `argparse.Namespace`, beside the weights": (
        lambda: {"net": named(), "acc": np.float64(1), "args": argparse.Namespace(lr=1)},
        "",
    ),
    "no `num_batches_tracked`": (lambda: {key: value for key, value in named().items() if "tracked" not in key}, ""),
    "`total_ops` and `total_params`, left by thop": (lambda: {**named(), "total_ops": torch.ones(1)}, ""),
    "keys of another network": (lambda: {**named(), "2.weight": torch.ones(1)}, ""),
    "a whole module, or other classes": (network, ""),
    "a Git LFS pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\n", ""),
    "a web page": (lambda: b"<!DOCTYPE html>", ""),
    "gzip": (lambda: b"\x1f\x8b\x08", ""),
    "a tar archive": (lambda: bytes(257) + b"ustar", ""),
}


def of_checkpoints(folder: Path) -> Iterator[tuple[str, str]]:
    path = folder / "FILE"
    for name, (content, key) in CHECKPOINTS.items():
        made = content()
        path.write_bytes(made) if isinstance(made, bytes) else torch.save(made, path)
        yield name, tried(path, key)
    torch.save(named(), path, pickle_protocol=5)
    yield "pickle protocol 4 or 5", tried(path)
    save_file(named(), path)
    yield "safetensors, by any name or link", tried(path)


def tried(path: Path, key: str = "") -> str:
    try:
        return plain("; ".join(["loaded", *load_into(network(), f"{path}{key}", "MODEL")]), path.parent)
    except BenchError as error:
        return plain(f"refused: {error.what}. {error.do}", path.parent)


def test_checkpoints(tmp_path: Path) -> None:
    check_table("models.md", "checkpoints", ("Given", "What happens"), of_checkpoints(tmp_path))


def test_what_is_noticed() -> None:
    labels = np.repeat(np.arange(50), 4)
    order = np.random.default_rng(0).permutation(50)
    tried = {
        "a head with a background class": (labels + 1, labels, Read(1001, 1000, 1001)),
        "a head of 10 classes": (labels * (labels < 10), labels, Read(10, 1000, 10)),
        "a head of 21,841 classes": (labels, labels, Read(21841, 1000, 21841)),
        "labels from 1": (labels, labels + 1, Read(1000, 1000, 1000)),
        "classes in another order": (labels, order[labels], Read(1000, 1000, 1000)),
        "nearly all images in one class": (labels * 0 + 7, labels, Read(1000, 1000, 1000)),
        "labels or weights of something else": (
            np.random.default_rng(1).integers(0, 1000, 200),
            labels,
            Read(1000, 1000, 1000),
        ),
        "probabilities in place of logits": (labels, labels, Read(1000, 1000, 1000, are_probabilities=True)),
    }
    rows = [(name, " ".join(f"{one.text}. {one.advice}" for one in judge(*given))) for name, given in tried.items()]
    check_table("models.md", "noticed", ("Of a row", "What is said"), rows)
