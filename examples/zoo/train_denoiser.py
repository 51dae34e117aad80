"""Trains the zoo's denoiser: a small unconditional DDPM in diffusers format.

The network predicts v, which is well conditioned over the whole range of noise that one-step
denoising meets. Four fifths of the timesteps are drawn log-uniformly over the noise levels that
certification uses, the rest uniformly, so the model stays a DDPM that stock pipelines can sample.

References:
    Denoising Diffusion Probabilistic Models, Ho, Jain, Abbeel, 2020, https://arxiv.org/abs/2006.11239
    Progressive Distillation for Fast Sampling of Diffusion Models, Salimans, Ho, 2022,
    https://arxiv.org/abs/2202.00512
"""

import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from torch import Tensor
from tqdm import tqdm

from robustify.zoo import fashion_mnist

STEPS = 5_000
BATCH = 64
LEARNING_RATE = 1.5e-3
SIGMAS = (0.09, 1.2)
"""Pixel noise levels that get most of the training; certification uses .12 to 1.0."""


def build() -> tuple[UNet2DModel, DDPMScheduler]:
    """The untrained network, 1.7 million parameters, and its noise schedule."""
    network = UNet2DModel(
        sample_size=32,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(32, 64, 96),
        down_block_types=("DownBlock2D",) * 3,
        up_block_types=("UpBlock2D",) * 3,
        norm_num_groups=8,
        attention_head_dim=32,
    )
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear", prediction_type="v_prediction")
    return network, scheduler


def batches(images: Tensor, seed: int) -> Iterator[Tensor]:
    """Endless shuffled batches in [-1, 1], shape (BATCH, 1, 32, 32)."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        for rows in torch.split(torch.randperm(len(images), generator=generator), BATCH):
            if len(rows) == BATCH:
                yield images[rows].float() / 127.5 - 1


def draw_timesteps(scheduler: DDPMScheduler, generator: torch.Generator) -> Tensor:
    """Integer timesteps, shape (BATCH): 80 % log-uniform in the noise level used, 20 % uniform."""
    alphas = scheduler.alphas_cumprod.double()
    levels = ((1 - alphas) / alphas).sqrt() / 2
    low, high = map(math.log, SIGMAS)
    wanted = torch.exp(low + (high - low) * torch.rand(BATCH, generator=generator, dtype=torch.float64))
    focused = torch.searchsorted(levels, wanted).clamp(max=len(levels) - 1)
    uniform = torch.randint(len(levels), (BATCH,), generator=generator)
    return torch.where(torch.rand(BATCH, generator=generator) < 0.8, focused, uniform)


def train(data: Path, out: Path, *, steps: int = STEPS, seed: int = 0) -> dict[str, object]:
    """Trains on the training split alone, saves a `DDPMPipeline` folder and returns its record."""
    torch.manual_seed(seed)
    images, _ = fashion_mnist.read("train", data)
    network, scheduler = build()
    ema = EMAModel(network.parameters(), decay=0.999)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.05)
    generator = torch.Generator().manual_seed(seed)
    started = time.monotonic()
    with tqdm(zip(range(steps), batches(images, seed), strict=False), total=steps, desc="denoiser") as progress:
        for _, clean in progress:
            timesteps = draw_timesteps(scheduler, generator)
            noise = torch.randn(clean.shape, generator=generator)
            noisy = scheduler.add_noise(clean, noise, timesteps)
            target = scheduler.get_velocity(clean, noise, timesteps)
            with torch.autocast("cpu", torch.bfloat16):
                predicted = network(noisy, timesteps).sample
            loss = (predicted.float() - target).square().mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            ema.step(network.parameters())
            progress.set_postfix(loss=f"{loss.item():.4f}")
    ema.copy_to(network.parameters())
    DDPMPipeline(unet=network.eval(), scheduler=scheduler).save_pretrained(out)
    return {
        "what": "unconditional DDPM, v-prediction, diffusers UNet2DModel",
        "parameters": sum(p.numel() for p in network.parameters()),
        "steps": steps,
        "batch": BATCH,
        "seconds": round(time.monotonic() - started),
        "seed": seed,
    }
