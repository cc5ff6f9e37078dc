"""The container files, without Docker: what they copy and call exists, and a fake docker is asked the right thing."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")


def instructions(name: str) -> list[str]:
    """What follows an instruction, wherever it stands."""
    return re.findall(rf"^{name} +(.*)$", DOCKERFILE, re.MULTILINE)


def stages() -> dict[str, str]:
    """Each stage's text by its name, with that of the stages that it is made from."""
    found: dict[str, str] = {}
    for part in re.split(r"^(?=FROM )", DOCKERFILE, flags=re.MULTILINE)[1:]:
        head = re.match(r"FROM (\S+) AS (\S+)\n", part)
        assert head, "every stage has a name"
        found[head[2]] = found.get(head[1], "") + part
    return found


def test_there_is_an_image_for_use_and_one_for_tests():
    assert {"use", "test"} <= set(stages())
    (base,) = re.findall(r"^FROM (nvidia/cuda:\S+)", DOCKERFILE, re.MULTILINE)
    for argument in re.findall(r"\$\{(\w+)\}", base):
        assert re.search(rf"^ARG {argument}=[\d.]+$", DOCKERFILE, re.MULTILINE), "pinned, and to be changed"


@pytest.mark.parametrize("name", ["use", "test"])
def test_images_run_as_an_ordinary_user(name):
    users = re.findall(r"^USER (\S+)$", stages()[name], re.MULTILINE)
    assert users
    assert users[-1] != "root"


def test_what_is_copied_exists_and_is_sent_to_docker():
    ignored = [line.strip("/") for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    sources = [word for line in instructions("COPY") for word in line.split()[:-1] if not word.startswith("--")]
    assert {"bench", "export", "pipelines", "scarlet", "tests", "constraints"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not any(source == name or source.startswith(f"{name}/") for name in ignored), source


def test_all_that_pyproject_installs_is_there_before_it_is_installed():
    before = stages()["packages"].partition("RUN make setup")[0]
    setuptools = pytest.importorskip("tomllib").loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = [name for name in setuptools["packages"]["find"]["include"] if "." not in name]
    for name in [*packages, *(f"{module}.py" for module in setuptools["py-modules"]), "setup.py", "pyproject.toml"]:
        assert re.search(rf"^COPY .*(?<=\s){re.escape(name)}\s", before, re.MULTILINE), name


def test_only_targets_that_the_makefile_has_are_called():
    makefile = (ROOT / "Makefile").read_text()
    called = re.findall(r"\bmake (?:-\S+ )*([a-z-]+)", DOCKERFILE) + re.findall(r'"make", "([a-z-]+)"', DOCKERFILE)
    called = [name for name in called if name not in ("python",)]
    assert {"setup", "gpu-check"} <= set(called)
    for target in called:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    (entry,) = instructions("ENTRYPOINT")
    assert entry == '[".venv/bin/scarlet-bench"]'


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The script in a folder of its own, beside a docker that writes down what it is asked."""
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "docker_bench.sh", tmp_path / "tools")
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    docker = bin_ / "docker"
    docker.write_text('#!/bin/sh\nfor word; do printf "[%s]\\n" "$word"; done >>"$LOG"\n')
    docker.chmod(0o755)
    return tmp_path


def call(checkout: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    system = os.pathsep.join(["/usr/local/bin", "/usr/bin", "/bin"])
    environment = {"PATH": f"{checkout / 'bin'}{os.pathsep}{system}", "LOG": str(checkout / "log"), **variables}
    script = [str(checkout / "tools" / "docker_bench.sh"), *words]
    return subprocess.run(script, env=environment, capture_output=True, text=True, check=False)


def test_bench_runs_in_the_container_as_the_caller(checkout):
    data, weights = checkout / "my images", checkout / "C.pth.tar"
    data.mkdir()
    weights.touch()
    done = call(checkout, "--strict", DATA=str(data), CHECKPOINT=str(weights), MODEL="scarlet_c", BATCHES="1,8")
    assert done.returncode == 0, done.stderr
    asked = re.findall(r"^\[(.*)\]$", (checkout / "log").read_text(), re.MULTILINE)
    run = asked[asked.index("run") :]
    assert asked[: asked.index("run")] == ["build", "--target", "use", "--tag", "scarlet-bench", "."]
    assert run[:2] == ["run", "--rm"]
    assert f"{os.getuid()}:{os.getgid()}" in run
    assert f"{data}:/images:ro" in run
    assert f"{weights}:/weights/C.pth.tar:ro" in run
    assert run[run.index("scarlet-bench") + 1 :] == [
        "run", "--devices", "cuda", "--data", "/images", "--checkpoint", "/weights/C.pth.tar",
        "--model", "scarlet_c", "--batches", "1,8", "--strict",
    ]  # fmt: skip


def test_a_checkpoint_that_is_no_file_is_a_word(checkout):
    assert call(checkout, CHECKPOINT="random", DEVICES="cpu,cuda").returncode == 0
    asked = re.findall(r"^\[(.*)\]$", (checkout / "log").read_text(), re.MULTILINE)
    assert asked[-5:] == ["run", "--devices", "cpu,cuda", "--checkpoint", "random"]


def test_without_docker_the_text_says_what_to_install(checkout):
    (checkout / "bin" / "docker").unlink()
    for tool in ("bash", "dirname"):
        (checkout / "bin" / tool).symlink_to(shutil.which(tool) or "")
    script = checkout / "tools" / "docker_bench.sh"
    only = {"PATH": str(checkout / "bin")}
    done = subprocess.run(["/usr/bin/env", "bash", script], env=only, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "NVIDIA Container Toolkit" in done.stderr
    assert not (checkout / "results").exists()
