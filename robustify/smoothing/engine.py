"""The only Monte Carlo: noise in, votes out, in memory that does not depend on the number of draws."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from robustify.smoothing.noise import BLOCK, NoiseAddress
from robustify.types import Image, Logits, Pixels

Progress = Callable[[int], object]
"""Called with the number of draws just finished."""


def noisy_batches(
    image: Image, address: NoiseAddress, *, sigma: float, n: int, batch: int
) -> Iterator[tuple[Pixels, int]]:
    """Batches of `image` plus noise and how many of each count.

    Every batch has exactly `batch` draws, the last one too: another shape may round differently and would be
    another classifier. Draws past `n` are made and thrown away.
    """
    blocks = (address.block(i, tuple(image.shape)) for i in range(-(-n // BLOCK) + -(-batch // BLOCK)))
    waiting = torch.empty(0, *image.shape)
    for done in range(0, n, batch):
        while len(waiting) < batch:
            waiting = torch.cat([waiting, next(blocks)])
        noise, waiting = waiting[:batch], waiting[batch:]
        yield image + sigma * noise.to(image.device), min(batch, n - done)


@torch.inference_mode()
def count_votes(
    base: Callable[[Pixels], Logits],
    image: Image,
    address: NoiseAddress,
    *,
    classes: int,
    sigma: float,
    n: int,
    batch: int,
    progress: Progress | None = None,
) -> tuple[int, ...]:
    """How often each class wins among `n` noisy copies of `image`.

    Draws whose logits are not finite, or whose maximum is tied, vote for nobody: the sum then stays below `n`, and
    certificates treat the missing votes as one more rival.

    Arguments:
        base: The fixed function that is smoothed: noisy pixels to logits of shape (B, classes).
        image: Clean, shape (C, H, W), on the device of `base`.
        address: Of this stage's draws.
        batch: Draws per forward pass.
    """
    votes = torch.zeros(classes, dtype=torch.int64)
    for noisy, counted in noisy_batches(image, address, sigma=sigma, n=n, batch=batch):
        votes += _winners(base(noisy)[:counted], classes)
        if progress is not None:
            progress(counted)
    return tuple(votes.tolist())


def _winners(logits: Tensor, classes: int) -> Tensor:
    """Votes per class, shape (classes), without failed draws."""
    best, second = logits.topk(2, dim=1).values.unbind(dim=1)
    clear = logits.isfinite().all(dim=1) & (best > second)
    return torch.bincount(logits.argmax(dim=1)[clear].cpu(), minlength=classes)
