"""One call of a diffusion model, at exactly the noise level in use, whatever its schedule and prediction."""

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, EDMEulerScheduler, UNet2DModel
from torch import Tensor, nn

from robustify.denoisers import Denoiser, Identity
from robustify.denoisers.diffusion import DiffusionDenoiser, from_pipeline, load, names
from robustify.denoisers.wrap import wrap
from robustify.errors import InputError, ModelError
from robustify.zoo import HELD_OUT

ZOO = HELD_OUT.parent
PREDICTIONS = ["epsilon", "sample", "v_prediction"]
SCHEDULES = {
    "linear": {"beta_schedule": "linear"},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "squaredcos_cap_v2": {"beta_schedule": "squaredcos_cap_v2"},
    "sigmoid": {"beta_schedule": "sigmoid"},
}
SIGMAS = [0.12, 0.25, 0.5, 1.0]
CONFIG = {"in_channels": 3, "out_channels": 3, "sample_size": 8}


def log_snr(scheduler: DDPMScheduler) -> np.ndarray:
    """The schedule's, in float64, where there is any signal."""
    alpha_bar = scheduler.alphas_cumprod.double().numpy()
    alpha_bar = alpha_bar[alpha_bar > 0]
    return np.log(alpha_bar / (1 - alpha_bar))


def at(table: np.ndarray, t: float) -> float:
    """Between two steps, the straight line between their values."""
    below = min(math.floor(t), len(table) - 2)
    return float(table[below] + (t - below) * (table[below + 1] - table[below]))


@dataclass
class Sample:
    """What a diffusers network returns."""

    sample: Tensor


class Oracle(nn.Module):
    """Knows the clean images, in [0, 1], and predicts perfectly for the time and the noisy image it is given."""

    def __init__(self, clean: Tensor, scheduler: DDPMScheduler) -> None:
        super().__init__()
        self.config = CONFIG
        self.anchor = nn.Parameter(torch.zeros(()))
        self.y = 2 * clean.double() - 1
        self.table = log_snr(scheduler)
        self.prediction = scheduler.config.prediction_type
        self.calls: list[tuple[Tensor, Tensor]] = []

    def forward(self, y_t: Tensor, t: Tensor) -> Sample:
        self.calls.append((y_t, t))
        alpha_bar = 1 / (1 + math.exp(-at(self.table, float(t[0]))))
        signal, noise = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
        z = (y_t.double() - signal * self.y) / noise
        predicted = {"epsilon": z, "sample": self.y, "v_prediction": signal * z - noise * self.y}
        return Sample(predicted[self.prediction].float())


def unet(awaken: Callable[[nn.Module], nn.Module], **changes: object) -> nn.Module:
    """A tiny real network in evaluation mode."""
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "block_out_channels": (8,)}
    return awaken(UNet2DModel(**{**CONFIG, **blocks, "layers_per_block": 1, "norm_num_groups": 4, **changes}))


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


class TestRefusal:
    @pytest.mark.parametrize("part", ["", "mid_block"])
    def test_training_mode(self, part: str, network: nn.Module) -> None:
        network.get_submodule(part).train()
        with pytest.raises(ModelError, match=r"training mode.*\.eval\(\)"):
            DiffusionDenoiser(network, DDPMScheduler())

    @pytest.mark.parametrize(
        "config",
        [{"num_class_embeds": 10}, {"class_embed_type": "timestep"}, {"cross_attention_dim": 32}],
        ids=str,
    )
    def test_conditional_network(self, config: dict[str, object]) -> None:
        network = nn.Identity().eval()
        network.config = {**CONFIG, **config}
        with pytest.raises(ModelError, match="unconditional network; Identity needs classes or text"):
            DiffusionDenoiser(network, DDPMScheduler())

    def test_class_conditional_unet(self, awaken: Callable[[nn.Module], nn.Module]) -> None:
        with pytest.raises(ModelError, match="unconditional network; UNet2DModel"):
            DiffusionDenoiser(unet(awaken, num_class_embeds=10), DDPMScheduler())

    @pytest.mark.parametrize("channels", [(3, 4), (6, 3), (4, 3)])
    def test_channels_that_do_not_match(self, channels: tuple[int, int]) -> None:
        network = nn.Identity().eval()
        network.config = {"in_channels": channels[0], "out_channels": channels[1]}
        with pytest.raises(ModelError, match=f"got {channels[0]} in, {channels[1]} out"):
            DiffusionDenoiser(network, DDPMScheduler())

    def test_unknown_prediction(self, network: nn.Module) -> None:
        scheduler = DDPMScheduler(prediction_type="flow_prediction")
        with pytest.raises(ModelError, match="epsilon, sample, v_prediction; got 'flow_prediction'"):
            DiffusionDenoiser(network, scheduler)

    def test_prediction_that_is_not_said_is_epsilon(self, network: nn.Module) -> None:
        scheduler = SimpleNamespace(config={}, alphas_cumprod=DDPMScheduler().alphas_cumprod)
        assert DiffusionDenoiser(network, scheduler).prediction == "epsilon"

    @pytest.mark.parametrize("config", [None, {}, {"channels": 3}], ids=str)
    def test_network_that_is_not_diffusers(self, config: dict[str, object] | None) -> None:
        network = nn.Identity().eval()
        if config is not None:
            network.config = config
        with pytest.raises(ModelError, match=r"diffusers network with config\.in_channels; got Identity"):
            DiffusionDenoiser(network, DDPMScheduler())

    @pytest.mark.parametrize("extra", ["vae", "vqvae", "text_encoder"])
    def test_pipeline_that_is_latent_or_conditional(self, extra: str, network: nn.Module) -> None:
        parts = {"unet": network, "scheduler": DDPMScheduler(), extra: nn.Identity()}
        with pytest.raises(
            ModelError, match=f"pixel-space pipeline of unet and scheduler; .* has scheduler, .*{extra}"
        ):
            from_pipeline(SimpleNamespace(components=parts), name="mine")

    @pytest.mark.parametrize("missing", ["unet", "scheduler"])
    def test_pipeline_without_its_parts(self, missing: str, network: nn.Module) -> None:
        parts = {"unet": network, "scheduler": DDPMScheduler(), "transformer": nn.Identity()}
        del parts[missing]
        with pytest.raises(ModelError, match="pixel-space pipeline of unet and scheduler"):
            from_pipeline(SimpleNamespace(components=parts), name="mine")


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


class TestLoad:
    def test_folder(self, folder: Path, network: nn.Module, noisy: Tensor) -> None:
        denoiser = load(str(folder))
        scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
        expected = DiffusionDenoiser(network, scheduler)(noisy, 0.25)
        torch.testing.assert_close(denoiser(noisy, 0.25), expected)
        assert denoiser.name == f"diffusers:{folder}"
        assert (denoiser.channels, denoiser.size, denoiser.licence) == (3, (8, 8), None)
        assert not any(module.training for module in denoiser.modules())

    def test_licence_is_the_model_cards(self, folder: Path, tmp_path: Path) -> None:
        copy = shutil.copytree(folder, tmp_path / "copy")
        (copy / "README.md").write_text("---\nlicense: mit\n---\n")
        assert load(str(copy)).licence == "mit"

    @pytest.mark.parametrize(
        "missing", ["model_index.json", "unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"]
    )
    def test_folder_that_lacks_a_file(self, missing: str, folder: Path, tmp_path: Path) -> None:
        copy = shutil.copytree(folder, tmp_path / "copy")
        (copy / missing).unlink()
        with pytest.raises(InputError, match=f"{copy}.*{Path(missing).stem}|{Path(missing).stem}.*{copy}"):
            load(str(copy))

    def test_folder_with_damaged_weights(self, folder: Path, tmp_path: Path) -> None:
        copy = shutil.copytree(folder, tmp_path / "copy")
        weights = copy / "unet/diffusion_pytorch_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:100])
        with pytest.raises(InputError, match="diffusers cannot load a pipeline"):
            load(str(copy))

    def test_folder_of_an_unknown_pipeline(self, folder: Path, tmp_path: Path) -> None:
        copy = shutil.copytree(folder, tmp_path / "copy")
        index = json.loads((copy / "model_index.json").read_text())
        (copy / "model_index.json").write_text(json.dumps({**index, "_class_name": "NoSuchPipeline"}))
        with pytest.raises(InputError, match=r"diffusers cannot load a pipeline.*NoSuchPipeline"):
            load(str(copy))

    def test_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="there is no folder"):
            load(str(tmp_path / "nowhere"))

    def test_lists_no_names(self) -> None:
        assert names() == names("*") == []


class TestWrap:
    def test_pair(self, network: nn.Module) -> None:
        denoiser = wrap((network, DDIMScheduler(prediction_type="sample")))
        assert isinstance(denoiser, DiffusionDenoiser)
        assert (denoiser.network, denoiser.prediction, denoiser.name) == (network, "sample", "UNet2DModel")

    def test_pipeline(self, network: nn.Module) -> None:
        denoiser = wrap(DDPMPipeline(unet=network, scheduler=DDPMScheduler()))
        assert isinstance(denoiser, DiffusionDenoiser)
        assert (denoiser.network, denoiser.name) == (network, "DDPMPipeline")

    def test_denoiser_as_it_is(self) -> None:
        denoiser = Identity()
        assert wrap(denoiser) is denoiser

    @pytest.mark.parametrize(
        "given", [nn.Identity(), (nn.Identity(),), (1, 2, 3), None, 0.25], ids=lambda given: type(given).__name__
    )
    def test_anything_else_is_refused(self, given: object) -> None:
        with pytest.raises(InputError, match=rf"\(network, scheduler\); got {type(given).__name__}"):
            wrap(given)


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
