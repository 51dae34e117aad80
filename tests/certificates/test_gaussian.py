import json
from dataclasses import replace
from typing import Any

import pytest

from robustify.certificates.decisions import DecisionPlan, KnownLabelPlan, LeaderPlan
from robustify.certificates.family import Subject, read_plan
from robustify.certificates.gaussian import Gaussian
from robustify.certificates.plans import AdaptivePlan, FixedPlan, GaussianPlan
from robustify.certificates.question import Question
from robustify.certificates.views import View
from robustify.contract import InputContract
from robustify.errors import InputError, RunError
from tests.certificates.examples import LEADER, PLANS, SIGMA

SLACK = 1e-9


@pytest.mark.parametrize(
    ("question", "plan"),
    [
        (Question(n=1_000), FixedPlan(SIGMA, 0.001, 100, 1_000, SLACK)),
        (Question(n_max=2_000, n0=50), AdaptivePlan(SIGMA, 0.001, 50, 2_000, SLACK)),
        (Question(radius=(0.5, 0.25)), DecisionPlan(SIGMA, 0.001, 100, 10_000, SLACK, (0.25, 0.5))),
        (Question(radius=0.25, n0=0, alpha=0.01), LeaderPlan(SIGMA, 0.01, 0, 10_000, SLACK, (0.25,))),
        (Question(radius=0.25, known_label=True), KnownLabelPlan(SIGMA, 0.001, 0, 10_000, SLACK, (0.25,))),
    ],
    ids=lambda value: value.rule if isinstance(value, GaussianPlan) else "",
)
def test_a_question_has_one_plan(question: Question, plan: GaussianPlan) -> None:
    asked = list[View]()

    def slack(view: View) -> float:
        asked.append(view)
        return SLACK

    assert Gaussian(SIGMA).plan(question, Subject(InputContract(1, 8, 8), 2, slack)) == plan
    assert tuple(asked) == plan.views == (View(SIGMA, "pipeline"),)


@pytest.mark.parametrize("plan", [*PLANS, LEADER], ids=lambda p: p.rule)
def test_a_plan_comes_back_from_what_a_run_stores(plan: GaussianPlan) -> None:
    plan = replace(plan, slack=SLACK)
    stored = json.loads(json.dumps(plan.stored()))
    assert Gaussian.read(stored) == plan
    assert read_plan(plan.family, stored) == plan
    assert Gaussian.read(stored | {"sigma": 2}).scale == 2.0


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"rule": "guess"}, "got 'guess'"),
    ({"rule": None}, "got None"),
    ({"mix": 0.9}, "got alpha, mix, n, n0, radii, sigma, slack"),
    ({"n": "600"}, "cannot read the stored plan"),
    ({"n": 3}, "can never certify"),
    ({"alpha": 2}, "0 < alpha < 1"),
    ({"alpha": [0.1]}, "cannot read the stored plan"),
    ({"sigma": -1.0}, "expected sigma"),
    ({"slack": -1e-3}, "expected slack"),
    ({"radii": [0.2, 0.1]}, "increasing"),
    ({"radii": ["wide"]}, "could not convert"),
    ({"rule": "fixed"}, "expected a plan 'fixed' to store alpha, n, n0, sigma, slack; got"),
]


@pytest.mark.parametrize(("change", "text"), WRONG, ids=lambda value: "" if isinstance(value, str) else str(value))
def test_data_that_describes_no_plan_is_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(RunError, match=text):
        read_plan("gaussian", PLANS[2].stored() | change)


@pytest.mark.parametrize("missing", ["rule", "sigma", "alpha", "n0", "n", "slack", "radii"])
def test_a_stored_plan_without_one_of_its_settings_is_refused(missing: str) -> None:
    stored = PLANS[2].stored()
    del stored[missing]
    with pytest.raises(InputError, match="expected"):
        Gaussian.read(stored)
