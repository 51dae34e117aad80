"""Public checkpoints become stock diffusers folders without changing the function they compute."""

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import save_file
from torch import Tensor

from robustify.denoisers.convert.checkpoints import FAMILIES, Family, build, convert, cosine_betas, read_checkpoint
from robustify.denoisers.convert.layout import (
    Layout,
    checkpoint_shapes,
    empty_network,
    map_state_dict,
    parameter_names,
    split_qkv,
)
from robustify.errors import InputError

TIMES = torch.tensor([3.0, 250.25, 999.0])
"""What the networks see: never the default 0, once between two steps."""


@dataclass(frozen=True)
class Flags:
    """A U-Net in the words of the flags that its repository's README lists."""

    image_size: int
    num_channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: int
    attention_resolutions: tuple[int, ...]
    resblock_updown: bool
    num_heads: int | None = None
    num_head_channels: int | None = None


ADM = Flags(256, 256, (1, 1, 2, 2, 4, 4), 2, (32, 16, 8), resblock_updown=True, num_head_channels=64)
CIFAR = Flags(32, 128, (1, 2, 2, 2), 3, (16, 8), resblock_updown=False, num_heads=4)
PUBLISHED = [("guided-diffusion", ADM, 552_814_086), ("improved-diffusion", CIFAR, 52_546_438)]

NARROW_ADM = replace(ADM, num_channels=32, num_head_channels=16)
NARROW = replace(FAMILIES["guided-diffusion"].layout, channels=32, head_channels=16)
"""All levels, blocks and heads of the published network, at an eighth (heads: a quarter) of its width."""

TINY = Layout(size=8, channels=32, multipliers=(1, 2), blocks=1, head_channels=32, attention_levels=(1,), updown=False)
TINY_FLAGS = Flags(8, 32, (1, 2), 1, (4,), resblock_updown=False, num_head_channels=32)


class Weights(dict[str, Tensor]):
    """A checkpoint in which each tensor is drawn when the reference first asks for it."""

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        self.device = device
        self.generator = torch.Generator().manual_seed(0)

    def take(self, key: str, *shape: int) -> Tensor:
        if key not in self:
            self[key] = torch.empty(shape, device="meta") if self.device == "meta" else self._draw(key, *shape)
        assert self[key].shape == shape
        return self[key]

    def _draw(self, key: str, *shape: int) -> Tensor:
        noise = torch.randn(shape, generator=self.generator)
        if len(shape) > 1:
            return noise * math.prod(shape[1:]) ** -0.5
        return 0.3 * noise + (1 if key.endswith("weight") else 0)


class Reference:
    """The forward pass of OpenAI's U-Net, written from its architecture, on OpenAI's own keys.

    References:
        Diffusion Models Beat GANs on Image Synthesis, Dhariwal, Nichol, 2021, section 3,
        https://arxiv.org/abs/2105.05233
    """

    def __init__(self, flags: Flags, weights: Weights) -> None:
        self.flags, self.weights = flags, weights

    def __call__(self, x: Tensor, times: Tensor) -> Tensor:
        flags, width = self.flags, self.flags.num_channels
        self.embedding = self.embed(times)
        x = self.conv("input_blocks.0.0", x, width)
        skips, number = [x], 0
        for level, mult in enumerate(flags.channel_mult):
            for _ in range(flags.num_res_blocks):
                number += 1
                x = self.residual(f"input_blocks.{number}.0", x, mult * width)
                x = self.maybe_attend(f"input_blocks.{number}.1", x)
                skips.append(x)
            if level + 1 < len(flags.channel_mult):
                number += 1
                x = self.down(f"input_blocks.{number}.0", x)
                skips.append(x)
        x = self.residual("middle_block.0", x, x.shape[1])
        x = self.attend("middle_block.1", x)
        x = self.residual("middle_block.2", x, x.shape[1])
        number = -1
        for level, mult in reversed(list(enumerate(flags.channel_mult))):
            for last in [*[False] * flags.num_res_blocks, True]:
                number += 1
                x = torch.cat([x, skips.pop()], dim=1)
                x = self.residual(f"output_blocks.{number}.0", x, mult * width)
                attends = x.shape[-1] in self.flags.attention_resolutions
                x = self.maybe_attend(f"output_blocks.{number}.1", x)
                if last and level:
                    x = self.up(f"output_blocks.{number}.{2 if attends else 1}", x)
        assert not skips
        return self.conv("out.2", F.silu(self.norm("out.0", x)), 6)

    def affine(self, key: str, out: int, *rest: int) -> tuple[Tensor, Tensor]:
        return self.weights.take(f"{key}.weight", out, *rest), self.weights.take(f"{key}.bias", out)

    def linear(self, key: str, x: Tensor, out: int) -> Tensor:
        return F.linear(x, *self.affine(key, out, x.shape[-1]))

    def norm(self, key: str, x: Tensor) -> Tensor:
        return F.group_norm(x, 32, *self.affine(key, x.shape[1]))

    def conv(self, key: str, x: Tensor, out: int, kernel: int = 3, stride: int = 1) -> Tensor:
        weight, bias = self.affine(key, out, x.shape[1], kernel, kernel)
        return F.conv2d(x, weight, bias, stride=stride, padding=kernel // 2)

    def embed(self, times: Tensor) -> Tensor:
        width = self.flags.num_channels
        frequencies = torch.exp(-math.log(10_000) * torch.arange(width // 2) / (width // 2)).to(times.device)
        angles = times[:, None] * frequencies
        waves = torch.cat([angles.cos(), angles.sin()], dim=1)
        return self.linear("time_embed.2", F.silu(self.linear("time_embed.0", waves, 4 * width)), 4 * width)

    def residual(self, key: str, x: Tensor, out: int, resample: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
        inner = resample(F.silu(self.norm(f"{key}.in_layers.0", x)))
        inner = self.conv(f"{key}.in_layers.2", inner, out)
        modulation = self.linear(f"{key}.emb_layers.1", F.silu(self.embedding), 2 * out)[:, :, None, None]
        scale, shift = modulation[:, :out], modulation[:, out:]
        inner = self.norm(f"{key}.out_layers.0", inner) * (1 + scale) + shift
        inner = self.conv(f"{key}.out_layers.3", F.silu(inner), out)
        x = resample(x)
        return inner + (x if x.shape[1] == out else self.conv(f"{key}.skip_connection", x, out, kernel=1))

    def down(self, key: str, x: Tensor) -> Tensor:
        if self.flags.resblock_updown:
            return self.residual(key, x, x.shape[1], lambda x: F.avg_pool2d(x, 2))
        return self.conv(f"{key}.op", x, x.shape[1], stride=2)

    def up(self, key: str, x: Tensor) -> Tensor:
        if self.flags.resblock_updown:
            return self.residual(key, x, x.shape[1], lambda x: F.interpolate(x, scale_factor=2.0))
        return self.conv(f"{key}.conv", F.interpolate(x, scale_factor=2.0), x.shape[1])

    def maybe_attend(self, key: str, x: Tensor) -> Tensor:
        return self.attend(key, x) if x.shape[-1] in self.flags.attention_resolutions else x

    def attend(self, key: str, x: Tensor) -> Tensor:
        """Legacy attention: heads are split off first, then query, key and value."""
        batch, channels, height, width = x.shape
        heads = self.flags.num_heads or channels // self.flags.num_head_channels
        flat = self.norm(f"{key}.norm", x).flatten(2)
        qkv = F.conv1d(flat, *self.affine(f"{key}.qkv", 3 * channels, channels, 1))
        q, k, v = qkv.reshape(batch * heads, 3 * channels // heads, -1).chunk(3, dim=1)
        attention = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(channels / heads), dim=2)
        mixed = (v @ attention.transpose(1, 2)).reshape(batch, channels, -1)
        mixed = F.conv1d(mixed, *self.affine(f"{key}.proj_out", channels, channels, 1))
        return x + mixed.reshape(batch, channels, height, width)


@dataclass(frozen=True)
class Example:
    """A random checkpoint with an input and the output that the reference computes from them."""

    state: Weights
    x: Tensor
    y: Tensor

    def error_of(self, network: UNet2DModel) -> float:
        """Relative l2 error of a network on the input."""
        with torch.no_grad():
            y = network(self.x, TIMES).sample
        return float((y - self.y).norm() / self.y.norm())


def example(flags: Flags, size: int) -> Example:
    state = Weights()
    x = torch.randn(len(TIMES), 3, size, size, generator=torch.Generator().manual_seed(1))
    return Example(state, x, Reference(flags, state)(x, TIMES))


def meta_state(flags: Flags) -> Weights:
    """All keys and shapes that the reference asks for, at any width, without computing."""
    state = Weights("meta")
    image = torch.empty(1, 3, flags.image_size, flags.image_size, device="meta")
    Reference(flags, state)(image, torch.empty(1, device="meta"))
    return state


@pytest.fixture(scope="module")
def narrow() -> Example:
    """The narrow ADM on 64×64 images, whose attention levels would be 8, 4 and 2 pixels wide."""
    return example(replace(NARROW_ADM, attention_resolutions=(8, 4, 2)), 64)


@pytest.fixture(scope="module")
def tiny() -> Weights:
    return example(TINY_FLAGS, 8).state


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Example, Path]]:
    """The CIFAR-10 network at its full width, and the folder that `convert` makes of it."""
    folder = tmp_path_factory.mktemp("cifar")
    full = example(CIFAR, 32)
    torch.save(dict(full.state), folder / "cifar10.pt")
    convert("improved-diffusion", folder / "cifar10.pt", folder / "out")
    yield full, folder / "out"
    shutil.rmtree(folder)  # 420 MB


def test_published_cifar_network_computes_the_same_from_its_folder(cifar: tuple[Example, Path]) -> None:
    full, folder = cifar
    error = full.error_of(UNet2DModel.from_pretrained(folder, subfolder="unet"))
    print(f"relative error, improved-diffusion at full width: {error:.1e}")
    assert error < 1e-5


def test_narrow_guided_diffusion_computes_the_same(narrow: Example) -> None:
    pipeline = build(narrow.state, replace(FAMILIES["guided-diffusion"], layout=NARROW))
    error = narrow.error_of(pipeline.unet)
    print(f"relative error, guided-diffusion at an eighth of its width: {error:.1e}")
    assert error < 1e-5
    assert not pipeline.unet.training


def qkv_rows_in_checkpoint_order(mapped: dict[str, Tensor], state: Weights) -> None:
    """The mistake of taking OpenAI's rows as all queries, then all keys, then all values."""
    for ours, theirs in parameter_names(NARROW).items():
        for role, part in enumerate(("to_q", "to_k", "to_v")):
            if f".{part}." in ours:
                mapped[ours] = state[theirs].chunk(3)[role].reshape(mapped[ours].shape)


def scale_and_shift_swapped(mapped: dict[str, Tensor], state: Weights) -> None:
    for key in mapped:
        if ".time_emb_proj." in key:
            mapped[key] = torch.cat(mapped[key].chunk(2)[::-1])


@pytest.mark.parametrize("mistake", [qkv_rows_in_checkpoint_order, scale_and_shift_swapped])
def test_the_comparison_would_see_a_mistake(
    narrow: Example, mistake: Callable[[dict[str, Tensor], Weights], None]
) -> None:
    mapped = map_state_dict(narrow.state, NARROW)
    mistake(mapped, narrow.state)
    network = empty_network(NARROW)
    network.load_state_dict(mapped, assign=True)
    error = narrow.error_of(network)
    print(f"relative error with {mistake.__name__}: {error:.1e}")
    assert error > 1e-2


@pytest.mark.parametrize(("family", "flags", "parameters"), PUBLISHED)
def test_published_networks_have_their_published_size(family: str, flags: Flags, parameters: int) -> None:
    """Key by key and shape by shape, at full width, without a single value."""
    layout, state = FAMILIES[family].layout, meta_state(flags)
    assert checkpoint_shapes(layout) == {key: tuple(value.shape) for key, value in state.items()}
    mapped, network = map_state_dict(state, layout), empty_network(layout)
    assert {k: v.shape for k, v in mapped.items()} == {k: v.shape for k, v in network.state_dict().items()}
    network.load_state_dict(mapped, strict=True, assign=True)
    assert sum(value.numel() for value in state.values()) == parameters
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize(("family", "flags", "parameters"), PUBLISHED)
def test_only_qkv_tensors_are_used_more_than_once(family: str, flags: Flags, parameters: int) -> None:
    del flags, parameters
    used = list(parameter_names(FAMILIES[family].layout).values())
    assert all(used.count(key) == (3 if ".qkv." in key else 1) for key in used)


def test_every_value_of_a_checkpoint_is_used_exactly_once(tiny: Weights) -> None:
    before = torch.cat([value.flatten() for value in tiny.values()]).sort().values
    after = torch.cat([value.flatten() for value in map_state_dict(tiny, TINY).values()]).sort().values
    assert torch.equal(before, after)


def test_qkv_rows_go_head_by_head() -> None:
    rows = torch.tensor([0, 0, 10, 10, 20, 20, 1, 1, 11, 11, 21, 21])
    query, key, value = split_qkv(rows, heads=2)
    assert query.tolist() == [0, 0, 1, 1]
    assert key.tolist() == [10, 10, 11, 11]
    assert value.tolist() == [20, 20, 21, 21]


def cosine_4000() -> np.ndarray:
    """Alpha bar of the 4000 steps, through capped betas, as equation 17 of arXiv:2102.09672 has it."""
    f = np.cos((np.arange(4001) / 4000 + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.cumprod(1 - np.minimum(1 - f[1:] / f[:-1], 0.999))


def log_snr(alpha_bar: np.ndarray) -> np.ndarray:
    return np.log(alpha_bar / (1 - alpha_bar))


def test_every_time_the_cifar_network_sees_has_its_noise() -> None:
    betas = np.array(cosine_betas(trained=4000, seen=1000))
    assert betas.shape == (1000,)
    np.testing.assert_allclose(np.cumprod(1 - betas), cosine_4000()[::4], rtol=1e-9)


def test_cifar_noise_between_the_steps_interpolates() -> None:
    """All 4000 training steps come back from the 1000: pixel noise from 0.02 to 10, within 0.05 % of it."""
    exact = log_snr(cosine_4000())[:3997]
    thinned = log_snr(np.cumprod(1 - np.array(cosine_betas(trained=4000, seen=1000))))
    interpolated = np.interp(np.arange(3997) / 4, np.arange(1000), thinned)
    noise = np.exp(-exact / 2) / 2  # sqrt((1 - a) / a) in [-1, 1] is twice that in [0, 1]
    assert np.abs(interpolated - exact)[(noise > 0.02) & (noise < 10)].max() < 1e-3  # twice that of the noise


def test_cifar_folder_is_a_stock_pipeline_with_that_schedule(cifar: tuple[Example, Path]) -> None:
    _, folder = cifar
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {
        "model_index.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    }
    scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    assert scheduler.config.prediction_type == "epsilon"
    assert scheduler.config.variance_type == "learned_range"
    assert scheduler.alphas_cumprod.shape == (1000,)
    assert torch.allclose(scheduler.alphas_cumprod.double(), torch.from_numpy(cosine_4000()[::4]), atol=1e-6)


def test_guided_schedule_is_linear() -> None:
    scheduler = DDPMScheduler(**FAMILIES["guided-diffusion"].schedule)
    expected = torch.from_numpy(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))
    assert torch.allclose(scheduler.alphas_cumprod.double(), expected, atol=1e-6)
    assert scheduler.config.prediction_type == "epsilon"


@pytest.mark.parametrize("name", FAMILIES)
def test_stock_pipelines_sample(name: str, tiny: Weights, tmp_path: Path) -> None:
    """Six channels out, so the scheduler must know that three of them are the variance."""
    build(tiny, replace(FAMILIES[name], layout=TINY)).save_pretrained(tmp_path)
    pipeline = DDPMPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    images = pipeline(batch_size=2, num_inference_steps=3, output_type="np", generator=generator).images
    assert images.shape == (2, 8, 8, 3)
    assert np.isfinite(images).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_views_of_one_storage_are_written_as_float32(dtype: torch.dtype, tiny: Weights, tmp_path: Path) -> None:
    """Mixed-precision training may save slices of one flat tensor; safetensors refuses any that overlap."""
    flat = torch.cat([value.flatten() for value in tiny.values()]).to(dtype)
    pieces = flat.split([value.numel() for value in tiny.values()])
    state = {key: piece.view(tiny[key].shape) for key, piece in zip(tiny, pieces, strict=True)}
    build(state, Family("tiny.pt", TINY, {})).save_pretrained(tmp_path)
    network = UNet2DModel.from_pretrained(tmp_path, subfolder="unet")
    assert network.dtype == torch.float32
    assert torch.equal(network.conv_in.weight, state["input_blocks.0.0.weight"].float())


def test_both_file_formats_are_read(tiny: Weights, tmp_path: Path) -> None:
    torch.save(dict(tiny), tmp_path / "a.pt")
    save_file(dict(tiny), tmp_path / "a.safetensors")
    for path in (tmp_path / "a.pt", tmp_path / "a.safetensors"):
        read = read_checkpoint(path)
        assert read.keys() == tiny.keys()
        assert all(torch.equal(read[key], tiny[key]) for key in tiny)


def test_a_missing_key_is_named(tiny: Weights) -> None:
    state = {key: value for key, value in tiny.items() if key != "time_embed.2.bias"}
    with pytest.raises(InputError, match=r"expected the \d+ keys .*\n  missing keys: 1 \(time_embed\.2\.bias\)$"):
        map_state_dict(state, TINY)


def test_an_unexpected_key_is_named(tiny: Weights) -> None:
    """Class-conditional checkpoints differ from ours by one key."""
    with pytest.raises(InputError, match=r"unexpected keys: 1 \(label_emb\.weight\)"):
        map_state_dict({**tiny, "label_emb.weight": torch.zeros(10, 128)}, TINY)


def test_another_width_is_named_with_the_first_shapes(tiny: Weights) -> None:
    problem = r"another shape: \d+ \(.*weight: got \(32, 3, 3, 3\), expected \(64, 3, 3, 3\), .*, \.\.\.\)"
    with pytest.raises(InputError, match=problem):
        map_state_dict(tiny, replace(TINY, channels=64, head_channels=64))


def test_the_checkpoint_of_the_other_family_is_refused_by_name(tmp_path: Path) -> None:
    state = {"time_embed.0.weight": torch.zeros(512, 128)}
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"other\.pt is not 256x256_diffusion_uncond\.pt, .*'guided-diffusion'"):
        convert("guided-diffusion", tmp_path / "other.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unknown_family_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no family named 'edm'.*'guided-diffusion' for .*'improved-diffusion'"):
        convert("edm", tmp_path / "a.pt", tmp_path / "out")


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a checkpoint file; .*missing\.pt is not a file"):
        convert("guided-diffusion", tmp_path / "missing.pt", tmp_path / "out")


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>404</html>", bytes(range(256))])
def test_an_unreadable_checkpoint_is_refused(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"broken.{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"broken\.{suffix} is damaged, incomplete"):
        read_checkpoint(path)


def test_a_checkpoint_that_was_cut_short_is_refused(tiny: Weights, tmp_path: Path) -> None:
    torch.save(dict(tiny), tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:100_000])
    with pytest.raises(InputError, match=r"cut\.pt is damaged, incomplete"):
        read_checkpoint(tmp_path / "cut.pt")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([torch.zeros(1)], "holds a list"),
        ({"model": {"a": torch.zeros(1)}, "step": 3}, "other values under: model, step"),
        ({0: torch.zeros(1)}, "other values under: 0"),
        ({"a": Path("code may hide in pickled objects")}, "holds more than tensors"),
    ],
)
def test_anything_but_named_tensors_is_refused(content: object, problem: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(InputError, match=problem):
        read_checkpoint(tmp_path / "odd.pt")


def test_a_folder_in_use_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / "file").touch()
    for out in (used, used / "file"):
        with pytest.raises(InputError, match="expected a new or empty folder"):
            convert("guided-diffusion", tmp_path / "missing.pt", out)
