r"""Turns the two public diffusion checkpoints of certified robustness into stock diffusers folders.

OpenAI's U-Nets and diffusers' `UNet2DModel` are the same function with parameters under other names
(`convert_layout`), so a converted folder needs none of the original code: `DDPMPipeline.from_pretrained`
samples from it, and `robustify` denoises with it.

References:
    Diffusion Models Beat GANs on Image Synthesis, Dhariwal, Nichol, 2021, https://arxiv.org/abs/2105.05233
    (weights and code: https://github.com/openai/guided-diffusion)
    Improved Denoising Diffusion Probabilistic Models, Nichol, Dhariwal, 2021,
    https://arxiv.org/abs/2102.09672 (weights and code: https://github.com/openai/improved-diffusion)
    (Certified!!) Adversarial Robustness for Free!, Carlini, Tramer, Dvijotham, Rice, Sun, Kolter, 2023,
    https://arxiv.org/abs/2206.10550 (certifies with both)
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError
from types import MappingProxyType
from typing import Final

import torch
from diffusers import DDPMPipeline, DDPMScheduler
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from robustify.denoisers.convert.layout import Layout, empty_network, map_state_dict
from robustify.errors import InputError


@dataclass(frozen=True)
class Family:
    """A published checkpoint: its file name, its network, and the arguments of its `DDPMScheduler`."""

    file: str
    layout: Layout
    schedule: Mapping[str, object]


def cosine_betas(*, trained: int, seen: int) -> list[float]:
    r"""The cosine schedule, thinned so that an index of it is the time that the network sees.

    Networks trained with `rescale_timesteps` see :math:`t' = 1000 t / T` at step :math:`t < T`. Neither
    `UNet2DModel` nor `DDPMScheduler` has a field for that factor. But a schedule of 1000 steps with
    :math:`\bar\alpha'_{t'} = \bar\alpha_{t' T / 1000}` needs none: its own index :math:`t'` is what the
    network must be given. So stock pipelines run the original process respaced to every
    :math:`T / 1000`-th step, and so a denoiser may solve for a continuous :math:`t'` by interpolating the
    log signal-to-noise ratio over this index.

    References:
        Improved Denoising Diffusion Probabilistic Models, Nichol, Dhariwal, 2021, equation 17 and section 4,
        https://arxiv.org/abs/2102.09672

    Arguments:
        trained: Number of steps in training, :math:`T`, a multiple of `seen`.
        seen: Number of steps to return, 1000 for every OpenAI model.

    Returns:
        :math:`\beta'_{t'} = 1 - \bar\alpha'_{t'} / \bar\alpha'_{t'-1}`, where :math:`\bar\alpha'_{-1} = 1`.
    """

    def signal(time: float) -> float:
        return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2

    # OpenAI also caps every beta at 0.999; that changes the last of the T steps alone, which thinning drops.
    times = [0.0, *((t + 1) / trained for t in range(0, trained, trained // seen))]
    return [1 - signal(after) / signal(before) for before, after in pairwise(times)]


FAMILIES: Final[Mapping[str, Family]] = MappingProxyType(
    {
        "guided-diffusion": Family(
            file="256x256_diffusion_uncond.pt",
            layout=Layout(
                size=256,
                channels=256,
                multipliers=(1, 1, 2, 2, 4, 4),
                blocks=2,
                head_channels=64,
                attention_levels=(3, 4, 5),  # resolutions 32, 16 and 8
                updown=True,
            ),
            schedule={
                "num_train_timesteps": 1000,
                "beta_schedule": "linear",
                "beta_start": 1e-4,
                "beta_end": 0.02,
                "variance_type": "learned_range",
            },
        ),
        "improved-diffusion": Family(
            file="cifar10_uncond_50M_500K.pt",
            layout=Layout(
                size=32,
                channels=128,
                multipliers=(1, 2, 2, 2),
                blocks=3,
                head_channels=64,  # 4 heads: attention and middle are all 256 wide
                attention_levels=(1, 2),  # resolutions 16 and 8
                updown=False,
            ),
            schedule={
                "num_train_timesteps": 1000,
                "trained_betas": cosine_betas(trained=4000, seen=1000),
                "variance_type": "learned_range",
            },
        ),
    }
)
"""The checkpoints that `convert` knows, by the name of the repository that published them."""

_UNREADABLE = (
    *(OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, AttributeError),
    *(UnpicklingError, struct.error, SafetensorError),
)
"""What `torch.load` and safetensors raise for files that are cut short, altered, or something else."""


def _known() -> str:
    """The sentence that lists all families, for error texts."""
    return "Known families: " + "; ".join(f"{name!r} for {family.file}" for name, family in FAMILIES.items())


def build(state: Mapping[str, Tensor], family: Family) -> DDPMPipeline:
    """The stock pipeline of a checkpoint of a family, in float32 and in evaluation mode.

    Raises:
        InputError: If the checkpoint is not one of the family.
    """
    network = empty_network(family.layout)
    network.load_state_dict(map_state_dict(state, family.layout), strict=True, assign=True)
    return DDPMPipeline(unet=network.eval(), scheduler=DDPMScheduler(**family.schedule))


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file or, under any other suffix, of a `torch.save` file.

    Raises:
        InputError: If the file is missing, unreadable, or holds anything but named tensors.
    """
    if not path.is_file():
        raise InputError(f"expected a checkpoint file; {path} is not a file. {_known()}")
    try:
        loaded: object = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except _UNREADABLE as error:  # torch's own text advises to load unsafely: name the error alone
        raise InputError(
            f"expected a state dict; {path} is damaged, incomplete, or holds more than tensors"
            f" ({type(error).__name__}). Download it again"
        ) from error
    if not isinstance(loaded, dict):
        raise InputError(f"expected a state dict; {path} holds a {type(loaded).__name__}")
    if strange := [str(k) for k, v in loaded.items() if not (isinstance(k, str) and isinstance(v, Tensor))]:
        raise InputError(f"expected tensors only; {path} has other values under: {', '.join(strange[:3])}")
    return loaded


def convert(family: str, checkpoint: Path, out: Path) -> None:
    """Writes a public checkpoint as a `DDPMPipeline` folder: model_index.json, unet/, scheduler/.

    Arguments:
        family: A name in `FAMILIES`.
        checkpoint: The downloaded file; `FAMILIES[family].file` is the name it is published under.
        out: A folder that is empty or does not exist.

    Raises:
        InputError: If the family is unknown, `out` is in use, or the checkpoint is not one of the family.
    """
    if family not in FAMILIES:
        raise InputError(f"no family named {family!r}. {_known()}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"expected a new or empty folder to write to; {out} is in use. Name another one")
    state, known = read_checkpoint(checkpoint), FAMILIES[family]
    try:
        pipeline = build(state, known)
    except InputError as error:
        raise InputError(f"{checkpoint} is not {known.file}, the file of {family!r}: {error}") from error
    pipeline.save_pretrained(out)
