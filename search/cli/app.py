"""All commands in the order in which a user meets them."""

from __future__ import annotations

from typing import Annotated

import typer

from search.cli import config_commands, model_commands, run_commands, select, tool_commands

app = typer.Typer(
    help="Find the smallest and fastest student of a fine-tuned transformer that still does the job.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(version("paredown"))
        raise typer.Exit()


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options of every command; ``main`` takes ``--debug`` out before they are parsed."""


for name, command in (
    ("init", config_commands.init),
    ("check", config_commands.check),
    ("search", config_commands.search),
    ("plan", config_commands.plan),
    ("augment", config_commands.augment),
    ("status", run_commands.status),
    ("show", run_commands.show),
    ("measure", run_commands.measure),
    ("report", run_commands.report),
    ("pick", select.pick),
    ("export", select.export),
    ("train", model_commands.train),
    ("diff", tool_commands.diff),
    ("evaluate", model_commands.evaluate),
    ("convert", model_commands.convert),
    ("schema", config_commands.schema),
    ("doctor", tool_commands.doctor),
):
    app.command(name)(command)
