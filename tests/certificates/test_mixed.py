"""Mixtures: the radius against its definition and exact probabilities, the pilot's choices, answers without a proof."""

import json
import math
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri
from scipy.stats import multinomial

from robustify.certificates.choice import family_of
from robustify.certificates.family import Claim, Subject
from robustify.certificates.mixed import Mixed, MixedPlan, blend, mixture_radius
from robustify.certificates.plans import TOLERANCE
from robustify.certificates.queries import ESTIMATION
from robustify.certificates.question import Question
from robustify.certificates.radii import gaussian_radius, lower_bound, rival_bounds
from robustify.certificates.views import View
from robustify.contract import InputContract
from robustify.errors import InputError
from robustify.testing import Scenario, check_certificate
from tests.toys_family import known

known(Mixed)

SUBJECT = Subject(InputContract(1, 8, 8), 3, lambda view: 0.0)
WEIGHTS = st.floats(0.51, 1.0)
CHANCES = st.floats(1e-6, 1 - 1e-6)


def fixed(n: int = 1_000, weight: float = 0.9, alpha: float = 0.001, slack: float = 0.0) -> MixedPlan:
    return MixedPlan(0.5, alpha, 20, n, adaptive=False, slack=slack, weight=weight)


def claim(plan: MixedPlan, pilot: tuple[int, ...], votes: tuple[int, ...], alone: tuple[int, ...]) -> Claim:
    """What such votes prove, told as the engine tells them."""
    query = plan.query(len(votes))
    told = iter((pilot, alone, votes))
    while asks := query.ask():
        for ask in asks:
            query.tell(ask, next(told))
    return plan.certify_votes(query.tallies)


def lead(p_lower: float, p_upper: float, radius: float) -> "mpmath.mpf":
    """How far the votes for the label must still lead under a change of this many sigmas, in 40 digits."""
    with mpmath.workdps(40):
        above, below = (mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(p) - 1) for p in (p_lower, p_upper))
        return mpmath.ncdf(above - radius) - mpmath.ncdf(below + radius)


@pytest.mark.parametrize(
    ("p_lower", "p_upper", "weight", "radius"),
    [
        (0.9, 0.1, 0.8, 0.962912),
        (0.9, 0.05, 0.8, 1.139266),
        (0.8, 0.1, 0.9, 0.918456),
        (0.6, 0.1, 0.9, 0.608022),
        (0.45, 0.1, 0.9, 0.399095),
        (0.99, 0.005, 0.75, 2.016999),
    ],
)
def test_radii_of_the_specification(p_lower: float, p_upper: float, weight: float, radius: float) -> None:
    """Values of specs/methods.md, section 7."""
    assert mixture_radius(p_lower, p_upper, sigma=1.0, weight=weight) == pytest.approx(radius, abs=6e-7)


def test_radii_from_counts_of_the_specification() -> None:
    """8,000 of 10,000 votes at alpha = .001 and weight .9; values of specs/methods.md, section 7."""
    two = rival_bounds(8_000, 500, n=10_000, alpha=0.001)
    assert mixture_radius(*two, sigma=1.0, weight=0.9) == pytest.approx(1.034270, abs=1e-6)
    all_of_one = rival_bounds(8_000, 2_000, n=10_000, alpha=0.001)
    assert mixture_radius(*all_of_one, sigma=1.0, weight=0.9) == pytest.approx(0.654842, abs=1e-6)
    low = lower_bound(8_000, 10_000, alpha=0.001)
    assert mixture_radius(low, 1 - low, sigma=1.0, weight=0.9) == pytest.approx(0.657685, abs=1e-6)


@given(p_lower=CHANCES, p_upper=CHANCES, weight=WEIGHTS)
def test_the_radius_is_just_below_the_root(p_lower: float, p_upper: float, weight: float) -> None:
    radius = mixture_radius(p_lower, p_upper, sigma=1.0, weight=weight)
    threshold = mpmath.mpf(1 - weight) / weight
    if radius > 0:
        assert lead(p_lower, p_upper, radius) > threshold
    assert lead(p_lower, p_upper, radius + 1e-9) < threshold + 1e-7 or radius > 0
    slope = float(lead(p_lower, p_upper, radius) - lead(p_lower, p_upper, radius + 1e-6)) / 1e-6
    if radius > 0 and slope > 1e-3:
        assert lead(p_lower, p_upper, radius + 1e-9) < threshold


@given(p=st.floats(0.5, 1 - 1e-6), q=CHANCES, weight=WEIGHTS)
def test_closed_forms(p: float, q: float, weight: float) -> None:
    single = max(0.0, ndtri(p) - ndtri(1 / (2 * weight)))
    assert mixture_radius(p, 1 - p, sigma=1.0, weight=weight) == pytest.approx(single, abs=1e-8)
    assert mixture_radius(p, q, sigma=0.3, weight=1.0) == pytest.approx(gaussian_radius(p, q, sigma=0.3), abs=1e-9)
    if q <= 1 - p:
        assert mixture_radius(p, q, sigma=1.0, weight=weight) >= single - 1e-8


def test_radius_lost_to_the_weight() -> None:
    """Values of specs/systems.md, entry 27."""
    for weight, lost in ((0.95, 0.066), (0.9, 0.140), (0.8, 0.319), (0.75, 0.431)):
        radius = mixture_radius(0.99, 1 - 0.99, sigma=1.0, weight=weight)
        assert ndtri(0.99) - radius == pytest.approx(lost, abs=5e-4)


@given(p=st.floats(0.3, 0.999), share=st.floats(0.01, 1.0), weight=WEIGHTS)
def test_two_opposite_half_spaces_attain_the_radius(p: float, share: float, weight: float) -> None:
    """Along one line, votes for 0 are lost on one side and votes for 1 won on the other; the others are scattered."""
    q = share * (1 - p)
    radius = mixture_radius(p, q, sigma=0.5, weight=weight)

    def lead_at(change: float, alone: int) -> float:
        votes = ndtr(ndtri(p) - change / 0.5) - ndtr(ndtri(q) + change / 0.5)
        return float(weight * votes + (1 - weight) * (alone == 0) - (1 - weight) * (alone == 1))

    if radius > 0 and p - q > 1e-6 + (1 - weight) / weight:
        assert min(lead_at(radius * (1 - 1e-9), alone) for alone in range(3)) > 0
        assert lead_at(radius + 1e-6, 1) < 0


@pytest.mark.parametrize(("chances", "weight"), [((0.85, 0.1, 0.05), 0.8), ((0.5, 0.2, 0.3), 0.95)])
def test_exact_chance_of_a_false_claim(chances: tuple[float, ...], weight: float) -> None:
    """All votes of 40 draws, with both kinds of bounds: claims beyond the true radius are as rare as they should be."""
    plan = fixed(40, weight, alpha=0.1)
    rival = max(chances[1:])
    true = mixture_radius(chances[0], rival, sigma=0.5, weight=weight)
    votes = [(a, b, 40 - a - b) for a in range(41) for b in range(41 - a)]
    weights = multinomial(40, chances).pmf(votes)
    for pilot in ((20, 0, 0), (12, 4, 4)):
        false = [claim(plan, pilot, v, (0, 1, 0)).radius > true for v in votes]
        assert 0.001 < float(weights[false].sum()) <= 0.1


def test_the_pilot_chooses_the_bounds() -> None:
    plan = fixed(1_000)
    assert plan.single([(20, 0, 0), (1, 0, 0)], 1_000)
    assert plan.single([(16, 4, 0), (1, 0, 0)], 1_000)
    assert not plan.single([(12, 4, 4), (1, 0, 0)], 1_000)
    assert not plan.single([(7, 7, 6), (1, 0, 0)], 1_000)
    one = claim(plan, (16, 4, 0), (800, 200, 0), (1, 0, 0))
    assert one.bounds[0] == (low := lower_bound(800, 1_000, alpha=0.001), math.nextafter(1 - low, 2.0))
    two = claim(plan, (12, 4, 4), (800, 200, 0), (1, 0, 0))
    assert two.bounds[0] == rival_bounds(800, 200, n=1_000, alpha=0.001)
    assert one.radius > two.radius
    assert claim(plan, (12, 4, 4), (600, 200, 200), (1, 0, 0)).radius > 0.12
    assert claim(plan, (16, 4, 0), (600, 200, 200), (1, 0, 0)).radius < 0.05


@settings(max_examples=40)
@given(k=st.integers(0, 100), rest=st.integers(0, 100))
def test_an_adaptive_pilot_keeps_98_percent_of_what_it_promises(k: int, rest: int) -> None:
    plan = MixedPlan(0.5, 0.001, 100, 4_000, adaptive=True, slack=0.0, weight=0.9)
    rival = min(rest, 100 - k)
    pilot = [(k, rival, 100 - k - rival), (0, 1, 0)]
    n = plan.worthwhile(pilot)
    if (promised := plan.hoped(pilot, 4_000)) > 0:
        assert plan.hoped(pilot, n) >= (1 - TOLERANCE) * promised
    else:
        assert 1_000 <= n < 1_200
    asks = plan.tests(pilot)
    assert [(ask.view, ask.stage, ask.draws) for ask in asks] == [(0, ESTIMATION, n)]


def test_where_nothing_is_proven_the_mixture_answers() -> None:
    plan = fixed(100)  # the classifier alone is worth 11.1 votes
    votes = (50, 40, 10)
    for alone, answer in (((1, 0, 0), 0), ((0, 1, 0), 1), ((0, 0, 1), 0), ((0, 0, 0), 0)):
        found = claim(plan, (10, 6, 4), votes, alone)
        assert (found.label, found.radius, found.uncertified) == (None, 0.0, answer)
    sure = claim(plan, (20, 0, 0), (98, 1, 1), (0, 1, 0))
    assert (sure.label, sure.uncertified) == (0, None)
    assert sure.radius > 0
    assert plan.certify_votes(()) == Claim(None, 0.0, ((0.0, 1.0),))  # type: ignore[arg-type]


@given(votes=st.lists(st.integers(0, 50), min_size=3, max_size=5), own=st.integers(-1, 4), weight=WEIGHTS)
def test_the_blend_is_the_largest_share(votes: list[int], own: int, weight: float) -> None:
    alone = [int(c == own) for c in range(len(votes))]
    n = sum(votes) + 3
    a = Fraction(weight)
    shares = [a * v / n + (1 - a) * s for v, s in zip(votes, alone, strict=True)]
    best = blend(votes, alone, n=n, weight=weight)
    assert shares[best] == max(shares)


def test_slack_widens_both_bounds() -> None:
    plain, wide = (claim(fixed(slack=slack), (12, 4, 4), (800, 100, 100), (0, 1, 0)) for slack in (0.0, 0.01))
    assert wide.bounds[0].p_lower == pytest.approx(plain.bounds[0].p_lower - 0.01)
    assert wide.bounds[0].p_upper == pytest.approx(plain.bounds[0].p_upper + 0.01)
    assert wide.radius < plain.radius
    assert fixed(slack=0.01).slacks == (0.01, 0.0)


def test_what_users_write() -> None:
    assert family_of(0.5, None, 0.8) == Mixed(0.5, 0.8)
    assert family_of(0.5, "mixed:weight=0.75,confidence=0.9") == Mixed(0.5, 0.75, 0.9)
    assert str(Mixed(0.5, 0.75, 0.9)) == "sigma = 0.5, weight = 0.75, confidence = 0.9"
    plan = Mixed(0.5, confidence=0.9).plan(Question(), SUBJECT)
    assert plan.views == (View(0.5), View(0.0, "robustify.smoothing.alone:confident:0.9"))
    assert Mixed(0.5, confidence=0.9).bases == tuple(view.base for view in plan.views)
    assert str(plan) == "n up to 10,000, weight 0.9"
    assert plan.most_draws == 10_101
    assert not plan.exact
    assert "changes the mixture's prediction" in plan.statement("0.1", "1×8×8 images")
    assert "weight 0.9 for the votes" in plan.remark


@pytest.mark.parametrize("weight", [0.5, 0.2, 1.01, -1.0, math.nan])
def test_weights_that_prove_nothing_are_refused(weight: float) -> None:
    with pytest.raises(InputError, match="above 1/2 and at most 1"):
        Mixed(0.5, weight)


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(InputError, match="a softmax probability, in"):
        Mixed(0.5, confidence=1.0)
    with pytest.raises(InputError, match="a finite sigma > 0"):
        Mixed(0.0)
    with pytest.raises(InputError, match=r"leave out radius="):
        Mixed(0.5).plan(Question(radius=0.1), SUBJECT)
    with pytest.raises(InputError, match=r"20 draws can never certify at n = 20, weight 0\.55"):
        Mixed(0.5, 0.55).plan(Question(n=20), SUBJECT)
    with pytest.raises(InputError, match="got the true label 1"):
        fixed().query(3, 1)
    with pytest.raises(InputError, match="slack"):
        fixed(slack=-0.1)
    with pytest.raises(InputError, match="expected probabilities"):
        mixture_radius(1.1, 0.0, sigma=1.0, weight=0.9)
    with pytest.raises(InputError, match="no finite sample"):
        mixture_radius(1.0, 0.0, sigma=1.0, weight=0.9)


def test_stored_plans_are_read_exactly() -> None:
    plan = Mixed(0.5, 0.8, 0.7).plan(Question(n=100), SUBJECT)
    stored = json.loads(json.dumps(plan.stored()))
    assert Mixed.read(stored) == plan
    for change in ({"weight": 0.5}, {"rule": "fixed"}, {"more": 1}):
        with pytest.raises(InputError):
            Mixed.read({**stored, **change})
    with pytest.raises(InputError):
        Mixed.read({key: value for key, value in stored.items() if key != "weight"})


def scenario(p: float, q: float, weight: float) -> Scenario:
    return Scenario([(p, q, max(0.0, 1 - p - q)), (0.0, 1.0, 0.0)], {0: mixture_radius(p, q, sigma=0.5, weight=weight)})


@pytest.mark.parametrize(
    ("family", "question"),
    [
        (Mixed(0.5, 0.9), Question(n=200, n0=20, alpha=0.05)),
        (Mixed(0.5, 0.8, 0.5), Question(n_max=300, n0=20, alpha=0.05)),
    ],
)
def test_mixtures_pass_the_check_of_families(family: Mixed, question: Question) -> None:
    scenarios = [scenario(p, q, family.weight) for p, q in ((0.8, 0.2), (0.65, 0.15), (0.45, 0.4))]
    check_certificate(family, question, scenarios, runs=200)


@pytest.mark.slow
@pytest.mark.parametrize("adaptive", [False, True])
def test_simulated_coverage(adaptive: bool) -> None:
    """As often as alpha allows, and no more: 6,000 runs of hard cases."""
    generator = np.random.default_rng(5)
    plan = MixedPlan(0.5, 0.05, 20, 300, adaptive, 0.0, weight=0.9)
    for chances in ((0.75, 0.15, 0.1), (0.8, 0.2, 0.0)):
        true, false = mixture_radius(chances[0], chances[1], sigma=0.5, weight=0.9), 0
        pilots = Counter(map(tuple, generator.multinomial(20, chances, 6_000).tolist()))
        for pilot, runs in pilots.items():
            chosen = replace(plan, n=plan.worthwhile([pilot, (0, 1, 0)]), adaptive=False)
            for votes in generator.multinomial(chosen.n, chances, runs).tolist():
                found = claim(chosen, pilot, tuple(votes), (0, 1, 0))
                false += found.radius > true or found.label not in {0, None}
        assert 0 < false <= (0.05 + 3 * math.sqrt(0.05 * 0.95 / 6_000)) * 6_000
