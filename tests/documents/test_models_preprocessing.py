"""The table of docs/models.md on preprocessing, made by trying each."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from bench_fakes import make_graph
from document_tables import check_table

from bench.backends.base import Unavailable
from bench.worker.prepare import Request, describe
from pipelines import refusal
from scarlet.errors import BenchError
from scarlet.preprocess import Preprocess, checked

NET = "an ONNX file"
GIVEN: list[tuple[str, str, dict[str, Any]]] = [
    ("scarlet_c", "scarlet_c", {}),
    (NET, "onnx", {}),
    (f"{NET}, `--mean 0.5 --std 0.5`", "onnx", {"mean": "0.5", "std": "0.5"}),
    (f"{NET}, `--std 1/255 --channels bgr`", "onnx", {"std": "1/255", "channels": "bgr"}),
    (f"{NET}, `--mean 127 --std 128`", "onnx", {"mean": "127", "std": "128"}),
    (f"{NET} with `mean: 127`, `std: 128` beside it", "sidecar", {}),
    ("the same with `--crop-mode border --resize 240`", "sidecar", {"crop_mode": "border", "resize": "240"}),
    (f"{NET} of fixed size, `--input-size 256`", "onnx", {"input_size": "256"}),
    (f"{NET}, `--interpolation lanczos`", "onnx", {"interpolation": "lanczos"}),
    (f"{NET}, `--interpolation cubic`", "onnx", {"interpolation": "cubic"}),
    ("timm/mobilenetv3_large_100", "timm/mobilenetv3_large_100", {}),
    ("timm/resnet50d, `--input-size test`", "timm/resnet50d", {"input_size": "test"}),
    ("timm/coat_lite_medium_384", "timm/coat_lite_medium_384", {}),
]


def rows(folder: Path) -> Iterator[tuple[str, str, str]]:
    path = folder / "net.onnx"
    onnx.save(make_graph("batch"), path)
    for words, model, given in GIVEN:
        sidecar = path.with_suffix(".preprocess.yaml")
        if model == "sidecar":
            sidecar.write_text("mean: 127\nstd: 128\n")
        else:
            sidecar.unlink(missing_ok=True)
        try:
            name = f"onnx:{path}" if model in ("onnx", "sidecar") else model
            answer = describe(Request(name, preprocess=checked(given)))
        except BenchError as error:
            yield words, f"refused: {error.what}. {error.do}".replace(str(path), "net.onnx"), ""
            continue
        made = Preprocess.from_dict(answer["preprocess"])
        by = ", ".join(name for name in ("turbo", "dali") if not refusal(name, made))
        yield words, f"{made} ({answer['source'] or 'assumed'})", by or "reference"


def test_preprocessing(tmp_path: Path) -> None:
    try:
        table = list(rows(tmp_path))
    except Unavailable:
        pytest.skip("timm is not here")
    check_table("models.md", "preprocessing", ("Given", "What is fed", "Made by"), table)
