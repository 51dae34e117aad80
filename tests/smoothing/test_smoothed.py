import logging
import math
import re
from statistics import NormalDist
from typing import Any, final

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from torch import Tensor, nn

from robustify import ImageClassifier, Settings, SmoothedClassifier, bars, robustify
from robustify.denoisers import Denoiser
from robustify.errors import InputError, ModelError
from robustify.smoothing.settings import Sampling
from robustify.types import Pixels
from tests.smoothing.half_space import IMAGE, PLAIN, SIZE, HalfSpace, smooth


@pytest.mark.parametrize("distance", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("sigma", [0.25, 0.5, 1.0])
def test_radius_is_below_and_near_the_true_distance(distance: float, sigma: float) -> None:
    """The robust radius of a half-space is the distance to its border: nothing may exceed it."""
    n = 20_000
    certificate = smooth(HalfSpace(distance), sigma).certify(IMAGE, n=n, batch=1_000, seed=3)
    assert certificate.label == 1
    p, density = NormalDist().cdf(distance / sigma), NormalDist().pdf(distance / sigma)
    # twice the half-width of the bound at alpha / 2, by the delta method; the all-agree ceiling where p is near 1
    slack = 2 * sigma * NormalDist().inv_cdf(1 - 0.0005) * math.sqrt(p * (1 - p) / n) / density
    ceiling = sigma * NormalDist().inv_cdf(0.0005 ** (1 / n))
    assert min(distance - slack, 0.9 * ceiling) < certificate.radius < distance


def test_the_prediction_is_constant_inside_the_radius() -> None:
    model = smooth(HalfSpace(0.4))
    radius = model.certify(IMAGE, n=5_000, batch=1_000, seed=3).radius
    worst = IMAGE - 0.999 * radius * torch.ones(1, *SIZE) / 4
    assert model.certify(worst, n=50_000, n0=10_000, batch=5_000, seed=4, soundness="float").label == 1


def test_the_border_itself_abstains() -> None:
    assert smooth(HalfSpace(0.0)).certify(IMAGE, n=1_000, batch=500, seed=3).abstained


def test_counts_do_not_depend_on_the_batch_size() -> None:
    model = smooth(HalfSpace(0.1))
    one, other = (model.certify(IMAGE, n=500, n0=50, batch=batch, seed=3) for batch in (32, 77))
    assert (one.selection, one.votes) == (other.selection, other.votes)


def test_selection_estimation_and_prediction_use_other_draws() -> None:
    model = smooth(HalfSpace(0.05))
    certificate = model.certify(IMAGE, n=2_000, n0=2_000, batch=500, seed=3)
    predicted = model.predict(IMAGE, n=2_000, batch=500, seed=3)
    assert len({certificate.selection, certificate.votes, predicted.votes}) == 3


def test_images_of_a_batch_use_other_draws() -> None:
    first, second = smooth(HalfSpace(0.05)).certify(torch.stack([IMAGE, IMAGE]), n=200, seed=3)
    assert first.votes != second.votes


def test_a_given_seed_reproduces_and_is_flagged() -> None:
    model = smooth(HalfSpace(0.05))
    one, again, fresh = (model.certify(IMAGE, n=200, seed=seed) for seed in (3, 3, None))
    assert one == again
    assert not one.provenance.fresh
    assert fresh.provenance.fresh
    assert fresh.provenance.seed > 2**64  # 128 bits; a smaller one has chance 2^-64


def test_every_kind_of_input_gives_the_same_certificate() -> None:
    gray = np.full(SIZE, 128, dtype=np.uint8)
    model = smooth(HalfSpace(0.3))
    kinds = [
        gray,
        gray[..., None],
        PILImage.fromarray(gray),
        torch.from_numpy(gray)[None],
        torch.full((1, *SIZE), 128 / 255),
    ]
    certificates = [model.certify(kind, n=100, seed=3) for kind in kinds]
    assert all(c == certificates[0] for c in certificates)
    assert model.certify(kinds, n=100, seed=3)[0] == certificates[0]


@pytest.mark.parametrize("empty", [[], torch.empty(0, 1, *SIZE)])
def test_an_empty_batch_is_refused(empty: object) -> None:
    with pytest.raises(InputError, match="empty batch"):
        smooth(HalfSpace(0.3)).certify(empty)


@pytest.mark.parametrize("sigma", [0.0, -0.5, math.nan, math.inf])
def test_sigma_must_be_positive(sigma: float) -> None:
    with pytest.raises(InputError, match="sigma > 0"):
        smooth(HalfSpace(0.3), sigma)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"alpha": 0.0}, "0 < alpha < 1"),
        ({"alpha": 1.0}, "0 < alpha < 1"),
        ({"n": 10}, "Use n >= 11"),
        ({"n0": 0}, "n0"),
        ({"batch": 0}, "batch"),
        ({"seed": -1}, "seed to be a whole number from 0 to 340282366920938463463374607431768211455"),
        ({"n": 100, "radius": 0.1}, "not both"),
        ({"radius": 0.0}, "one or several numbers above 0"),
        ({"radius": [0.1, -1.0]}, "one or several numbers above 0"),
        ({"radius": 5.0}, "can never certify radius 5 at sigma = 0.5"),
        ({"soundness": "loud"}, "'grid' or 'float'"),
    ],
)
def test_bad_settings_are_refused_before_any_sampling(wrong: dict[str, Any], message: str) -> None:
    model = smooth(HalfSpace(0.3))
    seen: list[int] = []
    with pytest.raises(InputError, match=message):
        model.certify(IMAGE, **wrong, progress=seen.append)
    assert seen == []


def test_training_mode_is_refused() -> None:
    model = smooth(nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(16, 2)))
    model.train()
    with pytest.raises(ModelError, match="training mode"):
        model.certify(IMAGE, n=100)


@final
class Sometimes(nn.Module):
    """Fails, or ties, whenever the first pixel is above its clean value."""

    def __init__(self, failure: tuple[float, float]) -> None:
        super().__init__()
        self.failure = nn.Parameter(torch.tensor(failure), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        fine = torch.tensor([0.0, 1.0]).expand(len(x), 2)
        return torch.where(x[:, :1, 0, 0] > IMAGE[0, 0, 0] + 0.6, self.failure, fine)


@pytest.mark.parametrize("failure", [(math.nan, math.nan), (math.nan, 1.0), (math.inf, 0.0), (1.0, 1.0)])
def test_failed_and_tied_draws_vote_for_nobody(failure: tuple[float, float]) -> None:
    network = Sometimes((0.0, 1.0))
    model = smooth(network)
    network.failure.data = torch.tensor(failure)
    votes = model.certify(IMAGE, n=2_000, batch=500, seed=3).votes
    share = 1 - NormalDist().cdf(0.6 / 0.5)
    assert votes[0] == 0
    assert sum(votes) == pytest.approx(2_000 * (1 - share), abs=5 * math.sqrt(2_000 * share))


def test_progress_adds_up_to_the_draws() -> None:
    seen: list[int] = []
    smooth(HalfSpace(0.3)).certify(IMAGE, n=1_000, n0=100, batch=64, progress=seen.append)
    assert sum(seen) == 1_100


def test_a_bar_appears_where_nobody_else_shows_progress(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    model = smooth(HalfSpace(0.3))
    monkeypatch.setattr(logging.getLogger("robustify"), "disabled", True)  # commands show what it says
    monkeypatch.setattr(bars, "AFTER", 0.0)
    model.certify(IMAGE, n=500)
    assert capfd.readouterr().err == ""  # no terminal
    monkeypatch.setattr(bars, "hidden", lambda: False)
    monkeypatch.setattr(bars, "AFTER", 3600.0)
    model.certify(IMAGE, n=500)
    assert capfd.readouterr().err == ""  # answers that are there at once need none
    monkeypatch.setattr(bars, "AFTER", 0.0)
    model.certify(torch.stack([IMAGE, IMAGE]), n=500, n0=100)
    assert re.search(r"certify: .*/1.20k ", capfd.readouterr().err)
    model.predict(IMAGE, n=500)
    assert re.search(r"predict: .*/500 ", capfd.readouterr().err)
    model.certify(IMAGE, n=500, progress=lambda _: None)
    model.predict(IMAGE, n=500, progress=lambda _: None)
    assert capfd.readouterr().err == ""


@final
class Doubler(Denoiser):
    """Works on RGB of another size, to see how contracts meet."""

    name = "doubler"
    licence = None

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.channels = channels
        self.size = size
        self.eval()

    def forward(self, noisy: Pixels, sigma: float) -> Pixels:
        return noisy

    def describe(self, sigma: float) -> str:
        return f"doubler at {sigma}"


def test_noise_lives_in_the_denoisers_space() -> None:
    classifier = ImageClassifier(HalfSpace(0.3).eval(), PLAIN)
    model = SmoothedClassifier(classifier, Doubler(1, (8, 8)), sigma=0.5)
    assert model.contract.shape == (1, 8, 8)
    assert model.certify(torch.full((1, 8, 8), 128 / 255), n=100, seed=3).label == 1


def test_a_colour_denoiser_does_not_fit_a_gray_classifier() -> None:
    with pytest.raises(ModelError, match="do not fit"):
        SmoothedClassifier(ImageClassifier(HalfSpace(0.3).eval(), PLAIN), Doubler(3, SIZE), sigma=0.5)


def test_forward_gives_differentiable_log_probabilities() -> None:
    torch.manual_seed(0)
    pixels = IMAGE.expand(3, 1, *SIZE).clone().requires_grad_()
    output = smooth(HalfSpace(0.3))(pixels, draws=4)
    assert output.exp().sum(dim=1).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    output[:, 1].sum().backward()
    assert pixels.grad is not None
    assert (pixels.grad.abs().sum(dim=(1, 2, 3)) > 0).all()


def test_it_prints_its_input_contract() -> None:
    text = repr(robustify(HalfSpace(0.3).eval(), preprocessing=PLAIN, sigma=0.5))
    for part in (
        "sigma = 0.5",
        "1×4×4 pixels in [0, 1]",
        "never clipped",
        "plain smoothing",
        "float32",
        "licences",
    ):
        assert part in text


def test_float_pixels_must_be_quantised_or_declared() -> None:
    model = smooth(HalfSpace(0.3))
    with pytest.raises(InputError, match="expected an 8-bit image"):
        model.certify(torch.full((1, *SIZE), 0.5), n=100)
    certificate = model.certify(torch.full((1, *SIZE), 0.5), n=100, soundness="float", seed=1)
    assert certificate.provenance.soundness == "float"
    assert certificate.provenance.plan.slack == 0


def test_a_decision_takes_few_draws_and_holds_at_its_radius() -> None:
    model = smooth(HalfSpace(0.6))
    yes = model.certify(IMAGE, radius=[0.25, 0.4], seed=3)
    assert yes.label == 1
    assert yes.holds(1, at=0.4)
    assert not yes.holds(1, at=0.41)
    assert yes.n < 1_000
    partly = model.certify(IMAGE, radius=[0.25, 0.9], seed=3)
    assert partly.holds(1, at=0.25)
    assert not partly.holds(1, at=0.26)
    no = model.certify(IMAGE, radius=0.9, seed=3)
    assert (no.label, no.radius) == (None, 0)
    assert no.n < 1_000


def test_an_adaptive_certificate_is_nearly_the_classical_one() -> None:
    model = smooth(HalfSpace(0.3))
    adaptive = model.certify(IMAGE, n_max=20_000, batch=2_000, seed=5)
    classical = model.certify(IMAGE, n=20_000, batch=2_000, seed=5)
    assert 0.97 * classical.radius < adaptive.radius < 0.3
    assert adaptive.n <= 20_000


@pytest.mark.parametrize("settings", [{"n": 777}, {"radius": 0.1}, {"n_max": 3_000}])
def test_batches_and_batch_mates_never_change_an_answer(settings: dict[str, Any]) -> None:
    """Any batch size, alone or among others, in any order: the same draws, the same looks."""
    model = smooth(HalfSpace(0.12))
    levels = [128, 90, 160, 128, 120]
    images = {f"image {i}": torch.full((1, *SIZE), level / 255) for i, level in enumerate(levels)}

    def certified(names: list[str], batch: int) -> dict[str, tuple[object, ...]]:
        provenance = model.provenance(Settings(**settings, batch=batch, seed=5))
        found = model.certificates(((name, images[name]) for name in names), provenance)
        return {c.sample: (c.label, c.radius, c.selection, c.votes, c.looks) for c in found}

    expected = certified(list(images), 64)
    assert len({looks for *_, looks in expected.values()}) == 5
    for names, batch in [(list(images), 33), (list(reversed(images)), 500), (["image 3"], 64), (["image 2"], 7)]:
        assert certified(names, batch) == {name: expected[name] for name in names}


def test_predictions_on_the_grid_pay_for_the_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = smooth(HalfSpace(0.3)).predict(IMAGE, n=200, seed=1)
    monkeypatch.setattr(Sampling, "slack", lambda *_: 0.01)
    coarse = smooth(HalfSpace(0.3)).predict(IMAGE, n=200, seed=1)
    assert coarse.votes == exact.votes  # type: ignore[union-attr]
    assert coarse.p_value > 2 * exact.p_value  # type: ignore[union-attr]
