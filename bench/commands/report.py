"""`report`: a run's reports again, from its raw files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.commands import options
from bench.commands.show import Json, Out, console_for, show_run
from scarlet.errors import BenchError, visible


def report(
    run: Annotated[Path, typer.Argument(help="A run's folder.")] = Path("results/latest"),
    form: Annotated[
        str, typer.Option("--format", help="Make only this one, and say where: latex, markdown, csv and so on.")
    ] = "",
    columns: Annotated[
        str,
        typer.Option(help="Of the LaTeX table, comma-separated, such as backend,precision,batch,top1,latency,ratio."),
    ] = "",
    caption: options.Caption = "",
    label: options.Label = "",
    notes: Annotated[str, typer.Option(help="Of the LaTeX table: short, or all where it is left out.")] = "",
    figures: Annotated[
        bool, typer.Option("--figures", help="Also draw the charts for papers: PDF, SVG and PNG in figures/.")
    ] = False,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Remake a run's reports from its raw files."""
    if form.lower() != "latex" and (columns or caption or label or notes):
        raise BenchError("--columns, --caption, --label and --notes are of LaTeX tables", "Add --format latex.")
    if form:
        typer.echo(visible(str(_one(run, form, (columns, caption, label, notes)))))
        return
    from bench.record.raw_tables import kept_reads
    from bench.report.terminal import printer

    console = console_for(as_json)
    with kept_reads():
        show_run(run, console, as_json, out)
        if figures:
            from bench.analysis.table import load
            from bench.report.charts import charts
            from bench.report.charts.files import write_figures

            drawn = write_figures(charts(load(run.resolve())), run.resolve() / "figures")
            printer(console)(f"figures: {len(drawn)} files in {run / 'figures'}")


def _one(run: Path, form: str, chosen: tuple[str, str, str, str]) -> Path:
    """Makes one form of a run's report; gives its file."""
    from bench.analysis.table import load
    from bench.record.case import checked_names
    from bench.report.forms import FORMATS
    from bench.report.latex import table

    (form,) = checked_names("format", [form], FORMATS)
    loaded, path = load(run), run / FORMATS[form].file_name
    if form == "latex":
        table.write(loaded, path, table.Options(*chosen))
    else:
        FORMATS[form].write(loaded, path)
    return path
