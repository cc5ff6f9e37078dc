"""Looks at a user's ONNX file: is it an image classifier that we can feed?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scarlet.errors import BenchError
from scarlet.files import HEAD_BYTES, file_sha256, kind_of
from scarlet.preprocess import METADATA

DEFAULT_INPUT_SIZE = 224  # where a graph leaves height and width open


_TYPES = ("FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16")
LEAST_OPSET, LEAST_IR = 7, 4  # older ones are converted: runtimes and quantisers lack them


@dataclass(frozen=True)
class OnnxInfo:
    """An ONNX classifier.

    Attributes:
        input_size: height and width of the one input in pixels.
        fixed_batch: the only batch that the graph takes, or ``None`` where it is dynamic.
        classes: length of the logits.
        input_type: ``FLOAT``, ``FLOAT16``, ... or ``UINT8``, which takes grey levels of 0 to 255.
        channels_last: the input is ``(n, size, size, 3)`` and not ``(n, 3, size, size)``.
        output: name of the output that is taken.
        output_type: as ``input_type``, without ``UINT8``.
        output_rank: above 2 where lengths of 1 stand beside the classes.
        opset: version of ONNX's own operators.
        changes: what has to be adapted before backends can run it; see ``export.intake``.
        notes: what was assumed, and what is odd.
        has_fixed_size: height and width are not open.
        preprocess: the entry of that name in its metadata, or an empty text.
    """

    input_size: int
    fixed_batch: int | None
    classes: int
    input_type: str = "FLOAT"
    channels_last: bool = False
    output: str = ""
    output_type: str = "FLOAT"
    output_rank: int = 2
    opset: int = 18
    changes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    has_fixed_size: bool = True
    preprocess: str = ""


def inspect(path: str | Path, output: str | None = None) -> OnnxInfo:
    """Reads the graph (not the weights beside it) and checks that it is a classifier with one image input.

    Args:
        output: name of the output to take; needed where several could be logits.

    Raises:
        BenchError: the file is missing or broken, a file of weights is missing, or inputs or outputs are
            others than described in ``OnnxInfo``; what was found and what was expected is said.
    """
    path = Path(path)
    if not path.is_file():
        raise BenchError(f"ONNX file '{path}' does not exist", "Check the path after 'onnx:'.")
    model = _load(path)
    weights = {getattr(tensor, "name", "") for tensor in model.graph.initializer}
    input_ = _one_image_input(path, [value for value in model.graph.input if value.name not in weights])
    dims, type_ = _dims(input_), _type(input_)
    if type_ not in (*_TYPES, "UINT8"):
        raise _unfit(path, f"input '{input_.name}' is {type_}", "pixels in float32, float16 or uint8")
    last = dims[1] != 3 and dims[3] == 3
    side = dims[1] if last else dims[2]
    logits, notes = _one_output(path, model, output)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
    changes = {
        f"the input of {_show(dims)} transposed": last,
        f"the input cast to {type_}": type_ != "FLOAT",
        f"the output cast from {_type(logits)}": _type(logits) != "FLOAT",
        f"the output of {_show(_dims(logits))} flattened": len(_dims(logits)) > 2,
        f"the output {logits.name} alone kept": len(model.graph.output) > 1,
        f"opset {opset} raised": opset < LEAST_OPSET,
        f"IR version {model.ir_version} raised": model.ir_version < LEAST_IR,
        "weights among the inputs made constant": any(value.name in weights for value in model.graph.input),
        "weights behind links put into it": any(_is_linked(path.parent / name) for name in _external_files(model)),
    }
    return OnnxInfo(
        input_size=side if isinstance(side, int) else DEFAULT_INPUT_SIZE,
        fixed_batch=dims[0] if isinstance(dims[0], int) else None,
        classes=_classes(logits)[0],
        has_fixed_size=isinstance(side, int),
        preprocess={entry.key: entry.value for entry in model.metadata_props}.get(METADATA, ""),
        input_type=type_,
        channels_last=last,
        output=logits.name,
        output_type=_type(logits),
        output_rank=len(_dims(logits)),
        opset=opset,
        changes=tuple(change for change, due in changes.items() if due),
        notes=(*notes, *_in_training(model)),
    )


def embedded(path: Path) -> Any:
    """The model with all its weights in it, also those behind links, which onnx itself does not follow."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            place = {entry.key: entry.value for entry in tensor.external_data}
            with (path.parent / _below(path, place["location"])).open("rb") as file:
                file.seek(int(place.get("offset", 0)))
                tensor.raw_data = file.read(int(place.get("length", -1)))
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    return model


def _below(path: Path, location: str) -> str:
    if Path(location).is_absolute() or ".." in Path(location).parts:
        raise BenchError(f"'{path}' names weights outside of its folder: {location}", "Put them beside the graph.")
    return location


def _is_linked(file: Path) -> bool:
    """Whether onnx refuses a file of weights: a link, or a file with several names."""
    return file.is_symlink() or (file.is_file() and file.stat().st_nlink > 1)


def _in_training(model: Any) -> list[str]:
    """A sentence on nodes that compute as in training."""
    norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    is_set = [any(entry.name == "training_mode" and entry.i for entry in node.attribute) for node in norms]
    odd = sum(mode or sum(map(bool, node.output)) > 1 for mode, node in zip(is_set, norms, strict=True))
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    constants |= {node.output[0]: node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"}
    modes = [node.input[2] for node in model.graph.node if node.op_type == "Dropout" and len(node.input) > 2]
    dropped = sum(any(constants[mode].raw_data or constants[mode].int32_data) for mode in modes if mode in constants)
    told = (
        f"the graph was exported in training mode ({odd} BatchNormalization, {dropped} Dropout): what it answers "
        "depends on chance or on the other images of the batch; export it after model.eval()"
    )
    return [told] if odd or dropped else []


def _load(path: Path) -> Any:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]

    with path.open("rb") as file:
        kind = kind_of(file.read(HEAD_BYTES))
    if kind:
        raise BenchError(f"'{path}' is not a valid ONNX file: it is {kind[0]}", kind[1])
    try:
        model = onnx.load(str(path), load_external_data=False)
        missing = [name for name in _external_files(model) if not (path.parent / _below(path, name)).is_file()]
        if missing:
            raise ValueError(f"the file {missing[0]} of its weights is not beside it")
        if not any(_is_linked(path.parent / name) for name in _external_files(model)):
            # By path, so that weights in files beside the graph are checked without being read into memory.
            onnx.checker.check_model(str(path))
        return model
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
    sides = [tuple(isinstance(dim, int) for dim in pair) for pair in (dims[1:3], dims[2:])]
    open_size = len(dims) == 4 and not any(sides[1]) and dims[1] == 3
    channels_last = len(dims) == 4 and dims[3] == 3 and (dims[1] == dims[2] or not any(sides[0]))
    if not (fits or open_size or channels_last):
        expected = "N x 3 x H x W or N x H x W x 3 with H = W"
        raise _unfit(path, f"input '{inputs[0].name}' is {_show(dims)}", expected)
    return inputs[0]


def _one_output(path: Path, model: Any, name: str | None) -> tuple[Any, list[str]]:
    """The output that holds the logits, and what was assumed."""
    import onnx

    outputs = list(model.graph.output)
    if any(not isinstance(dim, int) for value in outputs for dim in _dims(value)[1:]):
        # Exporters may leave lengths open that follow from the weights: infer, before turning the file down.
        outputs = list(onnx.shape_inference.infer_shapes(model).graph.output)
    described = ", ".join(f"{value.name} {_show(_dims(value))} {_type(value)}" for value in outputs)
    fit = [value for value in outputs if _type(value) in _TYPES and len(_classes(value)) == 1]
    if name is not None:
        fit = [value for value in fit if value.name == name]
    if len(fit) == 1:
        assumed = f"of its outputs ({described}) {fit[0].name} alone can be logits, and was taken"
        return fit[0], [] if name or len(outputs) == 1 else [assumed]
    if len(outputs) == 1 and name is None:
        raise _unfit(path, f"output '{outputs[0].name}' is {_show(_dims(outputs[0]))} {_type(outputs[0])}", _EXPECTED)
    what = f"output '{name}' is not among those that fit" if name else f"{len(fit)} of its {len(outputs)} outputs fit"
    raise BenchError(
        f"'{path}' cannot be benchmarked: {what} ({described}); expected {_EXPECTED}", "Name one of them with --output."
    )


_EXPECTED = "float logits of N x classes"


def _classes(value: Any) -> list[int]:
    """The lengths of an output beside the batch that are not 1: of logits one, a number."""
    found = [dim for dim in _dims(value)[1:] if dim != 1]
    return found if all(isinstance(dim, int) for dim in found) else []  # type: ignore[return-value]


def _type(value: Any) -> str:
    from onnx import TensorProto

    return str(TensorProto.DataType.Name(value.type.tensor_type.elem_type))


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


def graph_sha256(path: Path) -> str:
    """Digest of an ONNX file; where weights lie in other files, of their names and contents too."""
    import onnx

    external = sorted(_external_files(onnx.load(str(path), load_external_data=False)))
    own = file_sha256(path)
    if not external:
        return own
    digest = hashlib.sha256(own.encode())
    for location in external:
        digest.update(f"\n{location}\n{file_sha256(path.parent / location)}".encode())
    return digest.hexdigest()


def _external_files(model: Any) -> set[str]:
    """Names of the files that hold tensors, wherever in the graph a tensor may stand."""
    from onnx import TensorProto

    outside = [tensor for tensor in _tensors(model) if tensor.data_location == TensorProto.EXTERNAL]
    return {entry.value for tensor in outside for entry in tensor.external_data if entry.key == "location"}


def _tensors(message: Any) -> Iterator[Any]:
    from onnx import TensorProto

    if isinstance(message, TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for item in value if field.is_repeated else (value,):
            yield from _tensors(item)
