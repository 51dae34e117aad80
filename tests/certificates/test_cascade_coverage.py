"""How often claims of cascades are false, in many simulated runs."""

import pytest

from robustify.certificates.cascade import Cascade
from robustify.certificates.question import Question
from robustify.testing import check_certificate
from tests.toys_cascade import SCENARIOS, SIGMAS


@pytest.mark.slow
@pytest.mark.parametrize("n", [400, None])
def test_claims_are_false_at_most_as_often_as_alpha_in_many_runs(n: int | None) -> None:
    check_certificate(Cascade(SIGMAS), Question(n=n, n_max=400, n0=20, alpha=0.05), SCENARIOS, runs=2_000)
