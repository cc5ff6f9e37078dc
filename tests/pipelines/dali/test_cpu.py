"""DALI where it fails on its own; what it shares with the other fast pipeline is in test_pipelines_matched.py."""

import importlib

import numpy as np
import pytest
from failing_dali import failing_on

from pipelines import open_pipeline
from pipelines.base import PipelineUnavailable, Preprocess

pytest.importorskip("nvidia.dali")
from pipelines.dali import cpu

DEFAULT = Preprocess()


@pytest.fixture
def dali_that_fails(monkeypatch):
    """DALI, failing on chosen files as it does on damaged ones: the run raises and the pipeline is dead."""
    faulty: list[bytes] = []
    built: list[int] = []
    monkeypatch.setattr(cpu, "build_graph", failing_on(faulty, built, cpu.build_graph))
    return faulty, built


@pytest.mark.parametrize("places", [(0,), (11,), (3, 4), (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)])
def test_a_file_on_which_dali_alone_fails_is_decoded_by_the_reference(small_photos, dali_that_fails, places):
    faulty, built = dali_that_fails
    images = small_photos * 3
    faulty += [small_photos[k].path.read_bytes() for k in places]
    pipeline = open_pipeline("dali", images, 5, 1, DEFAULT)
    batches = list(pipeline)
    assert [index for batch in batches for index in batch.indices.tolist()] == list(range(36))
    assert pipeline.report.bad == []
    expected = [image.image_id for k, image in enumerate(images) if k % 12 in places]
    assert pipeline.report.fallbacks == expected
    assert 1 in built  # images decoded alone
    others = [batch.pixels for batch in open_pipeline("reference", images, 5, 1, DEFAULT)]
    for batch, other in zip(batches, others, strict=True):
        assert np.abs(batch.pixels - other).max() < 0.02  # one grey level


def test_an_error_of_another_kind_is_not_taken_for_a_bad_file(small_photos, monkeypatch):
    class Broken:
        def run(self):
            raise RuntimeError("no memory for threads")

    monkeypatch.setattr(cpu, "build_graph", lambda *args: Broken())
    with pytest.raises(RuntimeError, match="no memory for threads"):
        list(open_pipeline("dali", small_photos, 4, 1, DEFAULT))


def test_without_dali_the_text_says_how_to_get_it(monkeypatch):
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(PipelineUnavailable, match=r"No module named 'nvidia\.dali'.*pip install nvidia-dali"):
        cpu.DaliPipeline([], 1, 1, DEFAULT)
