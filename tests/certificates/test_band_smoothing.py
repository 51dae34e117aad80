"""The vote of bands: the theorem by brute force over functions, places and contents, and by all changes of votes."""

import json
import random
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustify.certificates.band_smoothing import BandPlan, BandPoll, BandSmoothing, clear_lead
from robustify.certificates.bands import Bands
from robustify.certificates.family import Claim, Subject
from robustify.certificates.queries import ESTIMATION, PREDICTION, Ask
from robustify.certificates.question import Question
from robustify.contract import InputContract
from robustify.errors import InputError
from robustify.testing import check_certificate
from tests.toys_bands import Chosen, attacked

SUBJECT = Subject(InputContract(3, 224, 224), 1000, lambda view: 0.0, mean=(0.5, 0.4, 0.3))


def plan(height: int, width: int, keep: str, band: int, stride: int, patch: tuple[int, int]) -> BandPlan:
    return BandPlan(Bands(height, width, keep, band, stride, (0.5,)), patch)


SPACES = {
    "columns": (plan(1, 6, "columns", 1, 1, (1, 1)), 2),
    "wider": (plan(1, 9, "columns", 2, 1, (1, 2)), 2),
    "stride that does not divide": (plan(1, 9, "columns", 2, 2, (1, 1)), 3),
    "two rows": (plan(2, 7, "columns", 1, 1, (2, 1)), 2),
    "rows": (plan(6, 2, "rows", 1, 1, (1, 1)), 3),
    "blocks": (plan(3, 3, "blocks", 1, 1, (1, 1)), 3),
    "wider blocks": (plan(4, 4, "blocks", 2, 1, (1, 1)), 2),
}
"""Plans of tiny images, and the number of values of a pixel."""


def claimed(asked: BandPlan, votes: list[int]) -> Claim:
    query = asked.query(len(votes))
    (ask,) = query.ask()
    assert ask == Ask(0, ESTIMATION, asked.most_draws)
    query.tell(ask, votes)
    assert query.ask() == ()
    return asked.certify_votes(query.tallies)


def predicted(asked: BandPlan, votes: list[int]) -> int | None:
    poll = BandPoll(asked.views, asked.most_draws)
    query = poll.query(len(votes))
    query.tell(Ask(0, PREDICTION, asked.most_draws), votes)
    return poll.answer(query, [str(label) for label in range(len(votes))]).label


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("failing", [0.0, 0.05])
def test_no_patch_flips_what_is_certified(space: str, failing: float) -> None:
    """Random functions; every patch of every content at every place. Draws that fail vote for anything, each time."""
    asked, values = SPACES[space]
    found = flipped = 0
    for seed in range(60):
        classify = Chosen(seed, 3, failing)
        pixels = asked.bands.height * asked.bands.width
        image = tuple(classify.random.randrange(values) for _ in range(pixels))
        claim = claimed(asked, classify.votes(asked.bands, image))
        others = list(attacked(asked.bands, asked.patch, image, values))
        answers = {classify.winner(asked.bands, other) for other in (image, *others)}
        if claim.label is None:
            flipped += len(answers) > 1
            continue
        found += 1
        assert answers == {claim.label}
        assert {predicted(asked, classify.votes(asked.bands, other)) for other in others} == {claim.label}
    assert found >= 5
    assert flipped >= 1


@st.composite
def counts(draw: st.DrawFn) -> tuple[list[int], int, int]:
    """Votes of three classes, draws that failed, and how many votes may change."""
    votes = draw(st.lists(st.integers(0, 6), min_size=3, max_size=3).filter(any))
    failed = draw(st.sampled_from((0, 0, 1, 2)))
    return votes, sum(votes) + failed, draw(st.integers(1, 2))


@given(case=counts())
def test_the_lead_is_exactly_what_some_change_of_votes_could_undo(case: tuple[list[int], int, int]) -> None:
    """All ways to change up to so many votes, and to let draws that failed vote: the label wins in all, or it is not
    certified."""
    votes, draws, changed = case
    label = votes.index(max(votes))
    failed = draws - sum(votes)
    worst = []
    for taken in product(range(changed + 1), repeat=3):
        if sum(taken) > changed or any(t > v for t, v in zip(taken, votes, strict=True)):
            continue
        for given_to in product(range(sum(taken) + failed + 1), repeat=3):
            if sum(given_to) == sum(taken) + failed:
                now = [v - t + g for v, t, g in zip(votes, taken, given_to, strict=True)]
                worst.append(now.index(max(now)))
    certain = clear_lead(votes, draws) >= 2 * changed
    assert certain == (set(worst) == {label})


def test_ties_go_to_the_first_class() -> None:
    assert clear_lead([5, 5, 0], 10) == 0
    assert clear_lead([4, 5, 0], 9) == 0
    assert clear_lead([4, 5, 0], 10) == -1
    assert clear_lead([5, 4, 0], 9) == 1
    assert clear_lead([5, 4, 0], 10) == 0


def published(votes: list[int], changed: int) -> bool:
    """The rule of adversarial-robustness-toolbox's column ablation, which looks at one runner-up of the last index."""
    label = votes.index(max(votes))
    second = max((c for c in range(len(votes)) if c != label), key=lambda c: (votes[c], c))
    gap = votes[label] - votes[second]
    return gap > 2 * changed or (gap == 2 * changed and label < second)


def test_the_published_toolbox_certifies_ties_that_a_patch_flips() -> None:
    """Two runners-up at exactly twice the votes that a patch changes, one before the label and one after it."""
    asked = plan(1, 32, "columns", 4, 1, (1, 5))
    votes = [5, 21, 5, 1]
    assert (asked.touched, asked.most_draws) == (8, sum(votes))
    assert published(votes, asked.touched)
    moved = [votes[0] + 8, votes[1] - 8, *votes[2:]]
    assert moved.index(max(moved)) == 0
    assert claimed(asked, votes).label is None
    rng, wrong = random.Random(0), 0
    for _ in range(2000):
        label, low = rng.randrange(10), rng.randrange(4)
        tied = [low if rng.random() < 0.5 else rng.randrange(low + 1) for _ in range(10)]
        tied[label] = low + 16
        label = tied.index(max(tied))
        flips = any(
            n + 8 > tied[label] - 8 or (n + 8 == tied[label] - 8 and c < label)
            for c, n in enumerate(tied)
            if c != label
        )
        assert (clear_lead(tied, sum(tied)) >= 16) == (not flips)
        wrong += published(tied, 8) and flips
    assert wrong > 500


def test_certify_and_predict_answer_alike() -> None:
    asked = plan(1, 32, "columns", 4, 1, (1, 5))
    rng = random.Random(1)
    seen = set()
    for _ in range(500):
        votes, likely = [0] * 4, rng.random()
        for _ in range(rng.choice((30, 32))):
            votes[0 if rng.random() < likely else rng.randrange(4)] += 1
        claim = claimed(asked, votes)
        answer = claim.uncertified if claim.label is None else claim.label
        assert predicted(asked, votes) == answer
        seen.add((claim.label is None, answer is None))
    assert seen == {(True, True), (True, False), (False, False)}


def test_a_plan_says_what_it_claims() -> None:
    asked = BandSmoothing(0.02, 19).plan(Question(), SUBJECT)
    assert asked.patch == (32, 32)
    assert (asked.touched, asked.most_draws, asked.radii, asked.alpha) == (50, 224, (1.0,), 0.0)
    assert asked.ceiling > 1
    assert asked.norm is None
    assert asked.bands.fill == SUBJECT.mean
    assert (
        asked.statement("1", "pixels")
        == "no single patch within 32×32 pixels of its pixels changes the vote of its bands"
    )
    assert asked.changes("1") == "change of the pixels by patches, their number 1, each within 32×32 pixels"
    assert str(asked) == "224 copies of 19 columns each, against a patch of 32×32 pixels, which touches 50"
    assert str(BandSmoothing((5, 4), 4)) == "patch = (5, 4), band = 4, keep = columns, stride = 1"
    votes = [0] * 1000
    votes[3], votes[2] = 162, 62
    assert claimed(asked, votes) == Claim(None, 0.0, (), uncertified=3)
    votes[3], votes[2] = 163, 61
    assert claimed(asked, votes) == Claim(3, asked.ceiling, ())


@given(height=st.integers(3, 300), width=st.integers(3, 300), share=st.floats(1e-4, 0.9))
def test_a_share_is_the_least_square_that_is_no_smaller(height: int, width: int, share: float) -> None:
    side, other = BandSmoothing(share, 1)._shape(InputContract(1, height, width))
    assert side == other
    assert side**2 >= share * height * width * (1 - 1e-12)
    assert (side - 1) ** 2 < share * height * width


@pytest.mark.parametrize(
    "family",
    [
        BandSmoothing((1, 1), 1),
        BandSmoothing((2, 1), 1, keep="rows"),
        BandSmoothing((1, 2), 2, keep="blocks"),
        BandSmoothing(0.01, 2, stride=2),
    ],
    ids=str,
)
def test_it_is_a_family_of_certificates(family: BandSmoothing) -> None:
    check_certificate(family, Question(alpha=0.05), [])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch": 0.0}, "expected patch as a share"),
        ({"patch": (5, 0)}, "each at least 1; got"),
        ({"band": 0}, "expected band to be a whole number of at least 1; got 0"),
        ({"stride": 0}, "expected stride"),
        ({"keep": "all"}, "expected keep columns, rows, blocks; got 'all'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BandSmoothing(**{"patch": 0.02, "band": 4, **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (Question(n=1000), "leave out n="),
        (Question(radius=2.0), "the radius of band-smoothing is its number of patches, 1: leave out radius=; got 2"),
        (Question(radius=1.0, known_label=True), "leave out known_label="),
    ],
)
def test_questions_that_it_does_not_answer_are_refused(question: Question, message: str) -> None:
    with pytest.raises(InputError, match=message):
        BandSmoothing(0.02, 19).plan(question, SUBJECT)


def test_what_could_never_certify_is_refused() -> None:
    with pytest.raises(InputError, match=r"touches 112 of 224: nothing could be certified.*\n  Use narrower bands"):
        BandSmoothing((32, 32), 81).plan(Question(), SUBJECT)
    BandSmoothing((32, 32), 80).plan(Question(), SUBJECT)
    with pytest.raises(InputError, match="from 1 to 224; got 225"):
        BandSmoothing((1, 225), 1).plan(Question(), SUBJECT)
    with pytest.raises(InputError, match="chooses the label itself"):
        SPACES["columns"][0].query(3, 1)


def test_stored_plans_are_read_and_others_refused() -> None:
    asked = BandSmoothing((5, 4), 19, keep="blocks", stride=10, drop_tokens=True).plan(Question(radius=1.0), SUBJECT)
    stored = json.loads(json.dumps(asked.stored()))
    assert BandSmoothing.read(stored) == asked
    with pytest.raises(InputError, match="expected the rule vote"):
        BandSmoothing.read({**stored, "rule": "votes"})
    with pytest.raises(InputError, match="expected a plan 'vote' to store"):
        BandSmoothing.read({**stored, "alpha": 0.1})
