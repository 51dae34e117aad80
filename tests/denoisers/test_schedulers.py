"""Every scheduler of the installed diffusers is either one whose timesteps we know, or refused."""

import inspect
import warnings
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, UniPCMultistepScheduler
from torch import nn

from robustify.denoisers.diffusion import DiffusionDenoiser
from robustify.errors import ModelError

ACCEPTED = {
    *("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler", "DDIMInverseScheduler", "DDIMParallelScheduler"),
    *("DDIMScheduler", "DDPMParallelScheduler", "DDPMScheduler", "DEISMultistepScheduler", "DPMSolverSDEScheduler"),
    *("DPMSolverMultistepInverseScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"),
    *("EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler"),
    *("KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "LCMScheduler", "LMSDiscreteScheduler"),
    *("PNDMScheduler", "RePaintScheduler", "SASolverScheduler", "TCDScheduler", "UnCLIPScheduler"),
    "UniPCMultistepScheduler",
}
"""Schedulers whose networks were trained with indices of alphas_cumprod as timesteps."""

SAMPLING: list[dict[str, object]] = [
    {},
    {"use_karras_sigmas": True},
    {"use_exponential_sigmas": True},
    {"use_beta_sigmas": True},
    {"use_lu_lambdas": True},
    {"timestep_spacing": "trailing"},
    {"rescale_betas_zero_snr": True, "beta_schedule": "linear"},
    {"rescale_betas_zero_snr": True, "beta_schedule": "scaled_linear"},
    {"beta_schedule": "squaredcos_cap_v2"},
]
"""Options that say how to sample, or which noise a timestep has: each is accepted where a scheduler has it."""

TRAINING: list[tuple[dict[str, object], str]] = [
    ({"use_flow_sigmas": True}, "use_flow_sigmas=False; .* has True: the network follows a flow"),
    ({"timestep_type": "continuous"}, "timestep_type='discrete'; .* has 'continuous': .* function of sigma"),
    (
        {"timestep_type": "continuous", "prediction_type": "v_prediction"},
        "timestep_type='discrete'; .* has 'continuous'",
    ),
    ({"interpolation_type": "log_linear"}, "interpolation_type='linear'; .* has 'log_linear'"),
    ({"prediction_type": "flow_prediction"}, "epsilon, sample, v_prediction; got 'flow_prediction'"),
]
"""Options that say how the network was trained, and why another value is refused."""


NEEDED = {
    "AmusedScheduler": {"mask_token_id": 1},
    "VQDiffusionScheduler": {"num_vec_classes": 8},
    "RFD4ProteinaScheduler": {"schedule_mode": "log", "noise_mode": "1/t", "tsr_k": 1.0, "tsr_sigma": 1.0},
}
"""What some cannot be made without."""


def kinds() -> dict[str, type[Any]]:
    """Every scheduler of diffusers that can be made here; some need libraries that we do not."""
    found = {name: getattr(diffusers, name) for name in sorted(dir(diffusers)) if name.endswith("Scheduler")}
    return {name: kind for name, kind in found.items() if not hasattr(kind, "_backends")}


KINDS = kinds()


def with_options(options: dict[str, object]) -> list[str]:
    """Names of the accepted schedulers that have all of these options."""
    names = sorted(ACCEPTED & KINDS.keys())
    return [name for name in names if options.keys() <= inspect.signature(KINDS[name].__init__).parameters.keys()]


def make(name: str, options: dict[str, object]) -> Any:  # noqa: ANN401
    """A scheduler with these options."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some are deprecated
        return KINDS[name](**NEEDED.get(name, {}), **options)


@pytest.mark.parametrize("name", KINDS)
def test_accepted_are_those_whose_timesteps_are_known(name: str, network: nn.Module) -> None:
    """A scheduler that a later diffusers adds is refused, or this fails and somebody reads how it trains."""
    scheduler = make(name, {})
    if name in ACCEPTED:
        assert DiffusionDenoiser(network, scheduler).timestep(0.25) > 1
        return
    with pytest.raises(ModelError, match=f"a scheduler with alphas_cumprod; {name} has none"):
        DiffusionDenoiser(network, scheduler)


@pytest.mark.parametrize(
    ("name", "options"), [(name, options) for options in SAMPLING for name in with_options(options)], ids=str
)
@pytest.mark.filterwarnings("ignore")
def test_noise_of_a_timestep_is_what_diffusers_shows_the_network(
    name: str, options: dict[str, object], network: nn.Module
) -> None:
    """The scheduler's own noisy image, scaled as its own pipelines scale it, is ours at the same timestep."""
    scheduler = make(name, options)
    denoiser = DiffusionDenoiser(network, scheduler)
    if name in ("RePaintScheduler", "DDIMInverseScheduler"):  # they cannot add noise
        scheduler = DDPMScheduler.from_config(scheduler.config)
    scheduler.set_timesteps(10)
    t = scheduler.timesteps[4:5]
    y, z = torch.randn(2, 1, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shown = scheduler.scale_model_input(scheduler.add_noise(y, z, t), t[0])
    steps = np.arange(len(denoiser.log_snr))
    alpha_bar = 1 / (1 + np.exp(-np.interp(float(t[0]), steps, denoiser.log_snr)))
    ours = alpha_bar**0.5 * y + (1 - alpha_bar) ** 0.5 * z
    torch.testing.assert_close(shown, ours, rtol=0, atol=2e-2)  # some round their timesteps to whole numbers


@pytest.mark.parametrize(("options", "reason"), TRAINING, ids=lambda value: str(value)[:60])
def test_networks_of_another_training_are_refused(options: dict[str, object], reason: str, network: nn.Module) -> None:
    names = with_options(options)
    assert names
    for name in names:
        with pytest.raises(ModelError, match=reason):
            DiffusionDenoiser(network, make(name, options))


@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear"])
@pytest.mark.parametrize("kind", [EulerDiscreteScheduler, UniPCMultistepScheduler, DPMSolverMultistepScheduler])
def test_stand_in_for_no_signal_is_left_out(kind: type[Any], beta_schedule: str, network: nn.Module) -> None:
    """Some schedulers store 2^-24 for an alpha_bar of 0: it is the noise of no sigma."""
    options = {"beta_schedule": beta_schedule, "rescale_betas_zero_snr": True}
    stored, exact = kind(**options), DDPMScheduler(**options)
    assert (stored.alphas_cumprod[-1], exact.alphas_cumprod[-1]) == (2**-24, 0)
    ours, truth = (DiffusionDenoiser(network, scheduler) for scheduler in (stored, exact))
    assert len(ours.log_snr) == len(truth.log_snr) == 999
    for sigma in (0.12, 0.5, 1.0, 10.0):
        assert ours.timestep(sigma) == pytest.approx(truth.timestep(sigma), abs=1e-6)


@pytest.mark.parametrize("scheduler", [None, 3, DDPMScheduler], ids=str)
def test_anything_else_is_refused(scheduler: object, network: nn.Module) -> None:
    with pytest.raises(ModelError, match=r"expected a scheduler with alphas_cumprod; .* has none"):
        DiffusionDenoiser(network, scheduler)


@pytest.mark.parametrize("table", [0.5, [], [0.5], [[0.9, 0.5], [0.4, 0.1]]], ids=str)
def test_tables_that_are_no_schedule_are_refused(table: object, network: nn.Module) -> None:
    scheduler = DDPMScheduler()
    scheduler.alphas_cumprod = torch.tensor(table)
    with pytest.raises(ModelError, match="at least 2 timesteps"):
        DiffusionDenoiser(network, scheduler)
