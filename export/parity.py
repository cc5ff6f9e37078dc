"""Does an ONNX graph compute what the PyTorch network computes?"""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from export.store import Store
from scarlet.errors import BenchError
from scarlet.files import file_sha256

if TYPE_CHECKING:
    from torch import nn

TOLERANCE = 1e-4  # of the logits' spread
# A network may itself round away more than that (EfficientNets of random weights do). Two orders of summation then lie
# apart by some such errors, and never by a hundredth of the spread.
ROUNDINGS, ROUNDED_MAX = 4.0, 1e-2
_THREADS = 2


@dataclass(frozen=True)
class Parity:
    """How far two sets of logits lie apart.

    Attributes:
        max_abs_diff: the largest difference of any logit.
        logits_spread: standard deviation of all reference logits, over images and classes together. A difference
            means something only against it.
        ratio: ``max_abs_diff / logits_spread``; infinite where the logits do not vary, or are not finite.
        top1_agreement: share of images (0..1) with the same highest class.
        top5_ordered_agreement: share of images (0..1) with the same five highest classes in the same order.
        rounding: as ``ratio``, of PyTorch's own logits against those that it computes in float64; 0 where nobody asked.
    """

    n_images: int
    classes: int
    max_abs_diff: float
    logits_spread: float
    ratio: float
    top1_agreement: float
    top5_ordered_agreement: float
    rounding: float = 0.0


def can_check() -> bool:
    """Whether what runs the graph for a check is installed."""
    return importlib.util.find_spec("onnxruntime") is not None


def logits_parity(module: nn.Module, onnx_path: Path, batches: Iterable[NDArray[np.float32]]) -> Parity:
    """Runs the same batches through PyTorch and through ONNX Runtime, both on the CPU in FP32.

    Args:
        module: in eval mode, on the CPU.
        batches: float32, ``(n, 3, h, w)``.

    Raises:
        BenchError: onnxruntime is not installed, or there are no images.
    """
    images = [np.ascontiguousarray(batch) for batch in batches if len(batch)]
    if not images:
        raise BenchError("there are no images to check the export on", "Give at least one image.")
    import torch  # checks of one graph against another need none

    def logits(network: nn.Module, dtype: torch.dtype) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.concatenate([network(torch.from_numpy(batch).to(dtype)).float().numpy() for batch in images])

    expected = logits(module, torch.float32)
    found = compare_logits(expected, graph_logits(onnx_path, images))
    if TOLERANCE < found.ratio < ROUNDED_MAX:
        with suppress(RuntimeError):  # a network may have types of its own
            exact = logits(copy.deepcopy(module).double(), torch.float64)
            return replace(found, rounding=compare_logits(exact, expected).ratio)
    return found


def graph_logits(onnx_path: Path, batches: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """What ONNX Runtime answers for a graph with one input and one output, on the CPU in FP32.

    Raises:
        BenchError: onnxruntime is not installed.
    """
    session = cpu_session(str(onnx_path), "the export cannot be checked")
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: batch})[0] for batch in batches])


def compare_logits(expected: NDArray[np.float32], found: NDArray[np.float32]) -> Parity:
    """The figures for two arrays of logits, both ``(n, classes)``, at least one image.

    Raises:
        ValueError: the shapes differ.
    """
    if expected.shape != found.shape:
        raise ValueError(f"logits of shape {expected.shape} cannot be compared with {found.shape}")
    difference = float(np.max(np.abs(expected.astype(np.float64) - found)))
    spread = float(np.std(expected, dtype=np.float64))
    usable = np.isfinite(difference) and np.isfinite(spread) and spread > 0
    same = _ranking(expected) == _ranking(found)
    return Parity(
        n_images=len(expected),
        classes=expected.shape[1],
        max_abs_diff=difference,
        logits_spread=spread,
        ratio=difference / spread if usable else float("inf"),
        top1_agreement=float(same[:, 0].mean()),
        top5_ordered_agreement=float(same.all(axis=1).mean()),
    )


def check(
    parity: Parity, what: str = "the ONNX graph", reference: str = "PyTorch", tolerance: float = TOLERANCE
) -> None:
    """Passes if the largest difference is at most ``tolerance`` of the logits' spread, or so small as some rounding
    errors of the network.

    Raises:
        BenchError: it is more, or the logits do not vary; with the figures.
    """
    if parity.ratio <= max(tolerance, min(ROUNDINGS * parity.rounding, ROUNDED_MAX)):
        return
    raise BenchError(
        f"{what} differs from {reference}: by up to {parity.max_abs_diff:.3g} on {parity.n_images} images, which"
        f" is {parity.ratio:.3g} of the logits' standard deviation {parity.logits_spread:.3g} (at most {tolerance:g}"
        f" is accepted); top-1 agrees on {100 * parity.top1_agreement:.1f} %",
        "Check that the weights fit the model; if they do, report this model and the package versions.",
        stage="export",
    )


def stored_check(
    store: Store, key_parts: Mapping[str, str], compare: Callable[[], Parity], **names: Any
) -> dict[str, Any]:
    """The figures of a comparison that passed ``check``, from the store; it is made where they are not there yet.

    Args:
        key_parts: digests of both sides.
        names: of the sides, as ``check`` takes them.

    Raises:
        BenchError: as of ``check``.
    """

    def make(path: Path) -> None:
        result = compare()
        check(result, **names)
        path.write_text(json.dumps(asdict(result)))

    own = {"artefact": "parity", "tolerance": repr(TOLERANCE), "check": file_sha256(Path(__file__))}
    found: dict[str, Any] = json.loads(store.get_or_make({**own, **key_parts}, ".parity.json", make).read_text())
    return found


def _ranking(logits: NDArray[np.float32]) -> NDArray[np.int64]:
    # Five classes; stable, so that equal logits rank in order of class on both sides.
    return np.argsort(-logits, axis=1, kind="stable")[:, :5]


def cpu_session(graph: str | bytes, purpose: str, optimised: bool = True) -> Any:
    """A graph in ONNX Runtime on the CPU.

    Args:
        graph: path of the file, or its bytes.
        purpose: what cannot be done without the runtime, such as ``the export cannot be checked``.
        optimised: False runs the nodes as they are written.

    Raises:
        BenchError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise BenchError(
            f"{purpose}: onnxruntime does not import ({error})", 'Install it: pip install "scarlet-bench[cpu]".'
        ) from error
    options = onnxruntime.SessionOptions()
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = _THREADS
    options.log_severity_level = 3  # errors only
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
