"""Networks that others define: that their packages import beside any torch, and what files and callables give."""

from __future__ import annotations

import http.server
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

from scarlet import foreign, zoo
from scarlet.errors import BenchError

TIMM = "timm/test_resnet"  # 0.5 M parameters


def test_a_network_of_timm_is_timms_own_and_seeded() -> None:
    spec = zoo.complete(zoo.resolve("TIMM/test_ResNet"))
    assert (spec.name, spec.input_size, spec.preprocess.interpolation, spec.preprocess.mean) == (
        TIMM,
        160,
        "bilinear",
        (0.5, 0.5, 0.5),
    )
    state = torch.get_rng_state()
    built = zoo.build(spec, None, [np.random.default_rng(0).random((8, 3, 160, 160), np.float32)])
    assert torch.equal(torch.get_rng_state(), state)
    assert built.weights == "random"
    import timm

    own = timm.create_model("test_resnet").eval()
    own.load_state_dict(built.module.state_dict())
    pixels = torch.rand(2, 3, 160, 160)
    assert torch.equal(own(pixels), built.module(pixels))


@pytest.mark.parametrize("name", ["timm/resnet19", "torchvision/resnet19"])
def test_near_names_are_suggested(name: str) -> None:
    with pytest.raises(BenchError) as caught:
        zoo.complete(zoo.resolve(name))
    assert "resnet18" in caught.value.do


def test_torchvision_states_its_preprocessing() -> None:
    spec = zoo.complete(zoo.resolve("torchvision/EfficientNet_B0"))
    assert (spec.name, spec.preprocess.resize, spec.preprocess.crop, spec.preprocess.interpolation) == (
        "torchvision/efficientnet_b0",
        256,
        224,
        "bicubic",
    )


def test_operators_that_torchvision_lacks_are_declared_and_else_the_reason_is_told(monkeypatch: Any) -> None:
    missing = ["nms2 does not exist\nmore", "nms3 does not exist"]

    def broken(name: str) -> Any:
        if missing:
            raise RuntimeError(f"operator torchvision::{missing.pop(0)}")
        raise ImportError("no such luck\nmore lines")

    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(zoo.ModelUnavailable, match=r"no such luck.*make setup") as caught:
        foreign.timm(zoo.resolve(TIMM))
    assert "more lines" not in str(caught.value)
    assert hasattr(torch.ops.torchvision, "nms2")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A model hub on loopback with one network's weights; yields what was requested of it."""
    import timm
    from huggingface_hub import constants

    module = timm.create_model("test_resnet")
    torch.nn.init.constant_(module.get_classifier().bias, 3.0)
    config = {"architecture": "test_resnet", "num_classes": 1000, "pretrained_cfg": {"input_size": [3, 96, 96]}}
    files = {"config.json": json.dumps(config).encode(), "model.safetensors": save(module.state_dict())}
    requested: list[str] = []

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = files.get(self.path.rpartition("/")[2])
            requested.append(f"{self.headers.get('Authorization', '')} {self.path}")
            self.send_response(200 if content and "/resolve/" in self.path else 404)
            self.send_header("ETag", f'"{len(content or b"")}"')
            self.send_header("X-Repo-Commit", "a" * 40)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content or b"")

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    def stop() -> None:
        server.shutdown()
        server.server_close()

    yield requested, stop
    stop()
    thread.join()


@pytest.mark.parametrize("name", [TIMM, "hf-hub:Someone/Net"])
def test_published_weights_come_through_the_hubs_cache_and_stay_when_it_is_gone(hub: Any, name: str) -> None:
    requested, stop = hub
    spec = zoo.complete(zoo.resolve(name))
    built = zoo.build(spec, "pretrained")
    assert (built.weights, built.module.get_classifier().bias[0].item()) == ("pretrained", 3.0)  # type: ignore[operator]
    assert all("Bearer hf_secret" in line for line in requested if "/resolve/" in line)
    if name != TIMM:
        assert (spec.name, spec.input_size) == (name, 96)
    stop()
    assert zoo.build(zoo.complete(zoo.resolve(name)), "pretrained").weights_sha256 == built.weights_sha256


def test_weights_that_nobody_published_are_a_mistake(hub: Any) -> None:
    for name in ("hf-hub:Someone/Else/Net", "scarlet_c", "torch:a:b"):
        with pytest.raises(BenchError, match=name):
            zoo.build(zoo.resolve(name), "pretrained")


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(pixels)).mean((2, 3))  # type: ignore[no-any-return]


SOURCE = "from inspect import cleandoc\nimport torch\nnet = lambda: torch.nn.Flatten()\nother = dict\n"


def test_files_and_callables_bring_their_own_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pixels, network = torch.rand(2, 3, 32, 32), Tiny().eval()
    torch.jit.save(torch.jit.script(network), "net.pt")
    dims = ({0: torch.export.Dim("n")},)
    torch.export.save(torch.export.export(network, (pixels,), dynamic_shapes=dims), "net.pt2")
    Path("my_nets.py").write_text(SOURCE)
    for name in ("torch:net.pt", f"torch:{tmp_path}/net.pt2"):
        spec = zoo.complete(zoo.resolve(name))
        built = zoo.build(spec)
        assert (built.weights, spec.input_size) == ("user", 32 if name.endswith("2") else 224)
        assert torch.allclose(built.module(pixels), network(pixels))
    assert isinstance(zoo.build(zoo.resolve("torch:my_nets:net")).module, nn.Flatten)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("torch:gone.pt", "does not exist"),
        ("torch:net.onnx", "no file and no callable"),
        ("torch:weights.pt", "--checkpoint"),
        ("torch:fixed.pt2", "any number of square images"),
        ("torch:my_nets2:other", "returned dict"),
        ("torch:my_nets2:gone", "AttributeError"),
        ("torch:nowhere:net", "No module named"),
    ],
)
def test_what_is_no_network_is_a_mistake(name: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_nets2.py").write_text(SOURCE)
    torch.save({"a": torch.zeros(1)}, "weights.pt")
    if "fixed" in name:
        torch.export.save(torch.export.export(Tiny().eval(), (torch.rand(1, 3, 32, 32),)), "fixed.pt2")
    with pytest.raises(BenchError) as caught:
        zoo.build(zoo.complete(zoo.resolve(name)))
    assert told in str(caught.value)
