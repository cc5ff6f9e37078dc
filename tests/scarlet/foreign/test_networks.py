"""Networks that others define: that their packages import beside any torch, and what files and callables give."""

import http.server
import json
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from document_tables import check_table
from safetensors.torch import save
from torch import nn

from scarlet import zoo
from scarlet.errors import BenchError, ModelUnavailable
from scarlet.foreign import networks as foreign

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


def test_operators_that_torchvision_lacks_are_declared_and_else_the_reason_is_told(monkeypatch: Any) -> None:
    missing = ["nms2 does not exist\nmore", "nms3 does not exist"]

    def broken(name: str) -> Any:
        if missing:
            raise RuntimeError(f"operator torchvision::{missing.pop(0)}")
        raise ImportError("no such luck\nmore lines")

    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(ModelUnavailable, match=r"no such luck.*make setup") as caught:
        foreign.package(zoo.resolve(TIMM))
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


SOURCE = "import torch\nfunction = lambda: torch.nn.Flatten()\nother = dict\n"
NAMES = {
    "timm/test_resnet": "timm/NAME",
    "timm/resnet19": "a name that timm does not have",
    "torchvision/resnet18": "torchvision/NAME",
    "torch:my_nets:function": "torch:MODULE:FUNCTION, of the folder that the command is called in",
    "torch:my_nets:other": "a function that returns something else",
    "torch:nowhere:function": "a module that is not there",
    "torch:net.pt": "torch:FILE.pt, TorchScript",
    "torch:weights.pt": "weights alone",
    "torch:net.pt2": "torch:FILE.pt2, an exported program",
    "torch:fixed.pt2": "one whose batch is fixed",
    "torch:trains.pt2": "one that was exported in training mode",
    "torch:traced.pt": "TorchScript that was traced in training mode",
    "torch:net.onnx": "an ONNX file by the wrong name",
}


def test_the_table_of_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pixels, network = torch.rand(2, 3, 32, 32), Tiny().eval()
    torch.jit.save(torch.jit.script(network), "net.pt")
    dims = ({0: torch.export.Dim("n")},)
    torch.export.save(torch.export.export(network, (pixels,), dynamic_shapes=dims), "net.pt2")
    torch.export.save(torch.export.export(network, (pixels[:1],)), "fixed.pt2")
    torch.save({"a": torch.zeros(1)}, "weights.pt")
    drops = nn.Sequential(nn.Flatten(), nn.Dropout()).train()
    norms = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten()).train()
    torch.export.save(torch.export.export(norms, (pixels,), dynamic_shapes=dims), "trains.pt2")
    torch.jit.save(torch.jit.trace(drops, pixels, check_trace=False), "traced.pt")
    Path("my_nets.py").write_text(SOURCE)
    rows = []
    for name, shown in NAMES.items():
        try:
            spec = zoo.complete(zoo.resolve(name))
            module = zoo.untrained(spec)
            weights = {"user": "its own weights", "random": "random weights"}[zoo.default_weights(spec)]
            rows.append((shown, f"taken, with {weights} where no checkpoint is named; {spec.preprocess}"))
            assert "net.pt" not in name or torch.allclose(module(pixels), network(pixels))
        except BenchError as error:
            what = re.sub(r"'.*' is not (?=TorchScript)(.*?):.*", r"FILE is not \1", error.what)
            rows.append((shown, f"refused: {what}. {error.do.replace(str(tmp_path), 'FOLDER')}"))
    check_table("models.md", "models", ("Given", "What happens"), rows)
