r"""Converts two public diffusion checkpoints, known from certified robustness, to diffusers folders.

OpenAI's U-Nets and diffusers' `UNet2DModel` are the same function with other names for its parameters (see `layout`),
so a converted folder needs none of the original code: `DDPMPipeline.from_pretrained` samples from it, and `robustify`
denoises with it.

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
    """A published checkpoint.

    Arguments:
        file: Name of its file.
        layout: Shape of its network.
        schedule: Arguments of its `DDPMScheduler`.
    """

    file: str
    layout: Layout
    schedule: Mapping[str, object]


def cosine_betas(*, trained: int, seen: int) -> list[float]:
    r"""Betas of the cosine schedule, thinned so that their index is the time that the network is given.

    Networks trained with `rescale_timesteps` are given :math:`t' = 1000 t / T` at step :math:`t < T`. Neither
    `UNet2DModel` nor `DDPMScheduler` has a field for that factor, but a schedule of 1000 steps with
    :math:`\bar\alpha'_{t'} = \bar\alpha_{t' T / 1000}` needs none: its index :math:`t'` is the time that the network
    must be given. Pipelines of diffusers then run the original process with every :math:`T / 1000`-th step, and a
    denoiser finds a real-valued :math:`t'` by interpolating the log signal-to-noise ratio over this index.

    References:
        Improved Denoising Diffusion Probabilistic Models, Nichol, Dhariwal, 2021, equation 17 and section 4,
        https://arxiv.org/abs/2102.09672

    Arguments:
        trained: Number of steps in training, :math:`T`, a multiple of `seen`.
        seen: Number of steps that the network is given, 1000 for every OpenAI model.

    Returns:
        :math:`\beta'_{t'} = 1 - \bar\alpha'_{t'} / \bar\alpha'_{t'-1}`, where :math:`\bar\alpha'_{-1} = 1`.
    """

    def signal(time: float) -> float:
        return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2

    # OpenAI also caps betas at 0.999, which changes only the last of the T steps, and that one is left out here.
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
"""Checkpoints that `convert` knows, by the name of the repository that published them."""

_UNREADABLE = (
    *(OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, AttributeError),
    *(UnpicklingError, struct.error, SafetensorError),
)
"""Exceptions that `torch.load` and safetensors raise for files that are incomplete, damaged or of another kind."""


def _known() -> str:
    """A sentence that lists all families, for error texts."""
    return "Known families: " + "; ".join(f"{name!r} for {family.file}" for name, family in FAMILIES.items())


def build(state: Mapping[str, Tensor], family: Family) -> DDPMPipeline:
    """The diffusers pipeline of a checkpoint, in float32 and in evaluation mode.

    Raises:
        InputError: If the checkpoint is not of the family.
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
    except _UNREADABLE as error:  # torch's own text advises to load unsafely, so only the kind of error is named
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
    """Converts a public checkpoint to a `DDPMPipeline` folder with model_index.json, unet/ and scheduler/.

    Arguments:
        family: A name in `FAMILIES`.
        checkpoint: The downloaded file, which was published as `FAMILIES[family].file`.
        out: Folder to write to, empty or new.

    Raises:
        InputError: If the family is unknown, `out` is not empty, or the checkpoint is not of the family.
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
