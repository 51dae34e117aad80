"""Certificates of a run that are carried over to a changed model."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from robustify import Preprocessing, Settings, SmoothedClassifier, certify_dataset
from robustify.certificates.family import CERTIFICATES
from robustify.certificates.migrated import Migrated
from robustify.certificates.migration import FRESH, SHARED, MigratedPlan
from robustify.classifiers import ImageClassifier
from robustify.data import Sample
from robustify.denoisers import Identity
from robustify.errors import InputError, RobustifyError, RunError
from robustify.report.html import write_report
from robustify.report.numbers import Chapter
from robustify.runs.folder import Run, read_run
from robustify.runs.migrate import migratable, migrate
from robustify.runs.rows import Row
from robustify.runs.store import RowStore
from robustify.smoothing.noise import GridNoise, NoiseAddress, NoiseStream
from robustify.verify.claims import verify_row, verify_run
from robustify.verify.integrity import missing_evidence
from robustify.verify.replay import replay
from robustify.verify.stored import Stored
from tests.smoothing.half_space import HalfSpace, smooth
from tests.toys import Shrink, linear_model, twelve_samples

if Migrated.name not in CERTIFICATES.names():
    CERTIFICATES.register(Migrated.name, Migrated)

N, DRAWS = 6_000, 600
SETTINGS = Settings(n=N, n0=50, seed=3)


def changed(by: float = 1e-4) -> SmoothedClassifier:
    """The linear model with slightly other weights."""
    model = linear_model()
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return model


def noted(model: SmoothedClassifier) -> SmoothedClassifier:
    """The model with another fingerprint, that computes the same."""
    model.classifier.network.note = "changed"
    return model


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return certify_dataset(linear_model(), twelve_samples(), tmp_path_factory.mktemp("before") / "run", SETTINGS)


@pytest.fixture(scope="module")
def after(before: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("after") / "run"
    migrate(before.folder, linear_model(), changed(), twelve_samples(), out, draws=DRAWS)
    return read_run(out)


def ways(run: Run) -> set[str]:
    assert isinstance(run.plan, MigratedPlan)
    return {run.plan.way(row.selection) for row in run.rows}


def fields(row: Row, run: Run) -> set[str]:
    return {problem.field for problem in verify_row(row, run.plan, run)}


def carried(run: Run) -> Row:
    return max((row for row in run.rows if row.tallies[-1].view == SHARED), key=lambda row: row.radius)


def test_rows_hold_the_counts_of_before_and_a_few_more(before: Run, after: Run) -> None:
    assert ways(after) == {"fresh", "runner-up"}
    for old, new in zip(before.rows, after.rows, strict=True):
        first = [tally._replace(looks=(), label=None) for tally in new.tallies[:2]]
        assert first == [tally._replace(looks=(), label=None) for tally in old.tallies]
        assert new.draws == old.draws + (2 * DRAWS if new.tallies[-1].view == FRESH else DRAWS)
        assert (new.label, new.radius) == after.plan.certify_votes(new.tallies)[:2]
        assert (new.truth, new.pixels, new.batch) == (old.truth, old.pixels, old.batch)
    assert (after.seed, after.fresh) == (before.seed, before.fresh)
    assert after.plan.alpha == before.plan.alpha


def test_a_run_is_verified_repeated_reported_and_told(after: Run, tmp_path: Path) -> None:
    assert verify_run(after) == []
    model = changed()
    both = SmoothedClassifier(
        model.classifier, model.denoiser, family=Stored(after.plan), before=linear_model().pipeline
    )
    assert replay(both, twelve_samples(), after, 4) == []
    write_report(tmp_path / "report.html", [Chapter("migrated", after)], title="t")
    assert "carried over from an earlier run" in str(after)


def test_both_functions_see_the_draws_of_the_old_run(after: Run) -> None:
    old, new, row = linear_model(), changed(), carried(after)
    image = old.prepare(next(s.image for s in twelve_samples() if s.id == row.sample))
    noisy = NoiseStream(GridNoise(0.25), image, NoiseAddress(3, row.sample, 0, "estimation")).take(N)
    votes = [model.logits(noisy).argmax(dim=1) for model in (old, new)]
    for label, count in enumerate(row.tallies[1].votes):
        assert abs(int((votes[0] == label).sum()) - count) <= 3  # draws too near to a border count for no class
        both = (votes[0] == label) & (votes[1] == label)
        assert abs(int(both[:DRAWS].sum()) - row.tallies[2].votes[label]) <= 3


def test_an_equal_model_never_differs(before: Run, tmp_path: Path) -> None:
    run = migrate(before, linear_model(), noted(linear_model()), twelve_samples(), tmp_path / "run", draws=DRAWS)
    for row in run.rows:
        tally = row.tallies[-1]
        assert tally.view == FRESH or tally.draws - sum(tally.votes) <= 2


@pytest.mark.parametrize("closer", [0.0, 0.02, 0.3])
def test_no_radius_exceeds_the_distance_of_the_changed_border(closer: float, tmp_path: Path) -> None:
    """The smoothed classifier of a half-space is the half-space, whose radius is its distance."""
    old, new = smooth(HalfSpace(0.4)), noted(smooth(HalfSpace(0.4 - closer)))
    samples = [Sample(f"{i}", np.full((4, 4), 128, np.uint8), 1) for i in range(4)]
    run = certify_dataset(old, samples, tmp_path / "old", Settings(n=N, n0=50, seed=1, alpha=1e-4))
    found = migrate(run, old, new, samples, tmp_path / "new", draws=DRAWS)
    assert verify_run(found) == []
    assert all(0 <= row.radius <= 0.4 - closer for row in found.rows)
    assert sum(row.radius > 0.7 * (0.4 - closer) for row in found.rows) >= (3 if closer < 0.3 else 0)


def test_an_interrupted_run_continues(before: Run, after: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add, out = RowStore.add, tmp_path / "run"

    def stop(store: RowStore, row: Row) -> None:
        if sum(1 for _ in (store.folder / "rows").glob("*.parquet")) == 4:
            raise KeyboardInterrupt
        add(store, row)

    with monkeypatch.context() as patched:
        patched.setattr(RowStore, "add", stop)
        with pytest.raises(KeyboardInterrupt, match="4 of 12 images are kept"):
            migrate(before, linear_model(), changed(), twelve_samples(), out, draws=DRAWS)
    monkeypatch.setattr("robustify.runs.migrate._pilot", None)  # what the pilot saw is kept
    run = migrate(before, linear_model(), changed(), twelve_samples(), out, draws=DRAWS)
    assert run.finished
    for row, whole in zip(run.rows, after.rows, strict=True):
        assert (row.tallies, row.radius, row.bounds) == (whole.tallies, whole.radius, whole.bounds)


def test_whatever_was_changed_is_found(after: Run) -> None:
    row = carried(after)
    chosen, tested, last = row.tallies
    low, high = row.bounds[0]
    assert fields(replace(row, radius=1.01 * row.radius), after) == {"radius"}
    assert fields(replace(row, radius=0.99 * row.radius), after) == {"radius"}
    assert "p_lower" in fields(replace(row, bounds=(row.bounds[0]._replace(p_lower=low + 1e-4),)), after)
    assert "p_upper" in fields(replace(row, bounds=(row.bounds[0]._replace(p_upper=high - 1e-4),)), after)
    assert fields(replace(row, label=(row.tested.label or 0) + 1 - 3 * (row.label == 2)), after) == {"label"}
    fewer = last._replace(votes=tuple(v - (v == max(last.votes)) * 20 for v in last.votes))
    assert {"p_lower", "p_upper"} <= fields(replace(row, tallies=(chosen, tested, fewer)), after)
    more = last._replace(votes=tuple(v + (v == max(last.votes)) * DRAWS for v in last.votes))
    assert fields(replace(row, tallies=(chosen, tested, more)), after) == {"votes of view 2"}
    moved = tested._replace(
        votes=tuple(v + (c == tested.label) - (v == min(tested.votes)) for c, v in enumerate(tested.votes))
    )
    assert fields(replace(row, tallies=(chosen, moved, last)), after) == {"looks of view 0"}
    assert fields(replace(row, tallies=(chosen, tested)), after) == {"tallies"}
    assert fields(replace(row, tallies=(chosen, tested, last._replace(view=FRESH))), after) == {"tallies"}


def test_predictions_are_those_of_the_changed_model(after: Run) -> None:
    model = changed()
    migrated = SmoothedClassifier(
        model.classifier, model.denoiser, family=Stored(after.plan), before=linear_model().pipeline
    )
    assert isinstance(after.plan, MigratedPlan)
    own = SmoothedClassifier(
        model.classifier, model.denoiser, family=Migrated(after.plan), before=linear_model().pipeline
    )
    image = twelve_samples()[0].image
    assert repr(own.predict(image, n=100, seed=5)) == repr(model.predict(image, n=100, seed=5))
    assert migrated.sigma == model.sigma


def test_a_migrated_family_needs_the_model_before(after: Run) -> None:
    with pytest.raises(InputError, match="need the model before the change too"):
        SmoothedClassifier(changed().classifier, Identity(), family=Stored(after.plan))


def other_sigma() -> SmoothedClassifier:
    return SmoothedClassifier(changed().classifier, Identity(), sigma=0.3)


def other_preprocessing() -> SmoothedClassifier:
    network = changed().classifier.network
    return SmoothedClassifier(ImageClassifier(network, Preprocessing((0.4,), (0.5,), (4, 4))), Identity(), sigma=0.25)


def other_labels() -> SmoothedClassifier:
    classifier = changed().classifier
    named = ImageClassifier(classifier.network, classifier.preprocessing, labels=("a", "b", "c"))
    return SmoothedClassifier(named, Identity(), sigma=0.25)


def other_size() -> SmoothedClassifier:
    network = nn.Sequential(nn.Flatten(), nn.Linear(25, 3)).eval()
    return SmoothedClassifier(ImageClassifier(network, Preprocessing((0.5,), (0.5,), (5, 5))), Identity(), sigma=0.25)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (other_sigma, r"sigma: there 0\.25, now 0\.3"),
        (other_preprocessing, "preprocessing: there"),
        (other_labels, "labels: there"),
        (other_size, "contract.height: there 4, now 5"),
    ],
)
def test_more_than_another_function_is_refused(
    other: Callable[[], SmoothedClassifier], message: str, before: Run, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        migrate(before, linear_model(), other(), twelve_samples(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def other_image() -> list[Sample]:
    first, *others = twelve_samples()
    return [Sample(first.id, np.zeros((4, 4), np.uint8), 0), *others]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"old_model": changed()}, "not the model of the run.*\n.*the classifier has other weights"),
        ({"samples": twelve_samples()[1:]}, "lacks 1 of the run's 12 images, '00.png' being the first"),
        ({"samples": other_image()}, "'00.png' is another image than the one that the run certified"),
        ({"draws": N + 1}, "expected draws to be a whole number from 1 to 6000; got 6001"),
        ({"draws": 0}, "expected draws"),
        ({"new_model": linear_model()}, "expected a changed model; got the one of the run"),
        ({"new_model": SmoothedClassifier(linear_model().classifier, Shrink(), sigma=math.pi)}, "sigma: there"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str, before: Run, tmp_path: Path) -> None:
    given = {"old_model": linear_model(), "new_model": changed(), "samples": twelve_samples(), **change}
    with pytest.raises(RobustifyError, match=message):
        migrate(before, out=tmp_path / "run", **given)


def test_runs_that_cannot_be_migrated_are_refused(before: Run, after: Run, tmp_path: Path) -> None:
    old, new, samples = linear_model(), changed(), twelve_samples()
    for name, settings in (("adaptive", Settings(n_max=300)), ("decision", Settings(radius=0.1, n_max=300))):
        run = certify_dataset(old, samples[:2], tmp_path / name, settings)
        with pytest.raises(RunError, match="Expected a classical run, certified with n="):
            migrate(run, old, new, samples, tmp_path / "new")
    for wrong, message in (
        (after, "Expected a classical run"),
        (replace(before, finished=False), "is not finished"),
        (replace(before, rows=[replace(before.rows[0], radius=9.0)]), "were changed after they were written"),
    ):
        with pytest.raises(RunError, match=message):
            migrate(wrong, old, new, samples, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_run_that_counts_its_attempts_is_not_migrated(before: Run, tmp_path: Path) -> None:
    """Several migrations of one run would be free attempts at one model."""
    counted = replace(before, config={**before.config, "attempt": 1, "attempts_alpha": 0.01})
    with pytest.raises(RunError, match="counts its attempts in a ledger, which migration does not charge"):
        migratable(counted)


def test_what_verification_cannot_show_is_said(after: Run) -> None:
    assert any("taken from another run" in said for said in missing_evidence(after))
