"""Partitions: the sum rule against exact probabilities and the published rule's counter-example, plans, settings."""

import json
import math
from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from robustify.certificates.bounds import lower_bound
from robustify.certificates.choice import family_of
from robustify.certificates.family import Bound, Claim, Subject
from robustify.certificates.partition import Half, Partition, PartitionPlan, partition_radius
from robustify.certificates.queries import Ask
from robustify.certificates.question import Question
from robustify.certificates.views import View
from robustify.contract import InputContract
from robustify.errors import InputError
from robustify.testing import Scenario, check_certificate
from tests.toys_family import known

known(Partition)

SUBJECT = Subject(InputContract(1, 8, 8), 3, lambda view: 0.0)
CHANCES = st.floats(1e-4, 1 - 1e-4)


def fixed(n: int = 1_000, alpha: float = 0.001, slack: float = 0.0) -> PartitionPlan:
    return PartitionPlan(0.36, alpha, 20, n, adaptive=False, slack=slack)


def claim(plan: PartitionPlan, *told: tuple[int, ...]) -> Claim:
    """What such votes prove, told as the engine tells them: two pilots, two tests."""
    query = plan.query(len(told[0]))
    votes = iter(told)
    while asks := query.ask():
        for ask in asks:
            query.tell(ask, next(votes))
    return plan.certify_votes(query.tallies)


def summed(left: float, right: float, share: float, radius: float) -> float:
    """The label's sum when half-spaces in both halves are moved by parts of a change of this many sigmas."""
    moved = ndtr(ndtri(left) - math.sin(share) * radius) + ndtr(ndtri(right) - math.cos(share) * radius)
    return float(moved)


@pytest.mark.parametrize(
    ("left", "right", "radius"),
    [
        (0.999, 0.5, 2.185),
        (0.999, 0.1, 1.279),
        (0.9, 0.9, math.sqrt(2) * 1.28155),
        (0.999, 0.001, 0.0),
        (0.6, 0.4, 0.0),
    ],
)
def test_radii_of_the_specification(left: float, right: float, radius: float) -> None:
    """Values of specs/training.md, section 13.8."""
    assert partition_radius(left, right, sigma=1.0) == pytest.approx(radius, abs=5e-4)
    assert partition_radius(right, left, sigma=2.0) == pytest.approx(2 * radius, abs=1e-3)


def test_the_published_rule_claims_what_is_false() -> None:
    """Two half-spaces, of chances .999 and .5: within the root of the squares, an equal change turns the sum."""
    left, right = 0.999, 0.5
    published = math.hypot(max(0.0, ndtri(left)), max(0.0, ndtri(right)))
    ours = partition_radius(left, right, sigma=1.0)
    assert published == pytest.approx(3.09, abs=5e-3)
    changed = 1.01 * ours
    assert changed < 0.72 * published
    assert summed(left, right, math.pi / 4, changed) < 1  # all votes that are lost go to one other class
    assert summed(left, right, math.pi / 4, 0.999 * ours) > 1


def test_clamped_terms_claim_what_is_false() -> None:
    left, right = 0.999, 0.1
    clamped = max(0.0, ndtri(left)) / math.sqrt(2)
    assert clamped > 1.7 * partition_radius(left, right, sigma=1.0)
    assert summed(left, right, math.pi / 4, 0.99 * clamped) < 1


@given(left=CHANCES, right=CHANCES, share=st.floats(0, math.pi / 2))
def test_no_change_within_the_radius_turns_the_sum_and_one_beyond_does(left: float, right: float, share: float) -> None:
    radius = partition_radius(left, right, sigma=1.0)
    if left + right > 1 + 1e-6:
        assert summed(left, right, share, radius * (1 - 1e-9)) > 1 - 1e-12
        assert summed(left, right, math.pi / 4, radius + 1e-5) < 1
    else:
        assert radius < 1e-2


def test_exact_chance_of_a_false_claim() -> None:
    """All votes of 30 draws of each half: claims beyond the true radius, with both bounds near their chances."""
    plan = fixed(30, alpha=0.2)
    for left, right in ((0.8, 0.8), (0.95, 0.3), (0.5, 0.5)):
        true = partition_radius(left, right, sigma=0.36)
        chances = [
            float(binom.pmf(i, 30, left) * binom.pmf(j, 30, right))
            for i, j in product(range(31), repeat=2)
            if plan._radius((i, j), 30) > true
        ]
        assert 0 < sum(chances) <= 0.2


def test_claims_follow_from_both_halves() -> None:
    plan = fixed()
    votes = (20, 0, 0), (0, 15, 5), (990, 10, 0), (300, 400, 300)
    found = claim(plan, *votes)
    lows = [lower_bound(k, 1_000, alpha=0.0005) for k in (990, 300)]
    assert [bound.p_lower for bound in found.bounds] == lows
    assert found.bounds[1] == Bound(lows[1], math.nextafter(1 - lows[1], 2.0))
    assert (found.label, found.radius) == (0, partition_radius(*lows, sigma=0.36))
    assert 0 < found.radius < 0.36 * ndtri(0.99)
    weaker = claim(plan, *votes[:3], (20, 900, 80))
    assert (weaker.label, weaker.radius, weaker.uncertified) == (None, 0.0, None)
    assert claim(plan, (5, 15, 0), (18, 0, 2), *votes[2:]).label == 0
    assert claim(plan, (1, 19, 0), (18, 0, 2), (10, 990, 0), (5, 990, 5)).label is None  # 19 : 19
    assert plan.certify_votes(()).radius == 0


def test_slack_lowers_both_bounds() -> None:
    votes = (20, 0), (20, 0), (900, 100), (800, 200)
    plain, wide = (claim(fixed(slack=slack), *votes) for slack in (0.0, 0.01))
    for one, other in zip(plain.bounds, wide.bounds, strict=True):
        assert other.p_lower == pytest.approx(one.p_lower - 0.01)
    assert wide.radius < plain.radius
    assert fixed(slack=0.01).slacks == (0.01, 0.01)


def test_what_users_write() -> None:
    assert family_of(None, "partition:sigma=0.36") == Partition(0.36)
    assert str(Partition(0.36)) == "sigma = 0.36 in halves"
    plan = Partition(0.36).plan(Question(n=200), SUBJECT)
    assert plan.views == (View(0.36, change=Half(0)), View(0.36, change=Half(1)))
    assert str(plan) == "n = 200 in each half"
    assert plan.most_draws == 600
    assert [ask.draws for ask in plan.query(3).ask()] == [100, 100, 200, 200]
    assert Partition(0.36).plan(Question(), SUBJECT).query(3).ask() == (
        Ask(0, "selection", 100),
        Ask(1, "selection", 100),
    )
    assert "changes the partition's prediction" in plan.statement("0.1", "1×8×8 images")
    assert "two halves" in plan.remark
    assert plan.ceiling == claim(plan, (20, 0), (20, 0), (200, 0), (200, 0)).radius


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(InputError, match="a finite sigma > 0"):
        Partition(-1.0)
    with pytest.raises(InputError, match=r"leave out radius="):
        Partition(0.36).plan(Question(radius=0.1), SUBJECT)
    one = replace(SUBJECT, contract=InputContract(3, 1, 1))
    with pytest.raises(InputError, match="at least two pixels"):
        Partition(0.36).plan(Question(), one)
    with pytest.raises(InputError, match="at least two pixels"):
        Partition(0.36).poll(100, 0.01, one)
    with pytest.raises(InputError, match="expected probabilities"):
        partition_radius(-0.1, 0.5, sigma=1.0)
    with pytest.raises(InputError, match="no finite sample"):
        partition_radius(1.0, 0.5, sigma=1.0)
    with pytest.raises(InputError, match="expected the rule halves"):
        Partition.read({"rule": "fixed"})


def test_stored_plans_are_read_exactly() -> None:
    plan = Partition(0.36).plan(Question(n_max=500), SUBJECT)
    assert Partition.read(json.loads(json.dumps(plan.stored()))) == plan


def scenario(left: float, right: float) -> Scenario:
    chances = [(left, 1 - left, 0.0), (right, 1 - right, 0.0)]
    return Scenario(chances, {0: partition_radius(left, right, sigma=0.36)})


@pytest.mark.parametrize("question", [Question(n=200, n0=20, alpha=0.05), Question(n_max=300, n0=20, alpha=0.05)])
def test_partitions_pass_the_check_of_families(question: Question) -> None:
    scenarios = [scenario(0.8, 0.8), scenario(0.97, 0.3), scenario(0.5, 0.5)]
    check_certificate(Partition(0.36), question, scenarios, runs=200)


@pytest.mark.slow
@pytest.mark.parametrize("adaptive", [False, True])
def test_simulated_coverage(adaptive: bool) -> None:
    """As often as alpha allows, and no more: 10,000 runs of hard cases."""
    generator = np.random.default_rng(5)
    plan = PartitionPlan(0.36, 0.05, 20, 300, adaptive, 0.0)
    for chances in ((0.8, 0.8), (0.97, 0.3)):
        true, false = partition_radius(*chances, sigma=0.36), 0
        pilots = Counter(map(tuple, generator.binomial(20, chances, (10_000, 2)).tolist()))
        for (i, j), runs in pilots.items():
            pilot = (i, 20 - i), (j, 20 - j)
            chosen = replace(plan, n=plan.worthwhile(pilot), adaptive=False)
            for k, m in generator.binomial(chosen.n, chances, (runs, 2)).tolist():
                found = claim(chosen, *pilot, (k, chosen.n - k), (m, chosen.n - m))
                false += found.label == 1 or found.radius > true
        assert 0 < false <= (0.05 + 3 * math.sqrt(0.05 * 0.95 / 10_000)) * 10_000
