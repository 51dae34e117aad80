"""Which images a step sees, and through which noise: a function of (recipe, data, step) alone."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from robustify.data.examples import Examples, Picked
from robustify.errors import InputError
from robustify.finetune.objectives import Batch
from robustify.finetune.recipe import Recipe
from robustify.finetune.seeds import normal, order
from robustify.finetune.train.augment import augment
from robustify.finetune.train.denoised import DenoisedCopies


@final
@dataclass(frozen=True)
class Batches:
    """The steps of one run, or one process's share of them.

    Arguments:
        examples: What to learn from.
        recipe: How.
        sigma: Of the noise.
        copies: Denoised before; None to denoise in every step.
        process, processes: Which share, of how many.
        workers: Processes that decode images.

    Raises:
        InputError: If some batch has fewer images than there are processes.
    """

    examples: Examples
    recipe: Recipe
    sigma: float
    copies: DenoisedCopies | None = None
    process: int = 0
    processes: int = 1
    workers: int = 0

    def __post_init__(self) -> None:
        images, batch = len(self.examples), self.recipe.batch
        least = min(batch, images % batch or batch)
        if least < self.processes:
            raise InputError(
                f"the last batch of an epoch has {least} of {images} images: too few for {self.processes} processes.\n"
                "  Use another batch size, or fewer processes."
            )

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch; the last may see fewer images, none is left out."""
        return math.ceil(len(self.examples) / self.recipe.batch)

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.recipe.epochs * self.per_epoch

    def rows(self, step: int) -> list[int]:
        """Those of all processes."""
        epoch, position = divmod(step, self.per_epoch)
        visited = order(self.recipe.seed, epoch, len(self.examples))
        return list(visited[position * self.recipe.batch : (position + 1) * self.recipe.batch])

    def load(self, start: int) -> Iterator[Picked]:
        """This process's images of each step from `start` on."""
        yield from DataLoader(
            self.examples,
            batch_sampler=(self.rows(step)[self.process :: self.processes] for step in range(start, self.steps)),
            num_workers=self.workers,
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # else the loader would take from everybody's random numbers
        )

    def parts(self, picked: Picked, step: int, device: torch.device) -> Iterator[Batch]:
        """A step's images with their noise, as many at once as the recipe says."""
        size = self.recipe.micro_batch or len(picked.rows)
        for first in range(0, len(picked.rows), size):
            part = slice(first, first + size)
            labels = picked.labels[part] if picked.labels is not None else None
            yield self._batch(picked.rows[part], picked.pixels[part], labels, step, device)

    def _batch(self, rows: list[int], pixels: Tensor, labels: Tensor | None, step: int, device: torch.device) -> Batch:
        recipe, epoch = self.recipe, step // self.per_epoch
        draws = recipe.objective.draws
        numbers = [epoch * draws + i for i in range(draws)]
        if self.copies is not None:
            numbers = [number % self.copies.copies for number in numbers]
        pixels = augment(pixels, rows, recipe.augment, seed=recipe.seed, epoch=epoch)
        drawn = numbers if self.copies is None else ()
        noise = self.sigma * normal(recipe.seed, rows, drawn, pixels.shape[1:])
        return Batch(
            pixels=pixels.to(device),
            labels=labels.to(device) if labels is not None else None,
            noise=noise.to(device),
            rows=torch.tensor(rows),
            epoch=step / self.per_epoch,
            denoised=self.copies.read(rows, numbers).to(device) if self.copies is not None else None,
            seed=recipe.seed,
        )


def _as_it_is(picked: Any) -> Any:  # noqa: ANN401 - already a batch, a `Picked`
    return picked
