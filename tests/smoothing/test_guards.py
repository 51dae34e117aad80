"""What would make a certificate false is refused: noise of another law, answers that share a batch, float rounding."""

import math
from typing import Any, final

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustify import Identity, ImageClassifier, Preprocessing, SmoothedClassifier
from robustify.errors import ModelError
from robustify.smoothing.noise import FloatNoise, GridNoise
from tests.smoothing.half_space import IMAGE, SIZE, HalfSpace, smooth


@final
class LooksAtTheGrid(nn.Module):
    """Voracek and Hein's attack: float noise on 1 keeps fewer low bits than float noise on 0."""

    def forward(self, x: Tensor) -> Tensor:
        steps = x.flatten(1) * 2**24
        coarse = (steps == steps.round()).all(dim=1).float()
        return torch.stack([1 - coarse, coarse], dim=1)


TWO = Preprocessing(mean=(0.0,), std=(1.0,), size=(1, 2))


@pytest.mark.parametrize(("soundness", "fooled"), [("float", True), ("grid", False)])
def test_float_noise_can_be_fooled_and_grid_noise_can_not(soundness: str, fooled: bool) -> None:
    model = SmoothedClassifier(ImageClassifier(LooksAtTheGrid().eval(), TWO), Identity(), sigma=0.5)
    settings: dict[str, Any] = {"n": 10_000, "soundness": soundness, "batch": 1_000, "seed": 1}
    bright = model.certify(torch.ones(1, 1, 2), **settings)
    dark = model.certify(torch.zeros(1, 1, 2), **settings)
    distance = math.sqrt(2)
    contradiction = max(bright.radius, dark.radius) > distance and dark.label != bright.label
    assert contradiction == fooled


def scaled(add: Any, factor: float) -> Any:  # noqa: ANN401
    return lambda self, image, noise, out: add(self, image, (factor * noise).astype(noise.dtype), out)


def repeated(add: Any) -> Any:  # noqa: ANN401
    return lambda self, image, noise, out: add(self, image, np.broadcast_to(noise[:1], noise.shape), out)


@pytest.mark.parametrize("fault", [lambda add: scaled(add, 0.8), lambda add: scaled(add, 1.2), repeated])
@pytest.mark.parametrize("soundness", ["grid", "float"])
def test_wrong_noise_makes_no_certificate(fault: Any, soundness: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    law = {"grid": GridNoise, "float": FloatNoise}[soundness]
    monkeypatch.setattr(law, "add", fault(law.add))
    with pytest.raises(ModelError, match="was not fed independent"):
        smooth(HalfSpace(0.3)).certify(IMAGE, n=2_000, soundness=soundness, seed=3)


@final
class SharedLater(nn.Module):
    """A half-space whose border moves by one random number per batch, but never for images of the first of 64."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = HalfSpace(0.3)
        self.passes = 0
        self.spared = torch.empty(0, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        sums = x.double().sum(dim=(1, 2, 3))
        if len(x) == 64 and not len(self.spared):
            self.spared = sums
        shift = torch.randn(1, generator=torch.Generator().manual_seed(self.passes))
        shift = shift * ((sums.unsqueeze(1) - self.spared).abs().lt(1e-6).logical_not().all(dim=1))
        logits: Tensor = self.inner(x) + shift.unsqueeze(1) * torch.tensor([-1.0, 1.0])
        return logits


@pytest.mark.parametrize("settings", [{"n": 2_000}, {"radius": 0.3, "n0": 2_000}])
def test_randomness_shared_in_batches_that_spares_the_probes_is_found_by_the_votes(
    settings: dict[str, Any],
) -> None:
    with pytest.raises(ModelError, match="votes of one batch agree"):
        smooth(SharedLater()).certify(IMAGE, **settings, seed=3)


def test_independent_images_and_requests_are_no_evidence_of_sharing() -> None:
    images = torch.stack([torch.full((1, *SIZE), level / 255) for level in range(100, 160, 2)])
    certificates = smooth(HalfSpace(0.1)).certify(images, n=300, batch=64, seed=3)
    assert len(certificates) == 30
