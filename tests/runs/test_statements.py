"""What many certificates say together, against exact sums."""

from fractions import Fraction
from math import ceil, comb
from pathlib import Path

import pytest

from robustify.certificates.decisions import DecisionPlan, KnownLabelPlan
from robustify.errors import InputError
from robustify.format import at_most, duration, memory
from robustify.report.html import meaning
from robustify.runs.folder import Run
from robustify.runs.statements import accuracy_interval, accuracy_lower_bound, expected_false, most_false, remarks


def up_to(count: int, images: int, alpha: Fraction) -> Fraction:
    return sum((comb(images, k) * alpha**k * (1 - alpha) ** (images - k) for k in range(count + 1)), Fraction(0))


@pytest.mark.parametrize(("images", "most"), [(500, 4), (10_000, 21), (50_000, 73)])
def test_the_quantiles_are_those_of_the_specification(images: int, most: int) -> None:
    assert most_false(images, 0.001) == most


@pytest.mark.parametrize(("images", "alpha"), [(1, 0.001), (3, 0.5), (40, 0.1), (500, 0.001)])
def test_quantiles_agree_with_exact_sums(images: int, alpha: float) -> None:
    found = most_false(images, alpha)
    assert up_to(found, images, Fraction(alpha)) >= Fraction(0.999)
    assert found == 0 or up_to(found - 1, images, Fraction(alpha)) < Fraction(0.999)


def test_as_many_are_expected_as_alpha_says() -> None:
    assert expected_false(500, 0.001) == 0.5


def test_the_accuracy_bound_is_the_published_formula() -> None:
    # alpha + sqrt(2 * .001 * .999 * ln 1000 / 500) + ln 1000 / 1500, by hand
    assert accuracy_lower_bound(0.75, 500, 0.001, rho=0.001) == pytest.approx(
        0.75 - 0.001 - 0.0052540 - 0.0046052, abs=1e-6
    )
    assert accuracy_lower_bound(0.001, 500, 0.001) == 0


@pytest.mark.parametrize("images", [1, 10, 100, 400])
@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3])
@pytest.mark.parametrize("rho", [0.001, 0.05])
def test_false_certificates_exceed_the_margin_no_more_often_than_allowed(images: int, alpha: float, rho: float) -> None:
    margin = 1 - accuracy_lower_bound(1.0, images, alpha, rho=rho)
    beyond = 1 - up_to(ceil(images * margin + 1e-9) - 1, images, Fraction(alpha))
    assert beyond <= Fraction(rho)


def test_the_interval_is_clopper_and_pearsons() -> None:
    assert accuracy_interval(0, 10) == (0.0, pytest.approx(1 - 0.025**0.1))
    assert accuracy_interval(10, 10) == (pytest.approx(0.025**0.1), 1.0)
    low, high = accuracy_interval(5, 10)
    assert (low, high) == (pytest.approx(0.18709, abs=1e-5), pytest.approx(0.81291, abs=1e-5))


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="images"):
        most_false(0, 0.001)
    with pytest.raises(InputError, match="alpha"):
        expected_false(5, 0.0)
    with pytest.raises(InputError, match="accuracy"):
        accuracy_lower_bound(1.5, 10, 0.001)


def test_numbers_read_well() -> None:
    assert [duration(s) for s in (0.5, 59, 61, 3_700, 90_000)] == ["0.5 s", "59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]
    assert [memory(m) for m in (12, 2048, 3 * 2**20, 5 * 2**30)] == ["12 B", "2 KiB", "3 MiB", "5 GiB"]


@pytest.mark.parametrize(
    ("value", "text"), [(0.001, "0.001"), (0.00060792710185, "0.000607928"), (2e-06, "2e-06"), (0.05, "0.05")]
)
def test_a_chance_of_error_is_never_rounded_down(value: float, text: str) -> None:
    assert at_most(value) == text
    assert float(text) >= value


def run_of(plan: DecisionPlan | KnownLabelPlan, **shared: object) -> Run:
    config = {"family": plan.family, "plan": plan.stored(), "samples": 1_500, **shared}
    return Run(Path("run"), config, rows=[], finished=False)


def test_what_runs_share_is_said() -> None:
    plan = DecisionPlan(0.25, 0.00060792710185, 100, 1_000, radii=(0.1,))
    assert remarks(run_of(plan)) == []
    assert remarks(run_of(plan, family_alpha=0.05)) == [
        "That any certificate of the 1,500 images is false has a chance of at most 0.05."
    ]
    assert remarks(run_of(plan, attempt=3, attempts_alpha=0.01)) == [
        "Attempt 3: that any of all attempts at an image is false has a chance of at most 0.01."
    ]
    known = run_of(KnownLabelPlan(0.25, 0.00060792710185, 0, 1_000, radii=(0.1,)))
    assert remarks(known)[0].startswith("Only the true label was tested: a certificate says that the smoothed")
    for labelled in (True, False):
        assert meaning(known, labelled=labelled).endswith(f"false with chance at most 0.000607928. {remarks(known)[0]}")
