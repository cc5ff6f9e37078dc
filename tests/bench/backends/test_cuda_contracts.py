"""The real PyTorch and ONNX Runtime know every name that our source uses of them on a GPU; no GPU is needed."""

import json
import mmap
import re
from collections.abc import Iterable
from pathlib import Path

import onnxruntime
import pytest
import torch_contract
from folders import FAKES, ROOT

from bench.backends.onnxruntime import cuda
from bench.backends.onnxruntime.backend import OnnxRuntime
from bench.record.case import Case

PACKAGES = ("bench", "export", "pipelines", "scarlet")
# What the files of onnxruntime-gpu hold; the file says which version and how it was read.
KNOWN = json.loads((FAKES / "onnxruntime_cuda_options.json").read_text(encoding="utf-8"))


def sources() -> list[Path]:
    """Our files that say something of a GPU to PyTorch."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [path for path in files if torch_contract.uses(path.read_text(encoding="utf-8"))]


SOURCES = sources()


def test_the_backends_are_among_the_sources() -> None:
    names = {path.relative_to(ROOT / "bench").as_posix() for path in SOURCES if path.is_relative_to(ROOT / "bench")}
    runtimes = {"pytorch/backend.py", "pytorch/cuda.py", "onnxruntime/cuda.py"}
    assert {f"backends/{name}" for name in ("cuda.py", *runtimes)} <= names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_pytorch_has_every_name_and_keyword_that_we_use(path: Path) -> None:
    assert torch_contract.faults(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("torch.cuda.Strem()", "there is no torch.cuda.Strem"),
        ("torch.cuda.Event(enable_timming=True)", "has no keyword enable_timming"),
        ("torch.cuda.graph(one, two, three, four, five, six, seven)", "takes 6 arguments, not 7"),
        ("torch.cuda.Stream\nself._stream.wait_streem(other)", "Stream has no wait_streem"),
        ("torch.cuda.Event\nself._events[0].elapsed(end)", "Event has no elapsed"),
        ("torch.cuda.CUDAGraph\ncaptured.graph.play()", "CUDAGraph has no play"),
        ("torch.cuda.get_device_properties\nproperties.L2_size", "_CudaDeviceProperties has no L2_size"),
        ("def f(stream: torch.cuda.Streams) -> None: ...", "there is no torch.cuda.Streams"),
    ],
)
def test_a_misspelt_name_is_found(text: str, fault: str) -> None:
    (found,) = torch_contract.faults(text)
    assert fault in found


def cases() -> Iterable[Case]:
    """A Case for every value of every option of ours, in every precision."""
    for precision in ("fp32", "tf32", "fp16", "int8"):
        for name, values in OnnxRuntime.FACTS.choices.items():
            for value in values if isinstance(values, tuple) else ():
                yield Case("m", "user", "onnxruntime", "cuda", precision, options=((name, value),))


def test_every_provider_option_that_we_set_is_known() -> None:
    for case in cases():
        for name, value in cuda.provider_options(case, 4096).items():
            assert name in KNOWN["provider_options"]
            values = KNOWN["provider_options"][name]
            assert re.fullmatch(values, value), f"{name}={value}"


def test_every_setting_of_a_session_and_of_a_call_is_known() -> None:
    keys = {*cuda.NO_CPU, *cuda.NO_INTEGERS, "session.record_ep_graph_assignment_info"}
    assert keys | {"session.force_spinning_stop"} <= set(KNOWN["session_config"])
    assert set(cuda.run_config(1, True)) <= set(KNOWN["run_config"])


def test_the_installed_onnxruntime_knows_the_settings_too() -> None:
    """A session takes any setting without a word, so its library is asked whether it holds the names."""
    library = Path(onnxruntime.__file__).parent / "capi"
    keys = {*cuda.NO_CPU, *cuda.NO_INTEGERS, *cuda.run_config(1, True)}
    assert holds(library, {*keys, *cuda.REFUSALS}) == {*keys, *cuda.REFUSALS}
    assert holds(library, ["session.disable_cpu_fallback_ep"]) == set()


def holds(folder: Path, texts: Iterable[str]) -> set[str]:
    """Which of the texts stand in a library of a folder."""
    found = set()
    for library in folder.glob("*.so*"):
        with library.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found |= {text for text in texts if content.find(text.encode()) >= 0}
    return found
