"""Top-k certificates: golden values, what is true by construction, and the conformance of the family."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from robustify_top_k import TopK, top_k_radius
from scipy.special import ndtr, ndtri

from robustify import Settings, SmoothedClassifier, certify_dataset
from robustify.certificates.choice import family_of
from robustify.certificates.family import CERTIFICATES, Subject, read_plan
from robustify.certificates.question import Question
from robustify.certificates.radii import gaussian_radius
from robustify.contract import InputContract
from robustify.denoisers import Identity
from robustify.errors import InputError, RunError
from robustify.testing import Scenario, check_certificate
from robustify.verify.claims import verify_claims
from tests.toys import linear_model, twelve_samples

FIXED = Question(n=200, n0=20, alpha=0.05)

# specs: methods, section 6, at sigma = 1
GOLDEN = [
    (0.5, (0.3,), 0.262200),
    (0.3, (0.4,), 0.0),
    (0.3, (0.4, 0.2), 0.158610),
    (0.3, (0.4, 0.2, 0.1), 0.378576),
    (0.2, (0.3, 0.2, 0.15), 0.097406),
    (0.2, (0.3, 0.2, 0.15, 0.1, 0.05), 0.401616),
]


@pytest.mark.parametrize(("low", "rivals", "expected"), GOLDEN)
def test_golden_radii(low: float, rivals: tuple[float, ...], expected: float) -> None:
    assert top_k_radius(low, rivals, sigma=1.0) == pytest.approx(expected, abs=1e-6)
    assert top_k_radius(low, rivals, sigma=0.25) == pytest.approx(expected / 4, abs=1e-6)


def test_the_first_of_one_is_the_standard_radius() -> None:
    for low, high in ((0.6, 0.3), (0.9, 0.1), (0.999, 1e-4)):
        assert top_k_radius(low, [high], sigma=0.5) == pytest.approx(gaussian_radius(low, high, sigma=0.5), rel=1e-9)
        assert top_k_radius(low, [high], sigma=0.5) <= gaussian_radius(low, high, sigma=0.5)


def test_beyond_the_radius_there_is_a_counter_example() -> None:
    """Half-spaces along one direction move the class and its t rivals together as far as the bounds allow."""
    low, rivals = 0.3, (0.25, 0.25, 0.2)
    radius = top_k_radius(low, rivals, sigma=1.0)
    for moved, stays in ((radius * 0.999, True), (radius * 1.001, False)):
        own = ndtr(ndtri(low) - moved)
        best = [ndtr(ndtri(min(sum(rivals[-t:]), 1 - low)) + moved) / t for t in (1, 2, 3)]
        assert (own > min(best)) == stays


def test_more_classes_to_be_among_prove_no_less() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        low, *others = rng.dirichlet(np.ones(6))
        rivals = sorted(others, reverse=True)
        radii = [top_k_radius(low, rivals[:k], sigma=1.0) for k in range(1, 6)]
        assert all(b >= a - 1e-9 for a, b in pairwise(radii))


@pytest.mark.parametrize("k", [1, 2])
def test_the_family_conforms(k: int) -> None:
    """Each case is true up to the radius of its exact chances."""
    cases = [(0.5, 0.35, 0.15), (0.34, 0.33, 0.33), (0.9, 0.08, 0.02)]
    check_certificate(TopK(0.5, k=k), FIXED, [Scenario([p], true_radii(p, k)) for p in cases], runs=1_000, first=k == 1)


def true_radii(chances: tuple[float, ...], k: int) -> dict[int, float]:
    """How far each class stays among the k most frequent, whatever the base function."""
    found = {}
    for c, p in enumerate(chances):
        rivals = sorted((*chances[:c], *chances[c + 1 :]), reverse=True)
        found[c] = top_k_radius(p, rivals[:k], sigma=0.5) + 1e-9
    return found


def test_it_is_found_by_name_with_its_settings() -> None:
    assert CERTIFICATES.find("top-k") is TopK
    assert family_of(0.5, "top-k:k=2") == TopK(0.5, k=2)


@pytest.mark.parametrize(
    ("family", "question", "told"),
    [
        (TopK(0.5, k=100), FIXED, "expected k below the number of classes, 100; got 100"),
        (TopK(0.5, k=1), Question(), "give n="),
        (TopK(0.5, k=1), Question(radius=0.5), "neither radius="),
        (TopK(0.5, k=1), replace(FIXED, n=7), "7 draws can never certify"),
    ],
)
def test_questions_that_it_cannot_answer_are_refused(family: TopK, question: Question, told: str) -> None:
    with pytest.raises(InputError, match=told):
        family.plan(question, Subject(InputContract(1, 8, 8), 100, lambda view: 0.0))


@pytest.mark.parametrize("wrong", [{"sigma": 0.0}, {"sigma": 0.5, "k": 0}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        TopK(**wrong)


@pytest.mark.parametrize("wrong", [{"classes": 1}, {"k": 0}, {"alpha": 2.0}, {"n0": 0}, {"sigma": -1.0}])
def test_stored_plans_that_are_impossible_are_refused(wrong: dict[str, float]) -> None:
    plan = TopK(0.5, k=2).plan(FIXED, Subject(InputContract(1, 8, 8), 3, lambda view: 0.0))
    assert TopK.read(plan.stored()) == plan
    with pytest.raises(RunError, match="cannot read the stored plan"):
        read_plan("top-k", {**plan.stored(), **wrong})


def test_a_plan_of_other_classes_than_the_run_proves_nothing(tmp_path: Path) -> None:
    """They divide alpha."""
    model = SmoothedClassifier(linear_model().classifier, Identity(), family=TopK(0.5, k=1))
    run = certify_dataset(model, twelve_samples()[:3], tmp_path / "run", Settings(n=200, n0=20, seed=1))
    forged = replace(run, config={**run.config, "plan": {**run.config["plan"], "classes": 2}})
    assert verify_claims(run) == []
    assert "classes" in {problem.field for problem in verify_claims(forged)}
