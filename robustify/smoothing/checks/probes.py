"""Noisy copies of two pictures, the same each time, and the batches in which a base function is shown them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import torch
import torch.nn.functional as F
from torch import Tensor

from robustify.smoothing.places import PROBES
from robustify.types import Levels, Logits, Pixels

Answer: TypeAlias = Callable[[Pixels, Levels], Logits]
"""A batch and its noise level, one number or one for each image, to the logits of the batch, shape (B, classes)."""


@final
@dataclass(frozen=True)
class Probes:
    """Images under noise, and whose logits of them are compared.

    Arguments:
        base: Noisy pixels and their noise level to logits of shape (B, classes).
        sigmas: Standard deviations of the noise, in [0, 1] pixels. Several share the batches, as a level per image.
        batch: Images per forward pass.
        images: Noisy images of all levels in turn, shape (8, C, H, W), on the device of the base function.
        levels: Noise level of each image.
    """

    base: Answer
    sigmas: Sequence[float]
    batch: int
    images: Pixels
    levels: Tensor

    @classmethod
    def make(
        cls,
        base: Answer,
        shape: tuple[int, int, int],
        *,
        sigmas: Sequence[float],
        batch: int,
        device: torch.device | None = None,
    ) -> "Probes":
        """The images for one shape and its noise levels."""
        levels = [sigmas[i % len(sigmas)] for i in range(PROBES)]
        images = torch.stack([_noisy(i, shape, sigma) for i, sigma in enumerate(levels)]).to(device)
        return cls(base, sigmas, batch, images, torch.tensor(levels, dtype=torch.float64))

    @property
    def batches(self) -> int:
        """Number of batches that show all images once: 1 where a batch has room for as many mates."""
        return len(self._groups())

    def among_copies(self) -> tuple[Logits, float]:
        """Logits of the images spread over copies of the first; and the largest difference among those copies."""
        found = [self._among_copies(group) for group in self._groups()]
        return torch.cat([logits for logits, _ in found]), max(spread for _, spread in found)

    def among_extremes(self) -> Logits:
        """Logits of the images at the end of a batch, in reverse order, after mates far beyond black and white.

        The mates are of all noise levels in turn.
        """
        generator = torch.Generator().manual_seed(PROBES)
        mates = 4 - 8 * torch.rand(self.batch, *self.images.shape[1:], generator=generator, dtype=torch.float32).to(
            self.images.device
        )
        levels = torch.tensor([self.sigmas[i % len(self.sigmas)] for i in range(self.batch)], dtype=torch.float64)
        last = self.batch - 1
        return torch.cat(
            [self._placed(group, torch.arange(last, last - len(group), -1), mates, levels) for group in self._groups()]
        )

    def before_gray(self) -> Logits:
        """Logits of the images at the beginning of a batch, gray after them, as the last batch of a run is filled.

        Where they need several batches, the last images come first: what takes turns from call to call shows.
        """
        gray = torch.full_like(self.images[:1], 0.5).expand(self.batch, *self.images.shape[1:])
        levels = torch.full((self.batch,), self.sigmas[0], dtype=torch.float64)
        backwards = self._groups()[::-1]
        found = [self._placed(group, torch.arange(len(group)), gray, levels) for group in backwards]
        return torch.cat(found[::-1])

    def _groups(self) -> list[range]:
        """Indices of images that go through one batch together."""
        room = min(PROBES, (self.batch + 1) // 2)
        return [range(i, min(i + room, PROBES)) for i in range(0, PROBES, room)]

    def _among_copies(self, group: range) -> tuple[Logits, float]:
        first = group.start
        mates = self.images[first : first + 1].expand(self.batch, *self.images.shape[1:])
        levels = self.levels[first : first + 1].expand(self.batch)
        places = torch.linspace(0, self.batch - 1, len(group), dtype=torch.float32).round().long().roll(1)
        logits = self._whole(group, places, mates, levels)
        same = torch.ones(self.batch, dtype=torch.bool, device=logits.device)
        same[places[1:]] = False
        copies = logits[same]
        return logits[places], difference(copies, copies[:1].expand_as(copies))

    def _placed(self, group: range, places: Tensor, mates: Tensor, levels: Tensor) -> Logits:
        return self._whole(group, places, mates, levels)[places]

    def _whole(self, group: range, places: Tensor, mates: Tensor, mates_levels: Tensor) -> Logits:
        """Logits of a whole batch of mates with the images at these places."""
        pixels, levels = mates.clone(), mates_levels.clone()
        pixels[places] = self.images[group.start : group.stop]
        levels[places] = self.levels[group.start : group.stop]
        return self.base(pixels, levels if len(self.sigmas) > 1 else self.sigmas[0])


def difference(one: Logits, other: Logits) -> float:
    """The largest difference of two logits; infinite where one is finite and the other is not."""
    finite = one.isfinite()
    if not torch.equal(finite, other.isfinite()):
        return math.inf
    return float((one - other)[finite].abs().max()) if bool(finite.any()) else 0.0


def _noisy(index: int, shape: tuple[int, int, int], sigma: float) -> Tensor:
    """A smooth picture under noise, the same each time; half of the probes share a picture."""
    picture, noise = (torch.Generator().manual_seed(seed) for seed in (2 * index // PROBES, PROBES + index))
    channels, height, width = shape
    parts = torch.rand(1, channels, 3, 3, generator=picture, dtype=torch.float32)
    smooth = F.interpolate(parts, (height, width), mode="bilinear")[0]
    return smooth + sigma * torch.randn(shape, generator=noise, dtype=torch.float32)
