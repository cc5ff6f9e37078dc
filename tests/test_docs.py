"""Every bash and python block of the documents runs as it stands."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"bench", "export", "pipelines", "scarlet"}
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> list[tuple[str, str, str]]:
    return [
        (document.relative_to(ROOT).as_posix(), language, text)
        for document in DOCUMENTS
        for language, text in BLOCK.findall(document.read_text(encoding="utf-8"))
    ]


BLOCKS = blocks()


@pytest.mark.parametrize(
    ("language", "text"),
    [(language, text) for _, language, text in BLOCKS],
    ids=[f"{name}-{number}" for number, (name, _, _) in enumerate(BLOCKS)],
)
def test_block_runs(language: str, text: str, tmp_path: Path, shared_store: Path) -> None:
    # The same commands with less to do: make passes these on as it does on its command line.
    environment = {
        **os.environ,
        "BUDGET": "2",
        "BATCHES": "1",
        "SCENARIOS": "accuracy,latency",
        "ARGS": "--lives 1",
        "IMAGES": "16",
        "OUT": str(tmp_path / "run"),
        "SCARLET_BENCH_STORE": str(shared_store),
    }
    command = ["bash", "-euo", "pipefail", "-c", text] if language == "bash" else [sys.executable, "-c", text]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, f"{text}\n{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"


def test_yaml_blocks_are_plan_files(tmp_path: Path) -> None:
    from bench.run.spec import read_plan

    texts = [
        text
        for document in DOCUMENTS
        for text in re.findall(r"^```yaml\n(.*?)^```$", document.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    ]
    assert texts
    for text in texts:
        plan = tmp_path / "plan.yaml"
        plan.write_text(text)
        assert read_plan(plan)


def test_readme_begins_with_its_two_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^make .*$", readme, re.MULTILINE)
    assert commands[:2] == ["make bench MODEL=scarlet_c", "make test"]


def test_documents_link_to_files_that_exist() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_experiments_use_only_names_that_exist() -> None:
    """They run for minutes, so here is looked only at what they import of ours."""
    missing = []
    for path in sorted((ROOT / "docs" / "experiments").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] in PACKAGES:
                module = importlib.import_module(str(node.module))
                for name in (alias.name for alias in node.names):
                    if not hasattr(module, name) and not importlib.util.find_spec(f"{node.module}.{name}"):
                        missing.append(f"{path.name}: {node.module}.{name}")
    assert missing == []


def test_the_gpu_page_names_tests_that_exist() -> None:
    """What it calls proven is proven by a file that is there, written in full or by its name alone."""
    text = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:[\w*]+/)*test_[\w*]+\.py|tests/[\w/]+/|tools/\w+\.sh)`", text))
    assert len(named) > 20
    assert {name for name in named if not (any(ROOT.glob(name)) or any((ROOT / "tests").rglob(name)))} == set()
