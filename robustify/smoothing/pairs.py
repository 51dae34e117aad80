"""Base functions of a model and of what it was before a change, and noise that both see."""

from dataclasses import replace
from typing import final

import torch

from robustify.certificates.migration import SameNoise
from robustify.certificates.views import View
from robustify.errors import InputError
from robustify.smoothing.checks.evidence import Evidence
from robustify.smoothing.checks.probes import Answer
from robustify.smoothing.noise import Array, NoiseAddress, NoiseLaw, noise_law
from robustify.smoothing.pipeline import Pipeline
from robustify.types import Bytes, Image, Levels, Logits, Pixels


def before(pipeline: Pipeline) -> Answer:
    """The pipeline before the change.

    Raises:
        InputError: If the pipeline does not know it.
    """
    if pipeline.before is None:
        raise InputError(
            "certificates of a migrated run need the model before the change too.\n"
            "  Use robustify.runs.migrate, or SmoothedClassifier(…, before=old.pipeline)."
        )
    return pipeline.before


def agreement(pipeline: Pipeline) -> Answer:
    """Whether a pipeline and the one before the change agree: a class leads where it leads in both.

    The logit of a class is its lead in the pipeline where that is smaller, and nothing where it does not lead in both.
    So the lead of the class on which both agree is the smaller one of both leads; where they differ, all classes tie
    and the draw fails. All logits are moved by the size of the largest of both, so that a lead counts only if it is
    more than rounding of either.

    Raises:
        InputError: If the pipeline does not know the one before.
    """
    old = before(pipeline)

    def both(noisy: Pixels, sigma: Levels) -> Logits:
        first, second = old(noisy, sigma).float(), pipeline(noisy, sigma).float()
        size = torch.maximum(first.abs().amax(dim=1), second.abs().amax(dim=1))
        found: Logits = size[:, None] + torch.minimum(_leads(first), _leads(second))
        return found

    return both


def _leads(logits: Logits) -> Logits:
    """How far each class is ahead of all others; 0 for those that do not lead."""
    best, second = logits.topk(2, dim=1).values.unbind(dim=1)
    others = torch.where(logits == best[:, None], second[:, None], best[:, None])
    found: Logits = (logits - others).clamp(min=0)
    return found


@final
class SharedNoise(NoiseLaw):
    """The noise of another view's draws, number by number.

    Arguments:
        law: The law of both views.
        view: Index of the other view.
    """

    def __init__(self, law: NoiseLaw, view: int) -> None:
        self.sigma = law.sigma
        self._law, self._view = law, view

    def evidence(self) -> Evidence | None:
        return self._law.evidence()

    def block(self, address: NoiseAddress, index: int, shape: tuple[int, ...]) -> Array:
        return self._law.block(replace(address, view=self._view), index, shape)

    def add(self, image: Image | Bytes, noise: Array, out: Pixels) -> None:
        self._law.add(image, noise, out)


def same_noise(view: View, soundness: str) -> SharedNoise:
    """The law of a view whose change is `SameNoise`."""
    assert isinstance(view.change, SameNoise)  # noqa: S101 - views of another change name another law
    return SharedNoise(noise_law(soundness, view.sigma), view.change.view)
