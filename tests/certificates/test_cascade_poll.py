"""Prediction by a cascade is about the classifier that its certificates are about."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy.stats import binom

from robustify.certificates.cascade import Cascade
from robustify.certificates.cascade_poll import CascadePoll
from robustify.certificates.prediction import Prediction
from robustify.certificates.queries import Ask
from tests.toys_cascade import SIGMAS, drawn, finished, fixed, subject

LABELS = ("cat", "dog", "fox")


def polled(poll: CascadePoll, votes: Callable[[Ask], Sequence[int]]) -> tuple[Prediction, list[Ask]]:
    """The answer of a poll that is told these votes, and what it asked for."""
    query, asked = poll.query(3), []
    while asks := query.ask():
        for ask in asks:
            query.tell(ask, votes(ask))
            asked.append(ask)
    return poll.answer(query, LABELS), asked


def poll(n: int = 1000, alpha: float = 0.001, otherwise: str = "abstain", p0: float = 0.5) -> CascadePoll:
    return Cascade(SIGMAS, p0=p0, otherwise=otherwise).poll(n, alpha, subject())


def shares(*views: Sequence[int]) -> Callable[[Ask], list[int]]:
    """Votes with these shares, in per cent, at each view."""
    return lambda ask: [share * ask.draws // 100 for share in views[ask.view]]


SILENT = (40, 30, 30)


def test_the_first_level_that_fires_answers() -> None:
    found, asked = polled(poll(), shares(SILENT, (5, 90, 5), (90, 5, 5)))
    assert (found.label, found.name, found.votes, found.n) == (1, "dog", (50, 900, 50), 1000)
    assert [ask.view for ask in asked] == [0, 1]
    assert found.p_value == pytest.approx(3 * binom.cdf(400, 1000, 0.5), rel=1e-9)  # the more doubtful of both steps
    assert str(found).startswith("dog: 900 of 1,000 votes (p-value of another answer: 4.1e-10)")


def test_a_level_that_may_fire_ends_it() -> None:
    found, asked = polled(poll(), shares((51, 29, 20), (5, 90, 5), (5, 90, 5)))
    assert (found.label, len(asked)) == (None, 1)
    assert str(found).startswith("abstains: the votes do not settle which level fires")
    assert found.p_value > 0.001


def test_where_all_levels_are_silent_it_does_as_it_was_set() -> None:
    votes = shares(SILENT, SILENT, SILENT, (0, 0, 100))
    none, _ = polled(poll(), votes)
    assert none.label is None
    assert str(none).startswith("abstains: no class is likely enough at any noise level")
    last, asked = polled(poll(otherwise="argmax"), votes)
    assert (last.label, last.votes) == (0, (400, 300, 300))
    assert [ask.draws for ask in asked] == [1000] * 3
    alone, asked = polled(poll(otherwise="clean"), votes)
    assert (alone.label, alone.votes, alone.n) == (2, (0, 0, 1), 1)
    assert asked[-1] == Ask(3, "prediction", 1)
    assert poll(otherwise="clean").n == 3001


def test_draws_that_failed_may_be_of_a_class_that_fires() -> None:
    found, _ = polled(poll(), shares((40, 25, 20), (5, 90, 5)))
    assert found.label is None


@pytest.mark.parametrize("p0", [0.5, 0.7])
@pytest.mark.parametrize("otherwise", ["abstain", "argmax", "clean"])
def test_predictions_and_certificates_never_name_different_classes(p0: float, otherwise: str) -> None:
    """Both name the class of the first level that fires, except with a chance that both alphas bound."""
    generator, named = np.random.default_rng(0), 0
    plan = fixed(1000, n0=50, otherwise=otherwise, p0=p0)
    for seed in range(150):
        chances = [*generator.dirichlet([2.0, 0.5, 0.5], 3).tolist(), [0.0, 1.0, 0.0]]
        claim = plan.certify_votes(finished(plan, drawn(chances, seed)).tallies)
        found, _ = polled(poll(otherwise=otherwise, p0=p0), drawn(chances, 1000 + seed))
        answer = claim.uncertified if claim.label is None else claim.label
        named += None not in (answer, found.label)
        assert answer == found.label or None in (answer, found.label)
        fires = next((max(p) for p in chances[:3] if max(p) > p0), None)
        if found.label is not None and otherwise != "argmax":
            expected = 1 if fires is None else next(p.index(max(p)) for p in chances[:3] if max(p) > p0)
            assert found.label == expected
    assert named > 50
