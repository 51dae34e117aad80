"""One call of a diffusion model, at exactly the noise level in use, whatever its schedule and prediction."""

import math
import re
from collections.abc import Callable

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from robustify.denoisers.diffusion import DiffusionDenoiser, load
from robustify.errors import InputError
from robustify.zoo import HELD_OUT
from tests.toys_diffusion import PREDICTIONS, SCHEDULES, SIGMAS, Oracle, unet

ZOO = HELD_OUT.parent


class TestCleanImage:
    @pytest.mark.parametrize("sigma", SIGMAS)
    @pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
    @pytest.mark.parametrize("prediction", PREDICTIONS)
    def test_of_a_perfect_network_is_exact(self, prediction: str, schedule: dict[str, object], sigma: float) -> None:
        scheduler = DDPMScheduler(**schedule, prediction_type=prediction)
        generator = torch.Generator().manual_seed(0)
        clean = torch.rand(3, 3, 8, 8, generator=generator)
        noisy = clean + sigma * torch.randn(clean.shape, generator=generator)
        oracle = Oracle(clean, scheduler)
        denoised = DiffusionDenoiser(oracle.eval(), scheduler)(noisy, sigma)
        torch.testing.assert_close(denoised, clean, rtol=0, atol=1e-5)
        assert denoised.dtype is torch.float32

    @pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
    @pytest.mark.parametrize("prediction", PREDICTIONS)
    def test_is_diffusers_own_at_a_step_of_the_schedule(
        self, prediction: str, schedule: dict[str, object], network: nn.Module, noisy: Tensor
    ) -> None:
        scheduler = DDPMScheduler(**schedule, prediction_type=prediction, clip_sample=False)
        step = 300
        alpha_bar = float(scheduler.alphas_cumprod[step])
        sigma = math.sqrt((1 - alpha_bar) / alpha_bar) / 2
        y_t = math.sqrt(alpha_bar) * (2 * noisy - 1)
        with torch.no_grad():
            predicted = network(y_t, step).sample
            expected = scheduler.step(predicted, step, y_t).pred_original_sample
            denoised = DiffusionDenoiser(network, scheduler)(noisy, sigma)
        torch.testing.assert_close(denoised, ((expected + 1) / 2).clamp(0, 1), rtol=1e-4, atol=1e-4)
        assert ((denoised > 0) & (denoised < 1)).float().mean() > 0.05

    def test_lies_in_zero_to_one_whatever_the_network_says(self) -> None:
        scheduler = DDPMScheduler()
        clean = torch.tensor([-3.0, 0.0, 0.5, 1.0, 4.0]).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
        denoised = DiffusionDenoiser(Oracle(clean, scheduler).eval(), scheduler)(clean + 0.1, 0.25)
        torch.testing.assert_close(denoised, clean.clamp(0, 1), rtol=0, atol=1e-5)

    def test_is_differentiable(self, network: nn.Module) -> None:
        noisy = torch.full((1, 3, 8, 8), 0.5, requires_grad=True)
        DiffusionDenoiser(network, DDPMScheduler(prediction_type="v_prediction"))(noisy, 0.5).sum().backward()
        assert noisy.grad is not None
        assert bool((noisy.grad != 0).any())


class TestNetworkCall:
    def test_is_one_per_batch_of_draws_at_one_time(self, noisy: Tensor) -> None:
        scheduler = DDPMScheduler()
        oracle = Oracle(noisy, scheduler).eval()
        denoiser = DiffusionDenoiser(oracle, scheduler)
        denoiser(noisy, 0.25)
        (call,) = oracle.calls
        y_t, t = call
        assert t.dtype is torch.float32
        torch.testing.assert_close(t, torch.full((2,), denoiser.timestep(0.25)), rtol=0, atol=0)
        torch.testing.assert_close(y_t, (2 * noisy - 1) / math.sqrt(1 + 4 * 0.25**2))

    def test_adds_no_noise(self, network: nn.Module, noisy: Tensor) -> None:
        denoiser = DiffusionDenoiser(network, DDPMScheduler())
        torch.testing.assert_close(denoiser(noisy, 0.25), denoiser(noisy, 0.25), rtol=0, atol=0)

    def test_each_draw_is_denoised_on_its_own(self, network: nn.Module, noisy: Tensor) -> None:
        denoiser = DiffusionDenoiser(network, DDPMScheduler())
        alone = torch.cat([denoiser(image.unsqueeze(0), 0.25) for image in noisy])
        torch.testing.assert_close(denoiser(noisy, 0.25), alone)

    @pytest.mark.parametrize("prediction", PREDICTIONS)
    def test_in_bfloat16_keeps_the_arithmetic_in_float32(
        self, prediction: str, network: nn.Module, noisy: Tensor
    ) -> None:
        network = network.to(torch.bfloat16)
        denoiser = DiffusionDenoiser(network, DDPMScheduler(prediction_type=prediction))
        sigma, variance = 0.25, 0.2  # variance = 4 sigma^2 / (1 + 4 sigma^2)
        signal, noise = math.sqrt(1 - variance), math.sqrt(variance)
        y_t = signal * (2 * noisy - 1)
        with torch.no_grad():
            predicted = network(y_t.bfloat16(), torch.full((2,), denoiser.timestep(sigma))).sample
            assert predicted.dtype is torch.bfloat16
            predicted = predicted.float()
            y = {
                "epsilon": (y_t - noise * predicted) / signal,
                "sample": predicted,
                "v_prediction": signal * y_t - noise * predicted,
            }[prediction]
            denoised = denoiser(noisy, sigma)
        assert denoised.dtype is torch.float32
        torch.testing.assert_close(denoised, ((y + 1) / 2).clamp(0, 1), rtol=1e-6, atol=1e-6)
        assert "bfloat16" in denoiser.describe(sigma)

    def test_leaves_the_memory_of_the_callers_network_as_it_is(self, network: nn.Module) -> None:
        kernels = [p for p in network.parameters() if p.ndim == 4 and min(p.shape[1:]) > 1]
        DiffusionDenoiser(network, DDPMScheduler())
        assert kernels
        assert not any(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)

    def test_returns_rows_also_in_channels_last(self, network: nn.Module, noisy: Tensor) -> None:
        """A classifier may view what comes out as (B, pixels)."""
        network.to(memory_format=torch.channels_last)
        assert DiffusionDenoiser(network, DDPMScheduler())(noisy, 0.25).is_contiguous()

    def test_what_is_loaded_works_in_channels_last(self) -> None:
        kernels = [p for p in load(str(ZOO / "ddpm")).parameters() if p.ndim == 4 and min(p.shape[1:]) > 1]
        assert kernels
        assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)

    def test_drops_learned_variance(self, awaken: Callable[[nn.Module], nn.Module], noisy: Tensor) -> None:
        both = unet(awaken, out_channels=6)
        mean = unet(awaken)
        mean.load_state_dict({k: v[:3] if k.startswith("conv_out") else v for k, v in both.state_dict().items()})
        scheduler = DDPMScheduler(variance_type="learned_range")
        denoised = DiffusionDenoiser(both, scheduler)(noisy, 0.25)
        torch.testing.assert_close(denoised, DiffusionDenoiser(mean, scheduler)(noisy, 0.25))


class TestDescription:
    def test_tells_time_prediction_and_precision(self, network: nn.Module) -> None:
        denoiser = DiffusionDenoiser(network, DDPMScheduler(prediction_type="sample"))
        t = denoiser.timestep(0.25)
        assert denoiser.describe(0.25) == f"one step at t = {t:.4f}, sample, float32"

    @pytest.mark.parametrize(
        ("sample_size", "size"), [(8, (8, 8)), ((8, 12), (8, 12)), ([8, 12], (8, 12)), (None, None)], ids=str
    )
    def test_size_is_the_networks(self, sample_size: object, size: tuple[int, int] | None) -> None:
        network = nn.Identity().eval()
        network.config = {"in_channels": 1, "out_channels": 1, "sample_size": sample_size}
        denoiser = DiffusionDenoiser(network, DDPMScheduler(), licence="mit")
        assert (denoiser.size, denoiser.channels, denoiser.licence) == (size, 1, "mit")


class TestLevelPerImage:
    """A batch may hold images under noise of several levels."""

    SIGMAS = (0.25, 0.5, 1.0, 0.25)

    @pytest.fixture
    def batch(self) -> Tensor:
        return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    @pytest.mark.parametrize("prediction", PREDICTIONS)
    @torch.no_grad()
    def test_is_what_separate_passes_give(self, prediction: str, network: nn.Module, batch: Tensor) -> None:
        denoiser = DiffusionDenoiser(network, DDPMScheduler(prediction_type=prediction))
        together = denoiser(batch, torch.tensor(self.SIGMAS, dtype=torch.float64))
        alone = [denoiser(batch[i : i + 1], sigma) for i, sigma in enumerate(self.SIGMAS)]
        assert torch.allclose(together, torch.cat(alone), atol=1e-5)
        assert not torch.allclose(together[1], denoiser(batch, 0.25)[1], atol=1e-3)

    @torch.no_grad()
    def test_one_level_for_each_is_a_number_for_all_to_the_bit(self, network: nn.Module, batch: Tensor) -> None:
        denoiser = DiffusionDenoiser(network, DDPMScheduler())
        each = denoiser(batch, torch.full((4,), 0.37, dtype=torch.float64))
        assert torch.equal(each, denoiser(batch, 0.37))

    def test_a_level_out_of_reach_is_named(self, network: nn.Module, batch: Tensor) -> None:
        denoiser = DiffusionDenoiser(network, DDPMScheduler())
        for levels, first in (([0.25, 0.25, 1e6, 0.5], "1e+06"), ([0.25, 1e-4, 1e6, 2e6], "0.0001")):
            with pytest.raises(InputError, match=re.escape(f"got sigma={first}")):
                denoiser(batch, torch.tensor(levels, dtype=torch.float64))

    def test_gradients_reach_every_image(self, network: nn.Module, batch: Tensor) -> None:
        noisy = batch.requires_grad_()
        denoiser = DiffusionDenoiser(network, DDPMScheduler())
        denoiser(noisy, torch.tensor(self.SIGMAS, dtype=torch.float64)).sum().backward()
        assert noisy.grad is not None
        assert bool((noisy.grad.flatten(1).abs().sum(dim=1) > 0).all())
