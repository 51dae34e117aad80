"""`robustify status RUN`: how far a run of `certify` or `tune` is, and what it says so far."""

from robustify.cli.options import Run, check_exists


def status(run: Run) -> None:
    """Show how far a run of certify or tune is, and what it says so far.

    Loads no model, and may be asked while the run lasts.

    Example: robustify status run
    """
    check_exists(run)
    from robustify.finetune.checkpoint import is_training_run

    if is_training_run(run):
        from robustify.finetune.progress import progress

        print(progress(run))
        return
    from robustify.evaluate.status import status as look
    from robustify.evaluate.stored import read_run

    print(look(read_run(run)))
