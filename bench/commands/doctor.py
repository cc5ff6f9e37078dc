"""`doctor`: what this machine is, and what to do about it."""

from __future__ import annotations

import json

import typer

from bench.commands.shared import Json, console_for


def doctor(as_json: Json = False) -> None:
    """Tell what this machine is, what disturbs measurements on it, and what to do."""
    from bench import host

    checks = host.doctor()
    if as_json:
        typer.echo(json.dumps([check.to_dict() for check in checks]))
        return
    console = console_for(False)
    for check in checks:
        console.print(
            f"{check.state:>4}  {check.check}: {check.text}", markup=False, highlight=False, soft_wrap=True
        )
        if check.advice:
            console.print(f"      {check.advice}", markup=False, highlight=False, soft_wrap=True)
