"""The images and the noise of each step, which depend on (recipe, data, step) alone."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from robustify.data.examples import Examples, Minibatch
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
        examples: Images to learn from.
        recipe: How to train.
        sigma: Standard deviation of the noise, in [0, 1] pixels.
        copies: Copies denoised before; None to denoise in every step.
        process: Index of this process.
        processes: Number of processes.
        workers: Processes that decode images; 0 decodes in this one.

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
        images = len(self.examples)
        batch = self.recipe.batch
        least = min(batch, images % batch or batch)
        if least < self.processes:
            raise InputError(
                f"the last batch of an epoch has {least} of {images} images: too few for {self.processes} processes.\n"
                "  Use another batch size, or fewer processes."
            )

    @property
    def per_epoch(self) -> int:
        """Number of steps of an epoch; the last may see fewer images, none is left out."""
        return math.ceil(len(self.examples) / self.recipe.batch)

    @property
    def steps(self) -> int:
        """Number of steps of the whole run."""
        return self.recipe.epochs * self.per_epoch

    def rows(self, step: int) -> list[int]:
        """Rows of the data set that all processes together see in a step."""
        epoch, position = divmod(step, self.per_epoch)
        visited = order(self.recipe.seed, epoch, len(self.examples))
        return list(visited[position * self.recipe.batch : (position + 1) * self.recipe.batch])

    def load(self, start: int) -> Iterator[Minibatch]:
        """This process's images of each step from `start` on."""
        yield from DataLoader(
            self.examples,
            batch_sampler=(self.rows(step)[self.process :: self.processes] for step in range(start, self.steps)),
            num_workers=self.workers,
            collate_fn=_unchanged,
            generator=torch.Generator(),  # else the loader would take from everybody's random numbers
        )

    def parts(self, minibatch: Minibatch, step: int, device: torch.device) -> Iterator[Batch]:
        """A step's images with their noise, split into micro-batches of the recipe's size."""
        size = self.recipe.micro_batch or len(minibatch.rows)
        for first in range(0, len(minibatch.rows), size):
            part = slice(first, first + size)
            labels = minibatch.labels[part] if minibatch.labels is not None else None
            yield self._batch(minibatch.rows[part], minibatch.pixels[part], labels, step, device)

    def _batch(self, rows: list[int], pixels: Tensor, labels: Tensor | None, step: int, device: torch.device) -> Batch:
        recipe = self.recipe
        epoch = step // self.per_epoch
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


def _unchanged(minibatch: Any) -> Any:  # noqa: ANN401 - torch would collate it, and it is collated already
    return minibatch
