"""The shipped demo weights, and the script that makes them."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from scarlet import demo
from scarlet.demo import train
from scarlet.demo.train import Pictures, factors_of, normalised, read_pictures, spread_channels, training_batch
from scarlet.errors import BenchError
from scarlet.networks import scarlet

SHIPPED = sorted(json.loads((demo.FOLDER / "card.json").read_text())["models"])
LARGEST_BYTES = 14_000_000


def test_scarlet_c_ships() -> None:
    assert "scarlet_c" in SHIPPED
    assert demo.available("scarlet_c")
    assert not demo.available("timm/resnet18")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_are_the_networks(name: str) -> None:
    state = demo.load_state(name)
    scarlet(name).load_state_dict(state, strict=True)
    floats = [value for value in state.values() if value.is_floating_point()]
    assert {value.dtype for value in floats} == {torch.float32}
    assert all(bool(torch.isfinite(value).all()) for value in floats)
    assert all(bool((value > 0).all()) for key, value in state.items() if key.endswith("running_var"))


@pytest.mark.parametrize("name", SHIPPED)
def test_card_describes_the_file(name: str) -> None:
    content = demo.path_of(name).read_bytes()
    card = demo.card(name)
    assert card["sha256"] == hashlib.sha256(content).hexdigest()
    assert card["bytes"] == len(content) <= LARGEST_BYTES
    assert all(value.dtype in (torch.float16, torch.int64) for value in load_file(demo.path_of(name)).values())
    page = (demo.FOLDER / "MODEL_CARD.md").read_text()
    assert card["sha256"] in page
    for row in card["measured"]["accuracy"].values():
        assert 65 <= row["top1_percent"] <= 95
        assert f"{row['top1_percent']:.2f}" in page
    assert card["measured"]["images"] >= 2000
    assert card["measured"]["images_not_agreed_on"] <= card["measured"]["images"] * 0.005
    assert card["measured"]["int8_default"]["difference_interval_points"][1] < 0  # a careless quantiser shows


def _planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cards: object) -> None:
    monkeypatch.setattr(demo, "FOLDER", tmp_path)
    (tmp_path / "card.json").write_text(json.dumps({"models": cards}))


def test_other_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(demo.path_of("scarlet_c").read_bytes())
    _planted(tmp_path, monkeypatch, {"scarlet_c": {"sha256": hashlib.sha256(content).hexdigest()}})
    (tmp_path / "scarlet_c.safetensors").write_bytes(content)
    assert "classifier.weight" in demo.load_state("scarlet_c")
    content[-1] ^= 1
    (tmp_path / "scarlet_c.safetensors").write_bytes(content)
    with pytest.raises(BenchError, match=r"are not the card's: SHA-256 .* expected"):
        demo.load_state("scarlet_c")


def test_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _planted(tmp_path, monkeypatch, {"scarlet_c": {"sha256": "0"}})
    assert not demo.available("scarlet_c")
    with pytest.raises(BenchError, match="cannot be read"):
        demo.load_state("scarlet_c")


def test_import_needs_no_torch() -> None:
    code = "import sys, scarlet.demo; scarlet.demo.available('scarlet_c'); print('torch' in sys.modules)"
    root = demo.FOLDER.parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_fold_adds_the_factors_logits() -> None:
    torch.manual_seed(0)
    head = nn.Linear(16, 30)
    folded = train.fold(head)
    features = torch.randn(5, 16)
    heads = head(features).view(5, 3, 10)
    logits = folded(features).view(5, 10, 10, 10)
    expected = heads[:, 0, :, None, None] + heads[:, 1, None, :, None] + heads[:, 2, None, None, :]
    torch.testing.assert_close(logits, expected)
    best = heads.argmax(2)
    assert torch.equal(folded(features).argmax(1), best @ torch.tensor([100, 10, 1]))


@pytest.mark.parametrize("name", ["scarlet_a", "scarlet_b", "scarlet_c"])
def test_spreading_changes_scales_and_no_logits(name: str) -> None:
    network = scarlet(name).eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.no_grad():
        logits = network(images)
        spread_channels(network, 0)
        torch.testing.assert_close(network(images), logits, rtol=1e-4, atol=1e-5 * float(logits.abs().max()))
    changed = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert {key.rsplit(".", 2)[-2] for key in changed} == {"conv1", "bn3", "0"}
    ratios = network.state_dict()["mb_module.0.bn3.weight"] / before["mb_module.0.bn3.weight"]
    assert set(ratios.tolist()) == {0.25, 0.5, 1.0, 2.0, 4.0}
    spread_channels(network, 0, undo=True)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_factors_are_the_digits() -> None:
    assert factors_of(torch.tensor([0, 7, 935])).tolist() == [[0, 0, 0], [0, 0, 7], [9, 3, 5]]


@pytest.mark.parametrize("name", ["scarlet_a", "scarlet_b", "scarlet_c"])
def test_networks_start_as_shallow_ones(name: str) -> None:
    network = train.build(name, seed=3)
    assert network.classifier.out_features == 30
    again, other = train.build(name, seed=3), train.build(name, seed=4)
    assert torch.equal(network.classifier.weight, again.classifier.weight)
    assert not torch.equal(network.classifier.weight, other.classifier.weight)
    new = [block for block in network.mb_module if getattr(block, "residual", False) and not block.bn3.weight.any()]
    assert len(new) >= 3
    stem = demo.load_state("scarlet_c")["stem.0.weight"]
    assert torch.equal(network.stem[0].weight, stem) is (name != "scarlet_c")


def _demo_like(folder: Path, sizes: list[tuple[int, int]]) -> Path:
    """1000 class folders with pictures in the first few; the red channel of one is its number."""
    for index in range(1000):
        (folder / "valid" / f"n{index:08d}").mkdir(parents=True)
    for number, size in enumerate(sizes):
        image = Image.new("RGB", size, (10 * number, 0, 255))
        image.save(folder / "valid" / f"n{900 - number:08d}" / f"demo_x_{number}.JPEG", quality=100)
    return folder


def test_pictures_are_read_with_their_factors(tmp_path: Path) -> None:
    folder = _demo_like(tmp_path, [(150, 128), (128, 160)])
    read = read_pictures(folder, "train")
    assert read.pixels.shape == (2, 128, 128, 3)
    assert read.factors.tolist() == [[9, 0, 0], [8, 9, 9]]
    assert abs(int(read.pixels[1, 64, 64, 0]) - 10) <= 3
    assert read_pictures(folder, "tune").pixels.shape == (2, 224, 224, 3)


def test_tuning_crops_are_the_reference_pipelines(tmp_path: Path) -> None:
    from pipelines.base import Preprocess
    from pipelines.demo.picture import image_bytes
    from pipelines.reference.pipeline import reference_pixels

    for index in range(4):
        path = tmp_path / f"{index}.JPEG"
        path.write_bytes(image_bytes("tune", 1, index))
        np.testing.assert_array_equal(train._reference_crop(path), reference_pixels(path, Preprocess()))


def test_incomplete_training_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "valid" / "n01440764").mkdir(parents=True)
    with pytest.raises(BenchError, match="holds 1 of the 1000 demo classes"):
        read_pictures(tmp_path, "train")


def test_training_batch_is_normalised_and_repeatable() -> None:
    pixels = torch.randint(0, 256, (2, 128, 128, 3), dtype=torch.uint8)
    first = training_batch(pixels, 64, np.random.default_rng(1))
    assert first.shape == (2, 3, 64, 64)
    assert torch.equal(first, training_batch(pixels, 64, np.random.default_rng(1)))
    assert not torch.equal(first, training_batch(pixels, 64, np.random.default_rng(2)))
    whole = normalised(pixels, 128)
    expected = (pixels[1, 5, 7, 2] / 255 - 0.406) / 0.225
    torch.testing.assert_close(whole[1, 2, 5, 7], expected)


def _tiny(count: int, side: int) -> Pictures:
    generator = torch.Generator().manual_seed(count)
    pixels = torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=generator)
    return Pictures(pixels, factors_of(torch.arange(count) * 37 % 1000))


PHASES = (train.Phase("train", 32, 2, 4, 1e-3, 0.5), train.Phase("tune", 40, 1, 2, 1e-3, 0.5))


def test_training_follows_the_schedule_and_can_be_repeated() -> None:
    sources = {"train": _tiny(8, 40), "tune": _tiny(8, 40), "held_out": _tiny(4, 40)}
    first, second = (
        train.train(train.build("scarlet_c", 0), PHASES, sources, 0, torch.device("cpu")) for _ in range(2)
    )
    assert [(entry["phase"], entry["side"], entry["epoch"]) for entry in first] == [(0, 32, 1), (0, 32, 2), (1, 40, 1)]
    assert [entry["loss"] for entry in first] == pytest.approx([entry["loss"] for entry in second])


def test_main_writes_weights_and_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "SCHEDULE", PHASES)
    monkeypatch.setattr(train, "HELD_OUT", 4)
    monkeypatch.setattr(train, "read_pictures", lambda folder, source: _tiny(12, 40))
    out = tmp_path / "net.safetensors"
    train.main(["--data", "x", "--tune", "y", "--out", str(out), "--seed", "5", "--threads", "1"])
    scarlet("scarlet_c").load_state_dict(load_file(out), strict=True)
    log = json.loads((tmp_path / "net.log.json").read_text())
    assert (log["seed"], log["model"], len(log["epochs"])) == (5, "scarlet_c", 3)
    assert log["images"] == {"train": 12, "tune": 8, "held_out": 4}
    assert log["versions"]["torch"] == torch.__version__
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.log.json", "net.safetensors"]


def test_weights_beyond_fp16_are_refused(tmp_path: Path) -> None:
    network = train.build("scarlet_c", 0)
    with torch.no_grad():
        network.stem[0].weight.fill_(1e6)
    with pytest.raises(ValueError, match=r"stem\.0\.weight does not fit FP16"):
        train.save(network, tmp_path / "net.safetensors", {})
