"""What backends say of themselves, and that nobody has to import a runtime to hear it."""

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from bench.backends import REGISTRY, colour, display_name, facts, make_backend, runs_module, runs_nowhere
from bench.backends.base import Facts, ModelFiles, Unavailable, Unsupported, choices_of, read_options, refuse_case
from bench.record.case import DEVICES, PRECISIONS, REFERENCE_BACKEND, Case
from scarlet.errors import BenchError

RUNTIMES = {"torch", "onnx", "onnxruntime", "openvino", "tensorrt"}
FILES = ModelFiles("m", "user", "0", "m.onnx", "0")


@dataclass(frozen=True)
class Options:
    form: Literal["plain", "tuned"] = "tuned"
    compile: Literal["yes"] | None = None
    copies: int | None = None
    recipe: str = ""


def case_of(**options: str) -> Case:
    return Case("m", "user", "some", options=tuple(sorted(options.items())))


def test_no_runtime_is_imported_for_the_facts_of_all() -> None:
    code = (
        "import json, sys\n"
        "from bench.backends import REGISTRY, display_name, facts, runtime_packages\n"
        "names = {name: [display_name(name), facts(name).choices] for name in REGISTRY}, runtime_packages()\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = {*RUNTIMES, *(facts(name).module for name in REGISTRY)} - {"bench.backends.fake"}
    assert modules & set(json.loads(done.stdout)) == set()


@pytest.mark.parametrize("name", REGISTRY)
def test_the_facts_of_a_backend_are_its_own(name: str) -> None:
    stated = facts(name)
    assert stated.name == name == make_backend(name).FACTS.name
    assert set(stated.devices) <= set(DEVICES)
    assert all(stated.packages.values())
    assert set(stated.dialects) <= set(PRECISIONS)
    assert [runs_nowhere(name, device) for device in DEVICES] == [device not in stated.devices for device in DEVICES]
    assert stated.options() == read_options(stated.options, Case("m", "user", name))


def test_reports_tell_backends_apart() -> None:
    for tell in (display_name, colour):
        assert len({tell(name) for name in REGISTRY}) == len(REGISTRY)
    assert (display_name("of-another-machine"), colour("of-another-machine")) == ("of-another-machine", "")
    assert [name for name in REGISTRY if runs_module(name)] == [REFERENCE_BACKEND]
    with pytest.raises(BenchError, match="unknown backend"):
        facts("of-another-machine")


def test_options_are_read_as_what_they_are() -> None:
    assert choices_of(Options) == {"form": ("plain", "tuned"), "compile": ("yes",), "copies": "count", "recipe": "text"}
    assert read_options(Options, case_of(pin="no", aa="b")) == Options()
    assert read_options(Options, case_of(copies="3", form="plain")) == Options("plain", copies=3)


@pytest.mark.parametrize("options", [{"form": "other"}, {"copies": "0"}, {"copies": "x"}, {"from": "plain"}])
def test_a_wrong_option_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(Unsupported, match=f"some.{next(iter(options))}|no option 'from'"):
        read_options(Options, case_of(**options))


def test_what_no_setting_could_change_is_refused() -> None:
    stated = Facts("some", "Some", "", "nosuchmodule", {"cpu": "some-package"})
    with pytest.raises(Unsupported, match="--devices cpu"):
        refuse_case(stated, Case("m", "user", "some", "cuda"), FILES)
    fixed: Any = ModelFiles("m", "user", "0", "m.onnx", "0", fixed_batch=4)
    with pytest.raises(Unsupported, match="batches of 4 only"):
        refuse_case(stated, case_of(), fixed)
    refuse_case(stated, Case("m", "user", "some", batch=4), fixed)
    with pytest.raises(Unavailable, match="pip install some-package"):
        stated.import_runtime("cpu")
