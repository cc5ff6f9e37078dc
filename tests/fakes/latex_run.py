"""A run for the tests of LaTeX tables, and a TeX engine to compile them with."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from report_run import add_predictions, add_samples, case, end, make_run

from bench.record.case import Status
from bench.record.run_folder import RunFolder

HOSTILE = "a_b%#&~^\\{}$ \"x\" <y> |z| [w] *v* --u ``t'' é ł 中 \u202e =cmd()\n\\input{/etc/passwd} \x1b[31m"

# Of a double-column paper in the style of CVPR: the narrowest of the usual columns.
PREAMBLE = r"""
\documentclass[10pt,twocolumn,letterpaper]{article}
\usepackage[textwidth=6.875in,textheight=8.875in]{geometry}
\setlength{\columnsep}{0.3125in}
"""


def paper_run(path: Path, factors: dict[str, float] | None = None, rounds: int = 40) -> RunFolder:
    """Three backends at two batches with accuracies: PyTorch, one twice as fast, one that nothing can tell from that.

    A fourth has failed with a hostile reason.
    """
    factors = factors or {"pytorch": 1.0, "onnxruntime": 0.5, "openvino": 0.502}
    timed = [
        case(backend=name, weights="demo", batch=batch, threads=2, pipeline="turbo")
        for batch in (1, 8)
        for name in factors
    ]
    scored = [
        case(backend=name, weights="demo", batch=32, threads=2, pipeline="turbo", scenario="accuracy")
        for name in factors
    ]
    failed = case(backend="tensorrt", weights="demo", batch=1, threads=2, pipeline="turbo")
    dataset = {"is_demo": True, "n_images": 1000, "fingerprint": "feed" * 16, "root": "/secret/folder"}
    host = {
        "cpu_model": "Test CPU",
        "logical_cores": 4,
        "logical_cores_allowed": 2,
        "governor": "performance",
        "turbo": False,
        "nvidia": {"gpus": []},
    }
    n = len(factors)
    folder = make_run(path, [*scored, *timed[:n], failed, *timed[n:]], {"dataset": dataset, "host": host})
    labels = np.arange(1000) % 10
    for number, one in enumerate(scored):
        # 760, 759 and 758 of 1,000 right.
        right = np.arange(1000) < 760 - number
        top = np.where(right, labels, labels + 100)
        add_predictions(
            folder, one, {f"i{place:04d}": (int(labels[place]), [int(top[place]), 7]) for place in range(1000)}
        )
        end(folder, one)
    for number, one in enumerate(timed):
        noise = np.random.default_rng(number).normal(1.0, 0.01, rounds)
        times = 20e6 * factors[one.backend] * one.batch * noise
        add_samples(folder, one, times.astype(int).tolist())
        end(folder, one, stage="compute")
    end(folder, failed, Status.UNAVAILABLE, reason=HOSTILE)
    return folder


def scored_run(path: Path, right: dict[str, int]) -> RunFolder:
    """Accuracy Cases that are right on the first so many of 1,000 images."""
    scored = [case(backend=name, scenario="accuracy", batch=32) for name in right]
    folder = make_run(path, scored)
    for one in scored:
        hits = {f"i{place:04d}": (1, [1 if place < right[one.backend] else 2]) for place in range(1000)}
        add_predictions(folder, one, hits)
        end(folder, one)
    return folder


def engine() -> str:
    """pdflatex; the test is skipped where it or a package is missing."""
    found = shutil.which("pdflatex")
    if found is None:
        pytest.skip("no pdflatex: install texlive-latex-recommended, texlive-latex-extra and texlive-science")
    for package in ("siunitx.sty", "threeparttable.sty", "booktabs.sty"):
        asked = subprocess.run(["kpsewhich", package], capture_output=True, text=True, check=False)
        if not asked.stdout.strip():
            pytest.skip(f"TeX has no {package}: install texlive-latex-extra and texlive-science")
    return found


def compiled(folder: Path, *sources: str) -> tuple[str, Path]:
    """Compiles a document that takes in these tables, twice; gives the log's last pass and the PDF.

    An error of TeX fails the test.
    """
    program = engine()
    folder.mkdir(parents=True, exist_ok=True)
    for number, source in enumerate(sources):
        (folder / f"table{number}.tex").write_text(source, encoding="utf-8")
    packages = sorted(
        {
            name
            for source in sources
            for found in re.findall(r"usepackage\{([a-z,]+)\}", source)
            for name in found.split(",")
        }
    )
    inputs = "\n".join(rf"\input{{table{number}}}" for number in range(len(sources)))
    used = "".join(f"\\usepackage{{{name}}}\n" for name in packages)
    document = f"{PREAMBLE}{used}\\begin{{document}}\nSome text.\n\n{inputs}\n\\end{{document}}\n"
    (folder / "paper.tex").write_text(document, encoding="utf-8")
    for _ in range(2):
        done = subprocess.run(
            [program, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"],
            cwd=folder,
            capture_output=True,
            check=False,
            timeout=120,
        )
        log = (folder / "paper.log").read_text(encoding="utf-8", errors="replace")
        assert done.returncode == 0, log[-3000:]
    return log, folder / "paper.pdf"


def complaints(log: str) -> list[str]:
    """Boxes that stand out, floats that do not fit, labels that are not there."""
    pattern = r"^(?:Overfull \\hbox.*|.*Float too large.*|LaTeX Warning: (?:Reference|Label).*|Missing character.*)$"
    return re.findall(pattern, log, re.MULTILINE)
