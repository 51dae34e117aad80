"""Networks that cannot denoise pixels are refused with the reason, before anything else."""

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    DiTTransformer2DModel,
    ModelMixin,
    PRXTransformer2DModel,
    UNet1DModel,
    UNet2DConditionModel,
    UNet2DModel,
)
from torch import Tensor, nn

from robustify.denoisers.diffusion import DiffusionDenoiser, from_pipeline
from robustify.errors import ModelError
from tests.toys_diffusion import CONFIG, Sample, unet

OPTIONS: dict[str, dict[Any, str | None]] = {
    "sample_size": {None: None, 16: None, (8, 16): None},
    "in_channels": {1: "as many output channels", 4: "as many output channels"},
    "out_channels": {4: "as many output channels", 6: None},
    "center_input_sample": {True: "center_input_sample=True: it scales pixels"},
    "time_embedding_type": {"fourier": "takes noise levels", "learned": "whole timesteps alone"},
    "time_embedding_dim": {16: None},
    "freq_shift": {1: None},
    "flip_sin_to_cos": {False: None},
    "down_block_types": {(name,): None for name in ("AttnDownBlock2D", "ResnetDownsampleBlock2D", "SkipDownBlock2D")},
    "up_block_types": {(name,): None for name in ("AttnUpBlock2D", "ResnetUpsampleBlock2D")},
    "mid_block_type": {None: None},
    "block_out_channels": {(16,): None},
    "layers_per_block": {2: None},
    "mid_block_scale_factor": {2.0: None},
    "downsample_padding": {0: None},
    "downsample_type": {"resnet": None},
    "upsample_type": {"resnet": None},
    "dropout": {0.5: None},
    "act_fn": {"gelu": None},
    "attention_head_dim": {None: None, 4: None},
    "norm_num_groups": {2: None},
    "attn_norm_num_groups": {2: None},
    "norm_eps": {1e-3: None},
    "resnet_time_scale_shift": {"scale_shift": None},
    "add_attention": {False: None},
    "class_embed_type": {"identity": "needs classes or text", "timestep": "needs classes or text"},
    "num_class_embeds": {10: "needs classes or text"},
    "num_train_timesteps": {500: None},
}
"""Values of each option of `UNet2DModel`, with why a network is refused for it; None where it is not."""

VALUES = [(name, value, reason) for name, values in OPTIONS.items() for value, reason in values.items()]

OTHERS: dict[str, Callable[[], nn.Module]] = {
    "autoencoder": lambda: AutoencoderKL(block_out_channels=(8,), norm_num_groups=4),
    "DiT": lambda: DiTTransformer2DModel(num_attention_heads=2, attention_head_dim=4, num_layers=1, sample_size=8),
    "DiT of pixels": lambda: DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, num_layers=1, sample_size=8, in_channels=3
    ),
    "PRX of pixels": lambda: PRXTransformer2DModel(
        in_channels=3, hidden_size=8, num_heads=2, depth=1, axes_dim=[2, 2], context_in_dim=8
    ),
    "U-Net of text": lambda: UNet2DConditionModel(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        block_out_channels=(8,),
        norm_num_groups=4,
    ),
    "U-Net of sound": lambda: UNet1DModel(in_channels=3, out_channels=3),
}


class Fails(nn.Module):
    """Raises or returns what it is given; `config` is that of a network of pixels."""

    def __init__(self, outcome: object) -> None:
        super().__init__()
        self.config = CONFIG
        self.outcome = outcome
        self.eval()

    def forward(self, y_t: Tensor, t: Tensor) -> object:
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


class TestOptions:
    def test_each_of_the_installed_diffusers_is_known(self) -> None:
        """A later diffusers may add one: read whether the formula still covers the network, then add it."""
        assert set(list(inspect.signature(UNet2DModel.__init__).parameters)[1:]) <= OPTIONS.keys()

    @pytest.mark.parametrize(("name", "value", "reason"), VALUES, ids=str)
    def test_is_accepted_or_refused(
        self, name: str, value: object, reason: str | None, awaken: Callable[[nn.Module], nn.Module], noisy: Tensor
    ) -> None:
        extra = {"num_train_timesteps": 1000} if value == "learned" else {}
        network = unet(awaken, **{**extra, name: value})
        if reason is not None:
            with pytest.raises(ModelError, match=reason):
                DiffusionDenoiser(network, DDPMScheduler())
            return
        denoised = DiffusionDenoiser(network, DDPMScheduler())(noisy, 0.25)
        assert denoised.shape == noisy.shape
        assert denoised.std() > 0.01

    @pytest.mark.parametrize("channels", [1, 3])
    def test_images_have_one_or_three_channels(self, channels: int, awaken: Callable[[nn.Module], nn.Module]) -> None:
        network = unet(awaken, in_channels=channels, out_channels=channels)
        assert DiffusionDenoiser(network, DDPMScheduler()).channels == channels

    @pytest.mark.parametrize("channels", [2, 4, 8, 16])
    def test_latents_are_known_by_their_channels(self, channels: int, awaken: Callable[[nn.Module], nn.Module]) -> None:
        network = unet(awaken, in_channels=channels, out_channels=channels)
        with pytest.raises(ModelError, match=f"of pixels, with 1 or 3 channels; got {channels} channels: .* latents"):
            DiffusionDenoiser(network, DDPMScheduler())


class TestOtherModels:
    @pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
    def test_of_diffusers_are_refused(self, make: Callable[[], nn.Module]) -> None:
        network = make().eval()
        with pytest.raises(ModelError, match=f"expected a diffusers UNet2DModel.*; got {type(network).__name__}"):
            DiffusionDenoiser(network, DDPMScheduler())

    def test_of_diffusers_are_refused_by_their_kind(self) -> None:
        """Every model that diffusers exports, whatever channels it has."""
        kinds = [getattr(diffusers, name) for name in dir(diffusers)]
        models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, ModelMixin)]
        assert UNet2DModel in models
        for kind in set(models) - {UNet2DModel}:
            network = kind.__new__(kind)
            nn.Module.__init__(network)
            network.__dict__["config" if not hasattr(kind, "config") else "_internal_dict"] = CONFIG
            with pytest.raises(ModelError, match=f"got {kind.__name__}"):
                DiffusionDenoiser(network.eval(), DDPMScheduler())


class TestFirstCall:
    @pytest.mark.parametrize(
        "error", [KeyError("mask"), IndexError("3"), TypeError("2"), RuntimeError("shape")], ids=repr
    )
    def test_failure_is_the_models(self, error: Exception, noisy: Tensor) -> None:
        denoiser = DiffusionDenoiser(Fails(error), DDPMScheduler(), name="mine")
        given = r"the network of mine, given images of shape \(2, 3, 8, 8\) and timesteps, fails"
        with pytest.raises(ModelError, match=f"{given}: {type(error).__name__}: {error}\n"):
            denoiser(noisy, 0.25)

    @pytest.mark.parametrize("error", [torch.OutOfMemoryError("no room"), MemoryError("no room")], ids=repr)
    def test_lack_of_memory_is_told_as_such(self, error: Exception, noisy: Tensor) -> None:
        with pytest.raises(type(error), match="no room"):
            DiffusionDenoiser(Fails(error), DDPMScheduler())(noisy, 0.25)

    @pytest.mark.parametrize(
        ("output", "found"),
        [
            (torch.zeros(2, 3, 8, 8), "AttributeError"),
            (Sample(torch.zeros(2, 3, 4, 4)), r"gives \(2, 3, 4, 4\)"),
            (Sample(torch.zeros(2, 2, 8, 8)), r"gives \(2, 2, 8, 8\)"),
            (Sample(torch.zeros(1, 3, 8, 8)), r"gives \(1, 3, 8, 8\)"),
            (Sample(torch.zeros(2, 192)), r"gives \(2, 192\)"),
            (Sample([0.0]), "gives list"),  # type: ignore[arg-type]
        ],
        ids=["no sample", "half", "few channels", "one image", "rows", "list"],
    )
    def test_output_of_another_shape_is_named(self, output: object, found: str, noisy: Tensor) -> None:
        with pytest.raises(ModelError, match=found):
            DiffusionDenoiser(Fails(output), DDPMScheduler())(noisy, 0.25)


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

    def test_pipeline_whose_further_parts_are_absent(self, network: nn.Module) -> None:
        parts = {"unet": network, "scheduler": DDPMScheduler(), "vae": None}
        assert from_pipeline(SimpleNamespace(components=parts), name="mine").network is network

    @pytest.mark.parametrize("missing", ["unet", "scheduler"])
    def test_pipeline_without_its_parts(self, missing: str, network: nn.Module) -> None:
        parts = {"unet": network, "scheduler": DDPMScheduler(), "transformer": nn.Identity()}
        del parts[missing]
        with pytest.raises(ModelError, match="pixel-space pipeline of unet and scheduler"):
            from_pipeline(SimpleNamespace(components=parts), name="mine")
