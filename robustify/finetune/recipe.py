"""How to train: everything that decides the result, as data."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from typing import Any, Literal, TypeAlias, final

from torch import Tensor

from robustify.errors import InputError
from robustify.finetune.adapt.lora import Lora
from robustify.finetune.objectives import Objective
from robustify.finetune.train.augment import AUGMENTATIONS
from robustify.smoothing.pipeline import PRECISIONS

Adapt: TypeAlias = Lora | Literal["full", "head"]
"""What is trained: low-rank adapters and the head, everything, or the head alone."""

ADAPT: dict[str, Adapt] = {"lora": Lora(), "full": "full", "head": "head"}
"""What to train, by its name; `lora` is that of the defaults."""


@final
@dataclass(frozen=True)
class Recipe:
    """One training run.

    Arguments:
        objective: What is minimised.
        adapt: What is trained: a `Lora`, "lora" for that of the defaults, "full" or "head".
        epochs: Passes over the data.
        batch: Images per optimizer step, over all processes; the last of an epoch may be smaller.
        micro_batch: Images per forward pass and process; all at once where None. Changes memory, not the result,
            apart from batch normalisation, dropout and rounding.
        optimizer: "adamw", or "sgd" with momentum .9.
        learning_rate: At its highest.
        final_learning_rate: At the end of a cosine schedule.
        warmup: Epochs, with a fraction, in which the rate rises from 0.
        drop_every: Epochs after which the rate falls to a tenth, again and again; a cosine schedule where None.
        weight_decay: Of the weights of linear layers, convolutions, attentions and adapters, at the start and at the
            end, with a cosine between.
        layer_decay: The learning rate of a layer is this much smaller than that of the layer after it.
        clip: Largest norm of the gradient; unlimited where None.
        precision: "float32", or "bfloat16" or "float16" by autocast.
        augment: Of clean images.
        cache: Denoised copies kept of each image and used again in turn; 0 denoises anew in every step.
        seed: Of order, noise, augmentation and dropout.

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
        _expect(isinstance(self.objective, Objective), "an objective, such as FTCADIS()", self.objective)
        if isinstance(self.adapt, str):
            _expect(self.adapt in ADAPT, "adapt 'lora', 'full', 'head' or a Lora", repr(self.adapt))
            object.__setattr__(self, "adapt", ADAPT[self.adapt])
        whole = (self.epochs, self.batch, self.seed)
        _expect(all(isinstance(n, int) for n in whole), "whole numbers for epochs, batch and seed", whole)
        _expect(self.seed >= 0, "a seed of at least 0", self.seed)
        _expect(min(self.epochs, self.batch) >= 1, "epochs and batch of at least 1", (self.epochs, self.batch))
        _expect(self.micro_batch is None or self.micro_batch >= 1, "micro_batch of at least 1", self.micro_batch)
        _expect(self.optimizer in ("adamw", "sgd"), "optimizer 'adamw' or 'sgd'", self.optimizer)
        rates = (self.learning_rate, self.final_learning_rate)
        _expect(0 <= rates[1] <= rates[0] < math.inf and rates[0] > 0, "0 <= final <= learning rate", rates)
        _expect(0 <= self.warmup < self.epochs, f"a warmup of 0 to less than {self.epochs} epochs", self.warmup)
        _expect(self.drop_every is None or self.drop_every >= 1, "drop_every of at least 1", self.drop_every)
        decays = self.weight_decay if isinstance(self.weight_decay, tuple) else ()
        _expect(len(decays) == 2 and min(decays) >= 0, "weight decays (at the start, at the end)", self.weight_decay)
        _expect(0 < self.layer_decay <= 1, "layer_decay in (0, 1]", self.layer_decay)
        _expect(self.clip is None or self.clip > 0, "a positive clip", self.clip)
        _expect(self.precision in PRECISIONS, f"precision {', '.join(PRECISIONS)}", self.precision)
        _expect(self.augment in AUGMENTATIONS, f"augment {', '.join(AUGMENTATIONS)}", self.augment)
        draws = self.objective.draws
        _expect(isinstance(draws, int) and draws >= 1, "a whole number of draws, at least 1", draws)
        for name in ("weight", *self.objective.in_epochs):
            value = getattr(self.objective, name, 0.0)
            _expect(0 <= value < math.inf, f"a finite {name} of at least 0", value)
        _expect(self.cache == 0 or self.cache >= draws, f"cache of 0 or at least {draws}, the draws", self.cache)
        if self.cache and not self.objective.cacheable:
            raise InputError(
                f"{type(self.objective).__name__} needs more than denoised copies, so none can be cached; use cache=0"
            )
        if self.cache and self.augment != "none":
            raise InputError(
                f"denoised copies are cached of images as they are; augment={self.augment!r} needs cache=0"
            )

    def learning_rate_at(self, epoch: float, *, step: float = 0.0) -> float:
        """After so many epochs, with a fraction; `step` is that of one step, whose end counts while the rate rises."""
        if epoch < self.warmup:
            return self.learning_rate * min(1.0, (epoch + step) / self.warmup)
        if self.drop_every is not None:
            return self.learning_rate * 0.1 ** int(epoch / self.drop_every)
        share = (epoch - self.warmup) / max(self.epochs - self.warmup, 1e-12)
        return _cosine(self.learning_rate, self.final_learning_rate, share)

    def weight_decay_at(self, epoch: float) -> float:
        """After so many epochs, with a fraction."""
        return _cosine(*self.weight_decay, epoch / self.epochs)

    def described(self) -> dict[str, Any]:
        """All fields as JSON has them."""
        objective = _plain(self.objective)
        adapt = self.adapt if isinstance(self.adapt, str) else {"name": "Lora", **asdict(self.adapt)}
        rest = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**rest, "objective": objective, "adapt": adapt, "weight_decay": list(self.weight_decay)}

    def __str__(self) -> str:
        lines = (f"  {key:<20} {_short(value)}" for key, value in self.described().items())
        return "Recipe\n" + "\n".join(lines)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(max(share, 0.0), 1.0))) / 2


def _expect(good: bool, what: str, got: object) -> None:
    if not good:
        raise InputError(f"expected {what}; got {got}")


def _plain(value: Any) -> Any:  # noqa: ANN401
    """An objective by its name and fields, a tensor by its shape and SHA-256."""
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
