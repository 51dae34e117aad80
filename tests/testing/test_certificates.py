"""The check of certificate families passes what is right and names what is wrong: each fault is injected once."""

from collections.abc import Sequence
from typing import Any

import pytest
from scipy.special import ndtr

from robustify.certificates.family import Claim, Look
from robustify.certificates.gaussian import Gaussian
from robustify.certificates.plans import NOTHING, FixedPlan, Proof
from robustify.certificates.prediction import MajorityPoll, Prediction
from robustify.certificates.queries import Ask, CertifyQuery
from robustify.certificates.question import Question
from robustify.certificates.radii import gaussian_radius, rival_bounds
from robustify.errors import InputError, ModelError
from robustify.testing import Scenario, check_certificate
from tests.toys_family import TwoLevels

SIGMA = 0.5
TIED = Scenario([(0.5, 0.5, 0.0)], {})
AT_HALF = Scenario([(float(ndtr(0.5)), float(ndtr(-0.5)), 0.0)], {0: SIGMA / 2})
SCENARIOS = [TIED, AT_HALF, Scenario([(0.2, 0.7, 0.05)], {1: 0.6})]
FIXED = Question(n=200, n0=20, alpha=0.05)


@pytest.mark.parametrize(
    "question",
    [FIXED, Question(n_max=400, n0=20, alpha=0.05), Question(radius=0.25, n_max=400, n0=20, alpha=0.05)],
)
def test_the_standard_family_passes(question: Question) -> None:
    check_certificate(Gaussian(SIGMA), question, SCENARIOS, runs=500)


def test_a_family_of_somebody_else_passes() -> None:
    both = [Scenario([(p, 1 - p, 0.0), (q, 1 - q, 0.0)], {0: 0.25}) for p, q in ((float(ndtr(1.0)), float(ndtr(0.5))),)]
    check_certificate(TwoLevels((0.25, 0.5)), FIXED, both, runs=500)


def test_scenarios_are_needed_where_there_is_chance() -> None:
    with pytest.raises(InputError, match="expected scenarios"):
        check_certificate(Gaussian(SIGMA), FIXED, [])


def beyond(self: FixedPlan, looks: Sequence[Look]) -> Proof:
    """Claims as if alpha were ten times as large."""
    look = looks[-1]
    low, high = rival_bounds(look.label, look.rival, n=look.n, alpha=10 * self.alpha)
    return Proof(min(self.ceiling, gaussian_radius(low, high, sigma=self.sigma)), low, high)


def backwards(self: FixedPlan, looks: Sequence[Look]) -> Proof:
    """Claims less where more votes agree."""
    look = looks[-1]
    lead = look.label - look.rival
    return Proof(0.01 + 0.01 / lead, 0.6, 0.4) if lead > 0 else NOTHING


def eager(self: CertifyQuery) -> Sequence[Ask]:
    """Asks for another number of draws each time."""
    self.selection = [*self.selection, 0]
    return [Ask(0, "estimation", len(self.selection))]


FAULTS: list[tuple[type, str, Any, str]] = [
    (Gaussian, "read", classmethod(lambda cls, stored: FixedPlan(SIGMA, 0.05, 20, 201)), "is read back as"),
    (FixedPlan, "slacks", property(lambda self: ()), "expected a slack for each view"),
    (CertifyQuery, "ask", eager, r"two calls of ask\(\) in a row differ"),
    (FixedPlan, "most_draws", property(lambda self: 150), "the plan says 150"),
    (FixedPlan, "most_draws", property(lambda self: 250), "expected 250 draws; a query took 220"),
    (CertifyQuery, "tallies", property(lambda self: ()), "the tallies hold 0 draws; 220 were told"),
    (FixedPlan, "prove", lambda self, looks: Proof(0.01, 0.6, 0.4), "the same votes prove"),
    (FixedPlan, "prove", lambda self, looks: Proof(9.0, 0.6, 0.4), "above the plan's own ceiling"),
    (FixedPlan, "prove", lambda self, looks: NOTHING, "votes that all agree on class 0 prove"),
    (FixedPlan, "prove", backwards, "with one vote more for its label"),
    (FixedPlan, "prove", beyond, "of 500 claims about"),
    (MajorityPoll, "answer", lambda self, query, labels: Prediction(2, "x", 0.0, (), 1, 0.1), "and predicts 2"),
    (
        FixedPlan,
        "certify_votes",
        lambda self, tallies: Claim(None, 0.1, ()),
        "a label exactly where it is above 0",
    ),
]


@pytest.mark.parametrize(("kind", "name", "fault", "told"), FAULTS, ids=lambda value: str(value)[:20])
def test_a_fault_is_named(kind: type, name: str, fault: object, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind, name, fault)
    with pytest.raises(ModelError, match=told):
        check_certificate(Gaussian(SIGMA), FIXED, SCENARIOS, runs=500)


def test_claims_that_verification_passes_whatever_they_are_do_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustify.testing.runs.verify_row", lambda row, plan, run: [])
    with pytest.raises(ModelError, match="verification passes a radius of"):
        check_certificate(Gaussian(SIGMA), FIXED, SCENARIOS, runs=10)


def test_a_radius_beyond_the_border_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of a linear classifier tell, though votes alone look well."""
    monkeypatch.setattr("robustify.testing.runs.BORDER", 110 / 255)
    with pytest.raises(ModelError, match="from the border"):
        check_certificate(Gaussian(SIGMA), FIXED, SCENARIOS, runs=10)
