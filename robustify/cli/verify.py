"""`robustify verify RUN`: claims against counts; with the model and data, counts against seeds."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustify.cli.build import build, check_exists
from robustify.cli.options import Run, Without
from robustify.errors import InputError
from robustify.model_options import ModelOptions

if TYPE_CHECKING:
    from robustify.runs.folder import Run as StoredRun
    from robustify.verify.problem import Problem

SHOWN = 20

_DEFAULTS = ModelOptions()


def verify(
    run: Run,
    model: Annotated[str | None, typer.Option(help="The run's classifier, to repeat rows; needs --data.")] = None,
    data: Annotated[Path | None, typer.Option(help="The run's images, to repeat rows; needs --model.")] = None,
    options: Annotated[
        ModelOptions, Without("sigma", "mix", "certificate", "precision", "compiled", "gray")
    ] = _DEFAULTS,
    sample: Annotated[int, typer.Option(help="Rows to repeat, spread over the run.", min=1)] = 5,
) -> None:
    """Verify a run: what was written, every claim against its counts, and some counts against their seeds.

    Digests show mistakes and careless edits, not those of someone who computes them again. Claims are proven again in
    independent arithmetic; counts are drawn again where --model and --data are given, with the sigma and precision of
    the run, and its rules for pictures.

    Example: robustify verify run --model zoo:timm --data photos/ --denoiser zoo:ddpm

    Exit status: 0 all is well, 1 something is wrong, 2 nothing could be verified.
    """
    from robustify.runs.folder import read_run
    from robustify.verify.claims import verify_claims
    from robustify.verify.integrity import changes, missing_evidence

    if (model is None or data is None) and (model or data or options != _DEFAULTS):
        raise InputError("to repeat rows give both --model and --data")
    check_exists(run)
    if data is not None:
        check_exists(data)
    stored = read_run(run)
    changed, wrong = [*changes(stored)], verify_claims(stored)
    parts = [] if stored.digest is None else [f"changed in {_places(changed)}" if changed else "unchanged"]
    parts.append(f"arithmetic wrong in {_places(wrong)}" if wrong else "arithmetic verified")
    differ: list[Problem] = []
    if model is not None and data is not None and not wrong:
        repeated = min(sample, len(stored.rows))
        differ = _repeat(stored, model, data, options, sample)
        found = f"{_places(differ)} rows differ" if differ else "all match"
        parts.append(f"{repeated} recomputed from their seeds: {found}")
    problems = [*changed, *wrong, *differ]
    for problem in problems[:SHOWN]:
        print(problem, file=sys.stderr)
    if len(problems) > SHOWN:
        print(f"… and {len(problems) - SHOWN} more", file=sys.stderr)
    print("\n".join([f"{len(stored.rows):,} rows: {'; '.join(parts)}", *missing_evidence(stored)]))
    if problems:
        raise typer.Exit(1)


def _places(problems: "list[Problem]") -> int:
    """Number of rows, or files of the run, that the problems are about."""
    return len({problem.sample for problem in problems})


def _repeat(stored: "StoredRun", model: str, data: Path, options: ModelOptions, count: int) -> "list[Problem]":
    """What differs when some rows are drawn again, with the noise and numerics of the run."""
    from robustify.data import open_samples
    from robustify.verify.replay import replay
    from robustify.verify.stored import Stored

    numerics, proof = stored.numerics, Stored(stored.plan)
    gray = stored.config.get("pictures", {}).get("gray", False)
    as_run = replace(options, certificate=proof, precision=numerics.precision, compiled=numerics.compiled, gray=gray)
    smoothed = build(model, as_run)
    return replay(smoothed, open_samples(data, smoothed.labels), stored, count)
