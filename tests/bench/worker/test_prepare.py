"""A model's files are made once for a request, and again where anything that they depend on has changed."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.backends.base import ModelFiles
from bench.worker import prepare
from export.store import ROOT_VARIABLE, Store, recorded_sha256


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Which checkpoints the files were made of: one file in the store stands for graph and weights."""
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / "store"))
    checkpoints: list[str] = []

    def network_files(spec: object, request: prepare.Request, store: Store) -> ModelFiles:
        checkpoints.append(str(request.checkpoint))
        path = store.get_or_make({"of": str(request)}, ".onnx", lambda path: path.write_text(str(request)))
        return ModelFiles("scarlet_c", "user", "0", str(path), recorded_sha256(path), str(path))

    monkeypatch.setattr(prepare, "_network_files", network_files)
    return checkpoints


def test_the_same_request_is_met_from_the_store(made: list[str], tmp_path: Path) -> None:
    checkpoint, image = tmp_path / "a.safetensors", tmp_path / "a.JPEG"
    checkpoint.write_text("weights")
    image.write_text("pixels")
    request = prepare.Request("scarlet_c", str(checkpoint), str(tmp_path), [("a.JPEG", 0)])
    random = replace(request, checkpoint="random")
    first = prepare.prepare(request)
    assert prepare.prepare(request) == first
    prepare.prepare(random)
    prepare.prepare(random)
    assert made == [str(checkpoint), "random"]
    image.write_text("other pixels")  # random weights are calibrated on them
    prepare.prepare(request)
    prepare.prepare(random)
    assert made[2:] == ["random"]
    checkpoint.write_text("other weights")
    prepare.prepare(request)
    prepare.prepare(replace(request, threads=2))
    assert made[3:] == [str(checkpoint)] * 2


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("another graph")])
def test_files_that_are_no_longer_whole_are_made_again(made: list[str], damage: object) -> None:
    request = prepare.Request("scarlet_c", "demo")
    files = prepare.prepare(request)
    assert callable(damage)
    damage(Path(files.onnx))
    assert prepare.prepare(request) == files
    assert made == ["demo", "demo"]


def test_other_packages_or_sources_make_other_files(made, monkeypatch, tmp_path):
    request = prepare.Request("scarlet_c", "demo")
    prepare.prepare(request)
    monkeypatch.setattr(prepare, "package_versions", lambda: {"torch": "0"})
    prepare.prepare(request)
    (tmp_path / "scarlet").mkdir()
    (tmp_path / "scarlet" / "networks.py").write_text("changed = True\n")
    monkeypatch.setattr(prepare, "own_home", lambda: tmp_path)
    prepare.prepare(request)
    assert len(made) == 3
