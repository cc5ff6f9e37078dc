"""The wheel in an environment of its own, called in a project whose packages are called as ours are."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import onnx
import pytest
from bench_fakes import make_graph
from folders import ROOT

OURS = ("bench", "export", "pipelines", "scarlet")


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of a wheel; what the wheel needs comes from the environment of the tests."""
    home = tmp_path_factory.mktemp("tool")
    source, environment = home / "source", home / "environment"
    source.mkdir()
    for name in (*OURS, "scarlet_bench.py", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--quiet", "--no-input"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", home, source], check=True)
    wheels = map(str, home.glob("*.whl"))
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", *wheels], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "needed.pth").write_text(sysconfig.get_path("purelib"))
    assert {path.name.partition("-")[0] for path in site.iterdir()} == {"scarlet_bench", "needed.pth"}
    return python.parent


@pytest.fixture
def project(tmp_path: Path, image_folder: Path) -> Path:
    """Somebody's project: a model, images, and packages that must not be taken for ours."""
    for name in (*OURS, "models"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the package of the project was imported')")
    onnx.save(make_graph("batch"), tmp_path / "net.onnx")
    shutil.copytree(image_folder, tmp_path / "images")
    return tmp_path


def call(project: Path, program: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Calls a program of the tool in the project, which is on PYTHONPATH as many projects are."""
    store = {"PYTHONPATH": str(project), "SCARLET_BENCH_STORE": str(project / "store"), "HOME": str(project)}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
    return subprocess.run([program, *words], cwd=project, env={**environment, **store}, capture_output=True, text=True)


def test_the_tool_runs_checks_and_reports_in_a_project_with_packages_of_the_same_names(tool, project):
    command = tool / "scarlet-bench"
    model = ("--model", "onnx:net.onnx", "--data", "images", "--images", "all", "--scenarios", "accuracy")
    ran = call(project, command, "run", *model, "--backends", "onnxruntime", "--baseline", "b.json", "--out", "mine")
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    checked = call(project, command, "check", "--baseline", "b.json", "--json")
    assert checked.returncode == 0, f"{checked.stdout}\n{checked.stderr}"
    assert json.loads(checked.stdout)["verdict"] == "pass"
    (project / "mine" / "report.html").unlink()
    assert call(project, command, "report", "mine").returncode == 0
    assert (project / "mine" / "report.html").is_file()


def test_the_tool_says_its_version_and_gives_runs_to_notebooks(tool: Path, project: Path) -> None:
    assert call(project, tool / "scarlet-bench", "--version").stdout.startswith("scarlet-bench 0.")
    program = "import scarlet_bench as bench; print(len(bench.columns()))"
    assert int(call(project, tool / "python", "-c", program).stdout) > 20
    theirs = call(project, tool / "python", "-c", f"import types, sys; sys.modules['bench'] = types; {program}")
    assert "ImportError: a package 'bench' that is not ours" in theirs.stderr
