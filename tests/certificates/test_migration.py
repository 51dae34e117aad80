"""Bounds and plans that carry certificates over a change: golden values, exact chances, coverage, ways."""

import json
import math
from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, multinomial

from robustify.certificates.bounds import lower_bound, upper_bound
from robustify.certificates.family import Look, Subject, Tally
from robustify.certificates.migrated import Migrated
from robustify.certificates.migration import BEFORE, FRESH, SHARED, MigratedPlan, Origin, migrated_bounds
from robustify.certificates.plans import FixedPlan
from robustify.certificates.queries import ESTIMATION, SELECTION, Ask
from robustify.certificates.question import Question
from robustify.certificates.radii import gaussian_radius, strongest_rival
from robustify.contract import InputContract
from robustify.errors import InputError

ORIGIN = Origin("0" * 64, "1" * 64, "2" * 64, "weights float32")


def plan(
    n: int = 1_000, shared: int = 400, *, sigma: float = 0.5, alpha: float = 0.001, expected: float = 0.0, **more: float
) -> MigratedPlan:
    return MigratedPlan(sigma, alpha, 100, n, shared, 2 * shared, expected, more.get("slack", 0.0), ORIGIN)


def tallies(asked: MigratedPlan, selection: list[int], votes: list[int], last: list[int]) -> tuple[Tally, ...]:
    query = asked.query(len(selection))
    for ask, told in zip([*query.ask()], (selection, votes), strict=True):
        query.tell(ask, told)
    (ask,) = query.ask()
    query.tell(ask, last)
    assert query.ask() == ()
    return query.tallies


GOLDEN = [  # methods.md, section 2: sigma .5, n 100,000, alpha .001 a share
    (95_000, 0, 6, 1_000, False, 0.7375),
    (95_000, 0, 60, 10_000, False, 0.7734),
    (95_000, 0, 0, 10_000, False, 0.8089),
    (95_000, 0, 35, 10_000, False, 0.7863),
    (80_000, 0, 6, 1_000, False, 0.3829),
    (80_000, 0, 60, 10_000, False, 0.3985),
    (80_000, 10_000, 60, 10_000, True, 0.5021),
]


@pytest.mark.parametrize(("label", "rival", "differ", "shared", "runner_up", "radius"), GOLDEN)
def test_golden_radii(label: int, rival: int, differ: int, shared: int, runner_up: bool, radius: float) -> None:
    alpha = 0.001 if runner_up else 0.002
    bounds = migrated_bounds(label, rival, differ, n=100_000, shared=shared, alpha=alpha, runner_up=runner_up)
    assert gaussian_radius(*bounds, sigma=0.5) == pytest.approx(radius, abs=6e-5)


def test_the_parts_are_bounds_at_their_shares() -> None:
    low, high = migrated_bounds(900, 60, 3, n=1_000, shared=200, alpha=0.01, runner_up=False)
    assert low == pytest.approx(lower_bound(900, 1_000, alpha=0.005) - upper_bound(3, 200, alpha=0.005), abs=1e-14)
    assert 0 <= high - (1 - low) < 1e-15
    low, high = migrated_bounds(600, 60, 3, n=1_000, shared=200, alpha=0.03, runner_up=True)
    zeta = upper_bound(3, 200, alpha=0.01)
    assert low == pytest.approx(lower_bound(600, 1_000, alpha=0.01) - zeta, abs=1e-14)
    assert high == pytest.approx(upper_bound(60, 1_000, alpha=0.01) + zeta, abs=1e-14)


@settings(max_examples=6, deadline=None)
@given(st.lists(st.floats(0.01, 1), min_size=4, max_size=4), st.floats(0.02, 0.6))
def test_the_exact_chance_of_a_false_bound_is_at_most_alpha(weights: list[float], alpha: float) -> None:
    """All outcomes of 8 draws, of which the first 4 are shared: A to A, A to other, other to A, other to other."""
    chances, n, shared = np.array(weights) / sum(weights), 8, 4
    changed = chances[0] + chances[2]
    wrong = 0.0
    for a, b, c in product(range(shared + 1), repeat=3):
        if (d := shared - a - b - c) < 0:
            continue
        chance = multinomial.pmf([a, b, c, d], shared, chances)
        for more in range(n - shared + 1):
            low, _ = migrated_bounds(a + b + more, 0, b + c, n=n, shared=shared, alpha=alpha, runner_up=False)
            wrong += float(low > changed) * chance * float(binom.pmf(more, n - shared, chances[0] + chances[1]))
    assert wrong <= alpha * (1 + 1e-9)


def _first(counts: list[int], label: int) -> tuple[int, ...]:
    """The counts with that of the label first, then the others from large to small."""
    others = sorted((c for i, c in enumerate(counts) if i != label), reverse=True)
    return counts[label], *others


CASES = [  # label, first rival, and others, by both functions: [before, after] chances of each pair
    pytest.param([[0.62, 0.06, 0.0], [0.0, 0.32, 0.0], [0.0, 0.0, 0.0]], 0.0, id="all that differ lose the label"),
    pytest.param([[0.40, 0.05, 0.0], [0.0, 0.12, 0.0], [0.0, 0.05, 0.38]], 0.05, id="rival gains from both sides"),
    pytest.param([[0.97, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.03]], 0.0, id="fresh draws"),
]


@pytest.mark.parametrize("runs", [2_000, pytest.param(100_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("pairs", "expected"), CASES)
def test_claims_are_false_with_chance_at_most_alpha(pairs: list[list[float]], expected: float, runs: int) -> None:
    """Imagined runs, in which the shared draws are the first of those that test the label."""
    alpha, classes = 0.05, 3
    asked = plan(200, 100, sigma=1.0, alpha=alpha, expected=expected)
    joint, rng = np.array(pairs), np.random.default_rng(0)
    after = joint.sum(axis=0)
    true = [gaussian_radius(p, max(np.delete(after, c)), sigma=1.0) if p < 1 else math.inf for c, p in enumerate(after)]
    selection = rng.multinomial(asked.n0, joint.sum(axis=1), runs)
    first = rng.multinomial(asked.shared, joint.ravel(), runs).reshape(runs, classes, classes)
    votes = first.sum(axis=2) + rng.multinomial(asked.n - asked.shared, joint.sum(axis=1), runs)
    agreed = np.diagonal(first, axis1=1, axis2=2)
    fresh = rng.multinomial(asked.fresh, after, runs)
    way, seen = cache(asked.way), {_first(s, s.index(max(s))) for s in selection.tolist()}

    @cache
    def representative(which: str) -> tuple[int, ...]:
        """A selection that leads there: nothing else of it matters."""
        return next(s for s in seen if way(s) == which)

    @cache
    def radius(selection: tuple[int, ...], label: int, rival: int, last: tuple[int, ...]) -> float:
        """What is claimed of a label, here the first class; the names of the others do not matter."""
        tested = [label, rival, asked.n - label - rival]
        return asked.certify_votes(tallies(asked, [*selection], tested, [*last])).radius

    wrong = 0
    for s, v, a, f in zip(selection.tolist(), votes.tolist(), agreed.tolist(), fresh.tolist(), strict=True):
        label = s.index(max(s))
        chosen, tested, own = (_first(counts, label) for counts in (s, v, f))
        last = own if way(chosen) == "fresh" else (sum(a), 0, 0)
        wrong += radius(representative(way(chosen)), tested[0], tested[1], last) > true[label]
    assert wrong <= (alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)) * runs


def test_more_votes_for_the_label_or_fewer_that_differ_never_prove_less() -> None:
    def radius(label: int, rival: int, differ: int, runner_up: bool) -> float:
        bounds = migrated_bounds(label, rival, differ, n=500, shared=100, alpha=0.01, runner_up=runner_up)
        return gaussian_radius(*bounds, sigma=1.0)

    for label, differ, runner_up in product(range(260, 498, 17), range(6), (False, True)):
        rival = (500 - label) // 2
        here = radius(label, rival, differ, runner_up)
        assert radius(label + 1, rival, differ, runner_up) >= here >= radius(label, rival, differ + 1, runner_up)
        assert radius(label, rival - 1, differ, runner_up) >= here


def test_the_way_is_chosen_by_what_it_promises() -> None:
    assert plan(10_000, 1_000).way([100, 0, 0]) == "fresh"
    assert plan(10_000, 1_000).way([80, 20, 0]) == "majority"
    assert plan(10_000, 1_000).way([60, 10, 30]) == "runner-up"
    assert plan(10_000, 1_000, expected=0.1).way([80, 20, 0]) == "fresh"
    assert plan(10_000, 1_000).way([34, 33, 33]) == "fresh"  # nothing promises anything


@pytest.mark.parametrize("selection", [[100, 0, 0], [80, 20, 0], [50, 20, 30]])
def test_claims_are_those_of_their_way(selection: list[int]) -> None:
    asked = plan(10_000, 1_000, slack=1e-6)
    found = tallies(
        asked, selection, [7_000, 1_000, 1_990], [1_900, 60, 40] if selection[0] == 100 else [690, 100, 199]
    )
    last, claim = found[-1], asked.certify_votes(found)
    if selection[0] == 100:
        look = Look(2_000, 1_900, 60)
        _, low, high = FixedPlan(0.5, 0.001, 100, 2_000, 1e-6).prove((look,))
        assert (last.view, last.looks) == (FRESH, (look,))
    else:
        rival = strongest_rival(found[1].votes, 0, n=10_000)
        assert rival == 2_000  # failures too
        bounds = migrated_bounds(
            7_000, rival, 11, n=10_000, shared=1_000, alpha=0.001, runner_up=asked.way(selection) == "runner-up"
        )
        low, high = bounds[0] - 1e-6, bounds[1] + 1e-6
        assert (last.view, last.looks) == (SHARED, ())
    assert claim.label == 0
    assert claim.bounds[0] == pytest.approx((low, high), abs=1e-15)
    assert claim.radius == pytest.approx(gaussian_radius(low, high, sigma=0.5))
    assert claim.radius <= asked.ceiling


def test_the_ceiling_is_the_most_that_votes_prove() -> None:
    for asked in (plan(1_000, 400), plan(10_000, 10), plan(1_000, 6)):
        assert asked.ceiling >= gaussian_radius(
            *migrated_bounds(asked.n, 0, 0, n=asked.n, shared=asked.shared, alpha=0.001, runner_up=False), sigma=0.5
        )
        assert asked.ceiling >= FixedPlan(0.5, 0.001, 100, asked.fresh).ceiling


def test_a_query_asks_for_the_draws_before_and_then_for_shared_or_fresh_ones() -> None:
    asked = plan(10_000, 1_000)
    for selection, last in (([80, 20], Ask(SHARED, ESTIMATION, 1_000)), ([100, 0], Ask(FRESH, ESTIMATION, 2_000))):
        query = asked.query(2)
        assert query.tallies == ()
        assert query.ask() == (Ask(BEFORE, SELECTION, 100), Ask(BEFORE, ESTIMATION, 10_000)) == query.ask()
        for ask, votes in zip(query.ask(), (selection, [8_000, 2_000]), strict=True):
            query.tell(ask, votes)
        assert asked.certify_votes(query.tallies).label is None  # what was known before proves nothing of the new one
        assert query.ask() == (last,)
    assert asked.most_draws == 100 + 10_000 + 2_000


def test_a_plan_is_read_back() -> None:
    asked = plan(expected=0.25, slack=1e-9)
    assert Migrated.read(json.loads(json.dumps(asked.stored()))) == asked
    for wrong in ({"rule": "fixed"}, {"rule": None}):
        with pytest.raises(InputError, match="expected the rule shared or fresh"):
            Migrated.read({**asked.stored(), **wrong})


WRONG: list[tuple[dict[str, float], str]] = [
    ({"shared": 1_001}, "expected shared to be a whole number from 1 to 1000; got 1001"),
    ({"shared": 0}, "expected shared"),
    ({"shared": 1}, "2 draws can never certify"),
    ({"expected": 1.5}, "from 0 to 1; got 1.5"),
    ({"sigma": 0.0}, "sigma"),
    ({"alpha": 1.0}, "alpha"),
    ({"slack": -1.0}, "slack"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_impossible_plans_are_refused(change: dict[str, float], message: str) -> None:
    settings = {"n": 1_000, "shared": 400, **change}
    with pytest.raises(InputError, match=message):
        plan(settings.pop("n"), settings.pop("shared"), **settings)  # type: ignore[arg-type]


def test_a_known_label_is_refused() -> None:
    with pytest.raises(InputError, match="chooses the label itself"):
        plan().query(3, 1)


def test_the_family_is_that_of_one_plan_and_polls_the_changed_model() -> None:
    family = Migrated(plan(sigma=0.25))
    subject = Subject(InputContract(1, 4, 4), 3, lambda view: 0.125)
    assert family.plan(Question(), subject) is family.of
    assert family.levels == (0.25,)
    poll = family.poll(50, 0.01, subject)
    assert (poll.views, poll.n, poll.alpha, poll.slack) == ((family.of.views[FRESH],), 50, 0.01, 0.125)
    assert set(family.bases) == {view.base for view in family.of.views}
