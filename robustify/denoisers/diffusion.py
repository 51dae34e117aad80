r"""One step of a pretrained pixel-space diffusion model: `diffusers:google/ddpm-cifar10-32`, `diffusers:/folder`.

The model was trained on :math:`y_t = \sqrt{\bar\alpha_t}\, y + \sqrt{1 - \bar\alpha_t}\, z` with
:math:`y = 2x - 1` for pixels x in [0, 1]. Noise of standard deviation :math:`\sigma` in x is noise of :math:`2\sigma`
in y, which is the model's noise where :math:`\bar\alpha = 1 / (1 + 4\sigma^2)`. The timestep, a real number, is the
one whose log signal-to-noise ratio is :math:`-2 \log 2\sigma`.

References:
    (Certified!!) Adversarial Robustness for Free!, Carlini et al., 2023, https://arxiv.org/abs/2206.10550
    Denoising Diffusion Probabilistic Models, Ho, Jain, Abbeel, 2020, https://arxiv.org/abs/2006.11239
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np
import torch
from torch import Tensor, nn

from robustify.denoisers.base import Denoiser
from robustify.denoisers.network import config_of, dtype_of, predict, size_of
from robustify.denoisers.schedule import log_snr_of, prediction_of
from robustify.downloads import from_hub
from robustify.errors import InputError, ModelError
from robustify.licences import licence_of
from robustify.types import Levels, Pixels

Factor: TypeAlias = float | Tensor
"""A number for all images, or one for each, of shape (B, 1, 1, 1)."""


@final
class DiffusionDenoiser(Denoiser):
    """Denoises with one call of a diffusers `UNet2DModel`.

    Arguments:
        network: A diffusers network in evaluation mode, which maps images of shape (B, C, H, W) and timesteps of shape
            (B) to a prediction with C channels, or with 2C where it also learned the variance, which is not used.
            C is 1 or 3. Neither moved nor changed; in channels-last memory it is a little faster.
        scheduler: The diffusers scheduler of its training, with `alphas_cumprod`, whose indices are its timesteps, and
            `config.prediction_type`. How it would sample does not matter.
        name: Name in certificates and reports.
        licence: Licence of the weights, where it is known.

    Raises:
        ModelError: If the network is no `UNet2DModel` of pixels, is conditional, takes another time or input, or is in
            training mode; or if the schedule is unusable.
    """

    def __init__(
        self,
        network: nn.Module,
        scheduler: Any,  # noqa: ANN401 - diffusers' schedulers share no base class with these attributes
        *,
        name: str = "diffusion",
        licence: str | None = None,
    ) -> None:
        super().__init__()
        config = config_of(network)
        self.network = network
        self.log_snr = log_snr_of(scheduler)
        self.prediction = prediction_of(scheduler)
        self.name = name
        self.licence = licence
        self.channels = int(config["in_channels"])
        self.size = size_of(config)
        self.eval()

    def timestep(self, sigma: float) -> float:
        """The real-valued timestep whose noise level is exactly `sigma` in [0, 1] pixels.

        Raises:
            InputError: If the model's schedule never reaches this noise level.
        """
        wanted = -2 * math.log(2 * sigma)
        highest, lowest = float(self.log_snr[0]), float(self.log_snr[-1])
        if not lowest <= wanted <= highest:
            low, high = (math.exp(-v / 2) / 2 for v in (highest, lowest))
            raise InputError(f"{self.name} denoises sigma from {low:.4f} to {high:.4g}; got sigma={sigma:g}")
        steps = np.arange(len(self.log_snr))
        return float(np.interp(-wanted, -self.log_snr, steps))

    def forward(self, noisy: Pixels, sigma: Levels) -> Pixels:
        levels = sigma if isinstance(sigma, float | int) else sigma.tolist()
        times, signal, noise = self._level(levels, noisy)
        y_t = signal * (2 * noisy.float() - 1)
        predicted = predict(self.network, y_t, times, self.name)
        clean = (self._clean(y_t, predicted, signal, noise) + 1) / 2
        return clean.clamp(0, 1).contiguous()  # classifiers may view pixels in rows

    def _level(self, sigma: float | list[float], noisy: Pixels) -> tuple[Tensor, Factor, Factor]:
        """Timestep of each image, and the factors of signal and noise: numbers, or one for each image."""
        if isinstance(sigma, list):
            by_level = {level: (self.timestep(level), *_factors(level)) for level in dict.fromkeys(sigma)}
            table = torch.tensor([by_level[level] for level in sigma], dtype=torch.float32, device=noisy.device)
            times, signal, noise = table.unbind(dim=1)
            return times, signal.view(-1, 1, 1, 1), noise.view(-1, 1, 1, 1)
        times = torch.full((len(noisy),), self.timestep(sigma), dtype=torch.float32, device=noisy.device)
        return times, *_factors(sigma)

    def _clean(self, y_t: Tensor, predicted: Tensor, signal: Factor, noise: Factor) -> Tensor:
        """The clean image in [-1, 1] that the prediction implies."""
        if self.prediction == "epsilon":
            return (y_t - noise * predicted) / signal
        if self.prediction == "v_prediction":
            return signal * y_t - noise * predicted
        return predicted

    def describe(self, sigma: float) -> str:
        dtype = str(dtype_of(self.network)).removeprefix("torch.")
        return f"one step at t = {self.timestep(sigma):.4f}, {self.prediction}, {dtype}"


def _factors(sigma: float) -> tuple[float, float]:
    """Factors of signal and noise at this noise level."""
    alpha_bar = 1 / (1 + 4 * sigma**2)
    return math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)


@from_hub("")
def load(name: str, /) -> DiffusionDenoiser:
    """Loads a diffusers pipeline with a pixel-space `unet` and a `scheduler` from a folder or the Hub.

    The network is put into channels-last memory.

    Raises:
        InputError: If there is no such pipeline, or the folder was not written by diffusers.
        ModelError: If the pipeline works on latents or needs conditions.
    """
    from diffusers import DiffusionPipeline
    from diffusers.utils import logging

    folder = Path(name)
    if name.startswith(("/", ".", "~")) and not folder.is_dir():
        raise InputError(f"there is no folder {name!r}")
    if folder.is_dir() and not (folder / "model_index.json").is_file():
        raise InputError(f"expected a diffusers pipeline folder with model_index.json; {folder} has none")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # two small files; downloads have bars of their own
    try:
        index = DiffusionPipeline.load_config(name)
        _check_parts(index["_class_name"], [part for part, home in index.items() if _is_present(home)])
        pipeline = DiffusionPipeline.from_pretrained(name)
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, AttributeError) as error:  # AttributeError: no such pipeline class
        raise InputError(f"diffusers cannot load a pipeline from {name!r}: {error}") from error
    finally:
        if shown:
            logging.enable_progress_bar()
    denoiser = from_pipeline(pipeline, name=f"diffusers:{name}", licence=licence_of(name))
    return denoiser.to(memory_format=torch.channels_last)  # U-Nets are faster so, if little


def names(pattern: str = "*", /) -> list[str]:
    """No names, since the Hub is too large to list; see https://huggingface.co/models?library=diffusers."""
    del pattern
    return []


def from_pipeline(pipeline: Any, *, name: str, licence: str | None = None) -> DiffusionDenoiser:  # noqa: ANN401
    """Wraps the network and the scheduler of an unconditional diffusers pipeline.

    Raises:
        ModelError: If the pipeline works on latents or needs conditions.
    """
    parts = pipeline.components
    _check_parts(type(pipeline).__name__, [name for name, part in parts.items() if part is not None])
    return DiffusionDenoiser(parts["unet"], parts["scheduler"], name=name, licence=licence)


def _is_present(home: object) -> bool:
    """Whether an entry of model_index.json, (library, class), is a part that the pipeline has."""
    return isinstance(home, list | tuple) and len(home) == 2 and isinstance(home[0], str)


def _check_parts(pipeline: str, parts: Sequence[str]) -> None:
    """Refuses pipelines that are more or less than a network of pixels and its scheduler."""
    if set(parts) != {"unet", "scheduler"}:
        raise ModelError(
            f"expected a pixel-space pipeline of unet and scheduler; {pipeline} has {', '.join(sorted(parts))}"
        )
