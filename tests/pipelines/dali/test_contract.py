"""The real DALI takes our GPU graphs, up to the point where it needs a device; a misspelt keyword is refused before."""

import ast
import importlib
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from pipelines.base import PipelineUnavailable, Preprocess
from pipelines.dali import graph as dali_graph
from pipelines.dali.graph import Fed, Place

dali = pytest.importorskip("nvidia.dali")
backend = importlib.import_module("nvidia.dali.backend")

DEFAULT = Preprocess()
ON_GPU = Place(0, engine_share=0.25)


def no_files() -> Fed:
    raise StopIteration


def defined(module: Any = dali_graph) -> dict[str, Any]:
    """All graphs for a GPU, with their operators made but nothing built; that for the CPU is built."""
    module.built(module.graph_of(["decode", "resize"], no_files, module.Load(4, 2, True), DEFAULT))
    graphs = {step: module.graph_of([step], no_files, module.Load(4, 2), DEFAULT, ON_GPU) for step in module.STEPS}
    graphs["whole"] = module.graph_of(module.STEPS, no_files, module.Load(4, 2, True), DEFAULT, ON_GPU)
    for graph in graphs.values():
        graph._build_graph()
    return graphs


def operators(graph: Any) -> list[tuple[str, str]]:
    """Name and device of each operator, inputs left out, in order."""
    made = [(op._op.schema.Name().removeprefix("_"), op._op.device) for op in graph._ops]
    return [(name, device) for name, device in made if name != "ExternalSource"]


def test_every_operator_runs_where_it_should():
    found = {name: operators(graph) for name, graph in defined().items()}
    decode = [("decoders__Image", "mixed")]
    resize = [("Resize", "gpu"), ("ArithmeticGenericOp", "gpu"), ("Cast", "gpu")] * 2
    normalise = [("CropMirrorNormalize", "gpu")]
    assert found["whole"] == decode + resize + normalise
    assert found["decode"] == decode
    assert [operator for operator in found["resize"] if "opy" not in operator[0]] == resize
    assert [operator for operator in found["normalise"] if "opy" not in operator[0]] == normalise


def test_dali_takes_the_graphs_whole_with_our_settings():
    """Serialising hands every operator and argument to DALI's own schemas; only running one needs a device."""
    for graph in defined().values():
        graph._device_id = None  # with a number it asks for the driver at once
        stored = graph.serialize()
        if b"decoders__Image" in stored:
            for setting in (
                b"jpeg_fancy_upsampling", b"hw_decoder_load", b"adjust_orientation", b"use_fast_idct", b"cache_size",
            ):  # fmt: skip
                assert setting in stored
    whole = defined()["whole"]
    assert (whole.exec_dynamic, whole.device_id, whole.prefetch_queue_depth) == (True, 0, dali_graph.QUEUE_DEPTH)


@pytest.mark.parametrize("what", ["whole", "decode", "resize", "normalise"])
def test_without_a_driver_building_says_so_in_one_line(what):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(PipelineUnavailable) as raised:
        dali_graph.built(defined()[what])
    text = str(raised.value)
    assert "CUDA" in text
    assert "scarlet-bench doctor" in text
    assert "\n" not in text


def test_the_hand_over_uses_what_dali_has():
    """What is called on results: it cannot be run without a device, but it must be there."""
    for method in ("as_tensor", "as_cpu"):
        assert hasattr(backend.TensorListGPU, method)
    for method in ("__dlpack__", "__dlpack_device__"):
        assert hasattr(backend.TensorGPU, method)
    assert dali.Pipeline.run.__code__.co_varnames[:2] == ("self", "cuda_stream")
    assert dali.Pipeline.run.__code__.co_posonlyargcount == 2


SOURCE = Path(dali_graph.__file__)
CALLS = ["pipeline", "partial", "decode", "resize", "cast", "crop_mirror_normalize", "external_source"]


def keywords() -> list[str]:
    """The keywords of calls to DALI, found in our own source."""
    return [str(keyword.arg) for keyword in _keywords(ast.parse(SOURCE.read_text()))]


def _keywords(tree: ast.AST) -> list[ast.keyword]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in CALLS:
                found += [keyword for keyword in node.keywords if keyword.arg is not None]
    return found


def with_misspelt(number: int | None = None) -> types.ModuleType:
    """``pipelines.dali.graph`` with one keyword misspelt."""
    tree = ast.parse(SOURCE.read_text())
    if number is not None:
        _keywords(tree)[number].arg = "misspelt"
    module = types.ModuleType(dali_graph.__name__)
    before = sys.modules[module.__name__]
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(tree, str(SOURCE), "exec"), module.__dict__)
    finally:
        sys.modules[module.__name__] = before
    return module


MISSPELT = keywords()


def test_the_walk_finds_our_keywords():
    assert {"jpeg_fancy_upsampling", "hw_decoder_load", "exec_dynamic", "roi_start", "output_layout"} <= {*MISSPELT}


def test_unchanged_source_is_taken():
    defined(with_misspelt())


@pytest.mark.parametrize("number", range(len(MISSPELT)), ids=lambda number: f"{MISSPELT[number]}-{number}")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_misspelt_keyword_is_refused(number: int):
    with pytest.raises((KeyError, TypeError, ValueError, RuntimeError)):
        defined(with_misspelt(number))
