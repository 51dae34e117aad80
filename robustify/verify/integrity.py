"""Is what a run stores what was written? Digests tell, without a model and without drawing again.

They show mistakes and careless edits of any column of a row, of a row's name, of any key of `run.json`, and rows that
were left out, copied or added once a run was finished. They do not show the work of someone who computes the digests
again (see `robustify.runs.digests`): then only claims that counts do not prove show (`robustify.verify.claims`), and
counts that seeds do not give (`robustify.verify.replay`).
"""

from collections.abc import Iterator

from robustify.runs.digests import config_digest, row_digest, rows_digest, samples_digest
from robustify.runs.ending import ENDING, Ending
from robustify.runs.folder import Run
from robustify.verify.problem import Problem

_OF_CONTENT = "that of the content: it was changed after it was written"


def changes(run: Run) -> Iterator[Problem]:
    """Everything that is not as it was written; of a run whose format has no digests, only that it holds some."""
    if (key := run.digest) is None:
        if run.ending is not None or any(row.digest is not None for row in run.rows):
            yield Problem("run.json", "format", run.config["format"], "one with digests, as rows and endings have them")
        return
    if key != (found := config_digest(run.config)):
        yield Problem("run.json", "digest", key, f"{found}, {_OF_CONTENT}")
    for row in run.rows:
        if row.digest != (found := row_digest(row, key)):
            yield Problem(row.sample, "digest", row.digest, f"{found}, {_OF_CONTENT}")
    if run.ending is not None:
        yield from _ending(run, run.ending, key)
    elif run.finished:
        yield Problem(ENDING, "file", "missing", "what the rows of a finished run add up to")


def _ending(run: Run, ending: Ending, key: str) -> Iterator[Problem]:
    """Changes of what a run adds up to, and rows that it does not."""
    if ending.digest != (found := ending.expected_digest(key)):
        yield Problem(ENDING, "digest", ending.digest, f"{found}, {_OF_CONTENT}")
    if not run.finished:  # images that could not be used before are being certified
        if ending.rows > len(run.rows):
            yield Problem(ENDING, "rows", ending.rows, f"{len(run.rows)}, as many as are left")
        return
    if ending.rows != len(run.rows):
        yield Problem(ENDING, "rows", ending.rows, f"{len(run.rows)}, as many as there are")
    if ending.rows_digest != (found := rows_digest(run.rows)):
        yield Problem(ENDING, "rows_digest", ending.rows_digest, f"{found}, that of the rows that are there")
    if (done := len(run.rows) + len(ending.unusable)) != run.samples:
        yield Problem("run.json", "samples", run.samples, f"{done}, as many as rows and unusable images")
    images = [*((row.sample, row.truth) for row in run.rows), *((u.sample, u.truth) for u in ending.unusable)]
    if run.config["samples_sha256"] != (found := samples_digest(images)):
        stored = run.config["samples_sha256"]
        yield Problem("run.json", "samples_sha256", stored, f"{found}, that of the names and true classes there are")


def missing_evidence(run: Run) -> list[str]:
    """Sentences about what verification cannot show in this run."""
    said = []
    if run.digest is None:
        said.append(
            f"Runs of format {run.config['format']} have no digests: changed true classes, names, hashes of pixels, "
            "batches and times do not show, nor rows that are missing or were added."
        )
    if run.plan.family == "migrated":
        said.append(
            "The counts before the change were taken from another run; that they are its own shows only when rows are "
            "drawn again with both models (`robustify.verify.replay`)."
        )
    if not run.finished:
        left = run.samples - len(run.rows)
        said.append(f"The run is not finished: of {left:,} images without a row, whether they had one does not show.")
    return said
