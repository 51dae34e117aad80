"""`robustify demo | tune | certify | estimate | status | verify | predict | denoisers | plugins`."""

import os
import sys
import warnings

import typer

from robustify.cli import certify, demo, denoisers, estimate, plugins, predict, status, tune, verify
from robustify.cli.options import command, in_words_of_the_command_line
from robustify.errors import RobustifyError

app = typer.Typer(
    help="Certified image classifiers from the ones you already have.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.command("tune")(command(tune.tune))
app.command("certify")(command(certify.certify))
app.command("estimate")(command(estimate.estimate))
app.command("status")(status.status)
app.command("verify")(command(verify.verify))
app.command("predict")(command(predict.predict))
app.command("plugins")(plugins.plugins)
app.add_typer(denoisers.app, name="denoisers")


def main() -> None:
    """Runs a command; errors of ours are one message and exit status 2."""
    # Threads that wait must not spin: on a busy machine, spinning makes sampling ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # The place in the code says nothing to who typed a command.
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        app(prog_name="robustify")
    except RobustifyError as error:
        print(f"error: {in_words_of_the_command_line(str(error))}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
