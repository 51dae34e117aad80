"""`robustify demo | tune | certify | estimate | migrate | status | verify | predict | denoisers | plugins`."""

import os
import sys
from typing import Annotated

import typer

from robustify.cli import certify, demo, denoisers, estimate, migrate, plugins, predict, status, tune, verify
from robustify.cli.console import set_up
from robustify.cli.options import command, in_words_of_the_command_line
from robustify.errors import RobustifyError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.command("tune")(command(tune.tune))
app.command("certify")(command(certify.certify))
app.command("estimate")(command(estimate.estimate))
app.command("migrate")(command(migrate.migrate))
app.command("status")(status.status)
app.command("verify")(command(verify.verify))
app.command("predict")(command(predict.predict))
app.command("plugins")(plugins.plugins)
app.add_typer(denoisers.app, name="denoisers")


def _tell_version(wanted: bool) -> bool:
    """Prints the version where it is wanted, before a command is looked for."""
    if wanted:
        from robustify import __version__

        print(f"robustify {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Certified image classifiers from the ones you already have."""


def main() -> None:
    """Runs a command; errors of ours are one message and exit status 2."""
    # Threads that wait must not spin: on a busy machine, spinning makes sampling ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    set_up()
    try:
        app(prog_name="robustify")
    except RobustifyError as error:
        print(f"error: {in_words_of_the_command_line(str(error))}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
