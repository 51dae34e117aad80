"""New certificates for a changed model, from the counts of the run before the change and a few more draws."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, final

from robustify.certificates import Provenance
from robustify.certificates.gaussian import Gaussian
from robustify.certificates.migrated import Migrated
from robustify.certificates.migration import SHARED, MigratedPlan, Origin
from robustify.certificates.plans import FixedPlan
from robustify.certificates.queries import SELECTION, Ask
from robustify.certificates.radii import check_count
from robustify.data import Sample
from robustify.errors import InputError, RunError
from robustify.format import at_most
from robustify.options import checked
from robustify.runs.begun import BegunStore
from robustify.runs.certify import carry_out, check_unchanged, configuration
from robustify.runs.config import differences, open_config, read_config
from robustify.runs.digests import DIGEST
from robustify.runs.folder import Run, read_run
from robustify.runs.rows import Row
from robustify.runs.same_model import check_same_model
from robustify.runs.store import RowStore
from robustify.smoothing import Settings, SmoothedClassifier
from robustify.smoothing.fingerprint import classifier_fingerprint, denoiser_fingerprint, pixels_fingerprint
from robustify.smoothing.rounds import Begun, Job

_LOG = logging.getLogger("robustify")

PILOTS = 10
"""Images, at most, on whose draws the two models are compared before it is decided which draws are worth while."""

PILOT_DRAWS = 100
"""Draws of each of them, at most, among those that chose its label."""


@checked({})
def migrate(
    run: Run | str | PathLike[str],
    old_model: SmoothedClassifier,
    new_model: SmoothedClassifier,
    samples: Sequence[Sample],
    out: str | PathLike[str],
    *,
    draws: int | None = None,
    title: str = "migrate",
) -> Run:
    """Gives every certificate of a finished run its radius for a changed model, in a new run folder.

    The change may be anything that keeps the space of the images and the noise: another precision, compilation,
    quantisation, a merged adapter, another denoiser. Of each image, both models see `draws` of the old run's draws; or
    the changed one sees twice as many of its own, which cost the same, where these promise more: near certainty they
    do. Few draws prove small radii: a tenth of 1,000 keeps much less of a radius than a tenth of 100,000.

    The changed model must not have been chosen by the old run's draws, and each run is for one migration to a model:
    the best of several would be false more often than alpha. Started again, it continues.

    Arguments:
        run: The finished run, or its folder: of Gaussian noise of one level, with a fixed number of draws (`n=`).
        old_model: The model of that run, in its precision.
        new_model: The changed model, certified by Gaussian noise of the same level.
        samples: The run's data, or more, with the same names.
        out: Folder of the new run, made where missing.
        draws: Draws of each image that both models see, 1 to the run's `n`; a tenth of these where None.
        title: Title of the progress bar.

    Raises:
        InputError: If models, data or draws do not fit; before any sampling.
        RunError: If the run is not finished, was changed or cannot be migrated, the old model is not its own, or `out`
            holds another run.
        KeyboardInterrupt: Where interrupted, with how much is kept and lost.
    """
    run, out = run if isinstance(run, Run) else read_run(run), Path(out)
    plan = _plan(run, draws)
    check_same_model(old_model, run)
    _check_change(old_model, new_model)
    model = SmoothedClassifier(
        new_model.classifier,
        new_model.denoiser,
        family=Migrated(plan),
        precision=new_model.precision,
        compiled=new_model.pipeline.compiled,
        before=old_model.pipeline,
    )
    chosen = _samples(model, samples, run)
    provenance = _provenance(model, run)
    plan = replace(plan, expected=_expected(model, provenance, chosen, out, plan.n0))
    _LOG.info(_told(plan, run.rows))
    provenance = replace(provenance, plan=plan)
    config = configuration(model, provenance, chosen, Settings(), None)
    config = open_config(out, {**config, "family_alpha": run.config["family_alpha"]})
    _hand_over(run, config, out)
    return carry_out(model, chosen, provenance, config, out, {}, title)


def migratable(run: Run) -> FixedPlan:
    """The plan of a run whose certificates can be carried over.

    Raises:
        RunError: With the reason why they cannot.
    """
    if not run.finished or run.digest is None:
        raise RunError(
            f"the run in {str(run.folder)!r} {'has an older format' if run.finished else 'is not finished'}; expected "
            "a finished run of this version.\n  Certify again, or let it come to its end."
        )
    check_unchanged(run.rows, run.digest, run.folder)
    if run.config.get("attempt") is not None:
        raise RunError(
            f"the run in {str(run.folder)!r} counts its attempts in a ledger, which migration does not charge.\n"
            "  Certify the changed model with that ledger instead."
        )
    old = run.plan
    if not isinstance(old, FixedPlan):
        raise RunError(
            f"the run in {str(run.folder)!r} asked for {old} ({old.family}, {getattr(old, 'rule', 'other')}): how many "
            "draws tested a label depends on their votes or on the image, so its counts cannot be used again.\n"
            "  Expected a classical run, certified with n=."
        )
    if len(batches := {row.batch for row in run.rows}) > 1:
        raise RunError(
            f"the run in {str(run.folder)!r} continued with another batch size ({', '.join(map(str, batches))}): rows "
            "are about functions that round differently.\n  Expected a run of one batch size."
        )
    return old


def _plan(run: Run, draws: int | None) -> MigratedPlan:
    """The plan of the new run, before it is known how often the functions differ."""
    old, config = migratable(run), run.config
    shared = max(1, old.n // 10) if draws is None else draws
    check_count("draws", shared, most=old.n)
    numerics = ", ".join(f"{name} {value}" for name, value in config["numerics"].items())
    origin = Origin(config[DIGEST], config["classifier"]["sha256"], config["denoiser"]["sha256"], numerics)
    return MigratedPlan(old.sigma, old.alpha, old.n0, old.n, shared, 2 * shared, 0.0, old.slack, origin)


def _check_change(old: SmoothedClassifier, new: SmoothedClassifier) -> None:
    """Refuses a changed model that is about other images or other noise."""
    there, now = map(_space, (old, new))
    if lines := differences(there, now):
        raise InputError("only the function may change, not what it is shown:\n" + "\n".join(lines))
    if _function(old) == _function(new):
        raise InputError("expected a changed model; got the one of the run: its certificates hold as they are")
    alike = {id(module) for module in old.pipeline.modules()} & {id(module) for module in new.pipeline.modules()}
    if alike and old.pipeline.compiled != new.pipeline.compiled:
        raise InputError(
            "compilation changes a network in place, and both models use the same one.\n  Load the model twice."
        )


def _function(model: SmoothedClassifier) -> tuple[object, ...]:
    """What a model computes by."""
    denoiser = denoiser_fingerprint(model.denoiser, [model.sigma])
    return classifier_fingerprint(model.classifier), denoiser, model.numerics


def _space(model: SmoothedClassifier) -> dict[str, Any]:
    """What a model is shown, and what its answers mean."""
    return {
        "family": model.family.name if isinstance(model.family, Gaussian) else str(model.family),
        "sigma": model.sigma,
        "contract": asdict(model.contract),
        "preprocessing": repr(model.classifier.preprocessing),
        "labels": list(model.labels),
    }


def _samples(model: SmoothedClassifier, samples: Sequence[Sample], run: Run) -> list[Sample]:
    """The images of the run's rows, which must be the very same."""
    by_id = {sample.id: sample for sample in samples}
    if missing := [row.sample for row in run.rows if row.sample not in by_id]:
        raise InputError(
            f"the data lacks {len(missing)} of the run's {len(run.rows)} images, {missing[0]!r} being the first.\n"
            "  Give the data that the run was made over, with the same names."
        )
    for row in run.rows:
        if pixels_fingerprint(model.prepare(by_id[row.sample].image, run.soundness)) != row.pixels:
            raise InputError(f"{row.sample!r} is another image than the one that the run certified")
    return [by_id[row.sample] for row in run.rows]


def _provenance(model: SmoothedClassifier, run: Run) -> Provenance:
    """What the new certificates depend on: the noise and the batch of the old ones."""
    found = model.provenance(Settings(soundness=run.soundness, seed=run.seed))
    return replace(found, fresh=run.fresh, batch=run.rows[0].batch)


def _expected(
    model: SmoothedClassifier, provenance: Provenance, samples: Sequence[Sample], out: Path, n0: int
) -> float:
    """The share of draws on which the functions differ: as a run in `out` found, or now by a pilot."""
    if (out / "run.json").is_file() and (found := read_config(out)["plan"].get("expected")) is not None:
        return float(found)
    return _pilot(model, provenance, samples, min(PILOT_DRAWS, n0))


@final
@dataclass
class _PilotQuery:
    """How often do the functions agree on draws that chose the label?"""

    classes: int
    draws: int
    votes: list[int] = field(init=False, default_factory=list)

    def ask(self) -> Sequence[Ask]:
        return () if self.votes else (Ask(SHARED, SELECTION, self.draws),)

    def tell(self, ask: Ask, votes: Sequence[int]) -> None:
        del ask
        self.votes = list(votes)


def _pilot(model: SmoothedClassifier, provenance: Provenance, samples: Sequence[Sample], draws: int) -> float:
    """The share of draws on which the functions differ, among a few that chose labels and test none."""
    p, step = provenance, -(-len(samples) // PILOTS)
    jobs = [
        Job(model.prepare(sample.image, p.soundness), sample.id, _PilotQuery(len(model.labels), draws))
        for sample in samples[::step]
    ]
    answered = model.answered(jobs, p.plan.views, p.soundness, p.seed, p.batch, None)
    return 1 - sum(sum(job.query.votes) for job in answered) / (draws * len(jobs))


def _told(plan: MigratedPlan, rows: Sequence[Row]) -> str:
    """The plan in words."""
    ways = Counter(plan.way(row.selection) for row in rows)
    carried = len(rows) - ways["fresh"]
    return (
        f"the models differ on {at_most(100 * plan.expected)} % of the draws seen: {carried:,} of {len(rows):,} images "
        f"take {plan.shared:,} draws that both see, {ways['fresh']:,} take {plan.fresh:,} of the changed model alone"
    )


def _hand_over(run: Run, config: dict[str, Any], out: Path) -> None:
    """Puts the counts of the old run where the new one looks for draws that were made already."""
    store = BegunStore(out, str(config[DIGEST]), run.rows[0].batch)
    there = {row.sample for row in RowStore(out).rows()} | {name for name, _, _ in store.read()}
    rows = [row for row in run.rows if row.sample not in there]
    begun = {row.sample: Begun(told=(row.selection, row.votes)) for row in rows}
    store.write({row.sample: row.pixels for row in rows}, begun)
