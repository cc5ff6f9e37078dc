"""Every use that our source makes of TensorRT, against the real bindings of two versions; and that nothing escapes."""

import ast
import copy
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_tensorrt as fake
import pytest
import tensorrt_drive as drive
from tensorrt_api import Api, Signature, api_of, environment_of, signatures
from tensorrt_check import MODULE_NAMES, check, faults

Trees = dict[str, ast.Module]


@pytest.fixture(scope="session")
def newest() -> Api:
    """The API of TensorRT 11."""
    return api_of("11")


@pytest.fixture(scope="session")
def older() -> Api:
    """The API of TensorRT 10."""
    return api_of("10")


def test_our_source_uses_only_what_tensorrt_11_has(sources: Trees, newest: Api) -> None:
    assert newest.version.startswith("11.")
    assert faults(sources, [newest]) == []


def test_our_source_uses_only_what_tensorrt_10_and_11_have(sources: Trees, newest: Api, older: Api) -> None:
    assert older.version.startswith("10.")
    assert faults(sources, [newest, older]) == []


PROGRAM = """
import sys, tensorrt_bindings
sys.modules["tensorrt"] = tensorrt_bindings
from pathlib import Path
from export.tensorrt import (
    PlanSpec,
    TensorRtUnavailable,
    import_tensorrt,
    make_log,
    network_flags,
    write_plan,
)

trt = import_tensorrt()
assert network_flags(trt) == 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED), network_flags(trt)
batch, *rest = trt.Dims((-1, 3, 8, 8))  # as add_profile takes a tensor's shape apart
assert (batch, rest, list(trt.Dims((4, 3)))) == (-1, [3, 8, 8], [4, 3])
from types import SimpleNamespace
from bench.backends.tensorrt.engine import Engine
heard, engine = [], SimpleNamespace(_trt=trt, _exact=SimpleNamespace(context=SimpleNamespace()))
Engine.report_to(engine, lambda *layer: heard.append(layer))
trt.IProfiler.report_layer_time  # it is overridden
engine._exact.context.profiler.report_layer_time("a", 0.5)
assert heard == [("a", 0.5)] and isinstance(engine._exact.context.profiler, trt.IProfiler)
log = make_log(trt)
log.log(trt.ILogger.Severity.INFO, "unheard")
log.log(trt.ILogger.Severity.ERROR, "first line\\nsecond")
assert log.errors == ["first line second"]
try:
    write_plan(PlanSpec("no.onnx", "0", 1, 1), Path("no.plan"), None)
except TensorRtUnavailable as missing:
    print(missing)
"""


@pytest.mark.parametrize("major", ["11", "10"])
def test_the_real_bindings_take_our_logger_and_say_that_there_is_no_gpu(major: str) -> None:
    environment = environment_of(major)
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([environment["PYTHONPATH"], root])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**environment, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"TensorRT {major}.")
    assert "cannot start here" in done.stdout
    assert done.stderr == "TensorRT: first line\nsecond\n"


def misspelt(trees: Trees, api: Api) -> Iterator[str]:
    """Misspells one use of TensorRT after the other, in place: a name, a guarded name, a keyword."""
    uses = {(id(use.node), use.called): use for use in check(trees, api).uses}
    for use in uses.values():
        node: Any = use.node
        for place in node.keywords if use.called else [node]:
            field = "arg" if use.called else "value" if isinstance(node, ast.Constant) else "attr"
            right = getattr(place, field)
            setattr(place, field, f"{right}x")
            yield f"line {node.lineno}: {use.what} as {right}x"
            setattr(place, field, right)


def test_every_misspelt_name_and_keyword_is_noticed(sources: Trees, newest: Api) -> None:
    tried, missed = 0, []
    for what in misspelt(sources, newest):
        tried += 1
        if not faults(sources, [newest]):
            missed.append(what)
    assert missed == []
    assert tried > 60
    assert faults(sources, [newest]) == []


def test_too_many_arguments_are_noticed(sources: Trees, newest: Api) -> None:
    tried, missed = 0, []
    for use in check(sources, newest).uses:
        if not use.called:
            continue
        node: Any = use.node
        tried += 1
        kept = node.args
        node.args = [*kept, *(ast.Constant(0) for _ in range(9))]
        if not faults(sources, [newest]):
            missed.append(f"{use.what} with too many")
        node.args = kept
    assert missed == []
    assert tried > 30


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import tensorrt\ntensorrt.Buildr", "no Buildr"),
        ("def f(b: trt.Buildr): pass", "no class Buildr"),
        ("def f(b: trt.Builder): b.build_engine(1)", "no Builder.build_engine"),
        ("def f(b: trt.Builder): b.create_network().add_inputs()", "no INetworkDefinition.add_inputs"),
        ("def f(b): b.build_serialized_network(1, 2)", "annotate it"),
        ("def f(x): y = x; y.create_network()", "annotate it"),
        ("def f(trt): trt.BuilderFlag.FP16", "no BuilderFlag.FP16"),
        ("def f(c: trt.IBuilderConfig): c.max_workspace_size = 1", "no IBuilderConfig.max_workspace_size"),
        ("def f(trt): getattr(trt.BuilderFlag, 'FP61', None)", "no version has BuilderFlag.FP61"),
        ("def f(p: trt.OnnxParser): p.parse(b'', paths='')", "no keyword paths"),
        ("def f(p: trt.OnnxParser): p.parse()", "lacks model"),
        (
            "class A:\n def f(self, e: trt.ICudaEngine):\n  self.e = e\n  self.e.num_bindings",
            "no ICudaEngine.num_bindings",
        ),
        ("def f(e: trt.ICudaEngine): [e.get_tensor_nam(i) for i in range(2)]", "no ICudaEngine.get_tensor_nam"),
        ("def g() -> trt.Runtime: ...\ndef f(): g().deserialise_cuda_engine(b'')", "no Runtime.deserialise"),
    ],
)
def test_planted_faults_are_noticed(source: str, words: str, newest: Api) -> None:
    assert words in " ".join(faults({"planted": ast.parse(source)}, [newest]))


def test_signatures_are_read_from_docstrings() -> None:
    doc = (
        "f(*args, **kwargs)\nOverloaded function.\n\n"
        "1. f(self: a.B, x: tuple[int, str] = <E.A: 0>, *, y: int) -> a.C\n\n"
        "words\n\n2. f(self: a.B) -> None\n"
    )
    first, second = signatures(doc)
    assert [(p.name, p.optional) for p in first.parameters] == [("x", True), ("y", False)]
    assert (first.returns, second.returns) == ("a.C", "None")
    assert first.fault(0, ["y"]) == ""
    assert first.fault(0, ["z"]) == "no keyword z"
    assert second.fault(1, []) == "takes 0 arguments, not 1"


def fake_members() -> Iterator[tuple[str, str, Any]]:
    """Every public name of the fake that stands for one of TensorRT: class, member, value."""

    def members(owner: type, path: str) -> Iterator[tuple[str, str, Any]]:
        for name, value in vars(owner).items():
            if name.startswith("_"):
                continue
            if inspect.isclass(value):
                yield from members(value, f"{path}.{name}")
            yield path, name, value

    for name, value in vars(fake).items():
        if inspect.isclass(value) and value.__module__ == fake.__name__:
            yield from members(value, name)


def test_the_fake_has_nothing_that_tensorrt_has_not(newest: Api, older: Api) -> None:
    for api in (newest, older):
        for path, name, value in fake_members():
            assert name in api.classes[path], f"{api.version} has no {path}.{name}"
            if inspect.isfunction(value):
                given = [parameter for parameter in inspect.signature(value).parameters if parameter != "self"]
                real = signatures(api.classes[path][name]["doc"])
                fits = [signature for signature in real if takes(signature, given)]
                assert fits or not real, f"{api.version}: {path}.{name}{given} is really {real}"


def takes(signature: Signature, names: list[str]) -> bool:
    """Whether these are the first parameters of a signature, and the others may be left out."""
    known = [parameter.name for parameter in signature.parameters]
    rest = signature.parameters[len(names) :]
    return known[: len(names)] == names and all(parameter.optional for parameter in rest)


def test_the_check_sees_all_that_the_fake_was_asked_for(sources: Trees, newest: Api) -> None:
    """What runs is what is checked: a use that the check cannot follow would be a member of the fake it never saw."""
    seen = {use.what for use in check(sources, newest).uses}
    unused_values = {"LAYER_NAMES_ONLY", "HALF", "ONELINE", "INFO", "OUTPUT"}  # there to be told from the right ones
    called_by_tensorrt = {"ILogger.log", "IProfiler.report_layer_time"}
    for path, name, _ in fake_members():
        if name not in unused_values and f"{path}.{name}" not in called_by_tensorrt:
            assert f"{path}.{name}" in seen


def without_calls(tree: ast.Module, trees: Trees, api: Api) -> Iterator[tuple[str, ast.Module]]:
    """Copies of a file, each without one call of TensorRT; ``True`` stands where its value was used."""
    calls = [use.node for use in check(trees, api).uses if use.called]
    for place, node in enumerate(ast.walk(tree)):
        if not any(node is call for call in calls):
            continue
        other = copy.deepcopy(tree)
        gone = list(ast.walk(other))[place]

        class Without(ast.NodeTransformer):
            def __init__(self, gone: ast.AST) -> None:
                self.gone = gone

            def visit_Call(self, call: ast.Call) -> ast.AST:
                if call is self.gone:
                    return ast.copy_location(ast.Constant(value=True), call)
                return self.generic_visit(call)

        changed = ast.fix_missing_locations(Without(gone).visit(other))
        yield f"line {node.lineno}: {ast.unparse(node)}", changed


@pytest.mark.parametrize(
    ("name", "walk", "calls"),
    [("export.tensorrt", "walk_export", 21), ("bench.backends.tensorrt.engine", "walk_engine", 12)],
)
def test_every_call_that_is_left_out_is_noticed(name, walk, calls, sources, newest, tmp_path, monkeypatch):
    drive.stand_in(monkeypatch)

    def go(tree: ast.Module, folder: Path) -> None:
        folder.mkdir()
        module = drive.module_of(compile(tree, "<left out>", "exec"), name)
        if walk == "walk_engine":
            drive.on_the_host(monkeypatch, module)
        getattr(drive, walk)(module, folder)

    go(sources[name], tmp_path / "whole")
    unnoticed, tried = [], 0
    for what, tree in without_calls(sources[name], sources, newest):
        tried += 1
        try:
            go(tree, tmp_path / str(tried))
        except (Exception, pytest.fail.Exception):  # any way of failing will do
            continue
        unnoticed.append(what)
    assert unnoticed == []
    assert tried >= calls


def test_module_names_are_those_that_our_source_uses(sources: Trees) -> None:
    used = {node.id for tree in sources.values() for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert used & set(MODULE_NAMES)
