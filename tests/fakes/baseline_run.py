"""Runs whose Cases predicted given classes, for baselines and checks."""

from pathlib import Path
from typing import Any

from report_run import add_predictions, end, make_run
from snapshots import accuracy_case

from bench.record.case import Case
from bench.record.run_folder import RunFolder

PYTORCH, ORT = accuracy_case(), accuracy_case("onnxruntime")
FILES = {"model": "scarlet_c", "weights": "official", "weights_sha256": "w" * 64, "onnx_sha256": "o" * 64}
IMAGES = [(f"valid/{place}.JPEG", place) for place in range(6)]


def made_run(
    path: Path, tops: dict[Case, list[int]], images: Any = IMAGES, info: Any = None, **ending: Any
) -> RunFolder:
    """A run whose Cases predicted these classes, -1 for none."""
    settings = {"model": "scarlet_c", "images": "6", "data": "/data", "timeout_seconds": 60.0, "options": []}
    more = {"model_files": FILES, "settings": settings, **(info or {})}
    folder = make_run(path, tops, more)
    folder.write_images(images)
    for scored, top in tops.items():
        add_predictions(
            folder,
            scored,
            {name: (label, [top1]) for (name, label), top1 in zip(images, top, strict=True) if top1 >= 0},
        )
        bad = [{"image_id": name, "reason": "torn"} for (name, _), top1 in zip(images, top, strict=True) if top1 < 0]
        end(folder, scored, bad_images=bad, metrics={"input_sha256": "p"}, **ending)
    return folder
