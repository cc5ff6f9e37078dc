"""Good checkpoints load in every layout; bad ones give one clear line and run nothing."""

import argparse
import fractions
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from scarlet.errors import BenchError
from scarlet.foreign.checkpoint import load_into, weights_sha256
from scarlet.networks import scarlet


class Marker:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def small():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def load_state(path):
    """What a network of the right architecture holds afterwards."""
    network = small()
    nn.init.zeros_(network[0].weight)
    load_into(network, path, "small")
    return network.state_dict()


@pytest.fixture(scope="module")
def scarlet_c_state():
    return scarlet("scarlet_c").state_dict()


@pytest.mark.parametrize("wrap", [lambda s: {"model_state": s, "epoch": 3}, lambda s: {"state_dict": s}, lambda s: s])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("zipped", [True, False])
def test_every_layout_loads(tmp_path, wrap, prefix, zipped):
    network = small()
    path = tmp_path / "net.pth.tar"
    state = {prefix + key: tensor for key, tensor in network.state_dict().items()}
    torch.save(wrap(state), path, _use_new_zipfile_serialization=zipped)
    other = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    load_into(other, path, "small")
    assert weights_sha256(other.state_dict()) == weights_sha256(network.state_dict())


def named(prefix, network=None):
    return {prefix + key: tensor for key, tensor in (network or small()).state_dict().items()}


def loaded(tmp_path, content, key="", **options):
    """The digest of what loads, and the notes; ``key`` chooses."""
    path = tmp_path / "net.pth"
    torch.save(content, path, **options)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    notes = load_into(network, f"{path}{key}", "small")
    return weights_sha256(network.state_dict()), notes


WRAPPED = {
    "compiled": lambda: named("_orig_mod."),
    "parallel and compiled": lambda: {"state_dict": named("module._orig_mod.")},
    "lightning": lambda: {
        "state_dict": {**named("model."), "loss.weight": torch.ones(2)},
        "pytorch-lightning_version": "2",
    },
    "deit": lambda: {
        "model": named(""),
        "args": argparse.Namespace(lr=0.1),
        "optimizer": {"state": {0: torch.ones(9)}},
    },
    "cifar": lambda: {"net": named("module."), "acc": np.float64(93.5), "best": np.array([1.0, 2.0])},
    "only an average": lambda: {"state_dict_ema": named("module."), "epoch": 3},
    "no counters": lambda: {key: tensor for key, tensor in named("").items() if not key.endswith("tracked")},
    "profiled": lambda: {**named(""), "total_ops": torch.zeros(1), "0.total_params": torch.zeros(1)},
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_weights_are_found_whatever_stands_around_them(tmp_path, kind):
    digest, notes = loaded(tmp_path, WRAPPED[kind]())
    assert digest == weights_sha256(small().state_dict())
    assert bool(notes) == (kind in ("only an average", "profiled"))


def test_raw_weights_are_taken_and_the_average_named_that_can_be_chosen(tmp_path):
    raw, average = small(), small()
    nn.init.ones_(average[0].weight)
    content = {"state_dict_ema": named("module.", average), "state_dict": named("", raw), "epoch": 3}
    digest, (note,) = loaded(tmp_path, content)
    assert digest == weights_sha256(raw.state_dict())
    assert "#state_dict_ema" in note
    assert loaded(tmp_path, content, "#state_dict_ema")[0] == weights_sha256(average.state_dict())
    with pytest.raises(BenchError, match="'nothing'") as refused:
        loaded(tmp_path, content, "#nothing")
    assert "state_dict_ema" in refused.value.do


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_newer_pickle_protocol_is_named(tmp_path, protocol, zipped):
    options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": zipped}
    error = one_line_error(lambda: loaded(tmp_path, named(""), **options))
    assert f"protocol {protocol}" in error.what


def test_a_whole_program_is_named(tmp_path):
    torch.jit.script(small()).save(tmp_path / "net.pt")
    error = one_line_error(lambda: load_state(tmp_path / "net.pt"))
    assert ("program" in error.what, "--model torch:net.pt" in error.do) == (True, True)


def test_safetensors_load_by_any_name_and_through_a_link(tmp_path):
    """Files of the Hugging Face cache are links to blobs whose names have no suffix."""
    save_file(small().state_dict(), tmp_path / "71d9")
    (tmp_path / "net.pth").symlink_to(tmp_path / "71d9")
    assert weights_sha256(load_state(tmp_path / "net.pth")) == weights_sha256(small().state_dict())


def test_the_published_layout_loads_strictly(tmp_path, scarlet_c_state):
    torch.save({"model_state": scarlet_c_state}, tmp_path / "ScarletC.pth.tar")
    network = scarlet("scarlet_c")
    load_into(network, tmp_path / "ScarletC.pth.tar", "scarlet_c")
    assert weights_sha256(network.state_dict()) == weights_sha256(scarlet_c_state)


def one_line_error(call):
    with pytest.raises(BenchError) as caught:
        call()
    assert "\n" not in caught.value.what
    assert "\n" not in caught.value.do
    return caught.value


def test_missing_file_and_folder(tmp_path):
    assert "does not exist" in one_line_error(lambda: load_state(tmp_path / "no.pth")).what
    assert "is not a file" in one_line_error(lambda: load_state(tmp_path)).what


def test_truncated(tmp_path):
    for zipped in (True, False):
        path = tmp_path / f"cut{zipped}.pth"
        torch.save({"model_state": small().state_dict()}, path, _use_new_zipfile_serialization=zipped)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert "cut off" in one_line_error(lambda path=path: load_state(path)).what
    path = tmp_path / "cut.safetensors"
    save_file(small().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-20])
    assert "cut off" in one_line_error(lambda: load_state(path)).what


@pytest.mark.parametrize(
    "raw", [b"", b"hello, this is text\n", b"PK\x03\x04abc", b"\x80\x02}q\x00.", bytes(range(256))]
)
def test_not_a_checkpoint(tmp_path, raw):
    (tmp_path / "x.pth").write_bytes(raw)
    error = one_line_error(lambda: load_state(tmp_path / "x.pth"))
    assert any(words in error.what for words in ("is not a checkpoint", "holds no state dict", "is empty"))


@pytest.mark.parametrize("loaded", [[1, 2], {}, {"model_state": {}}, {"lr": 0.1, "epoch": 3}, torch.ones(3)])
def test_no_state_dict_inside(tmp_path, loaded):
    torch.save(loaded, tmp_path / "x.pth")
    assert "holds no state dict" in one_line_error(lambda: load_state(tmp_path / "x.pth")).what


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle2", "pickle4"])
def test_code_is_refused_named_and_not_run(tmp_path, how):
    path, witness = tmp_path / "evil.pth", tmp_path / "witness"
    content = {"model_state": small().state_dict() if how in ("zip", "legacy") else {}, "x": Marker(witness)}
    if how in ("zip", "legacy"):
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    else:
        path.write_bytes(pickle.dumps(content, protocol=int(how[-1])))
    error = one_line_error(lambda: load_state(path))
    assert "refused" in error.what
    assert ("protocol 4" if how == "pickle4" else "open") in error.what
    assert not witness.exists()


def test_harmless_class_is_named_too(tmp_path):
    torch.save({"model_state": small().state_dict(), "lr": fractions.Fraction(1, 3)}, tmp_path / "x.pth")
    assert "fractions.Fraction" in one_line_error(lambda: load_state(tmp_path / "x.pth")).what


def test_values_that_are_not_finite(tmp_path):
    state = small().state_dict()
    state["1.running_var"][2] = float("nan")
    torch.save(state, tmp_path / "x.pth")
    assert "1.running_var" in one_line_error(lambda: load_state(tmp_path / "x.pth")).what


def test_wrong_architecture_tells_what_differs(tmp_path):
    state = small().state_dict()
    del state["1.weight"], state["1.bias"]
    state["2.weight"] = torch.ones(1)
    state["0.weight"] = torch.ones(8, 3, 1, 1)
    torch.save(state, tmp_path / "x.pth")
    error = one_line_error(lambda: load_into(small(), tmp_path / "x.pth", "small"))
    assert "does not fit small" in error.what
    assert "2 missing (1.weight, 1.bias)" in error.what
    assert "1 unexpected (2.weight)" in error.what
    assert "0.weight is 8x3x1x1 instead of 4x3x1x1" in error.what
    assert "Pass a checkpoint of small" in error.do


def test_the_model_that_it_does_fit_is_named(tmp_path, scarlet_c_state):
    torch.save({"model_state": scarlet_c_state}, tmp_path / "c.pth")
    error = one_line_error(lambda: load_into(scarlet("scarlet_a"), tmp_path / "c.pth", "scarlet_a"))
    assert "It fits scarlet_c" in error.do
    assert "..." in error.what  # many keys differ, three of each sort are shown
    assert len(error.what) < 700


def test_digest_ignores_order_and_sees_everything_else():
    base = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(3)}
    digest = weights_sha256(base)
    assert weights_sha256(dict(reversed(base.items()))) == digest
    assert weights_sha256({**base, "a": base["a"].clone()}) == digest
    changed = [
        {"a": torch.tensor([1.0, 2.5]), "b": base["b"]},
        {"a": base["a"].double(), "b": base["b"]},
        {"a": base["a"].reshape(1, 2), "b": base["b"]},
        {"c": base["a"], "b": base["b"]},
        {"a": base["a"]},
    ]
    assert len({digest, *map(weights_sha256, changed)}) == 6


def test_digest_takes_half_types_and_views():
    tensor = torch.arange(6.0).reshape(2, 3)
    assert weights_sha256({"a": tensor.t()}) == weights_sha256({"a": tensor.t().contiguous()})
    assert len(weights_sha256({"a": tensor.bfloat16(), "b": torch.empty(0)})) == 64


def test_a_flipped_bit_is_found_by_the_archives_own_checksums(tmp_path):
    path = tmp_path / "x.pth"
    torch.save(small().state_dict(), path)
    data = bytearray(path.read_bytes())
    at = data.index(small()[0].weight.detach().numpy().tobytes())
    data[at + 2] ^= 1
    path.write_bytes(data)
    assert "checksum" in one_line_error(lambda: load_state(path)).what


def test_a_packed_archive_is_refused_before_it_is_unpacked(tmp_path):
    torch.save({"a": torch.zeros(50_000_000, dtype=torch.uint8)}, tmp_path / "x.pth")
    with (
        zipfile.ZipFile(tmp_path / "x.pth") as plain,
        zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert "packed archive" in one_line_error(lambda: load_state(tmp_path / "packed.pth")).what


NO_WEIGHTS = {
    "sparse": lambda: torch.eye(4).to_sparse(),
    "sparse rows": lambda: torch.eye(4).to_sparse_csr(),
    "meta": lambda: torch.empty(4, device="meta"),
    "complex": lambda: torch.ones(4, dtype=torch.complex64),
    "quantized": lambda: torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8),
    "eighth": lambda: torch.ones(4).to(torch.float8_e4m3fn),
}


@pytest.mark.filterwarnings("ignore")  # PyTorch warns of sparse and quantized tensors
@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_tensors_that_are_no_weights_are_refused(tmp_path, kind):
    torch.save({"a": torch.ones(4), "b": NO_WEIGHTS[kind]()}, tmp_path / "x.pth")
    assert "'b'" in one_line_error(lambda: load_state(tmp_path / "x.pth")).what


def test_a_storage_expanded_to_any_shape_is_refused(tmp_path):
    torch.save({"a": torch.ones(1).expand(10**6, 10**6)}, tmp_path / "x.pth")
    assert "larger than the file" in one_line_error(lambda: load_state(tmp_path / "x.pth")).what


def test_whole_numbers_where_weights_belong_are_refused_and_counters_are_not(tmp_path):
    state = small().state_dict()
    torch.save({**state, "0.weight": state["0.weight"].mul(100).to(torch.int8)}, tmp_path / "x.pth")
    error = one_line_error(lambda: load_into(small(), tmp_path / "x.pth", "small"))
    assert "0.weight is int8 instead of float32" in error.what
    assert state["1.num_batches_tracked"].dtype is torch.int64


def test_a_key_that_is_no_text_is_refused(tmp_path):
    torch.save({("a", "b"): torch.ones(4)}, tmp_path / "x.pth")
    assert "a dict with tuple" in one_line_error(lambda: load_state(tmp_path / "x.pth")).what
