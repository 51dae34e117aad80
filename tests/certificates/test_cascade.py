"""Cascades: their rule, its tightness, what may be left undrawn, and how often claims are false."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from robustify.certificates.cascade import Cascade
from robustify.certificates.cascade_level import CascadeLevel, Counts
from robustify.certificates.choice import family_of
from robustify.certificates.family import Bound
from robustify.certificates.queries import Ask
from robustify.certificates.question import Question
from robustify.certificates.radii import leading_class
from robustify.errors import InputError
from robustify.testing import check_certificate
from tests.toys_cascade import SCENARIOS, SIGMAS, adaptive, claim_of, drawn, finished, fixed, subject, tallied

GOLDEN = [
    ((0.45, 0.90, 0.98), (0.20, 0.05, 0.01), 0.640776),
    ((0.40, 0.80, 0.98), (0.35, 0.05, 0.01), 0.385320),
    ((0.30, 0.60, 0.95), (0.45, 0.20, 0.02), 0.125661),
]
"""Chances of the label and of its rival at sigma = 1, 0.5 and 0.25, and the radius: specs/methods.md, section 8."""


def radius_of(own: Sequence[float], rival: Sequence[float], p0: float = 0.5) -> float:
    """The largest radius of any chain, where all chances are known."""
    levels = [CascadeLevel(sigma, p0, 0.1, 0.0) for sigma in sorted(SIGMAS, reverse=True)]
    bounds = [Bound(*pair) for pair in zip(own, rival, strict=True)]
    above = [level.harmless(bound) for level, bound in zip(levels, bounds, strict=True)]
    return max(
        min([level.answering(bound), *above[:k]]) for k, (level, bound) in enumerate(zip(levels, bounds, strict=True))
    )


@pytest.mark.parametrize(("own", "rival", "radius"), GOLDEN)
def test_radii_are_those_of_the_specification(own: Sequence[float], rival: Sequence[float], radius: float) -> None:
    assert radius_of(own, rival) == pytest.approx(radius, abs=1e-6)


def test_a_claim_from_counts_is_that_of_the_specification() -> None:
    votes = [((4500, 2000, 1750, 1750), 0), ((9000, 500, 250, 250), 0), ((9800, 100, 50, 50), 0)]
    claim = claim_of(fixed(), votes)
    assert (claim.label, claim.radius) == (0, pytest.approx(0.611718, abs=1e-6))


@pytest.mark.parametrize(("own", "rival", "radius"), GOLDEN)
def test_no_larger_radius_is_true(own: Sequence[float], rival: Sequence[float], radius: float) -> None:
    """Half-spaces along one direction have these chances at every level; there, another class answers just beyond."""

    def answer(change: float) -> str | None:
        for sigma, a, b in zip((1.0, 0.5, 0.25), own, rival, strict=True):
            if ndtr(ndtri(a) - change / sigma) > 0.5:
                return "A"
            if ndtr(ndtri(b) + change / sigma) > 0.5:
                return "B"
        return None

    assert answer(radius_of(own, rival) - 1e-9) == "A"
    assert answer(radius_of(own, rival) + 1e-9) != "A"


def test_levels_are_drawn_from_the_highest_on_while_they_could_help() -> None:
    sure = finished(fixed(1000), lambda ask: [ask.draws, 0, 0])
    assert [(t.view, t.stage) for t in sure.tallies] == [(0, "selection"), (0, "estimation")]
    torn = finished(fixed(1000), lambda ask: [ask.draws // 2, ask.draws // 2, 0])
    assert [t.view for t in torn.tallies] == [0, 0]  # a rival may fire: nothing below it can be certified
    unsure = finished(fixed(1000), lambda ask: [4 * ask.draws // 10, 3 * ask.draws // 10, 3 * ask.draws // 10])
    assert [t.view for t in unsure.tallies] == [0, 0, 1, 1, 2, 2]


def test_an_early_exit_as_published_loses_radius() -> None:
    """The first level fires barely and the second for sure: the published rule stops at the first."""
    votes = [((5300, 2700, 2000), 0), ((9900, 60, 40), 0)]
    plan = fixed()
    first, both = claim_of(plan, votes[:1]), claim_of(plan, votes)
    assert 0 < first.radius < 0.08
    assert both.radius > 6 * first.radius
    assert plan.asks(tallied(plan, votes[:1]))  # so the second level is drawn from


def test_a_level_that_is_not_settled_does_no_harm() -> None:
    """The published procedure abstains where a level before the one that fires may fire too."""
    claim = claim_of(fixed(), [((5000, 2000, 3000), 0), ((9500, 300, 200), 0)])
    above = fixed().levels[0]
    assert (claim.label, claim.radius) == (0, above.harmless(above.bound(Counts(10_000, 5000, 3000))))
    assert claim.radius == pytest.approx(0.479, abs=1e-3)


def test_chains_test_labels_of_their_own() -> None:
    votes = [((3000, 4500, 2500), 1), ((9500, 300, 200), 0)]
    claim = claim_of(fixed(), votes)
    assert claim.label == 0
    level = fixed().levels[0]
    assert claim.radius == level.harmless(level.bound(Counts(10_000, 3000, 4500)))


def test_draws_that_failed_count_for_the_rival() -> None:
    some, none = (claim_of(fixed(), [((3000, 1000, failed), 0), ((9800, 100, 100), 0)]) for failed in (1000, 6000))
    assert some.radius == none.radius == 0  # 5,000 or more may belong to class 1 or 2


def test_a_higher_threshold_moves_answers_to_lower_levels() -> None:
    votes = [((6500, 2000, 1500), 0), ((9500, 300, 200), 0)]
    low, high = (claim_of(fixed(p0=p0), votes) for p0 in (0.5, 0.7))
    level = fixed(p0=0.7).levels[1]
    assert low.radius > high.radius == level.answering(level.bound(Counts(10_000, 9500, 300)))


def test_the_lowest_level_may_always_answer() -> None:
    votes = [((3500, 3500, 3000), 0), ((4000, 3300, 2700), 0), ((4600, 3000, 2400), 0)]
    assert claim_of(fixed(), votes).label is None
    claim = claim_of(fixed(otherwise="argmax"), votes)
    low, high = claim.bounds[2]
    assert (claim.label, claim.radius) == (0, pytest.approx(0.125 * float(ndtri(low) - ndtri(high)), rel=1e-12))
    level = CascadeLevel(0.25, None, 0.001 / 3, 0.0)
    assert binom.sf(4599, 10_000, low) <= level.alpha / 2
    assert binom.cdf(3000, 10_000, high) <= level.alpha / 2


@pytest.mark.parametrize("p0", [0.5, 0.6])
def test_claims_are_false_at_most_as_often_as_alpha(p0: float) -> None:
    """Exactly, over all votes of two levels whose true radii are equal."""
    radius, alpha, n = 0.2, 0.2, 24
    plan = Cascade((0.5, 1.0), p0=p0).plan(Question(n=n, n0=1, alpha=alpha), subject(2))
    true = [float(ndtr(ndtri(p0) + radius / sigma)) for sigma in (1.0, 0.5)]
    false = 0.0
    for a, b in itertools.product(range(n + 1), repeat=2):
        weight = binom.pmf(a, n, true[0]) * binom.pmf(b, n, true[1])
        for labels in itertools.product((0, 1), repeat=2):
            chosen = math.prod(p if label == 0 else 1 - p for p, label in zip(true, labels, strict=True))
            claim = claim_of(plan, [((a, n - a), labels[0]), ((b, n - b), labels[1])])
            false += weight * chosen * (claim.label == 1 or claim.radius > radius)
    assert 0.1 < false / alpha <= 1


def test_a_split_over_levels_is_needed_and_enough() -> None:
    """The specification's case: three levels of one true radius, n = 2,000, alpha = 0.05; .0463 and .135."""
    generator, radius, n = np.random.default_rng(0), 0.3, 2_000
    larger = {1: [], 3: []}
    for sigma in SIGMAS:
        votes = generator.binomial(n, ndtr(radius / sigma), 200_000)
        for share, found in larger.items():
            level = CascadeLevel(sigma, 0.5, 0.05 / share, 0.0)
            radii = [level.answering(level.bound(Counts(n, count, n - count))) for count in range(n + 1)]
            found.append(np.array(radii)[votes] > radius)
    split, unsplit = (np.mean(np.any(larger[share], axis=0)) for share in (3, 1))
    assert split == pytest.approx(0.0463, abs=0.003)
    assert unsplit == pytest.approx(0.135, abs=0.005)


@pytest.mark.parametrize(("otherwise", "n"), [("abstain", 400), ("abstain", None), ("argmax", 400), ("clean", None)])
def test_the_family_passes_the_conformance_check(otherwise: str, n: int | None) -> None:
    question = Question(n=n, n_max=400, n0=20, alpha=0.05)
    check_certificate(Cascade(SIGMAS, otherwise=otherwise), question, SCENARIOS, runs=40)


@pytest.mark.parametrize(
    "chances",
    [
        [(0.49, 0.26, 0.25), (0.85, 0.1, 0.05), (0.93, 0.04, 0.03)],
        [(0.7, 0.2, 0.1), (0.95, 0.04, 0.01), (0.99, 0.01, 0.0)],
    ],
)
def test_an_adaptive_plan_proves_nearly_as_much_with_fewer_draws(chances: list[tuple[float, ...]]) -> None:
    radii, draws = [], []
    for plan, seeds in ((adaptive(), range(8)), (fixed(), range(8, 16))):
        told = [finished(plan, drawn(chances, seed)).tallies for seed in seeds]
        radii.append(np.mean([plan.certify_votes(tallies).radius for tallies in told]))
        draws.append(np.mean([sum(t.draws for t in tallies) for tallies in told]))
    assert radii[0] > 0.95 * radii[1]
    assert draws[0] < 0.6 * draws[1]


def test_an_adaptive_plan_leaves_out_what_a_sure_level_needs_not() -> None:
    told = finished(adaptive(), lambda ask: [98 * ask.draws // 100, ask.draws // 100, 0])
    assert {t.view for t in told.tallies if t.stage == "estimation"} == {0}
    assert [t.view for t in told.tallies if t.stage == "selection"] == [0, 1, 2]


def test_an_adaptive_plan_draws_few_where_no_level_can_fire() -> None:
    told = finished(adaptive(), lambda ask: [36 * ask.draws // 100, 34 * ask.draws // 100, 30 * ask.draws // 100])
    assert 0 < sum(t.draws for t in told.tallies if t.stage == "estimation") < 3_000


@pytest.mark.parametrize(
    ("sigmas", "wanted", "message"),
    [
        ((0.5,), {}, "two or more different sigmas"),
        ((0.5, 0.5), {}, "two or more different sigmas"),
        ((0.5, 0.0), {}, "finite sigma > 0"),
        ((0.5, -1.0), {}, "finite sigma > 0"),
        (SIGMAS, {"p0": 0.49}, "p0, the threshold of a cascade, from 0.5"),
        (SIGMAS, {"p0": 1.0}, "p0, the threshold of a cascade, from 0.5"),
        (SIGMAS, {"p0": math.nan}, "p0, the threshold of a cascade, from 0.5"),
        (SIGMAS, {"otherwise": "guess"}, "otherwise to be abstain, argmax, clean"),
    ],
)
def test_settings_that_make_no_cascade_are_refused(sigmas: object, wanted: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Cascade(sigmas, **wanted)  # type: ignore[arg-type]


def test_questions_that_it_cannot_answer_are_refused() -> None:
    family = Cascade(SIGMAS)
    with pytest.raises(InputError, match=r"leave out radius=0\.5"):
        family.plan(Question(radius=0.5), subject())
    with pytest.raises(InputError, match="200 draws a level can never certify"):
        Cascade(SIGMAS, p0=0.97).plan(Question(n=200), subject())
    with pytest.raises(InputError, match="chooses the label itself"):
        fixed().query(3, truth=1)


def test_several_sigmas_mean_a_cascade_in_any_order() -> None:
    family = family_of((1.0, 0.25, 0.5))
    assert isinstance(family, Cascade)
    assert family.levels == (1.0, 0.5, 0.25)
    assert family.plan(Question(n=1000), subject()) == fixed(1000)
    named = family_of(certificate="cascade:sigmas=0.25+1,p0=0.6,otherwise=clean")
    assert named == Cascade((0.25, 1), p0=0.6, otherwise="clean")
    assert str(named) == "sigma = 1, 0.25, the first with a class above 0.6"


CHANCES = st.lists(
    st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.3), st.floats(0, 0.1)).filter(lambda p: sum(p) > 0.5),
    min_size=3,
    max_size=3,
)


@settings(max_examples=50, deadline=None)
@given(CHANCES, st.integers(0, 10_000), st.sampled_from(["abstain", "argmax"]), st.sampled_from([0.5, 0.6]))
def test_what_is_left_undrawn_could_change_nothing(
    chances: list[tuple[float, ...]], seed: int, otherwise: str, p0: float
) -> None:
    plan = fixed(200, n0=5, alpha=0.05, otherwise=otherwise, p0=p0)
    votes = drawn([np.divide(p, sum(p))[:3].tolist() for p in chances], seed)
    stopped = finished(plan, votes).tallies
    asks = [(Ask(view, "selection", plan.n0), Ask(view, "estimation", plan.n)) for view in range(3)]
    pairs = [(votes(tested), leading_class(votes(chosen))) for chosen, tested in asks]
    full = claim_of(plan, pairs)
    claim = plan.certify_votes(stopped)
    assert (claim.label, claim.radius) == (full.label, full.radius)
