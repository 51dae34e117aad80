"""Votes that depend on their batch are refused; independent ones hardly ever, exactly."""

import math
from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest

from robustify.errors import ModelError
from robustify.smoothing.checks.votes import FALSE_ALARM, VoteCheck, Wager

P = (0.6, 0.3, 0.1)


def tallies(draws: int, classes: int) -> Iterator[tuple[int, ...]]:
    """Every way in which so many draws can vote."""
    for votes in product(range(draws + 1), repeat=classes):
        if sum(votes) == draws:
            yield votes


def chance(votes: tuple[int, ...], p: tuple[float, ...]) -> float:
    """Multinomial."""
    ways = math.factorial(sum(votes)) / math.prod(map(math.factorial, votes))
    return ways * math.prod(q**k for q, k in zip(p, votes, strict=True))


def outcomes(sizes: tuple[int, ...], p: tuple[float, ...]) -> list[tuple[float, float]]:
    """Chance and wager of everything that can come of batches of these sizes."""
    found = []
    for batches in product(*(tuple(tallies(draws, len(p))) for draws in sizes)):
        wager = Wager(np.zeros(len(p), np.int64))
        for votes in batches:
            wager.add(np.array(votes))
        found.append((math.prod(chance(votes, p) for votes in batches), wager.log))
    return found


@pytest.mark.parametrize("p", [P, (0.5, 0.5), (0.95, 0.05), (1.0, 0.0)])
@pytest.mark.parametrize("sizes", [(4, 4), (5, 2), (1, 4), (3, 3, 3), (2, 1, 4)])
def test_a_wager_on_independent_votes_has_expectation_one(sizes: tuple[int, ...], p: tuple[float, ...]) -> None:
    """Over all outcomes, whatever the classes' probabilities and however unequal the batches."""
    assert math.fsum(q * math.exp(log) for q, log in outcomes(sizes, p)) == pytest.approx(1, abs=1e-10)


def crossing(requests: int, level: float, p: tuple[float, ...]) -> tuple[float, float]:
    """Exact chance that the evidence ever reaches 1 / level, and its exact mean, over two batches of five a request."""
    merged: dict[float, float] = {}
    for q, log in outcomes((5, 5), p):
        merged[round(log, 9)] = merged.get(round(log, 9), 0.0) + q
    reached = mean = 0.0
    for path in product(merged.items(), repeat=requests):
        check = VoteCheck()
        for log, _ in path:
            check.add(log)
        q = math.prod(chance for _, chance in path)
        mean += q * math.exp(check.log_evidence)
        reached += q * (check.log_most >= -math.log(level))
    return reached, mean


@pytest.mark.parametrize("p", [(0.5, 0.5), (0.8, 0.2)])
@pytest.mark.parametrize("requests", [1, 2, 3])
def test_the_evidence_is_a_martingale_and_keeps_its_level_at_every_look(requests: int, p: tuple[float, ...]) -> None:
    for level in (0.5, 0.3, 0.1):
        reached, mean = crossing(requests, level, p)
        assert mean == pytest.approx(1, abs=1e-8)
        assert reached <= level


def test_some_level_is_used() -> None:
    assert crossing(3, 0.3, (0.5, 0.5))[0] > 0


def polls(rng: np.random.Generator, requests: int, spread: float, batches: int = 4, draws: int = 32) -> VoteCheck:
    """Requests whose batches have probabilities that differ by a standard deviation of `spread`."""
    check = VoteCheck()
    for _ in range(requests):
        wager = Wager(np.zeros(2, np.int64))
        for _ in range(batches):
            k = rng.binomial(draws, np.clip(0.8 + spread * rng.standard_normal(), 0, 1))
            wager.add(np.array([k, draws - k]))
        check.add(wager.log)
    return check


def test_independent_votes_pass_and_shared_randomness_is_refused() -> None:
    rng = np.random.default_rng(0)
    assert all(polls(rng, 50, 0.0).log_most < math.log(100) for _ in range(8))
    assert polls(rng, 50, 0.15).refused
    assert polls(rng, 10, 0.4).refused


def test_batches_that_each_agree_are_refused_at_once() -> None:
    wager = Wager(np.zeros(2, np.int64))
    wager.add(np.array([32, 0]))
    wager.add(np.array([0, 32]))
    check = VoteCheck()
    check.add(wager.log)
    with pytest.raises(ModelError, match=r"once in 2e\+08 runs; allowed: once in 1e\+06(?s:.*)dropout mask"):
        check.verify()


def test_a_fault_that_begins_late_is_found() -> None:
    rng = np.random.default_rng(1)
    check = polls(rng, 300, 0.0)
    before = check.log_evidence
    check.verify()
    for _ in range(30):
        check.add(2.0)
    assert check.refused
    assert check.log_evidence - before > 30


def test_what_was_once_refused_stays_refused() -> None:
    check = VoteCheck()
    check.add(-math.log(FALSE_ALARM) + 1)
    assert check.refused
    check.add(-50.0)
    assert check.log_evidence < 1
    assert check.refused


@pytest.mark.parametrize("votes", [[(64, 0)], [(0, 1), (1, 0), (1, 0)], [(7, 0), (9, 0)], [(0, 7), (0, 9)]])
def test_nothing_is_learnt_from_one_batch_single_draws_or_one_class(votes: list[tuple[int, int]]) -> None:
    wager = Wager(np.zeros(2, np.int64))
    for k in votes:
        wager.add(np.array(k))
    assert wager.log == pytest.approx(0, abs=1e-9)


def test_a_wager_after_a_million_draws_is_nearly_binomial() -> None:
    binomial = [math.comb(64, k) * 0.8**k * 0.2 ** (64 - k) for k in range(65)]
    for k in (40, 51, 64):
        wager = Wager(np.array([800_000 - k, 200_000 - (64 - k)]))
        wager.add(np.array([k, 64 - k]))
        expected = binomial[k] ** -0.5 / math.fsum(q**0.5 for q in binomial)
        assert math.exp(wager.log) == pytest.approx(expected, rel=1e-3)
