"""Fixtures of the tests of denoisers."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler
from torch import Tensor, nn

from tests.toys_diffusion import unet
from tests.toys_openai import TINY_FLAGS, Weights, example


@pytest.fixture
def network(awaken: Callable[[nn.Module], nn.Module]) -> nn.Module:
    return unet(awaken)


@pytest.fixture
def noisy() -> Tensor:
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 3 - 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, awaken: Callable[[nn.Module], nn.Module]) -> Path:
    """A pipeline as diffusers saves it."""
    place = tmp_path_factory.mktemp("ddpm")
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    DDPMPipeline(unet=unet(awaken), scheduler=scheduler).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def tiny() -> Weights:
    """A random checkpoint of a tiny network."""
    return example(TINY_FLAGS, 8).state
