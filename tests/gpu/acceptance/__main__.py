"""`make gpu-check`: everything there is to measure and prove on a GPU, in one call of a given length."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import date, datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.commands.show import GOOD, NOT_OK, Json, console_for
from bench.record.files import disk_errors
from scarlet.errors import BenchError, error_text
from tests.gpu.acceptance.steps import MINUTES, RECORDS, Runner, load_steps, rehearsed

if TYPE_CHECKING:
    from tests.gpu.acceptance.judge import Figure
    from tests.gpu.acceptance.steps import Record

# Asked of PyTorch in a process of its own: this one takes no memory of the GPU.
PROGRAM = """
import json, torch
facts = {"torch": torch.__version__, "cuda": torch.version.cuda}
if torch.cuda.is_available():
    facts["name"] = torch.cuda.get_device_name(0)
    facts["capability"] = ".".join(map(str, torch.cuda.get_device_capability(0)))
print(json.dumps(facts))
"""
TIMEOUT_SECONDS = 120.0
DRY = {"name": "dry run", "capability": "none", "torch": "on the CPU", "cuda": "none"}
DO = "Run it on a machine with an NVIDIA GPU and a CUDA build of PyTorch; docs/gpu.md says how, also without a network."


def gpu_check(
    out: Annotated[
        Path, typer.Option(help="Folder that takes a new folder <gpu>-<date>, or one that a check has begun.")
    ] = Path("results/published"),
    minutes: Annotated[float, typer.Option(help="How long all of it may take.")] = MINUTES,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer images, precisions and batches: does it all work?")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Every step on the CPU with a few images: is all there that a GPU needs?")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run the GPU tests, the full comparison of SCARLET-C and the GPU decoding, and judge the figures.

    Exit code 0 where every figure that was measured meets its target, 1 where one does not or nothing was measured. A
    dry run exits with 0 where every step and every row is ok.
    """
    from tests.gpu.acceptance import summary

    if not minutes > 0:
        raise BenchError(f"--minutes {minutes:g} is no time", "Give a number above 0, for example --minutes 8.")
    console = console_for(as_json)
    machine = DRY if dry_run else find_gpu()
    begun = (out / RECORDS).exists()
    folder = (out if begun else out / folder_name(machine["name"], datetime.now(timezone.utc).date())).resolve()
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    def after(records: Sequence[Record]) -> None:
        try:
            summary.write(folder, machine, records)
        except Exception as error:  # the steps that follow are worth more; at the end it is written again
            say(f"the summary cannot be written yet: {error_text(error)}")

    say(f"{machine['name']}; results go to {folder}")
    steps = load_steps(folder, quick or dry_run)
    try:
        records = Runner(folder, minutes, say, after).carry_out([*map(rehearsed, steps)] if dry_run else steps)
        figures = summary.write(folder, machine, records)
    finally:  # what a check that was stopped has measured is worth taking home, too
        parts = summary.pack(folder)
    if as_json:
        typer.echo(json.dumps(json.loads((folder / summary.SUMMARY_JSON).read_text(encoding="utf-8"))))
    else:
        for figure in figures:
            why = f" ({figure.why})" if figure.why else ""
            say(f"{figure.verdict:>8}  {figure.name}: {figure.value or 'no figure'}{why}")
    size = sum(part.stat().st_size for part in parts) / 2**20
    say(f"summary: {folder / summary.SUMMARY}; all of it packed: {parts[0].parent}, {size:.1f} MiB")
    if dry_run:
        raise typer.Exit(GOOD if summary.all_ok(folder, records) else NOT_OK)
    raise typer.Exit(exit_code(figures))


def exit_code(figures: Sequence[Figure]) -> int:
    """1 where a figure falls short of its target, or where none could be measured; else 0."""
    verdicts = {figure.verdict for figure in figures}
    return NOT_OK if "not met" in verdicts or verdicts <= {"not run"} else GOOD


def find_gpu() -> dict[str, str]:
    """The first GPU that PyTorch can use: its ``name`` and compute ``capability``, and the versions of ``torch`` and
    of the ``cuda`` that it is built for.

    Raises:
        BenchError: there is none; one line of why, one of what to do.
    """
    command = [sys.executable, "-c", PROGRAM]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    if answer.returncode:
        words = error_text(answer.stderr.strip().rpartition("\n")[2])
        raise BenchError(f"there is no GPU to check: PyTorch cannot be asked ({words})", DO)
    facts: dict[str, str] = json.loads(answer.stdout.strip().rpartition("\n")[2])
    if facts["cuda"] is None:
        raise BenchError(f"there is no GPU to check: this PyTorch ({facts['torch']}) is a CPU build", DO)
    if "name" not in facts:
        raise BenchError("there is no GPU to check: PyTorch sees no CUDA device", DO)
    return facts


def folder_name(gpu: str, day: date) -> str:
    """``<gpu>-<date>`` in letters, digits and dashes, such as ``nvidia-h200-2026-11-22``."""
    name = re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")
    return f"{name or 'gpu'}-{day.isoformat()}"


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.command()(gpu_check)

if __name__ == "__main__":
    from bench.cli import main

    main(app)
