"""What every denoiser shares: plain smoothing without one, and faults that are told as its own."""

from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustify import Preprocessing, robustify
from robustify.denoisers import Denoiser, Identity
from robustify.errors import InputError, ModelError


class TestIdentity:
    def test_leaves_the_noise_in(self, noisy: Tensor) -> None:
        assert Identity()(noisy, 0.25) is noisy

    def test_fits_any_image(self) -> None:
        identity = Identity()
        assert (identity.channels, identity.size, identity.licence, identity.name) == (None, None, None, "none")
        assert identity.describe(0.25) == "plain smoothing"
        assert not identity.training

    def test_may_ask_for_gray_images(self) -> None:
        assert Identity(1).channels == 1

    def test_a_denoiser_must_say_how_it_works(self) -> None:
        class Silent(Denoiser):
            forward = Mock()

        with pytest.raises(TypeError, match=r"abstract.*describe"):
            Silent()


class Failing(Denoiser):
    """A denoiser of somebody else that raises an error."""

    name = "theirs"
    channels = None
    size = None
    licence = None

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.eval()

    def forward(self, noisy: Tensor, sigma: object) -> Tensor:
        raise self.error

    def describe(self, sigma: float) -> str:
        return "fails"


class TestFault:
    IMAGE = np.zeros((4, 4), dtype=np.uint8)

    def model(self, error: Exception) -> object:
        network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
        return robustify(network, preprocessing=Preprocessing((0.5,), (0.5,), (4, 4)), denoiser=Failing(error))

    @pytest.mark.parametrize("error", [KeyError("mask"), IndexError("3"), AttributeError("x"), RuntimeError("shape")])
    @pytest.mark.parametrize("ask", ["certify", "predict"])
    def test_at_the_first_image_is_the_denoisers(self, ask: str, error: Exception) -> None:
        with pytest.raises(ModelError, match=f"^theirs fails: {type(error).__name__}: {error}$"):
            getattr(self.model(error), ask)(self.IMAGE)

    @pytest.mark.parametrize("error", [InputError("ours"), torch.OutOfMemoryError("no room"), MemoryError("no room")])
    def test_of_ours_and_lack_of_memory_stay_what_they_are(self, error: Exception) -> None:
        with pytest.raises(type(error), match=f"^{error}$"):
            self.model(error).certify(self.IMAGE)  # type: ignore[attr-defined]
