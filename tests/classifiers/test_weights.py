"""Weights that hold no numbers, or random ones, are told from trained ones."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from robustify.classifiers import ImageClassifier, Preprocessing
from robustify.classifiers.weights import look_untrained
from robustify.errors import ModelError

PREPROCESSING = Preprocessing((0.5,), (0.5,), (4, 4))


def test_weights_on_the_meta_device_are_refused() -> None:
    with torch.device("meta"):
        network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    with pytest.raises(ModelError, match=r"2 are on the meta device, first '1\.weight'.*\n.*assign=True"):
        ImageClassifier(network, PREPROCESSING)


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_weights_that_the_first_forward_pass_would_draw_are_refused() -> None:
    network = nn.Sequential(nn.Flatten(), nn.LazyLinear(3)).eval()
    with pytest.raises(ModelError, match=r"2 would get random ones at the first forward pass, first '1\.weight'"):
        ImageClassifier(network, PREPROCESSING)


def test_normalisation_tells_trained_from_untrained(awaken: Callable[[nn.Module], nn.Module]) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.LayerNorm(2), nn.BatchNorm2d(4, affine=False))
    assert look_untrained(network)
    network[2].weight.data[0] = 0.9
    assert not look_untrained(network)
    assert not look_untrained(awaken(network))


def test_networks_without_normalisation_are_taken_for_trained() -> None:
    assert not look_untrained(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()))
