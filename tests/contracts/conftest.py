"""What the contract tests share: those of our files that use TensorRT, parsed."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("bench", "export", "pipelines", "scarlet")


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.fixture(scope="session")
def sources() -> dict[str, ast.Module]:
    """Every file of ours that imports TensorRT or is named after it, parsed, by module name."""
    found = {}
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "tensorrt" in path.relative_to(ROOT).as_posix() or "import tensorrt" in text or "from tensorrt" in text:
            tree = ast.parse(text)
            if "tensorrt" in path.relative_to(ROOT).as_posix() or any(
                name.partition(".")[0] == "tensorrt" for name in imported(tree)
            ):
                found[".".join(path.relative_to(ROOT).with_suffix("").parts)] = tree
    assert {"export.tensorrt", "bench.backends.tensorrt.backend"} <= set(found)
    return found
