"""The floors of the house: the contracts in pyproject.toml hold, and each is broken by an import against it."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from folders import ROOT

PACKAGES = ("bench", "export", "pipelines", "scarlet")

# Files outside of bench/backends whose texts name a runtime, and why.
NAMING = {
    "bench/analysis/columns.py": "a column's description",
    "bench/commands/options.py": "help",
    "bench/commands/export.py": "help",
    "bench/commands/bisect.py": "help",
    "bench/commands/check.py": "the default",
    "bench/commands/against.py": "the default",
    "bench/commands/profile.py": "the default",
    "bench/commands/quantize.py": "the default",
    "bench/commands/reproduce.py": "the default",
    "bench/commands/run.py": "the default of noise",
    "bench/host/doctor.py": "packages that a machine should have",
    "bench/host/judgements.py": "packages of which only one may be there",
    "bench/record/case.py": "the reference, and what steps of the waterfall are",
    "bench/run/spec.py": "examples in what to do",
    "bench/studies/bisect.py": "what is compared",
    "bench/studies/export.py": "what is compared",
}

# Where an import is planted, what it imports, and what the check says of it.
PLANTED = (
    ("bench/record/case.py", "bench.report.text", "bench.record is not allowed to import bench.report"),
    ("export/store.py", "pipelines.base", "export is not allowed to import pipelines"),
    ("scarlet/errors.py", "bench.host.machine", "scarlet is not allowed to import bench.host"),
    ("bench/report/text.py", "bench.cli", "bench.report is not allowed to import bench.cli"),
    (
        "bench/analysis/stats/intervals.py",
        "bench.analysis.time.verdict",
        "bench.analysis.stats is not allowed to import bench.analysis.time",
    ),
    (
        "bench/studies/check/tolerances.py",
        "bench.studies.best.search",
        "bench.studies.check is not allowed to import bench.studies.best",
    ),
    (
        "bench/backends/openvino/proof.py",
        "bench.backends.pytorch.cuda",
        "bench.backends.openvino is not allowed to import bench.backends.pytorch",
    ),
    ("bench/record/files.py", "torch", "bench.record is not allowed to import torch"),
    ("bench/analysis/stats/paired.py", "onnxruntime", "bench.analysis is not allowed to import onnxruntime"),
)


def lint_imports(folder: Path) -> tuple[int, str]:
    """Exit status and output of the check on the packages in a folder."""
    checked = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    return checked.returncode, checked.stdout + checked.stderr


def test_the_floors_hold() -> None:
    status, output = lint_imports(ROOT)
    assert status == 0, output


def test_an_import_against_each_rule_is_found(tmp_path: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors", "*.txt")
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for path, module, _ in PLANTED:
        with (tmp_path / path).open("a", encoding="utf-8") as file:
            file.write(f"\nimport {module}\n")
    status, output = lint_imports(tmp_path)
    assert status == 1
    assert [said for _, _, said in PLANTED if said not in output] == []


def test_a_file_that_is_run_has_all_its_names_before_it_runs() -> None:
    """What stands below the block that starts a file is not yet defined when it is run as a program."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            body = ast.parse(path.read_text("utf-8")).body
            starts = [
                n for n, node in enumerate(body) if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)
            ]
            assert starts in ([], [len(body) - 1]), path


def test_functions_are_short_and_take_few_things_and_folders_hold_few_files() -> None:
    """At most 60 lines and 6 parameters a function (a command's parameters are options), 12 entries a folder."""
    long, many, entries = [], [], dict[Path, set[str]]()
    for path in sorted(file for package in (*PACKAGES, "tools") for file in (ROOT / package).rglob("*.py")):
        relative = path.relative_to(ROOT)
        for inner, outer in zip(relative.parts[1:], relative.parents[-2::-1], strict=True):
            entries.setdefault(outer, set()).add(inner)
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                where, given = f"{relative}: {node.name}", node.args
                names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
                long += [where] if (node.end_lineno or 0) - node.lineno >= 60 else []
                if len([name for name in names if name not in ("self", "cls")]) > 6:
                    many += [where] if relative.parts[:2] != ("bench", "commands") else []
    full = {str(folder) for folder, names in entries.items() if len(names - {"__init__.py"}) > 12}
    assert (long, many, full) == ([], [], {"bench/commands"})


def test_runtimes_are_named_where_a_users_text_needs_it() -> None:
    naming = set()
    for path in (ROOT / "bench").rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in said]
        names = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        if any(
            re.search(r"(?i)pytorch|onnx ?runtime|openvino|tensorrt|ncnn|\bmnn", str(text)) for text in texts + names
        ):
            naming.add(path.relative_to(ROOT).as_posix())
    assert {name for name in naming if not name.startswith("bench/backends/")} == NAMING.keys()
