"""The command line: `scarlet-bench`. Thin: commands read options, call the library and turn errors into exit codes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType

import typer

from bench.commands import (
    against,
    baseline,
    bisect,
    check,
    compare,
    demo,
    doctor,
    export,
    history,
    models,
    parity,
    profile,
    quantize,
    report,
    run,
    schema,
    table,
    tune,
)
from bench.commands.show import INTERRUPTED, PASS_ON, USER_ERROR
from scarlet.errors import BenchError

app = typer.Typer(
    name="scarlet-bench",
    help="Compare the accuracy and latency of an image classifier across inference runtimes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# In the order of --help. What a module imports at its top is loaded by every command: nothing heavy.
COMMANDS: dict[str, Callable[..., None]] = {
    "run": run.run,
    "against": against.against,
    "compare": compare.compare,
    "bisect": bisect.bisect,
    "parity": parity.parity,
    "check": check.check,
    "baseline": baseline.baseline,
    "report": report.report,
    "history": history.history,
    "table": table.table,
    "tune": tune.tune,
    "profile": profile.profile,
    "export": export.export,
    "quantize": quantize.quantize,
    "demo": demo.demo,
    "doctor": doctor.doctor,
    "models": models.models,
    "schema": schema.schema,
}
# These hand their options on to another command.
PASSING_ON: dict[str, Callable[..., None]] = {"plan": run.plan, "noise": run.measure_noise}

for name, command in COMMANDS.items():
    app.command(name)(command)
for name, command in PASSING_ON.items():
    app.command(name, context_settings=PASS_ON)(command)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(program: typer.Typer = app) -> None:
    """Entry point: a `BenchError` becomes two lines and exit code 2; Ctrl-C and SIGTERM become 130.

    Args:
        program: what to run so.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        program()
    except BenchError as mistake:
        sys.stderr.write(f"error: {mistake.what}\n       {mistake.do}\n")
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
