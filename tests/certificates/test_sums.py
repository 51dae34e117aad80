"""Polls of weighted sums of views: exact chances of a wrong answer, failed draws, votes that are known."""

from collections.abc import Sequence
from itertools import product

import pytest
from scipy.stats import binom

from robustify.certificates.prediction import Prediction
from robustify.certificates.queries import Ask
from robustify.certificates.sums import SumPoll
from robustify.certificates.views import View
from robustify.errors import InputError

LABELS = ("a", "b", "c")
MIXED = (View(0.5), View(0.0, "m:f"))
HALVES = (View(0.5), View(0.5))


def answer(poll: SumPoll, *told: Sequence[int]) -> Prediction:
    """What a poll answers when told these votes, in the order of its asks."""
    query = poll.query(len(told[0]))
    for ask, votes in zip(query.ask(), told, strict=True):
        query.tell(ask, votes)
    assert query.ask() == ()
    return poll.answer(query, LABELS)


def mixed(draws: int = 110, weight: float = 0.8, alpha: float = 0.05, slack: float = 0.0) -> SumPoll:
    return SumPoll(MIXED, (weight, 1 - weight), draws, alpha, slack)


def test_draws_are_shared() -> None:
    assert mixed().query(3).ask() == (Ask(0, "selection", 11), Ask(1, "selection", 1), Ask(0, "prediction", 99))
    assert mixed().n == 111
    both = SumPoll(HALVES, (1.0, 1.0), 100, 0.05, 0.0)
    assert [ask.draws for ask in both.query(3).ask()] == [5, 5, 45, 45]
    assert both.n == 100
    with pytest.raises(InputError, match="expected n >= 4"):
        SumPoll(HALVES, (1.0, 1.0), 3, 0.05, 0.0)


def test_the_vote_of_the_classifier_alone_counts_for_a_quarter_of_the_votes() -> None:
    """The vote is worth (1 - .8) / .8 of all votes under noise at weight .8."""
    for votes, alone, label in (
        ((90, 9, 0), (1, 0, 0), 0),
        ((90, 9, 0), (0, 1, 0), 0),
        ((60, 39, 0), (0, 1, 0), None),  # 60 - 39 is 21 %, the vote of the classifier alone 25 %
        ((70, 29, 0), (0, 0, 1), 0),
        ((50, 49, 0), (1, 0, 0), 0),
        ((50, 49, 0), (0, 0, 0), None),
    ):
        found = answer(mixed(), (11, 0, 0), alone, votes)
        assert (found.label, found.votes, found.n) == (label, votes, 99)
        assert (found.p_value <= 0.05) == (label is not None)
    assert answer(mixed(), (6, 5, 0), (0, 1, 0), (50, 49, 0)).label == 1


def test_failed_draws_count_for_every_rival() -> None:
    assert answer(mixed(), (11, 0, 0), (0, 0, 0), (70, 20, 9)).label == 0
    assert answer(mixed(), (11, 0, 0), (0, 0, 0), (55, 0, 0)).label is None


def test_slack_counts_twice() -> None:
    plain, wide = (answer(mixed(slack=slack), (11, 0, 0), (0, 0, 0), (64, 35, 0)) for slack in (0.0, 0.05))
    assert (plain.label, wide.label) == (0, None)
    assert plain.p_value < wide.p_value


@pytest.mark.parametrize(("p", "pilot", "wrong"), [(0.62, (6, 0, 0), 0), (0.63, (0, 6, 0), 1), (0.5, (6, 0, 0), 0)])
def test_exact_chance_of_a_wrong_label_of_a_mixture(p: float, pilot: tuple[int, ...], wrong: int) -> None:
    """The classifier alone votes for b: a is right from .625 on, at a weight of .8; the pilot chose the other."""
    poll = mixed(60, alpha=0.1)
    chances = {
        k: float(binom.pmf(k, 54, p))
        for k in range(55)
        if answer(poll, pilot, (0, 1, 0), (k, 54 - k, 0)).label == wrong
    }
    assert 0 < sum(chances.values()) <= 0.1


def test_exact_chance_of_a_wrong_label_of_two_halves() -> None:
    """Chances .7 and .28 of a, in two halves, make b the right one; the smaller sum is answered at most alpha often."""
    poll = SumPoll(HALVES, (1.0, 1.0), 60, 0.1, 0.0)
    wrong = answered = 0.0
    for i, j in product(range(28), repeat=2):
        found = answer(poll, (3, 0, 0), (0, 3, 0), (i, 27 - i, 0), (j, 27 - j, 0))
        chance = float(binom.pmf(i, 27, 0.7) * binom.pmf(j, 27, 0.28))
        wrong += chance * (found.label == 0)
        sure = float(binom.pmf(i, 27, 0.99) * binom.pmf(j, 27, 0.9))
        answered += sure * (found.label == 0)
    assert wrong <= 0.1
    assert answered > 0.99


def test_p_values_are_where_the_answer_changes() -> None:
    found = answer(mixed(), (11, 0, 0), (0, 1, 0), (75, 24, 0))
    for factor, label in ((1.001, 0), (0.999, None)):
        again = answer(mixed(alpha=found.p_value * factor), (11, 0, 0), (0, 1, 0), (75, 24, 0))
        assert again.label == label
    assert answer(mixed(), (11, 0, 0), (0, 1, 0), (0, 99, 0)).p_value == 1.0
