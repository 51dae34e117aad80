"""Measures on images kept out of training how well they are classified through noise."""

from dataclasses import dataclass
from typing import cast, final

import torch
from accelerate.utils import reduce
from torch import Tensor

from robustify.bars import bar
from robustify.data.examples import Examples
from robustify.errors import InputError
from robustify.finetune.objectives.attacks import frozen
from robustify.finetune.seeds import normal
from robustify.smoothing import SmoothedClassifier

DRAWS = 8
"""Noisy copies of each image."""


@final
@dataclass(frozen=True)
class Validation:
    """Labelled images and their noise, the same each time; processes share the work.

    Arguments:
        examples: Images with labels that training does not see.
        seed: Seed of the noise.
        batch: Most copies that pass the networks together, but at least those of one image.
        process: Index of this process.
        processes: Number of processes.
        quiet: Shows no progress bar.

    Raises:
        InputError: If the images have no labels, or the first cannot be used.
    """

    examples: Examples
    seed: int
    batch: int
    process: int = 0
    processes: int = 1
    quiet: bool = False

    def __post_init__(self) -> None:
        if self.examples.labels is None:
            raise InputError("validation compares classes with labels; these images have none")
        self.examples.__getitems__([0])  # an unusable image shows before any work

    @torch.no_grad()
    def measure(self, model: SmoothedClassifier) -> dict[str, float]:
        """Shares of all images and of all their copies, in [0, 1].

        Returns:
            `noisy_accuracy`, the share of noisy copies classified as their label, and `all_draws_accuracy`, the share
            of images all of whose copies are.
        """
        rows = list(range(self.process, len(self.examples), self.processes))
        each = max(1, self.batch // DRAWS)
        sums = torch.zeros(2, dtype=torch.float32, device=model.classifier.device)
        with (
            frozen(model),
            bar("validation", len(rows), "image", hide=self.quiet, leave=False) as shown,
        ):
            for first in range(0, len(rows), each):
                sums += self._sums(model, rows[first : first + each])
                shown.update(min(each, len(rows) - first))
        if self.processes > 1:
            sums = reduce(sums, reduction="sum")
        noisy, all_draws = (sums / len(self.examples)).tolist()
        return {"noisy_accuracy": noisy, "all_draws_accuracy": all_draws}

    def _sums(self, model: SmoothedClassifier, rows: list[int]) -> Tensor:
        """Shares of correct copies, and whether all are correct, summed over images; shape (2)."""
        images = self.examples.__getitems__(rows)
        noise = model.sigma * normal(self.seed, images.rows, range(DRAWS), images.pixels.shape[1:])
        noisy = (images.pixels + noise).flatten(0, 1).to(model.classifier.device)
        found = model.logits(noisy).argmax(dim=1).view(DRAWS, -1)
        right = (found == cast(Tensor, images.labels).to(found.device)).float()
        return torch.stack([right.mean(dim=0).sum(), right.amin(dim=0).sum()])
