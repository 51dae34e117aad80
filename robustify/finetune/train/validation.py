"""Images kept out of training: how well they are recognised through noise."""

from dataclasses import dataclass
from typing import cast, final

import torch
from accelerate.utils import reduce
from torch import Tensor
from tqdm import tqdm

from robustify.data.examples import Examples
from robustify.errors import InputError
from robustify.finetune.objectives.attacks import frozen
from robustify.finetune.seeds import normal
from robustify.smoothing import SmoothedClassifier

DRAWS = 8
"""Noisy copies of each image."""


@final
@dataclass(frozen=True)
class HeldOut:
    """Labelled images and their noise, the same each time; processes share the work.

    Arguments:
        examples: Not learned from.
        seed: Of the noise.
        batch: Copies that pass the networks together, at most, but at least those of one image.
        process, processes: Which share, of how many.
        quiet: No progress bar.

    Raises:
        InputError: If the images have no labels.
    """

    examples: Examples
    seed: int
    batch: int
    process: int = 0
    processes: int = 1
    quiet: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.examples, Examples):
            raise InputError(f"expected held-out Examples(model, images, labels); got {type(self.examples).__name__}")
        if self.examples.labels is None:
            raise InputError("held-out images judge what was learned, which needs labels; these have none")
        self.examples.__getitems__([0])  # an unusable image shows before any work

    @torch.no_grad()
    def judge(self, model: SmoothedClassifier) -> dict[str, float]:
        """`hit`: the share of copies classified as their label; `steady`: of images all of whose copies are."""
        rows = list(range(self.process, len(self.examples), self.processes))
        each = max(1, self.batch // DRAWS)
        device = model.classifier.device
        labels, sums = cast(Tensor, self.examples.labels), torch.zeros(2, device=device)
        with (
            frozen(model),
            tqdm(total=len(rows), desc="held out", unit="image", leave=False, disable=self.quiet) as bar,
        ):
            for first in range(0, len(rows), each):
                picked = self.examples.__getitems__(rows[first : first + each])
                noise = model.sigma * normal(self.seed, picked.rows, range(DRAWS), picked.pixels.shape[1:])
                noisy = (picked.pixels + noise).flatten(0, 1).to(device)
                found = model.logits(noisy).argmax(dim=1).view(DRAWS, -1)
                right = (found == labels[picked.rows].to(device)).float()
                sums += torch.stack([right.mean(dim=0).sum(), right.amin(dim=0).sum()])
                bar.update(len(picked.rows))
        if self.processes > 1:
            sums = reduce(sums, reduction="sum")
        hit, steady = (sums / len(self.examples)).tolist()
        return {"hit": hit, "steady": steady}
