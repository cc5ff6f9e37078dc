"""MNN: its contract on a module that only looks like it, and itself where it is installed."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.backends.base import ModelFiles, Unavailable, Unsupported
from bench.backends.instances import Instances
from bench.backends.mnn import Mnn
from bench.record.case import Case
from export import convert, parity
from export.store import Store
from scarlet.files import file_sha256

PIXELS = np.random.default_rng(0).random((4, 3, 224, 224), dtype=np.float32)
FACTS = {"converter": "export.mnn"}


def case_of(**changes: Any) -> Case:
    return Case("m", "user", "mnn", **{"batch": 4, **changes})


class FakeInterpreter:
    """Answers each image with the means of its channels, on a CPU of two cores."""

    kind, code = 13, 0
    told: Any = None

    def __init__(self, path: str) -> None:
        self.path = path

    def createSession(self, config: dict[str, Any]) -> Any:  # noqa: N802
        FakeInterpreter.told = config
        return SimpleNamespace(input=None)

    def getSessionInput(self, session: Any) -> Any:  # noqa: N802
        return SimpleNamespace(getNumpyData=lambda: session.input, session=session)

    def resizeTensor(self, tensor: Any, shape: tuple[int, ...]) -> None:  # noqa: N802
        tensor.session.input = np.zeros(shape, np.float32)

    def resizeSession(self, session: Any) -> None:  # noqa: N802
        session.output = np.zeros((len(session.input), 3), np.float32)

    def getSessionOutput(self, session: Any) -> Any:  # noqa: N802
        return SimpleNamespace(getNumpyData=lambda: session.output)

    def getSessionInfo(self, session: Any, code: int) -> float:  # noqa: N802
        threads = float(np.int32(min(2, self.told["numThread"])).view(np.float32))
        return {0: 28.0, 1: 280.0, 2: float(self.kind), 4: threads}[code]

    def runSession(self, session: Any) -> int:  # noqa: N802
        session.output[:] = session.input.mean(axis=(2, 3))
        return self.code

    def runSessionWithCallBackInfo(self, session: Any, before: Any, after: Any) -> None:  # noqa: N802
        for kind in ("Convolution", "Convolution", "Raster"):
            after((), SimpleNamespace(getType=lambda kind=kind: kind))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> ModelFiles:
    """Files of a model in MNN's format, and the module that reads them."""
    module = SimpleNamespace(Interpreter=FakeInterpreter, version=lambda: "3.x")
    monkeypatch.setitem(sys.modules, "MNN", module)  # type: ignore[arg-type]
    typed = {"fp32/mnn": {"path": "m.mnn", "sha256": "ab", "facts": FACTS}}
    return ModelFiles("m", "user", "0", "m.onnx", "0", classes=3, typed=typed)


def loaded(case: Case, files: ModelFiles) -> Mnn:
    backend = Mnn()
    backend.load(case, files)
    return backend


def test_batches_of_any_size_are_answered_and_the_proof_tells_what_ran(fake: ModelFiles) -> None:
    backend = loaded(case_of(threads=2), fake)
    first = backend.infer(PIXELS)
    assert np.allclose(first, PIXELS.mean(axis=(2, 3)))
    assert np.allclose(backend.infer(PIXELS[:3]), first[:3])
    backend.infer(np.zeros_like(PIXELS))
    assert first.any(), "an answer is not written over by the next"
    assert FakeInterpreter.told == {"backend": "CPU", "precision": "high", "numThread": 2}
    proof = backend.proof()
    assert (proof["version"], proof["intra_op_threads"], proof["fallback"]) == ("3.x", 2, "")
    assert proof["operations"] == {"Convolution": 2, "Raster": 1}
    assert (proof["batches"], proof["graph_sha256"], proof["graph"]) == ([3, 4], "ab", FACTS)
    backend.close()


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (case_of(device="cuda"), "--devices cpu"),
        (case_of(precision="int8"), "fp32 only"),
        (case_of(threads=3), "told 3 threads and took 2"),
        (case_of(threads=2, instances=2), "share their threads"),
        (case_of(options=(("form", "tuned"),)), "has no option 'form'"),
    ],
)
def test_what_it_cannot_obey_is_refused(fake: ModelFiles, case: Case, reason: str) -> None:
    with pytest.raises(Unsupported, match=reason):
        loaded(case, fake)


def test_what_goes_wrong_is_not_passed_over(fake: ModelFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = loaded(case_of(), fake)
    monkeypatch.setattr(FakeInterpreter, "kind", 7)
    assert "forward type 7" in backend.proof()["fallback"]
    monkeypatch.setattr(FakeInterpreter, "code", 3)
    with pytest.raises(RuntimeError, match="code 3"):
        backend.infer(PIXELS)


def test_without_the_package_it_says_how_to_get_it(fake: ModelFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "MNN", None)  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match="pip install mnn"):
        loaded(case_of(), fake)


def test_the_real_one_gives_the_graphs_logits(tiny_graph: Path, tmp_path: Path) -> None:
    pytest.importorskip("MNN")
    made = convert.convert("export.mnn", tiny_graph, file_sha256(tiny_graph), Store(tmp_path), PIXELS)
    typed = {"fp32/mnn": {"path": str(made.path), "sha256": made.sha256, "facts": made.facts}}
    files = ModelFiles("onnx:tiny.onnx", "user", "0", str(tiny_graph), "0", typed=typed)
    expected = parity.graph_logits(tiny_graph, [PIXELS])
    backend = loaded(case_of(), files)
    for n in (4, 3):
        assert np.abs(backend.infer(PIXELS[:n]) - expected[:n]).max() < 1e-4
    proof = backend.proof()
    assert (proof["intra_op_threads"], proof["fallback"]) == (1, "")
    assert proof["operations"]
    backend.close()
    copies = Instances(Mnn)
    copies.load(case_of(instances=2), files)
    assert np.abs(copies.submit(PIXELS).result() - expected).max() < 1e-4
    copies.close()
