import math
from dataclasses import FrozenInstanceError, replace
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from robustify.certificates.answers import Answers
from robustify.certificates.certificate import Certificate, Provenance, conclude
from robustify.certificates.decisions import DecisionPlan, KnownLabelPlan
from robustify.certificates.family import Look
from robustify.certificates.plans import FixedPlan
from robustify.certificates.prediction import binomial_test, predict_votes
from robustify.certificates.radii import gaussian_radius, rival_bounds
from robustify.contract import InputContract, Numerics
from robustify.errors import InputError
from robustify.format import floor

LABELS = ("cat", "dog", "fox")
PLAN = FixedPlan(sigma=0.5, alpha=0.001, n0=100, n=1_000)
PROVENANCE = Provenance(
    plan=PLAN,
    seed=7,
    fresh=True,
    soundness="grid",
    contract=InputContract(1, 8, 8),
    classifier="c",
    denoiser="d",
    numerics=Numerics("float32"),
    batch=64,
)


def certified(selection: tuple[int, ...], votes: tuple[int, ...], provenance: Provenance = PROVENANCE) -> Certificate:
    query = provenance.plan.query(3)
    for votes_of_stage, ask in zip((selection, votes), query.ask(), strict=True):
        query.tell(ask, votes_of_stage)
    assert not query.ask()
    return conclude(query, sample="7.png", provenance=provenance, labels=LABELS)


def test_selection_chooses_and_estimation_certifies() -> None:
    certificate = certified((10, 80, 10), (50, 900, 50))
    assert (certificate.label, certificate.name) == (1, "dog")
    assert certificate.radius == pytest.approx(0.5 / 2 * (1.1115 + 1.4243), rel=0.01)
    assert certificate.provenance is PROVENANCE


def test_it_keeps_the_votes_and_the_bounds_that_prove_it() -> None:
    certificate = certified((10, 80, 10), (50, 900, 49))
    assert (certificate.sample, certificate.selection, certificate.votes) == ("7.png", (10, 80, 10), (50, 900, 49))
    assert certificate.looks == (Look(1_000, 900, 51),)
    assert (certificate.n, certificate.draws) == (1_000, 1_100)
    low, high = rival_bounds(900, 51, n=1_000, alpha=0.001)
    assert certificate.bounds == ((low, high),) == ((certificate.p_lower, certificate.p_upper),)
    assert certificate.radius == gaussian_radius(low, high, sigma=0.5)


def test_a_class_that_only_leads_the_estimation_is_not_certified() -> None:
    """The label must not be chosen by the draws that certify it."""
    certificate = certified((60, 40, 0), (100, 900, 0))
    assert certificate.abstained
    assert (certificate.label, certificate.name, certificate.radius) == (None, None, 0)


def test_abstention_holds_nothing() -> None:
    certificate = certified((34, 33, 33), (340, 330, 330))
    assert certificate.abstained
    assert not any(certificate.holds(label, at=0.0) for label in range(3))
    assert "abstains: no label is certain enough (99.9 %" in str(certificate)
    decision = DecisionPlan(0.5, 0.001, 100, 1_000, radii=(0.25, 0.5))
    undecided = replace(certificate, provenance=replace(PROVENANCE, plan=decision))
    assert "abstains: no label is certain enough within 0.25 (99.9 %" in str(undecided)


def test_the_radius_is_exclusive() -> None:
    certificate = certified((0, 100, 0), (0, 1_000, 0))
    assert certificate.holds(1, at=certificate.radius * 0.999)
    assert not certificate.holds(1, at=certificate.radius)
    assert not certificate.holds(0, at=0.0)


def test_it_prints_as_a_sentence_with_a_floored_radius() -> None:
    certificate = replace(certified((0, 100, 0), (0, 1_000, 0)), radius=0.49999)
    assert str(certificate) == (
        "dog: no ℓ2 change below 0.499 of its 1×8×8 pixels in [0, 1] after resize and crop changes the smoothed "
        "prediction (99.9 % confidence, n = 1,000)"
    )
    given_seed = replace(certificate, provenance=replace(PROVENANCE, fresh=False))
    assert "reproduction with a given seed" in str(given_seed)
    assert "real arithmetic" not in str(certificate)
    assert "in real arithmetic" in str(replace(certificate, provenance=replace(PROVENANCE, soundness="float")))


def test_it_says_that_only_the_true_label_was_tested() -> None:
    plan = KnownLabelPlan(0.5, 0.001, 0, 1_000, radii=(0.1,))
    certificate = replace(certified((0, 100, 0), (0, 1_000, 0)), provenance=replace(PROVENANCE, plan=plan))
    assert str(certificate).endswith("(tested the true label, 99.9 % confidence, n = 1,000)")


def test_it_is_frozen() -> None:
    certificate = certified((0, 100, 0), (0, 1_000, 0))
    with pytest.raises(FrozenInstanceError):
        certificate.radius = 9.0  # type: ignore[misc]


@given(value=st.floats(0, 100), digits=st.integers(0, 6))
def test_floor_never_rounds_up(value: float, digits: int) -> None:
    shown = f"{floor(value, digits):.{digits}f}"
    assert Decimal(shown) <= Decimal(value)
    assert Decimal(value) - Decimal(shown) < Decimal(10) ** -digits * Decimal("1.000001")


@pytest.mark.parametrize("counts", [(60, 40), (66, 34), (67, 33), (10, 0), (11, 0), (552, 448), (553, 447)])
def test_binomial_test_is_scipys(counts: tuple[int, int]) -> None:
    first, second = counts
    expected = binomtest(first, first + second, 0.5).pvalue
    assert binomial_test(first, second) == pytest.approx(expected, rel=1e-9)


def test_prediction_abstains_below_the_published_threshold() -> None:
    abstains = predict_votes((66, 34, 0), LABELS, n=100, alpha=0.001)
    certain = predict_votes((67, 33, 0), LABELS, n=100, alpha=0.001)
    assert (abstains.label, abstains.name) == (None, None)
    assert (certain.label, certain.name) == (0, "cat")
    assert str(certain) == "cat: 67 of 100 votes (p-value of a tie: 0.00087)"
    assert str(abstains).endswith("cannot be told apart (p-value of a tie: 0.0018, n = 100)")
    assert certain.summary()["p-value of a tie"] == "0.00087"


def test_prediction_counts_failed_draws_for_the_runner_up() -> None:
    assert predict_votes((60, 1, 0), LABELS, n=61, alpha=0.001).label == 0
    assert predict_votes((60, 30, 0), LABELS, n=121, alpha=0.001).label is None


@pytest.mark.parametrize("p", [0.5, 0.51, 0.6])
def test_prediction_names_a_wrong_class_with_chance_at_most_alpha(p: float) -> None:
    n, alpha = 200, 0.05
    wrong = sum(
        binom.pmf(k, n, p) for k in range(n + 1) if predict_votes((k, n - k), LABELS, n=n, alpha=alpha).label == 1
    )
    assert wrong <= alpha / 2


def test_prediction_pays_for_imperfect_noise_in_votes() -> None:
    assert predict_votes((67, 33, 0), LABELS, n=100, alpha=0.001, slack=1e-8).label == 0  # no vote differs
    assert predict_votes((67, 33, 0), LABELS, n=100, alpha=0.001, slack=1e-6).label is None  # one may
    exact = predict_votes((70, 30, 0), LABELS, n=100, alpha=0.001)
    loose = predict_votes((70, 30, 0), LABELS, n=100, alpha=0.001, slack=1e-3)
    assert loose.p_value == binomial_test(67, 33) > exact.p_value  # P(more than 3 of 100) is 4e-6


def test_confidence_is_rounded_down() -> None:
    strict = replace(PROVENANCE, plan=replace(PLAN, alpha=0.000_550_01))
    assert "99.9449 % confidence" in str(certified((10, 80, 10), (50, 900, 50), strict))


def test_prediction_pays_for_the_chance_that_more_votes_differ() -> None:
    exact = predict_votes((67, 33, 0), LABELS, n=100, alpha=0.001)
    alpha = exact.p_value / 0.995
    assert predict_votes((67, 33, 0), LABELS, n=100, alpha=alpha).label == 0
    assert predict_votes((67, 33, 0), LABELS, n=100, alpha=alpha, slack=1e-12).label is None


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, 10.0, math.inf])
def test_a_radius_in_another_norm_lies_within_the_l2_ball(p: float) -> None:
    certificate = certified((0, 100, 0), (0, 1_000, 0))
    radius = certificate.radius_lp(p)
    flat, spike = np.full(64, 1.0), np.eye(1, 64)[0]
    for direction in (flat, spike, np.arange(1.0, 65)):
        change = direction / np.linalg.norm(direction, p) * radius
        assert np.linalg.norm(change) <= certificate.radius * (1 + 1e-9)
    worst = flat if p > 2 else spike
    assert np.linalg.norm(worst / np.linalg.norm(worst, p) * radius) == pytest.approx(certificate.radius)


def test_a_norm_below_one_is_none() -> None:
    with pytest.raises(InputError, match="p >= 1"):
        certified((0, 100, 0), (0, 1_000, 0)).radius_lp(0.5)


def test_a_repr_is_short_and_shows_the_top_votes() -> None:
    certificate = replace(certified((0, 100, 0), (30, 950, 20)), radius=0.49999)
    assert repr(certificate) == (
        "Certificate(label=1, name='dog', radius=0.499, votes={1: 950, 0: 30, 2: 20}, n=1000, sample='7.png')"
    )
    prediction = predict_votes([5] * 900 + [400, 0], ["x"] * 902, n=5_000, alpha=0.001)
    assert repr(prediction) == (
        f"Prediction(label=900, name='x', votes={{900: 400, 0: 5, 1: 5, …}}, n=5000, p_value={prediction.p_value:.2g})"
    )


def test_several_answers_are_a_list_that_shows_itself_as_a_table() -> None:
    yes = replace(certified((0, 100, 0), (30, 950, 20)), radius=0.49999)
    answers = Answers([yes, certified((34, 33, 33), (340, 330, 330))])
    assert isinstance(answers, list)
    assert answers[0] is yes
    assert repr(answers) == str(answers)
    assert repr(answers).splitlines() == [
        "   label     radius         votes",
        "0  dog        0.499  950 of 1,000",
        "1  abstains       –  340 of 1,000",
    ]
    predictions = Answers([predict_votes([90, 10], ["a<b", "c"], n=100, alpha=0.001)])
    assert "a&lt;b" in predictions._repr_html_()
    assert predictions._repr_html_().count("<tr>") == 2
    assert repr(Answers([])) == "[]"


def test_a_long_table_leaves_out_its_middle() -> None:
    answers = Answers([certified((0, 100, 0), (30, 950, 20))] * 100)
    lines = repr(answers).splitlines()
    assert len(lines) == 1 + 20 + 1 + 20
    assert lines[21].split()[0] == "…"
    assert [lines[20].split()[0], lines[22].split()[0], lines[-1].split()[0]] == ["19", "80", "99"]
    assert answers._repr_html_().count("<tr>") == 42
