"""`robustify demo | certify | predict | denoisers | plugins`."""

import os
import sys

import typer

from robustify.cli import certify, demo, denoisers, plugins, predict
from robustify.errors import RobustifyError

app = typer.Typer(
    help="Certified image classifiers from the ones you already have.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.command("certify")(certify.certify)
app.command("predict")(predict.predict)
app.command("plugins")(plugins.plugins)
app.add_typer(denoisers.app, name="denoisers")


def main() -> None:
    """Runs a command; errors of ours are one message and exit status 2, an interruption is 130."""
    # Threads that wait must not spin: on a busy machine, spinning makes sampling ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except RobustifyError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command again to continue", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
