"""The stored FP32 graph -> one of lower precision, made once, kept in the store, described by its facts."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import onnx

from export.precision import audit, calibration, float16, int8, openvino
from export.precision.calibration import CalibrationSet
from export.precision.recipe import Recipe
from export.store import Artefact, Store, recorded_sha256
from scarlet.errors import BenchError
from scarlet.files import file_sha256

_TYPES = {"fp16": "float16", "bf16": "bfloat16", "int8": audit.INT8}


class _Making(NamedTuple):
    """What decides the bytes of a kind of graph besides its inputs, code of ours and packages; and the packages that it
    needs beyond what is always there.
    """

    code: tuple[ModuleType, ...]
    packages: tuple[str, ...]
    needs: tuple[str, ...]


_QDQ = _Making((int8, audit), ("onnx", "onnxruntime"), ("onnxruntime",))
_MAKING = {
    "fp16": _Making((float16, int8, audit), ("onnx", "onnxconverter-common"), ("onnxconverter-common", "onnxruntime")),
    "bf16": _Making((float16, int8, audit), ("onnx", "ml_dtypes"), ()),
    "ort": _QDQ,
    "symmetric": _QDQ,
    "nncf": _Making((openvino, int8, audit), ("onnx", "openvino", "nncf"), ("openvino", "nncf")),
}


def missing_packages(recipe: Recipe) -> list[str]:
    """The packages that a recipe needs and that are not installed."""
    needs = _MAKING[recipe.kind].needs
    return [package for package in needs if importlib.util.find_spec(package.replace("-", "_")) is None]


def make_typed(
    onnx_path: Path,
    onnx_sha256: str,
    recipe: Recipe,
    store: Store,
    calibration_set: CalibrationSet | None = None,
    fixed_batch: int | None = None,
) -> Artefact:
    """Makes the graph that a recipe describes, or finds it in the store. Equal inputs give equal bytes.

    It is an ``.onnx`` file, or an ``.xml`` with its ``.bin`` beside it, whose digest is of the digests of both. Facts:
    ``recipe``, ``source_sha256``, ``versions``, ``calibration`` (``sha256`` and ``images``) for INT8, and ``layers``:
    how many convolutions and matrix products are to be computed in each type.

    Args:
        onnx_path: the FP32 graph; one float32 image input, one output.
        fixed_batch: the only batch that the graph takes, or None.

    Raises:
        BenchError: the recipe does not fit the graph, nothing would be converted, or the result does not run.
        ImportError: a package that this kind of graph needs is not installed.
        ValueError: an INT8 recipe without a calibration set.
    """
    if recipe.precision == "int8" and calibration_set is None:
        raise ValueError("an INT8 recipe needs calibration images")
    key_parts = _key_parts(onnx_sha256, recipe)
    facts: dict[str, Any] = {
        "recipe": recipe.to_dict(),
        "source_sha256": onnx_sha256,
        "versions": json.loads(key_parts["versions"]),
    }
    if recipe.precision != "int8":
        return store.with_facts(key_parts, ".onnx", lambda path: _make_float(path, onnx_path, recipe, facts))
    assert calibration_set is not None
    facts["calibration"] = {"sha256": calibration_set.sha256, "images": calibration_set.n_images}
    key_parts["calibration"] = calibration_set.sha256
    if recipe.dialect == "nncf":

        def quantise(path: Path) -> dict[str, Any]:
            openvino.quantise_openvino(onnx_path, path, recipe, calibration_set, fixed_batch)
            return {**facts, "layers": _layers(openvino.requested(path), recipe)}

        made = store.with_facts(key_parts, ".xml", quantise, (".bin",))
        both = f"{made.sha256}{file_sha256(made.path.with_suffix('.bin'))}"
        return replace(made, sha256=hashlib.sha256(both.encode()).hexdigest())
    ranges = stored_ranges(onnx_path, onnx_sha256, recipe, store, calibration_set, fixed_batch)
    key_parts["ranges"] = recorded_sha256(ranges)
    return store.with_facts(key_parts, ".onnx", lambda path: _make_qdq(path, onnx_path, recipe, facts, ranges))


def stored_ranges(
    onnx_path: Path,
    onnx_sha256: str,
    recipe: Recipe,
    store: Store,
    calibration_set: CalibrationSet,
    fixed_batch: int | None = None,
) -> Path:
    """The file of ``export.precision.calibration.save_ranges`` for this graph, these images and the recipe's method.

    Every recipe of one calibration method shares it: a search over the other settings runs the images once.

    Raises:
        BenchError: see ``prepare_graph`` and ``tensor_ranges``.
    """
    method = {name: recipe.to_dict().get(name) for name in ("calibration", "percentile")}

    def make(path: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            graph = Path(folder) / "graph.onnx"
            int8.prepare_graph(onnx_path, graph)
            found = calibration.tensor_ranges(
                graph, calibration_set.batches, recipe.calibration, recipe.percentile, fixed_batch
            )
        calibration.save_ranges(path, found)

    return store.get_or_make(
        {
            "artefact": "ranges",
            "source": onnx_sha256,
            "calibration": calibration_set.sha256,
            "method": json.dumps(method, sort_keys=True),
            "code": _code_sha256(calibration, int8),
            "versions": json.dumps(_versions("onnx", "onnxruntime"), sort_keys=True),
        },
        ".ranges.json",
        make,
    )


def _key_parts(onnx_sha256: str, recipe: Recipe) -> dict[str, str]:
    return {
        "artefact": "typed",
        "source": onnx_sha256,
        "recipe": recipe.key,
        "code": _code_sha256(*_MAKING[recipe.kind].code),
        "versions": json.dumps(_versions(*_MAKING[recipe.kind].packages), sort_keys=True),
    }


def _versions(*packages: str) -> dict[str, str]:
    # onnxruntime and onnxruntime-gpu are the same module under two names.
    def of(package: str) -> str:
        if package == "onnxruntime":
            import onnxruntime

            return str(onnxruntime.__version__)
        return version(package)

    return {package: of(package) for package in packages}


def _code_sha256(*modules: ModuleType) -> str:
    return " ".join(file_sha256(Path(str(module.__file__))) for module in modules)


def _make_float(path: Path, onnx_path: Path, recipe: Recipe, facts: dict[str, Any]) -> dict[str, Any]:
    convert = float16.to_float16 if recipe.precision == "fp16" else float16.to_bfloat16
    _write(path, convert(onnx.load(onnx_path), recipe.exclude), facts)
    layers = _layers(audit.requested_by_onnx(path), recipe)
    if recipe.precision == "fp16":  # ONNX Runtime has no BF16 convolution on the CPU
        float16.check_runs(path)
    return {**facts, "layers": layers}


def _make_qdq(path: Path, onnx_path: Path, recipe: Recipe, facts: dict[str, Any], ranges: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "graph.onnx"
        prepared = int8.prepare_graph(onnx_path, graph)
        _write(path, int8.quantised(graph, calibration.load_ranges(ranges), recipe), facts)
    layers = _layers(audit.requested_by_onnx(path), recipe)
    float16.check_runs(path)
    return {**facts, "prepared": prepared, "layers": layers}


def _layers(requested: Mapping[str, str], recipe: Recipe) -> dict[str, int]:
    """How many layers are requested in each type; BenchError where none is in the recipe's."""
    counts = dict(sorted(Counter(requested.values()).items()))
    if _TYPES[recipe.precision] not in counts:
        raise BenchError(
            f"the recipe of {recipe.kind} changes no convolution and no matrix product of the graph",
            "Exclude fewer nodes, name other op_types, or measure fp32.",
        )
    return counts


def _write(path: Path, model: Any, facts: dict[str, Any]) -> None:
    """Writes a checked graph that says in its metadata what it was made of."""
    own = {"recipe": json.dumps(facts["recipe"], sort_keys=True), "source_sha256": facts["source_sha256"]}
    if "calibration" in facts:
        own |= {f"calibration_{name}": str(value) for name, value in facts["calibration"].items()}
    entries = {entry.key: entry.value for entry in model.metadata_props} | own
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(sorted(entries.items())))
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
