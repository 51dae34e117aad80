"""Recipes: everything that decides the result of training, as data."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from typing import Any, final

from torch import Tensor

from robustify.errors import InputError
from robustify.finetune.adapt.lora import Lora
from robustify.finetune.checks import check_objective, check_one_of, check_whole, expect
from robustify.finetune.objectives import Objective
from robustify.finetune.train.augment import AUGMENTATIONS
from robustify.smoothing.pipeline import PRECISIONS

ADAPT = ("lora", "full", "head")
"""Names of what is trained: low-rank adapters and the head, everything, or the head alone."""

OPTIMIZERS = ("adamw", "sgd")
"""Names of the optimizers; "sgd" has a momentum of 0.9."""


@final
@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training run learns, apart from model and data.

    Arguments:
        objective: The loss that is minimised.
        adapt: Parameters that learn: a `Lora`, "lora" for the default one, "full" or "head".
        epochs: Passes over the data.
        batch: Images per optimizer step, over all processes; the last step of an epoch may have fewer.
        micro_batch: Images per forward pass and process; all at once where None. Changes memory, not the result,
            apart from batch normalisation, dropout and rounding.
        optimizer: "adamw", or "sgd" with a momentum of 0.9.
        learning_rate: Highest learning rate.
        final_learning_rate: Learning rate at the end of a cosine schedule.
        warmup: Epochs, with a fraction, in which the rate rises from 0.
        drop_every: Epochs after which the rate falls to a tenth, again and again; a cosine schedule where None.
        weight_decay: Decay of the weights of linear layers, convolutions, attentions and adapters, at the start and
            at the end of training, with a cosine between.
        layer_decay: Learning rate of a layer, divided by that of the layer after it; in (0, 1].
        clip: Largest norm of the gradient; unlimited where None.
        precision: "float32", or "bfloat16" or "float16" by autocast.
        augment: Augmentation of clean images, one of `AUGMENTATIONS`.
        cache: Denoised copies kept of each image and used again in turn; 0 denoises anew in every step.
        seed: Seed of order, noise, augmentation and dropout.

    Raises:
        InputError: If a number is out of range or fields do not fit each other.
    """

    objective: Objective
    adapt: Lora | str = "full"
    epochs: int = 10
    batch: int = 128
    micro_batch: int | None = None
    optimizer: str = "adamw"
    learning_rate: float = 5e-5
    final_learning_rate: float = 1e-6
    warmup: float = 0.5
    drop_every: int | None = None
    weight_decay: tuple[float, float] = (0.0, 0.0)
    layer_decay: float = 1.0
    clip: float | None = 1.0
    precision: str = "float32"
    augment: str = "none"
    cache: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_objective(self.objective)
        self._check_names()
        self._check_counts()
        self._check_schedule()
        self._check_cache()

    def _check_names(self) -> None:
        if not isinstance(self.adapt, Lora):
            check_one_of((*ADAPT, "a Lora"), adapt=self.adapt)
        check_one_of(OPTIMIZERS, optimizer=self.optimizer)
        check_one_of(PRECISIONS, precision=self.precision)
        check_one_of(AUGMENTATIONS, augment=self.augment)

    def _check_counts(self) -> None:
        optional = {"micro_batch": self.micro_batch, "drop_every": self.drop_every}
        given = {name: value for name, value in optional.items() if value is not None}
        check_whole(1, epochs=self.epochs, batch=self.batch, **given)
        check_whole(0, seed=self.seed, cache=self.cache)

    def _check_schedule(self) -> None:
        highest, final = self.learning_rate, self.final_learning_rate
        expect(0 <= final <= highest < math.inf and highest > 0, "0 <= final <= learning rate", (highest, final))
        expect(0 <= self.warmup < self.epochs, f"a warmup of 0 to less than {self.epochs} epochs", self.warmup)
        decays = self.weight_decay if isinstance(self.weight_decay, tuple) else ()
        expect(len(decays) == 2 and min(decays) >= 0, "weight decays (at the start, at the end)", self.weight_decay)
        expect(0 < self.layer_decay <= 1, "layer_decay in (0, 1]", self.layer_decay)
        expect(self.clip is None or self.clip > 0, "a positive clip", self.clip)

    def _check_cache(self) -> None:
        if not self.cache:
            return
        draws = self.objective.draws
        expect(self.cache >= draws, f"cache of 0 or at least {draws}, the draws", self.cache)
        if not self.objective.cacheable:
            raise InputError(
                f"{type(self.objective).__name__} needs more than denoised copies, so none can be cached; use cache=0"
            )
        if self.augment != "none":
            raise InputError(
                f"cached copies are those of images without augmentation; augment={self.augment!r} needs cache=0"
            )

    @property
    def lora(self) -> Lora | None:
        """Settings of the adapters; None where the network or its head is trained in full."""
        if isinstance(self.adapt, Lora):
            return self.adapt
        return Lora() if self.adapt == "lora" else None

    def learning_rate_at(self, epoch: float, *, step: float = 0.0) -> float:
        """The learning rate after a number of epochs.

        Arguments:
            epoch: Epochs so far, with a fraction.
            step: Length of one step in epochs: while the rate rises, that at the end of the step counts, for at its
                start the first step would have none.
        """
        if epoch < self.warmup:
            return self.learning_rate * min(1.0, (epoch + step) / self.warmup)
        if self.drop_every is not None:
            return self.learning_rate * 0.1 ** int(epoch / self.drop_every)
        share = (epoch - self.warmup) / max(self.epochs - self.warmup, 1e-12)
        return _cosine(self.learning_rate, self.final_learning_rate, share)

    def weight_decay_at(self, epoch: float) -> float:
        """The weight decay after a number of epochs, with a fraction."""
        return _cosine(*self.weight_decay, epoch / self.epochs)

    def described(self) -> dict[str, Any]:
        """All fields as JSON has them."""
        described = {field.name: getattr(self, field.name) for field in fields(self)}
        described["objective"] = _plain(self.objective)
        described["weight_decay"] = list(self.weight_decay)
        if self.lora is not None:
            described["adapt"] = {"name": "Lora", **asdict(self.lora)}
        return described

    def __str__(self) -> str:
        lines = (f"  {key:<20} {_short(value)}" for key, value in self.described().items())
        return "Recipe\n" + "\n".join(lines)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(max(share, 0.0), 1.0))) / 2


def _plain(value: Any) -> Any:  # noqa: ANN401
    """An objective as its name and fields, a tensor as its shape and SHA-256."""
    if isinstance(value, Objective):
        settings = {key: _plain(found) for key, found in vars(value).items() if not key.startswith("_")}
        return {"name": type(value).__name__, **settings}
    if isinstance(value, Tensor):
        return {"shape": list(value.shape), "sha256": sha256(value.cpu().contiguous().numpy().data).hexdigest()}
    return value


def _short(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k}={v}" for k, v in value.items())
    return str(value)
