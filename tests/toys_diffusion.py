"""What several tests of diffusion denoisers share: schedules, tiny networks, and one that predicts perfectly."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import Tensor, nn

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
