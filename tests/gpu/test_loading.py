"""What the GPU tests load: graphs prepared as a run prepares them, and no skip that hides a fault. Needs no GPU."""

import gpu_here
import pytest
from bench_fakes import tiny_files

from bench.backends.base import Unavailable, Unsupported
from bench.backends.graphs import wanted_by
from bench.run import model_files
from bench.run.spec import RunSpec


@pytest.mark.parametrize(
    ("refusal", "outcome"),
    [
        (Unavailable("the package tensorrt is not installed; run"), pytest.skip.Exception),
        (
            Unsupported("Tesla T4 does not multiply BF16; that needs compute capability 8.0 (Ampere)"),
            pytest.skip.Exception,
        ),
        (Unavailable("the fp16 graph was not prepared"), Unavailable),
        (Unavailable("PyTorch sees no CUDA device"), Unavailable),
        (Unsupported("ONNX Runtime has no CUDA kernel for some nodes"), Unsupported),
    ],
)
def test_only_what_cannot_be_had_here_skips_a_test(refusal, outcome, monkeypatch):
    class Refusing:
        def load(self, case, files):
            raise refusal

    monkeypatch.setattr(gpu_here, "make_backend", lambda name: Refusing())
    with pytest.raises(outcome), gpu_here.loaded(tiny_files(), "tensorrt", precision="fp16"):
        pytest.fail("nothing was loaded")


def test_every_graph_that_a_test_loads_is_prepared(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_here, "prepare_files", lambda request, log, threads, seconds, required: required.wanted)
    keys = {wanted.key for wanted in gpu_here.prepared("demo", str(tmp_path), [], tmp_path / "log")}
    cases = [gpu_here.case_of(name, precision=precision) for name in gpu_here.BACKENDS for precision in gpu_here.LOWER]
    assert {wanted.key for case in cases if (wanted := wanted_by(case))} == keys == {"fp16", "bf16"}
    assert model_files.requirements(cases, str(tmp_path), [], RunSpec(), None).wanted, "as a run asks for them"
