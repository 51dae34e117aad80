"""Batches, augmentation, training loop and accuracy, shared by the trainers of the zoo's three classifiers.

Pixels lie in [0, 1]. The augmentation (shift, zoom, mirror, blur) is usual for a classifier of slightly blurred images.
There is no Gaussian noise in training, so that robustness to noise, measured later, is due to the denoiser.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from tqdm import tqdm

SHIFT = 2.0
"""Largest shift of an image, in pixels, along each axis."""
ZOOM = 0.1
"""Largest relative change of size, drawn apart for each axis."""
BLUR = (0.25, 1.5)
"""Standard deviations, in pixels, between which the blur is drawn log-uniformly."""
AUGMENTATION = f"mirror; shift up to {SHIFT} px; zoom up to {ZOOM:.0%}; blur of sd {BLUR[0]}-{BLUR[1]} px"

Split = tuple[Tensor, Tensor]
"""Images, uint8 of shape (N, 1, 32, 32), and labels, int64 of shape (N)."""
Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""Maps a network, augmented pixels (B, 1, 32, 32) and labels (B) to a scalar."""
Scores = Callable[[Tensor], Tensor]
"""Maps pixels (B, 1, 32, 32) to class scores (B, 10)."""


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train; the learning rate warms up, then falls to zero in one cycle."""

    epochs: int
    learning_rate: float
    batch: int = 128
    weight_decay: float = 0.05
    ema_decay: float = 0.995


def batches(split: Split, batch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless shuffled, augmented batches: pixels (batch, 1, 32, 32) and labels (batch)."""
    images, labels = split
    whole = len(images) // batch * batch
    while True:
        for rows in torch.randperm(len(images), generator=generator)[:whole].view(-1, batch):
            yield augment(images[rows].float() / 255, generator), labels[rows]


def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Randomly mirrors, shifts, zooms and blurs each image of (B, C, H, W) on its own.

    All four at once: each axis is resampled by a matrix whose row i is a Gaussian window, of the
    blur's width, around the place that output pixel i is taken from.
    """
    low, high = map(math.log, BLUR)
    blur = torch.exp(low + (high - low) * torch.rand(len(pixels), generator=generator))
    mirror = torch.randint(2, (len(pixels),), generator=generator) * 2 - 1
    rows = _windows(pixels.shape[-2], torch.ones(len(pixels)), blur, generator)
    columns = _windows(pixels.shape[-1], mirror, blur, generator)
    return rows @ pixels @ columns.mT


def _windows(size: int, mirror: Tensor, blur: Tensor, generator: torch.Generator) -> Tensor:
    """Resampling matrices along one axis, shape (B, 1, size, size); `mirror` (B) is 1 or -1."""
    shift, zoom = (2 * torch.rand(2, len(blur), generator=generator) - 1) * torch.tensor([[SHIFT], [ZOOM]])
    axis = torch.arange(size) - (size - 1) / 2
    source = axis * (mirror * (1 + zoom))[:, None] + shift[:, None]
    distance = (source[:, :, None] - axis) / blur[:, None, None]
    return torch.softmax(-distance.square() / 2, dim=-1)[:, None]


def fit(network: nn.Module, loss: Loss, split: Split, recipe: Recipe, *, seed: int) -> int:
    """Trains `network` in place, leaves it averaged and in evaluation mode; returns the seconds taken.

    Arguments:
        network: Any module; `loss` knows how to call it.
        loss: Computes the training loss; runs under autocast to bfloat16.
        split: The training split.
        recipe: Length, batch size and rates.
        seed: Seed of shuffling and augmentation.
    """
    steps = recipe.epochs * (len(split[0]) // recipe.batch)
    average = ModelEmaV3(network, decay=recipe.ema_decay)
    optimizer = torch.optim.AdamW(_groups(network, recipe.weight_decay), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps, pct_start=0.15)
    stream = batches(split, recipe.batch, torch.Generator().manual_seed(seed))
    started = time.monotonic()
    network.train()
    with tqdm(zip(range(steps), stream, strict=False), total=steps, desc=type(network).__name__) as progress:
        for _, (pixels, target) in progress:
            with torch.autocast("cpu", torch.bfloat16):
                value = loss(network, pixels, target)
            torch.autograd.backward(value)
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            average.update(network)
            progress.set_postfix(loss=f"{value.item():.4f}", refresh=False)
    network.load_state_dict(average.module.state_dict())
    network.eval()
    return round(time.monotonic() - started)


def _groups(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Parameters with decay (matrices and kernels) and without (biases, gains, scalars)."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def report(what: str, network: nn.Module, recipe: Recipe, *, seconds: int, seed: int) -> dict[str, object]:
    """The record's entry for a classifier, without its accuracy."""
    return {
        "what": what,
        "parameters": sum(p.numel() for p in network.parameters()),
        **asdict(recipe),
        "augmentation": AUGMENTATION,
        "seconds": seconds,
        "seed": seed,
    }


def accuracies(scores: Scores, split: Split) -> dict[str, float]:
    """Accuracy on the test split, and on the 500 of its images that the zoo ships."""
    return {"test": accuracy(scores, split), "held_out": accuracy(scores, held_out(split))}


@torch.inference_mode()
def accuracy(scores: Scores, split: Split, *, batch: int = 500) -> float:
    """Share of the images whose highest score is that of their label, in float32."""
    images, labels = split
    correct = 0
    for first in range(0, len(images), batch):
        guess = scores(images[first : first + batch].float() / 255).argmax(1)
        correct += int((guess == labels[first : first + batch]).sum())
    return correct / len(images)


def held_out(split: Split) -> Split:
    """Every 20th image and its label: of the test split, 500 of 10,000."""
    images, labels = split
    return images[::20].contiguous(), labels[::20].contiguous()


def pixel_statistics(images: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of uint8 images on the [0, 1] scale, rounded to four digits."""
    pixels = images.float() / 255
    return round(float(pixels.mean()), 4), round(float(pixels.std()), 4)
