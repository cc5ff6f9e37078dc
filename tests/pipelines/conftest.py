from pathlib import Path

import odd_images
import pytest

from pipelines.imagenet.find import Image


@pytest.fixture(scope="session")
def odd_paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Decodable images with every oddity that real sets hold, by name."""
    return odd_images.write_all(tmp_path_factory.mktemp("odd"))


@pytest.fixture(scope="session")
def bad_paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files that cannot be decoded, by what is wrong; among them one that is missing."""
    folder = tmp_path_factory.mktemp("bad")
    paths = {name: folder / f"{name}.JPEG" for name in odd_images.bad_files()}
    for name, data in odd_images.bad_files().items():
        paths[name].write_bytes(data)
    return {**paths, "missing": folder / "missing.JPEG"}


@pytest.fixture(scope="session")
def small_photos(tmp_path_factory: pytest.TempPathFactory) -> list[Image]:
    """Twelve different small photographs."""
    folder = tmp_path_factory.mktemp("small")
    images = []
    for k in range(12):
        path = folder / f"{k:02d}.JPEG"
        path.write_bytes(odd_images.jpeg(odd_images.photo(120 + k, 90, seed=k)))
        images.append(Image(path.name, path, k))
    return images
