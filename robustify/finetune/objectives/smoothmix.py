r"""SmoothMix: learns to be less certain on the way from an image to one that is misclassified.

An attack without a ball leads from :math:`x` to :math:`\tilde x`. With :math:`\lambda` uniform on [0, 1/2],
:math:`x_\text{mix} = (1 - \lambda) x' + \lambda \tilde x` and
:math:`y_\text{mix} = (1 - \lambda) \bar F(x') + \lambda / C`:

.. math:: L = \frac1m \sum_i \mathrm{CE}\big(F(x' + \delta_i), y\big) + \eta\, w\, 1[\arg\max \bar F(x') = y]\,
          \frac1m \sum_i \mathrm{KL}\big(y_\text{mix} \| F(x_\text{mix} + \delta_i)\big)

The clean end :math:`x'` is x, or a point early on the way, brought near x. The weight w grows over the first epochs.

References:
    SmoothMix: Training Confidence-calibrated Smoothed Classifiers for Certified Robustness, Jeong, Park, Kim, Lee,
    Kim, Shin, 2021, https://arxiv.org/abs/2111.09277
"""

from dataclasses import dataclass
from typing import ClassVar, final

from robustify.errors import InputError
from robustify.finetune.objectives.attacks import noisy_logits, smoothmix_path, within
from robustify.finetune.objectives.base import Batch, Objective, Outcome
from robustify.finetune.objectives.losses import cross_entropies, log_mean_softmax, smoothmix_penalty, smoothmix_target
from robustify.finetune.objectives.shared import check_positive, labels_of, noisy_accuracy, ramped, uniforms
from robustify.smoothing import SmoothedClassifier


@final
@dataclass(frozen=True)
class SmoothMix(Objective):
    r"""Mixes images with adversarial ones, through the denoiser where there is one.

    Published for CIFAR-10: step size 0.5 at sigma = 0.25, 1 and 2 with one mix step at 0.5 and 1.

    Arguments:
        draws: Noisy copies of each image, the same in the attack and for learning.
        weight: :math:`\eta`.
        step_size: Length of a step of the attack in l2, in [0, 1] pixels.
        steps: Number of steps of the attack.
        mix_steps: Number of steps by which the clean end is ahead of x; it is at most w times their length from x.
        ramp: Epochs over which w grows to 1.
        detach: Whether :math:`y_\text{mix}` gets no gradient; the published code lets it have one.

    Raises:
        InputError: If a setting is out of range.
    """

    in_epochs: ClassVar[tuple[str, ...]] = ("ramp",)

    draws: int = 2
    weight: float = 5.0
    step_size: float = 0.5
    steps: int = 4
    mix_steps: int = 0
    ramp: float = 10.0
    detach: bool = False

    def __post_init__(self) -> None:
        check_positive(draws=self.draws, step_size=self.step_size, steps=self.steps)
        if not 0 <= self.mix_steps <= self.steps:
            raise InputError(f"expected mix_steps from 0 to steps = {self.steps}; got {self.mix_steps}")

    def __call__(self, model: SmoothedClassifier, batch: Batch) -> Outcome:
        labels = labels_of(batch)
        pixels = batch.pixels
        noise = batch.noise
        grown = ramped(batch.epoch, self.ramp)
        path = smoothmix_path(model, pixels, labels, noise, step_size=self.step_size, steps=self.steps)
        reach = grown * self.step_size * self.mix_steps
        clean = (pixels + within(path[self.mix_steps] - pixels, reach)).clamp(0, 1)
        mix = (uniforms(batch, "smoothmix", 1)[0] / 2).to(pixels.dtype)
        share = mix.view(-1, 1, 1, 1)

        logits = noisy_logits(model, clean, noise)
        mixed = noisy_logits(model, (1 - share) * clean + share * path[-1], noise)
        log_mean = log_mean_softmax(logits)
        target = smoothmix_target(log_mean.detach() if self.detach else log_mean, mix)
        penalty = smoothmix_penalty(target, mixed, log_mean.argmax(dim=1) == labels)
        loss = cross_entropies(logits, labels).mean(dim=0) + self.weight * grown * penalty
        return Outcome(loss.mean(), {"noisy_accuracy": noisy_accuracy(logits, labels)})
