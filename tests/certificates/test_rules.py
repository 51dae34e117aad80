import pytest

from robustify.certificates.plans import Plan
from robustify.certificates.rules import plan_of
from robustify.errors import InputError
from tests.certificates.conftest import LEADER, PLANS


@pytest.mark.parametrize("plan", [*PLANS, LEADER], ids=lambda p: p.rule)
def test_a_plan_comes_back_from_what_a_row_stores(plan: Plan) -> None:
    settings = {"sigma": plan.sigma, "alpha": plan.alpha, "n0": plan.n0, "n": plan.n, "slack": plan.slack}
    assert plan_of(plan.rule, **settings, radii=getattr(plan, "radii", ())) == plan
    with pytest.raises(InputError, match="got 'guess'"):
        plan_of("guess", **settings)
