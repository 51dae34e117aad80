"""PatchCleanser: the theorem by brute force over functions, places and contents; prediction against the publication."""

import random
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustify.certificates.cleansing import CleansingQuery
from robustify.certificates.family import Claim, Subject
from robustify.certificates.masks import Masking
from robustify.certificates.patch_cleanser import MaskedQuery, MaskingPlan, PatchCleanser
from robustify.certificates.question import Question
from robustify.contract import InputContract
from robustify.errors import InputError
from tests.toys_patches import Tiny, answered, attacked, hidden, oracle, tiny

SUBJECT = Subject(InputContract(3, 224, 224), 1000, lambda view: 0.0, mean=(0.5, 0.4, 0.3))

SPACES = {
    "row": (tiny(1, 6, (1, 2), masks=3), 2),
    "square": (tiny(3, 3, (1, 1), masks=2), 2),
    "many values": (tiny(1, 5, (1, 1), masks=3), 4),
    "two shapes": (tiny(2, 4, (1, 2), (2, 1), masks=2), 2),
    "stride": (tiny(1, 7, (1, 2), masks=None, stride=2), 2),
    "two patches": (tiny(1, 5, (1, 1), masks=3, patches=2), 2),
}
"""Masks of a tiny image, and the number of values of a pixel."""


class Chosen:
    """A random function of masked images, one class more likely than the others; fails at some of them."""

    def __init__(self, seed: int, classes: int, failing: float = 0.0) -> None:
        self.random, self.classes, self.failing = random.Random(seed), classes, failing
        self.known: dict[Tiny, tuple[int, bool]] = {}
        self.likely = self.random.choice((0.5, 0.8, 0.95))

    def sure(self, image: Tiny) -> int:
        """The class that it has, also where rounding could decide it."""
        r = self.random
        if image not in self.known:
            label = 0 if r.random() < self.likely else r.randrange(self.classes)
            self.known[image] = label, r.random() < self.failing
        return self.known[image][0]

    def __call__(self, image: Tiny) -> int | None:
        label = self.sure(image)
        return None if self.known[image][1] else label


def certified(masking: Masking, classify: Chosen, image: Tiny) -> Claim:
    query = MaskedQuery(masking, classify.classes)
    draws = answered(query, masking, classify, image)
    assert draws in (masking.first, masking.draws)
    return MaskingPlan(masking).certify_votes(query.tallies)


def predicted(masking: Masking, classify: Chosen, image: Tiny) -> int | None:
    query = CleansingQuery(masking, classify.classes)
    assert answered(query, masking, classify, image) <= masking.draws
    return query.answer


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("failing", [0.0, 0.03])
def test_no_patch_flips_what_is_certified(space: str, failing: float) -> None:
    """Random functions; every patch of every content at every place. Where draws fail, none makes it abstain either."""
    masking, values = SPACES[space]
    found = flipped_without = 0
    for seed in range(40):
        classify = Chosen(seed, 3, failing)
        image = tuple(classify.random.randrange(values) for _ in range(masking.height * masking.width))
        claim = certified(masking, classify, image)
        answers = {predicted(masking, classify, other) for other in attacked(image, masking, values)}
        if claim.label is None:
            flipped_without += len(answers) > 1
            continue
        found += 1
        assert claim.radius > masking.patches
        assert answers == {claim.label}
    assert found >= 5
    assert flipped_without >= 5


@given(seed=st.integers(0, 10_000), classes=st.integers(2, 4), space=st.sampled_from(sorted(SPACES)))
def test_predict_is_the_published_prediction(seed: int, classes: int, space: str) -> None:
    masking, values = SPACES[space]
    classify = Chosen(seed, classes)
    image = tuple(classify.random.randrange(values) for _ in range(masking.height * masking.width))
    truths = {index: classify.sure(hidden(image, masking, index)) for index in range(masking.draws)}
    answer = predicted(masking, classify, image)
    assert answer == oracle(masking, truths)
    claim = certified(masking, classify, image)
    assert claim.label in (None, answer)
    assert claim.uncertified in (None, answer)
    assert (claim.label is not None) == (len(set(truths.values())) == 1)


@given(seed=st.integers(0, 10_000), failing=st.floats(0, 0.3))
def test_draws_that_fail_never_make_an_answer_wrong(seed: int, failing: float) -> None:
    """Whatever class each of them has, the answer is that of the published prediction; or there is none."""
    masking = tiny(1, 6, (1, 2), masks=3)
    classify = Chosen(seed, 2, failing)
    image = tuple(classify.random.randrange(2) for _ in range(6))
    found = {index: classify(hidden(image, masking, index)) for index in range(masking.draws)}
    unknown = [index for index, label in found.items() if label is None]
    possible = {
        oracle(masking, {**found, **dict(zip(unknown, labels, strict=True))})  # type: ignore[arg-type]  # all are known
        for labels in product(range(2), repeat=len(unknown))
    }
    answer = predicted(masking, classify, image)
    assert answer is None or possible == {answer}
    assert len(possible) > 1 or answer is not None or len(unknown) > 1


def test_a_mask_keeps_its_class_only_under_all_others() -> None:
    """Three masks say 0, 0, 1; the last keeps 1 with both others, then with one of them only."""
    masking = tiny(1, 6, (1, 2), masks=3)
    classes = {0: 0, 1: 0, 2: 1, 3: 0, 4: 1, 5: 1}
    assert masking.sets[3:] == ((0, 1), (0, 2), (1, 2))
    for changed, expected, asked in (({}, 1, 5), ({4: 0}, 0, 5), ({5: None}, None, 5), ({2: None}, None, 5)):
        query, known = CleansingQuery(masking, 2), {**classes, **changed}
        while asks := query.ask():
            for ask in asks:
                label = known[ask.first or 0]
                query.tell(ask, [int(label == c) for c in range(2)])
        assert query.answer == expected
        assert len(query.found) == asked


def test_a_query_stops_where_masks_disagree_or_one_fails() -> None:
    masking = tiny(6, 6, (2, 2), masks=3)
    plan = MaskingPlan(masking)
    for votes, more, uncertified in (([9, 0], 36, 0), ([8, 1], 0, None), ([8, 0], 0, None)):
        query = plan.query(2)
        (ask,) = query.ask()
        assert (ask.draws, ask.first) == (9, None)
        query.tell(ask, votes)
        assert sum(ask.draws for ask in query.ask()) == more
        if more:
            assert query.tallies[0].draws == 9
            assert plan.certify_votes(query.tallies) == Claim(None, 0.0, (), uncertified=0)
            query.tell(*query.ask(), [more - 1, 0])
            assert not query.ask()
        assert plan.certify_votes(query.tallies) == Claim(None, 0.0, (), uncertified=uncertified)


def test_plans_are_read_as_they_were_stored_and_speak_of_patches() -> None:
    plan = PatchCleanser(0.02).plan(Question(), SUBJECT)
    assert plan.masking == Masking(224, 224, ((32, 32),), 6, None, 1, (0.5, 0.4, 0.3))
    assert PatchCleanser.read(plan.stored()) == plan
    where = str(SUBJECT.contract)
    said = f"no patch within 32×32 pixels of its {where} changes the prediction"
    assert plan.statement("1.000", where) == said
    assert str(plan) == "36 masks against 1 of 32×32, 666 copies with their unions"
    assert (plan.alpha, plan.radii, plan.norm, plan.most_draws, plan.scale) == (0.0, (1.0,), None, 666, 0.0)
    assert plan.ceiling > 1
    two = PatchCleanser([(5, 224), (224, 5)], stride=64, patches=2).plan(Question(radius=2.0), SUBJECT)
    assert PatchCleanser.read(two.stored()) == two
    assert two.statement("2.000", "image").startswith("no two patches, each within 5×224 or 224×5 pixels of its image")


@pytest.mark.parametrize(
    ("share", "side", "sides"),
    [(0.02, 224, 32), (0.01, 224, 23), (0.03, 224, 39), (0.024, 32, 5), (0.01, 100, 10), (0.25, 4, 2), (0.26, 4, 3)],
)
def test_a_share_is_the_smallest_square_that_has_it(share: float, side: int, sides: int) -> None:
    subject = Subject(InputContract(1, side, side), 2, lambda view: 0.0, mean=(0.5,))
    assert PatchCleanser(share).plan(Question(), subject).masking.shapes == ((sides, sides),)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"patch": 0.0}, "as a share of the image's area, above 0 and below 1"),
        ({"patch": 1.5}, "above 0 and below 1"),
        (
            {"patch": (5, -1)},
            r"in whole pixels, each at least 1; got \[\(5, -1\)\]",
        ),
        ({"patch": (5, 0)}, "each at least 1"),
        ({"patch": [(5, 5), (3, 3)]}, r"\(3, 3\) lies inside one of \(5, 5\)"),
        ({"patch": ()}, "expected patches"),
        ({"patch": 0.02, "masks": 0}, "expected masks to be a whole number of at least 1; got 0"),
        ({"patch": 0.02, "stride": 0}, "expected stride to be a whole number"),
        ({"patch": 0.02, "masks": 3, "stride": 5}, "masks or stride, not both; got masks=3 and stride=5"),
        ({"patch": 0.02, "patches": 3}, "expected patches to be a whole number from 1 to 2; got 3"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        PatchCleanser(**settings)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"n": 100}, "leave out n="),
        ({"radius": 0.5}, "the radius of patch-cleanser is its number of patches, 1: leave out radius=; got 0.5"),
        ({"radius": [1.0, 2.0]}, "got 1, 2"),
        ({"radius": 1.0, "known_label": True}, "leave out known_label="),
    ],
)
def test_questions_that_do_not_apply_are_refused(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        PatchCleanser(0.02).plan(Question(**asked), SUBJECT)


def test_patches_that_do_not_fit_the_image_are_refused_before_any_draw() -> None:
    for family in (PatchCleanser((225, 5)), PatchCleanser(0.02, masks=1)):
        for question in (lambda f: f.plan(Question(), SUBJECT), lambda f: f.poll(1, 0.5, SUBJECT)):
            with pytest.raises(InputError):
                question(family)
    with pytest.raises(InputError, match="got the true label 3"):
        PatchCleanser(0.02).plan(Question(), SUBJECT).query(10, 3)


@pytest.mark.parametrize(
    "changed", [{"rule": "one mask"}, {"masks": None}, {"more": 1}, {"shapes": [[300, 3]]}, {"fill": []}]
)
def test_stored_plans_that_describe_none_are_refused(changed: dict[str, Any]) -> None:
    stored = PatchCleanser(0.02).plan(Question(), SUBJECT).stored()
    with pytest.raises(InputError):
        PatchCleanser.read({**stored, **changed})
