"""A run with one of everything, for the tests of the HTML report and for its screenshots: fixed, made-up figures."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from report_run import case, end, make_run

from bench.record.case import Case, Status
from bench.record.run_folder import RunFolder

N_IMAGES = 1000
ROUNDS, CALLS = 40, 8

HOST = {
    "cpu_model": "Example CPU with 8 cores",
    "architecture": "x86_64",
    "logical_cores": 8,
    "logical_cores_allowed": 4,
    "memory_total_bytes": 16 * 2**30,
    "os": "Example Linux 1.0",
    "python": "CPython 3.11.7",
    "nvidia": {"gpus": []},
}
INFO: dict[str, Any] = {
    "command": ["/opt/venv/bin/scarlet-bench", "run", "--model", "scarlet_c", "--precisions", "fp32,int8"],
    "host": HOST,
    "packages": {"scarlet-bench": "0.1.0", "torch": "2.9.0", "onnxruntime": "1.23.0", "openvino": "2025.4.0"},
    "git": {"commit": "0123456789abcdef", "dirty": False},
    "warnings": [
        {
            "kind": "load",
            "text": "0.9 over the last minute on 4 logical cores; others keep 0.20 cores busy now",
            "advice": "Stop other work (top shows it) and wait a minute, or measure at a quieter time.",
        },
        {
            "kind": "governor",
            "text": "the frequency governor is powersave",
            "advice": "Set it to performance: sudo cpupower frequency-set --governor performance.",
        },
    ],
}

# Backend, precision, median latency at batch 1 in ms, share of predictions that differ from PyTorch's.
WAYS = (
    ("pytorch", "fp32", 12.4, 0.0),
    ("onnxruntime", "fp32", 5.16, 0.002),
    ("openvino", "fp32", 5.2, 0.003),
    ("onnxruntime", "int8", 3.94, 0.04),
)
WORSE_AT_8 = {"pytorch": 5.1, "onnxruntime": 6.6, "openvino": 6.5}


def make(path: Path, data: Path) -> RunFolder:
    """The run, and a folder with the pictures of those images that may be shown."""
    scored = [_case(backend, precision, scenario="accuracy", batch=32) for backend, precision, _, _ in WAYS]
    start = _case("pytorch", "fp32", scenario="accuracy", batch=32, pipeline="reference")
    timed = [_case(backend, precision, batch=batch) for batch in (1, 8) for backend, precision, _, _ in WAYS]
    through = [_case(backend, "fp32", scenario="throughput", batch=8) for backend in ("pytorch", "onnxruntime")]
    missing = _case("tensorrt", "fp32", device="cuda")
    crashed = _case("openvino", "int8")
    fell_back = _case("onnxruntime", "bf16")
    planned = [start, *scored, *timed, *through, fell_back, crashed, missing]
    dataset = {"root": str(data), "layout": "folders", "n_images": N_IMAGES, "fingerprint": "feed" * 8, "is_demo": True}
    folder = make_run(path, planned, {**INFO, "dataset": dataset})
    source = np.random.default_rng(8)
    changed = _accuracy(folder, start, scored, source)
    for one in timed:
        base = next(way[2] for way in WAYS if way[:2] == (one.backend, one.precision))
        ms = base if one.batch == 1 else base * WORSE_AT_8[one.backend]
        _calls(folder, one, ms, source)
        _end_timed(folder, one)
    for one, ms in zip(through, (920.0, 640.0), strict=True):
        _passes(folder, one, ms, source)
        end(folder, one, stage="end_to_end", metrics={"peak_rss_bytes": 900 * 2**20}, proof=_proof(one))
    _calls(folder, fell_back, 5.3, source)
    end(
        folder,
        fell_back,
        Status.FALLBACK,
        stage="compute",
        reason="78 of 255 nodes ran in float32: this processor has no bf16 arithmetic",
        proof=_proof(fell_back),
    )
    end(
        folder,
        crashed,
        Status.CRASHED,
        reason="the worker was killed by signal 9 after 3.1 s; its last words are in logs/",
    )
    end(folder, missing, Status.UNAVAILABLE, reason="TensorRT is not installed: pip install tensorrt")
    folder.merge_parts()
    _pictures(data, changed)
    return folder


def image_id(place: int) -> str:
    """Of the image at this place."""
    return f"valid/n{place % 1000:08}/image_{place:05}.JPEG"


def _case(backend: str, precision: str, **more: Any) -> Case:
    return case(
        **{"weights": "demo", "backend": backend, "precision": precision, "pipeline": "turbo", "threads": 4, **more}
    )


def _accuracy(folder: RunFolder, start: Case, scored: list[Case], source: np.random.Generator) -> list[int]:
    """Writes predictions; gives the places of images on which some differ."""
    changed: set[int] = set()
    label = np.arange(N_IMAGES) % 1000
    top = (label[:, None] + np.arange(5)) % 1000
    wrong = source.random(N_IMAGES) < 0.08
    top[wrong] = np.roll(top[wrong], 1, axis=1)
    margin = source.beta(2.0, 1.0, N_IMAGES).astype(np.float32)
    shares = {start: 0.001, **{one: way[3] for one, way in zip(scored, WAYS, strict=True)}}
    for one, share in shares.items():
        own = top.copy()
        close = np.argsort(margin)[: round(share * N_IMAGES)]
        own[close] = np.roll(own[close], 1, axis=1)
        if one.precision == "int8":
            sure = np.argsort(-margin)[:3]
            own[sure] = np.roll(own[sure], 2, axis=1)
            changed.update(sure.tolist())
        changed.update(close.tolist())
        folder.write_predictions_part(
            one.case_id, image_id=[image_id(place) for place in range(N_IMAGES)], label=label, top=own, margin=margin
        )
        bad = ({"image_id": "valid/n00000007/torn.JPEG", "reason": "the file ends too early"},)
        metrics = {"peak_rss_bytes": 600 * 2**20, "n_bad_images": 1}
        end(folder, one, stage="end_to_end", metrics=metrics, proof=_proof(one), bad_images=bad)
    return sorted(changed)


def _noise(source: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Factors of times: mostly quiet, a tail to the right."""
    return 1.0 + 0.01 * source.standard_normal(n) + 0.03 * source.exponential(1.0, n) * (source.random(n) < 0.1)


def _calls(folder: RunFolder, one: Case, ms: float, source: np.random.Generator) -> None:
    n = ROUNDS * CALLS
    rounds = np.repeat(np.arange(ROUNDS), CALLS)
    drift = 1.0 + 0.01 * np.sin(rounds / 7.0)
    folder.write_samples_part(
        one.case_id,
        round=rounds,
        stage="compute",
        images=np.full(n, one.batch),
        warmup=np.zeros(n, dtype=bool),
        latency_ns=(ms * 1e6 * drift * _noise(source, n)).astype(np.int64),
    )


def _passes(folder: RunFolder, one: Case, ms: float, source: np.random.Generator) -> None:
    parts = {"end_to_end": 1.0, "decode": 0.6, "preprocess": 0.1, "compute": 0.5}
    stages = [stage for stage in parts for _ in range(ROUNDS)]
    n = len(stages)
    folder.write_samples_part(
        one.case_id,
        round=np.tile(np.arange(ROUNDS), len(parts)),
        stage=stages,
        images=np.full(n, 128),
        warmup=np.zeros(n, dtype=bool),
        latency_ns=(ms * 1e6 * np.array([parts[stage] for stage in stages]) * _noise(source, n)).astype(np.int64),
    )


def _end_timed(folder: RunFolder, one: Case) -> None:
    metrics = {"n_warmup": 0, "stop_reason": "precision", "peak_rss_bytes": 300 * 2**20, "input_sha256": "ab" * 32}
    end(folder, one, stage="compute", metrics=metrics, proof=_proof(one))


def _proof(one: Case) -> dict[str, Any]:
    return {
        "version": str(INFO["packages"].get("torch" if one.backend == "pytorch" else one.backend)),
        "intra_op_threads": one.threads,
        "nodes_per_provider": {"CPUExecutionProvider": {"Conv": 78, "Gemm": 1}},
        "fallback": "",
    }


def _pictures(data: Path, places: list[int]) -> None:
    """A disc, a square or a triangle on a gradient for each of these images."""
    for place in places:
        path = data / image_id(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        hue = place * 37 % 256
        ground = Image.linear_gradient("L").resize((200, 150))
        hsv = Image.merge("HSV", (Image.new("L", ground.size, hue), Image.new("L", ground.size, 120), ground))
        picture = hsv.convert("RGB")
        draw = ImageDraw.Draw(picture)
        colour = (255 - hue, hue, (place * 91) % 256)
        if place % 3 == 0:
            draw.ellipse((60, 35, 140, 115), fill=colour)
        elif place % 3 == 1:
            draw.rectangle((65, 40, 135, 110), fill=colour)
        else:
            draw.polygon([(100, 30), (150, 120), (50, 120)], fill=colour)
        picture.save(path, "JPEG", quality=85)
