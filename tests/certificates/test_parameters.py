"""Certificates against brightness and contrast: closed-form margins, coverage, stored plans, whole runs, refusals."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import pytest
import torch
from scipy.special import ndtr, ndtri

from robustify import Identity, ImageClassifier, Settings, SmoothedClassifier
from robustify.certificates.brightness import Brightness, BrightnessPlan
from robustify.certificates.contrast import Contrast, ContrastPlan
from robustify.certificates.decisions import DecisionPlan, KnownLabelPlan, LeaderPlan
from robustify.certificates.family import Subject, read_plan
from robustify.certificates.lattice import total_variation
from robustify.certificates.parameters import ParameterFamily, ParameterPlan
from robustify.certificates.plans import AdaptivePlan, FixedPlan
from robustify.certificates.question import Question
from robustify.certificates.views import View
from robustify.contract import InputContract
from robustify.data import Sample
from robustify.errors import InputError, RunError
from robustify.runs.certify import certify_dataset
from robustify.runs.folder import read_run
from robustify.testing import Scenario, check_certificate
from robustify.verify.claims import verify_row, verify_run
from tests.toys import Shrink
from tests.toys_transforms import PLAIN, Linear, random_bytes, smooth

SIGMA = 0.2
CONTRACT = InputContract(1, 4, 4)
TIED = Scenario([(0.5, 0.5, 0.0)], {})
AT_HALF = Scenario([(float(ndtr(0.5)), float(ndtr(-0.5)), 0.0)], {0: SIGMA / 2})
THREE = Scenario([(0.2, 0.7, 0.05)], {1: SIGMA / 2 * float(ndtri(0.7) - ndtri(0.25))})
FIXED = Question(n=200, n0=20, alpha=0.05)


DECIDED = Question(radius=0.1, n_max=200, n0=20, alpha=0.05)


def check(family: ParameterFamily, question: Question, runs: int) -> None:
    asked = question if family.name == "brightness" else Settings(**vars(question), soundness="float")
    check_certificate(family, asked, [TIED, AT_HALF, THREE], runs=runs)


@pytest.mark.slow
@pytest.mark.parametrize("family", [Brightness(SIGMA), Contrast(SIGMA)], ids=lambda family: family.name)
@pytest.mark.parametrize(("question", "runs"), [(FIXED, 6_000), (DECIDED, 1_000)], ids=["n", "radius"])
def test_coverage_in_many_runs(family: ParameterFamily, question: Question, runs: int) -> None:
    """An error of a third of alpha would show, in 6,000 runs."""
    check(family, question, runs)


@pytest.mark.parametrize("seed", range(6))
def test_the_brightness_margin_of_a_linear_classifier_is_known(seed: int) -> None:
    """w·(x + b) + c changes sign at b = -(w·x + c) / sum(w): no radius may exceed it, most should come near."""
    torch.manual_seed(seed)
    weight, image = torch.rand(16) - 0.2, random_bytes(seed)
    value = float(image.flatten() / 255 @ weight)
    offset = float(weight.sum()) * (0.1 + 0.02 * seed) * (-1) ** seed - value
    true = abs(value + offset) / float(weight.sum())
    model = smooth(Linear(weight, offset), Brightness(SIGMA))
    n = 4_000
    for soundness in ("grid", "float"):
        certificate = model.certify(image, n=n, batch=500, seed=3, soundness=soundness)
        assert certificate.label == int(value + offset > 0)
        p, density = NormalDist().cdf(true / SIGMA), NormalDist().pdf(true / SIGMA)
        near = 2 * SIGMA * NormalDist().inv_cdf(1 - 0.0005) * math.sqrt(p * (1 - p) / n) / density + 1 / 255
        # only whole steps count on the grid, where the sign changes at the first one beyond
        most = (math.ceil(255 * true) - 0.5) / 255 if soundness == "grid" else true
        assert true - near < certificate.radius < most


@pytest.mark.parametrize("seed", range(6))
def test_the_contrast_margin_of_a_linear_classifier_is_known(seed: int) -> None:
    """w·(e^k x) + c changes sign at k = ln(-c / w·x)."""
    torch.manual_seed(seed)
    weight, image = torch.rand(16), random_bytes(seed)
    value = float(image.flatten() / 255 @ weight)
    true = 0.1 + 0.02 * seed
    offset = -value * math.exp(true * (-1) ** seed)
    model = smooth(Linear(weight, offset), Contrast(SIGMA))
    n = 4_000
    certificate = model.certify(image, n=n, batch=500, seed=3, soundness="float")
    assert certificate.label == seed % 2
    p, density = NormalDist().cdf(true / SIGMA), NormalDist().pdf(true / SIGMA)
    near = 2 * SIGMA * NormalDist().inv_cdf(1 - 0.0005) * math.sqrt(p * (1 - p) / n) / density
    assert true - near < certificate.radius < true


def subject(soundness: str) -> Subject:
    return Subject(CONTRACT, 2, lambda view: Settings(soundness=soundness).slack(view.sigma, CONTRACT))


PLANS: list[tuple[Question, type]] = [
    (Question(n=1_000), FixedPlan),
    (Question(n_max=2_000), AdaptivePlan),
    (Question(radius=(0.1, 0.2)), DecisionPlan),
    (Question(radius=0.1, n0=0), LeaderPlan),
    (Question(radius=0.1, known_label=True), KnownLabelPlan),
]


@pytest.mark.parametrize(("question", "kind"), PLANS, ids=lambda value: getattr(value, "rule", ""))
def test_a_plan_asks_as_gaussian_noise_is_asked_and_is_read_again(question: Question, kind: type) -> None:
    for family, of, found in ((Brightness(SIGMA), BrightnessPlan, "grid"), (Contrast(SIGMA), ContrastPlan, "float")):
        plan = family.plan(question, subject(found))
        assert type(plan) is of
        assert type(plan.of) is kind
        assert plan.of.slack == (total_variation(SIGMA, 1) if found == "grid" else 0.0)
        (view,) = plan.views
        assert (view.sigma, view.change.sigma) == (0.0, SIGMA)  # type: ignore[union-attr]
        assert (plan.norm, plan.slacks, plan.scale) == (None, (0.0,), SIGMA)
        same = ("rule", "alpha", "needs_truth", "exact", "note", "remark", "most_draws", "radii", "ceiling")
        assert [getattr(plan, name) for name in same] == [getattr(plan.of, name) for name in same]
        assert str(plan) == str(plan.of)
        stored = json.loads(json.dumps(plan.stored()))
        assert read_plan(family.name, stored) == plan
        with pytest.raises(RunError, match="cannot read the stored plan"):
            read_plan(family.name, stored | {"mix": 0.5})


def test_predict_asks_the_same_classifier() -> None:
    for family, soundness in ((Brightness(SIGMA), "grid"), (Contrast(SIGMA), "float")):
        poll = family.poll(100, 0.01, subject(soundness))
        plan = family.plan(Question(), subject(soundness))
        assert (poll.views, poll.slack) == (plan.views, plan.of.slack)


def test_statements_say_what_is_claimed_and_round_down() -> None:
    bright = Brightness(SIGMA).plan(FIXED, subject("grid"))
    assert bright.statement("0.100", "1×4×4 pixels") == (
        "no whole multiple of 1/255 below 0.100 in size, added to all values of its 1×4×4 pixels without clipping any, "
        "changes the smoothed prediction"
    )
    assert "a whole multiple of 1/255 below r in size, added to all pixels" in bright.changes("below r")
    real = Brightness(SIGMA).plan(FIXED, subject("float"))
    assert real.statement("0.100", "1×4×4 pixels").startswith("no number below 0.100 in size")
    contrast = Contrast(SIGMA).plan(FIXED, subject("float"))
    told = contrast.statement("0.100", "1×4×4 pixels")  # e^0.1 = 1.10517…, e^-0.1 = 0.90483…
    assert told.startswith("no factor above 0.905 and below 1.105 on all values of its 1×4×4 pixels (logarithm below")
    assert "whose logarithm is up to r" in contrast.changes("up to r")


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.inf, math.nan])
def test_sigma_must_be_a_number_above_0(sigma: float) -> None:
    for family in (Brightness, Contrast):
        with pytest.raises(InputError, match="sigma"):
            family(sigma)


def test_contrast_has_a_largest_sigma() -> None:
    Contrast(4.0)
    with pytest.raises(InputError, match=r"logarithm of a factor on all pixels, such as 0.2; got 4.1"):
        Contrast(4.1)


def test_contrast_on_8_bit_images_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    model = smooth(Linear(torch.ones(16), -8.0), Contrast(SIGMA))
    for ask in (model.certify, model.predict):
        with pytest.raises(InputError, match=r"do not allow for the rounding to 8 bits.\n.*soundness='float'"):
            ask(random_bytes(0))
    with pytest.raises(InputError, match="soundness='float'"):
        certify_dataset(model, [Sample("a", random_bytes(0), 1)], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_denoiser_is_refused() -> None:
    classifier = ImageClassifier(Linear(torch.ones(16), -8.0).eval(), PLAIN)
    with pytest.raises(InputError, match=r"no noise to pixels that shrink could remove.\n  Leave out the denoiser"):
        SmoothedClassifier(classifier, Shrink(), family=Brightness(SIGMA))
    assert SmoothedClassifier(classifier, Identity(), family=Brightness(SIGMA)).sigma == 0.0


def test_verification_asks_for_the_slack_of_the_number_and_for_real_arithmetic(tmp_path: Path) -> None:
    samples = [Sample(f"{i}", random_bytes(i), i % 2) for i in range(4)]
    model = smooth(Linear(torch.ones(16), -7.0), Brightness(SIGMA))
    certify_dataset(model, samples, tmp_path / "bright", Settings(n=100, n0=10, seed=1))
    run = read_run(tmp_path / "bright")
    assert verify_run(run) == []
    plan = run.plan
    assert isinstance(plan, ParameterPlan)
    careless = replace(plan, of=replace(plan.of, slack=0.0))
    assert [p.field for p in verify_row(run.rows[0], careless, run)] == ["slack"]
    as_contrast = ContrastPlan(plan.of)
    assert [p.field for p in verify_row(run.rows[0], as_contrast, run)] == ["soundness"]


def test_the_arithmetic_imports_no_torch() -> None:
    modules = "robustify.certificates.brightness, robustify.certificates.contrast, robustify.verify.parameter_family"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_view_is_of_pixels_without_noise() -> None:
    (view,) = Brightness(SIGMA).plan(FIXED, subject("grid")).views
    assert view != View(0.0, view.base)


def test_the_families_live_through_runs() -> None:
    check(Brightness(SIGMA), FIXED, runs=300)
    check(Contrast(SIGMA), DECIDED, runs=30)
