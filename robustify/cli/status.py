"""`robustify status RUN`: how far a run of `certify` or `tune` is, and what it says so far."""

from robustify.cli.build import check_exists
from robustify.cli.options import Run


def status(run: Run) -> None:
    """Show how far a run of certify or tune is, and what it says so far.

    Loads no model, and may be asked while the run lasts.

    Example: robustify status run
    """
    check_exists(run)
    from robustify.finetune.train.folder import is_training_run

    if is_training_run(run):
        from robustify.finetune.train.progress import progress

        print(progress(run))
        return
    from robustify.runs.folder import read_run
    from robustify.runs.status import status as look

    print(look(read_run(run)))
