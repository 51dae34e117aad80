"""The timestep of a noise level, for every scheduler of diffusers that says it."""

import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, EDMEulerScheduler
from torch import nn

from robustify.denoisers.diffusion import DiffusionDenoiser
from robustify.errors import InputError, ModelError
from tests.toys_diffusion import SCHEDULES, at, log_snr


class TestTimestep:
    @pytest.mark.parametrize("sigma", [0.06, 0.1, 0.25, 0.37, 0.5, 1.0, 3.3])
    @pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
    def test_has_the_log_snr_of_the_noise(self, schedule: dict[str, object], sigma: float, network: nn.Module) -> None:
        scheduler = DDPMScheduler(**schedule)
        t = DiffusionDenoiser(network, scheduler).timestep(sigma)
        assert at(log_snr(scheduler), t) == pytest.approx(-2 * math.log(2 * sigma), abs=1e-9)

    @pytest.mark.parametrize("step", [0, 1, 2, 57, 500, 998, 999])
    @pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
    def test_is_a_whole_number_at_the_steps_of_the_schedule(
        self, schedule: dict[str, object], step: int, network: nn.Module
    ) -> None:
        scheduler = DDPMScheduler(**schedule)
        # a hair inside the schedule, so that rounding puts neither end outside
        wanted = at(log_snr(scheduler), min(max(step, 1e-9), 999 - 1e-9))
        t = DiffusionDenoiser(network, scheduler).timestep(math.exp(-wanted / 2) / 2)
        assert t == pytest.approx(step, abs=1e-6)

    def test_lies_between_steps_elsewhere(self, network: nn.Module) -> None:
        scheduler = DDPMScheduler()
        halfway = at(log_snr(scheduler), 200.5)
        t = DiffusionDenoiser(network, scheduler).timestep(math.exp(-halfway / 2) / 2)
        assert t == pytest.approx(200.5, abs=1e-6)

    def test_grows_with_sigma(self, network: nn.Module) -> None:
        denoiser = DiffusionDenoiser(network, DDPMScheduler())
        times = [denoiser.timestep(sigma) for sigma in np.linspace(0.01, 20, 300)]
        assert times == sorted(set(times))

    @pytest.mark.parametrize("sigma", [1e-4, 0.004, 90.0, 1e6])
    def test_outside_the_schedule_is_refused_with_the_range(self, sigma: float, network: nn.Module) -> None:
        scheduler = DDPMScheduler()
        denoiser = DiffusionDenoiser(network, scheduler, name="mine")
        low, high = (math.exp(-log_snr(scheduler)[i] / 2) / 2 for i in (0, -1))
        reason = f"mine denoises sigma from {low:.4f} to {high:.4g}; got sigma={sigma:g}"
        reason = re.escape(reason)
        for call in (denoiser.timestep, denoiser.describe):
            with pytest.raises(InputError, match=reason):
                call(sigma)
        with pytest.raises(InputError, match=reason):
            denoiser(torch.rand(1, 3, 8, 8), sigma)

    def test_schedule_that_ends_without_signal(self, network: nn.Module) -> None:
        scheduler = DDPMScheduler(beta_schedule="scaled_linear", rescale_betas_zero_snr=True)
        assert scheduler.alphas_cumprod[-1] == 0
        denoiser = DiffusionDenoiser(network, scheduler)
        wanted = at(log_snr(scheduler), 997.5)
        assert denoiser.timestep(math.exp(-wanted / 2) / 2) == pytest.approx(997.5, abs=1e-6)
        with pytest.raises(InputError, match="denoises sigma from"):
            denoiser.timestep(1e9)

    @pytest.mark.parametrize(
        "table",
        [
            [0.9, 0.5, 0.5, 0.1],
            [0.9, 0.4, 0.5, 0.1],
            [1.0, 0.5, 0.1],
            [1.5, 0.5, 0.1],
            [0.9, 0.5, -0.1],
            [0.9, 0.0, 0.0],
            [0.1, 0.5, 0.9],
            [0.9, float("nan"), 0.1],
        ],
        ids=str,
    )
    def test_schedule_that_does_not_decrease_is_refused(self, table: list[float], network: nn.Module) -> None:
        scheduler = SimpleNamespace(config={}, alphas_cumprod=torch.tensor(table))
        with pytest.raises(ModelError, match="strictly decrease within"):
            DiffusionDenoiser(network, scheduler)

    def test_schedule_without_alphas_is_refused(self, network: nn.Module) -> None:
        scheduler = EDMEulerScheduler(prediction_type="epsilon")
        with pytest.raises(ModelError, match="alphas_cumprod; EDMEulerScheduler has none"):
            DiffusionDenoiser(network, scheduler)
