"""Public checkpoints become stock diffusers folders without changing the function they compute."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from torch import Tensor

from robustify.denoisers.convert.checkpoints import FAMILIES, build, convert, cosine_betas
from robustify.denoisers.convert.layout import (
    checkpoint_shapes,
    empty_network,
    map_state_dict,
    parameter_names,
    split_qkv,
)
from tests.toys_openai import (
    CIFAR,
    NARROW,
    NARROW_ADM,
    PUBLISHED,
    TINY,
    Example,
    Flags,
    Weights,
    example,
    meta_state,
)


@pytest.fixture(scope="module")
def narrow() -> Example:
    """The narrow ADM on 64×64 images, whose attention levels would be 8, 4 and 2 pixels wide."""
    return example(replace(NARROW_ADM, attention_resolutions=(8, 4, 2)), 64)


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
