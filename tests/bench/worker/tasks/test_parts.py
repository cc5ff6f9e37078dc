"""The parts of a pass: what of a set they take, and that they do the same work as the pass."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_fakes import fake_case, tiny_files

import pipelines
from bench.record.run_folder import RunFolder
from bench.worker.messages import Context
from bench.worker.tasks.parts import PART_IMAGES, Parts


def context_of(root: Path, folder: Path, ids: list[str]) -> Context:
    run = RunFolder.create(folder)
    run.write_run_info({"plan": {"cases": []}})
    run.write_images((name, 0) for name in ids)
    return Context(run=str(run.path), data=str(root), files=tiny_files())


@pytest.fixture
def ids(image_folder: Path) -> list[str]:
    return sorted(path.relative_to(image_folder).as_posix() for path in image_folder.rglob("*.JPEG"))


def clock() -> Any:
    """A clock that moves by one nanosecond whenever it is read."""
    return itertools.count().__next__


@pytest.mark.parametrize("name", ["reference", "dali"])
def test_parts_compute_on_the_very_pixels_of_a_pass(name, image_folder, tmp_path, ids):
    case = fake_case("throughput", batch=4)
    case = type(case)(**{**case.to_dict(), "pipeline": name, "options": ()})
    context = context_of(image_folder, tmp_path / "run", ids)
    seen: list[np.ndarray] = []

    def infer_all(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for pixels in batches:
            seen.append(pixels)
            yield pixels[:, 0, 0]

    parts = Parts(case, context, infer_all, 1, clock())
    assert parts.measure() == {"decode": 1, "preprocess": 1, "compute": 1}
    parts.close()
    assert parts.n_images == PART_IMAGES, "a small set is repeated"
    assert {len(pixels) for pixels in seen} == {4}
    with_pass = pipelines.open_pipeline(name, context.images(), 8, 1, context.files.preprocessing)
    (whole,) = list(with_pass)
    with_pass.close()
    np.testing.assert_array_equal(np.concatenate(seen), np.concatenate([whole.pixels] * (PART_IMAGES // 8)))


def test_files_that_the_decoder_leaves_to_another_are_not_timed(image_folder, tmp_path, ids):
    root = tmp_path / "data"
    root.mkdir()
    (root / "text.JPEG").write_text("no image")
    (root / "good.JPEG").write_bytes((image_folder / ids[0]).read_bytes())
    case = fake_case("throughput", batch=1)
    context = context_of(root, tmp_path / "run", ["text.JPEG", "absent.JPEG", "good.JPEG"])
    parts = Parts(case, context, lambda batches: iter(batches), 1, clock())
    assert set(parts.measure()) == {"decode", "preprocess", "compute"}
    parts.close()
    nothing = Parts(
        case, context_of(root, tmp_path / "other", ["text.JPEG"]), lambda batches: iter(batches), 1, clock()
    )
    assert (nothing.n_images, nothing.measure()) == (0, {})
    nothing.close()
