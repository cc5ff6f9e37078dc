"""`export`: a model as a file, in FP32 or in lower precision."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.backends.base import ModelFiles
from bench.backends.graphs import Wanted
from bench.record.case import checked_names
from bench.record.files import file_name
from bench.report.document import Document, Note
from bench.run.images import choose_calibration
from bench.run.model_files import CHECK_IMAGES, Requirements
from bench.run.session import Session
from bench.run.spec import RunSpec
from export.precision.recipe import DIALECTS, PRECISIONS, Recipe, default_recipe, read_recipe
from scarlet.errors import BenchError
from scarlet.preprocess import METADATA


@dataclass(frozen=True)
class Lower:
    """In what precision below FP32 to export; ``file``: the user's recipe file, or None for the default recipe."""

    recipe: Recipe
    file: Path | None = None

    @property
    def wanted(self) -> Wanted:
        """What the preparing worker is asked for."""
        recipe = self.recipe
        return Wanted(self.suffix, recipe.precision, recipe.dialect, str(self.file.resolve()) if self.file else "")

    @property
    def suffix(self) -> str:
        """Tells this file's name from FP32's: ``fp16``, ``int8-ort``."""
        return "-".join(filter(None, (self.recipe.precision, self.recipe.dialect)))


@dataclass(frozen=True)
class Written:
    """What an export left.

    Attributes:
        out: the file; an ``.xml`` has its ``.bin`` beside it.
        typed: ``sha256`` and ``facts`` of the graph of lower precision; empty for FP32.
    """

    out: Path
    files: ModelFiles
    typed: dict[str, Any] = field(default_factory=dict)


def lower(precision: str, dialect: str | None, recipe: Path | None) -> Lower | None:
    """What the options of `export` ask for besides FP32; None for FP32.

    Raises:
        BenchError: options are unknown or do not go together.
    """
    (precision,) = checked_names("precision", [precision], ("fp32", *PRECISIONS))
    if recipe is not None:
        found = read_recipe(recipe)
        for name, asked, of in (("precision", precision, found.precision), ("dialect", dialect, found.dialect)):
            if asked not in (None, "fp32", of):
                raise BenchError(
                    f"--{name} {asked} was given with the recipe {recipe}, which is of {name} {of or 'none'}",
                    f"Leave --{name} out.",
                )
        return Lower(found, recipe)
    if dialect is not None and precision != "int8":
        raise BenchError(f"--dialect {dialect} was given with --precision {precision}", "Add --precision int8.")
    if precision == "fp32":
        return None
    if precision == "int8":
        (dialect,) = checked_names("dialect", [dialect or DIALECTS[0]], DIALECTS)
    return Lower(default_recipe(precision, dialect or ""))


def export(spec: RunSpec, out: Path | None, console: Console, in_lower: Lower | None = None) -> Written:
    """Exports a model to ``out`` (default: its name, with the precision below FP32, in the current folder).

    Args:
        spec: of it the model (an ONNX file only for lower precision), its checkpoint, the images to check the graph
            on, and for INT8 the calibration images and what reads them.

    Raises:
        BenchError: the model, its checkpoint, the images, the recipe or ``out`` is at fault.
    """
    name = spec.network.name
    if spec.network.kind == "onnx" and in_lower is None:
        raise BenchError(
            f"{name} is an ONNX graph already",
            "Run it: scarlet-bench run --model onnx:<file>; or add --precision for a lower one.",
        )
    target = (out or _default_out(name, in_lower)).resolve()
    with Session.scratch(spec.but(images=CHECK_IMAGES), console) as session:
        files = session.require(_required(in_lower, session))
    typed = dict(files.typed.get(in_lower.suffix, {})) if in_lower else {}
    if in_lower and "path" not in typed:
        raise BenchError(
            f"the {in_lower.suffix} graph could not be made: {typed['reason']}",
            typed.get("do", "Install what is missing, or take another precision."),
        )
    source = Path(typed.get("path", files.onnx))
    _copy(source, target)
    if target.suffix == ".onnx":
        _state(target, files)
    if source.suffix == ".xml":
        _copy(source.with_suffix(".bin"), target.with_suffix(".bin"))
    return Written(target, files, typed)


def _required(in_lower: Lower | None, session: Session) -> Requirements:
    if in_lower is None:
        return Requirements()
    chosen = None
    if in_lower.recipe.precision == "int8":
        # Nothing is scored here: any image of the user's set may serve.
        spec = session.spec
        chosen = choose_calibration(session.root, (), spec.calibration, session.console, how=spec.labelling)
    return Requirements((in_lower.wanted,), chosen, session.spec.lists["pipeline"][0])


def _default_out(name: str, in_lower: Lower | None) -> Path:
    stem = file_name(name).removesuffix(".onnx")
    if in_lower is None:
        return Path(f"{stem}.onnx")
    return Path(f"{stem}-{in_lower.suffix}{'.xml' if in_lower.recipe.dialect == 'nncf' else '.onnx'}")


def _copy(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    except OSError as error:
        raise BenchError(f"{target} cannot be written: {error.strerror}", "Give another --out.") from None


def _state(path: Path, files: ModelFiles) -> None:
    """Writes the preprocessing into a graph, so that it need not be stated again where the file is run."""
    import onnx

    model = onnx.load(path)
    kept = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, {**kept, METADATA: json.dumps(files.preprocess, sort_keys=True)})
    path.write_bytes(model.SerializeToString(deterministic=True))


def document(written: Written) -> Document:
    """What `export` says at the end."""
    return Document(f"Export of {written.files.model}", [Note(describe(written))], to_json(written))


def to_json(written: Written) -> dict[str, Any]:
    """What `export --json` prints."""
    return {"out": str(written.out), **written.files.to_dict(), "typed": written.typed}


def describe(written: Written) -> str:
    """What `export` says at the end, for people."""
    files, typed = written.files, written.typed
    head = f"{written.out}: {files.model}, {files.weights} weights"
    if not typed:
        parity = files.parity
        return (
            f"{head}; largest difference of a logit from PyTorch {parity['max_abs_diff']:.2g}, the logits' spread "
            f"{parity['logits_spread']:.3g}"
        )
    facts = typed["facts"]
    recipe = facts["recipe"]
    name = " ".join(filter(None, (recipe["precision"], recipe["dialect"])))
    counts = ", ".join(f"{count} in {kind}" for kind, count in facts["layers"].items())
    line = f"{head}; {name}: of the convolutions and matrix products {counts}"
    if "calibration" in facts:
        line += f"; calibrated on {facts['calibration']['images']} images ({facts['calibration']['source']})"
    return line
