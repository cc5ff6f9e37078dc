"""Looks at a user's ONNX file: is it an image classifier that we can feed?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scarlet.errors import BenchError
from scarlet.files import file_sha256

DEFAULT_INPUT_SIZE = 224  # where a graph leaves height and width open


@dataclass(frozen=True)
class OnnxInfo:
    """An ONNX classifier.

    Attributes:
        sha256: digest of that file; where weights lie in other files, of their names and contents too.
        input_size: height and width of the one input, float32, ``(n, 3, input_size, input_size)``, in pixels.
        fixed_batch: the only batch that the graph takes, or ``None`` where it is dynamic.
        classes: length of the logits.
    """

    path: str
    sha256: str
    input_size: int
    fixed_batch: int | None
    classes: int


def inspect(path: str | Path) -> OnnxInfo:
    """Reads the graph (not the weights beside it) and checks that it is a classifier with one image input.

    Raises:
        BenchError: the file is missing or broken, a file of weights is missing, or inputs or outputs are
            others than described in ``OnnxInfo``; what was found and what was expected is said.
    """
    import onnx

    path = Path(path)
    if not path.is_file():
        raise BenchError(f"ONNX file '{path}' does not exist", "Check the path after 'onnx:'.")
    model = _load(path)
    weights = {getattr(tensor, "name", "") for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    input_ = _one_image_input(path, inputs)
    dims = _dims(input_)
    output = _one_output(path, model)
    if input_.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        found = onnx.TensorProto.DataType.Name(input_.type.tensor_type.elem_type)
        raise _unfit(path, f"input '{input_.name}' is {found}", "float32 pixels")
    return OnnxInfo(
        path=str(path),
        sha256=_sha256(path, model),
        input_size=dims[2] if isinstance(dims[2], int) else DEFAULT_INPUT_SIZE,
        fixed_batch=dims[0] if isinstance(dims[0], int) else None,
        classes=int(_dims(output)[1]),
    )


def _load(path: Path) -> Any:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]

    try:
        # By path, so that weights in files beside the graph are checked without being read into memory.
        onnx.checker.check_model(str(path))
        return onnx.load(str(path), load_external_data=False)
    except (onnx.checker.ValidationError, DecodeError, RuntimeError, ValueError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise BenchError(
            f"'{path}' is not a valid ONNX file: {reason}",
            "Export it again, and keep files of external weights beside it.",
        ) from error


def _one_image_input(path: Path, inputs: list[Any]) -> Any:
    described = ", ".join(f"{value.name} {_show(_dims(value))}" for value in inputs) or "none"
    if len(inputs) != 1:
        raise _unfit(path, f"it has {len(inputs)} inputs ({described})", "one image input")
    dims = _dims(inputs[0])
    fits = len(dims) == 4 and (not isinstance(dims[1], int) or dims[1] == 3) and dims[2] == dims[3]
    open_size = len(dims) == 4 and not isinstance(dims[2], int) and not isinstance(dims[3], int) and dims[1] == 3
    if not (fits or open_size):
        raise _unfit(path, f"input '{inputs[0].name}' is {_show(dims)}", "N x 3 x H x W with H = W")
    return inputs[0]


def _one_output(path: Path, model: Any) -> Any:
    import onnx

    outputs = list(model.graph.output)
    if any(not isinstance(dim, int) for value in outputs for dim in _dims(value)[1:]):
        # Exporters may leave lengths open that follow from the weights: infer, before turning the file down.
        outputs = list(onnx.shape_inference.infer_shapes(model).graph.output)
    described = ", ".join(f"{value.name} {_show(_dims(value))}" for value in outputs)
    if len(outputs) != 1:
        raise _unfit(path, f"it has {len(outputs)} outputs ({described})", "one output of N x classes")
    dims = _dims(outputs[0])
    if len(dims) != 2 or not isinstance(dims[1], int) or outputs[0].type.tensor_type.elem_type != 1:
        raise _unfit(path, f"output '{outputs[0].name}' is {_show(dims)}", "float32 logits of N x classes")
    return outputs[0]


def _dims(value: Any) -> list[int | str]:
    """A length where it is fixed, a name (or "?") where it is open; empty where the rank is unknown."""
    return [
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else (dim.dim_param or "?")
        for dim in value.type.tensor_type.shape.dim
    ]


def _show(dims: list[int | str]) -> str:
    return " x ".join(map(str, dims)) or "of unknown shape"


def _unfit(path: Path, found: str, expected: str) -> BenchError:
    return BenchError(
        f"'{path}' cannot be benchmarked: {found}; expected {expected}", "Export it as an image classifier."
    )


def _sha256(path: Path, model: Any) -> str:
    external = sorted(set(_external_files(model)))
    own = file_sha256(path)
    if not external:
        return own
    digest = hashlib.sha256(own.encode())
    for location in external:
        digest.update(f"\n{location}\n{file_sha256(path.parent / location)}".encode())
    return digest.hexdigest()


def _external_files(message: Any) -> Iterator[str]:
    """Names of the files that hold tensors, wherever in the graph a tensor may stand."""
    from onnx import TensorProto

    if isinstance(message, TensorProto):
        if message.data_location == TensorProto.EXTERNAL:
            yield from (entry.value for entry in message.external_data if entry.key == "location")
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for item in value if field.is_repeated else (value,):
            yield from _external_files(item)
