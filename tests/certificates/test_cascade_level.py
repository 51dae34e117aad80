"""One level of a cascade: what its votes prove about firing, by exact probabilities over all votes."""

import itertools
import math

import pytest
from scipy.stats import binom, multinomial

from robustify.certificates.cascade import Cascade
from robustify.certificates.cascade_level import CascadeLevel, Counts
from tests.toys_cascade import SIGMAS, subject

N = 12
VOTES = [v for v in itertools.product(range(N + 1), repeat=3) if sum(v) == N]
CHANCES = [(0.5, 0.5, 0.0), (0.5, 0.3, 0.2), (0.45, 0.45, 0.1), (0.34, 0.33, 0.33), (0.6, 0.4, 0.0), (0.75, 0.25, 0.0)]


def chance(p: tuple[float, ...], happens: "list[bool]") -> float:
    return math.fsum(multinomial.pmf(votes, N, p) for votes, holds in zip(VOTES, happens, strict=True) if holds)


@pytest.mark.parametrize("p0", [0.5, 0.6, 0.75])
@pytest.mark.parametrize("alpha", [0.3, 0.05, 0.01])
@pytest.mark.parametrize("p", CHANCES)
def test_a_level_is_misjudged_at_most_as_often_as_alpha(p0: float, alpha: float, p: tuple[float, ...]) -> None:
    """A firing of a class that does not fire and the silence of a level that does are together rarer than alpha."""
    level = CascadeLevel(0.5, p0, alpha, 0.0)
    silent = [level.silence(votes, N) <= alpha and max(p) > p0 for votes in VOTES]
    fires = [level.firing(votes, N) <= alpha and p[votes.index(max(votes))] <= p0 for votes in VOTES]
    assert chance(p, [a or b for a, b in zip(silent, fires, strict=True)]) <= alpha


def test_p_values_are_exact_tails() -> None:
    level = CascadeLevel(0.5, 0.6, 0.05, 0.01)
    assert level.firing((90, 5, 3), 100) == pytest.approx(binom.sf(89, 100, 0.61) / 0.6, rel=1e-12)
    assert level.silence((40, 30, 25), 100) == pytest.approx(binom.cdf(45, 100, 0.59), rel=1e-12)  # 5 failed
    assert level.firing((61, 39, 0), 100) == level.silence((100, 0, 0), 100) == 1.0
    assert CascadeLevel(0.5, None, 0.05, 0.0).silence((40, 30, 30), 100) == 1.0  # it always answers


@pytest.mark.parametrize("p0", [0.5, 0.7, None])
def test_bounds_are_exact(p0: float | None) -> None:
    level = CascadeLevel(0.5, p0, 0.01, 0.0)
    alpha = 0.005 if p0 is None else 0.01
    low, high = level.bound(Counts(200, 170, 20))
    assert binom.sf(169, 200, low) == pytest.approx(alpha, rel=1e-6)
    assert binom.cdf(20, 200, high) == pytest.approx(alpha, rel=1e-6)


def test_slack_widens_every_bound() -> None:
    none, some = (CascadeLevel(0.5, 0.5, 0.01, slack) for slack in (0.0, 0.02))
    counts = Counts(200, 170, 20)
    assert some.bound(counts).p_lower == pytest.approx(none.bound(counts).p_lower - 0.02, rel=1e-12)
    assert some.bound(counts).p_upper == pytest.approx(none.bound(counts).p_upper + 0.02, rel=1e-12)
    plan, poll = Cascade(SIGMAS), Cascade(SIGMAS).poll(100, 0.05, subject(slack=0.02))
    assert [level.slack for level in poll.levels] == [0.02] * 3
    assert plan.levels == (1.0, 0.5, 0.25)


@pytest.mark.parametrize("p0", [0.5, 0.7])
def test_the_quantile_rule_of_a_level(p0: float) -> None:
    """A level answers and spares others within sigma times the distances of quantiles."""
    from scipy.special import ndtri

    from robustify.certificates.family import Bound

    level = CascadeLevel(0.25, p0, 0.01, 0.0)
    assert level.answering(Bound(0.9, 1.0)) == pytest.approx(0.25 * (ndtri(0.9) - ndtri(p0)), rel=1e-12)
    assert level.harmless(Bound(0.0, 0.2)) == pytest.approx(0.25 * (ndtri(p0) - ndtri(0.2)), rel=1e-12)
    assert level.answering(Bound(p0, 1.0)) == level.harmless(Bound(0.0, p0)) == 0.0
