"""`robustify status RUN`: how far a run of `certify` or `tune` is, and what it says so far."""

from pathlib import Path
from typing import Annotated

import typer


def status(run: Annotated[Path, typer.Argument(help="Folder of the run.")]) -> None:
    """Show how far a run is and what it says so far; loads no model, and may be asked while the run lasts."""
    from robustify.finetune.checkpoint import is_training_run

    if is_training_run(run):
        from robustify.finetune.progress import progress

        print(progress(run))
        return
    from robustify.evaluate.status import status as look
    from robustify.evaluate.stored import read_run

    print(look(read_run(run)))
