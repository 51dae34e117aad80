"""Published recipes as data, and the recipe for a model at hand.

A published recipe is a table of fields by sigma; its numbers are for the data set and network in its name. Learning
rates are the effective ones: rates given per 256 images are scaled to the recipe's batch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, final

from robustify.denoisers import Identity
from robustify.errors import InputError, ModelError
from robustify.finetune.adapt.lora import Lora
from robustify.finetune.adapt.modules import targets
from robustify.finetune.objectives import Objective
from robustify.finetune.objectives.registered import OBJECTIVES
from robustify.finetune.recipe import Recipe
from robustify.smoothing import SmoothedClassifier


@final
@dataclass(frozen=True)
class Preset:
    """One published recipe.

    Arguments:
        source: Where it is from: authors, year, what of it is not published.
        objective: Name of the objective.
        settings: Its settings that hold at every sigma.
        by_sigma: Settings that depend on sigma.
        training: Fields of `Recipe`.
        copies: Noisy copies in each step, whatever the number of draws; sets the batch, where it is published so.
    """

    source: str
    objective: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    by_sigma: Mapping[float, Mapping[str, Any]] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    copies: int | None = None

    def recipe(self, sigma: float) -> Recipe:
        """At sigma, or at the published sigma nearest to it in ratio."""
        nearest = min(self.by_sigma, key=lambda s: abs(math.log(s / sigma)), default=None)
        extra = self.by_sigma[nearest] if nearest is not None else {}
        objective = OBJECTIVES.find(self.objective)(**{**self.settings, **extra})
        batch = {"batch": self.copies // objective.draws} if self.copies is not None else {}
        return Recipe(objective=objective, **{**self.training, **batch})


_KAIST_CIFAR = {
    "optimizer": "sgd",
    "epochs": 150,
    "batch": 256,
    "learning_rate": 0.1,
    "final_learning_rate": 0.0,
    "warmup": 0.0,
    "drop_every": 50,
    "weight_decay": (1e-4, 1e-4),
    "clip": None,
    "augment": "crop",
}
_KAIST_MNIST = {**_KAIST_CIFAR, "epochs": 90, "learning_rate": 0.01, "drop_every": 30, "augment": "none"}
_COPIES = 256
"""In each step of this group's code, which splits a batch of so many images among the draws."""

_KAIST = "as in Jeong, Kim, Shin, 2023 (CAT-RS), whose code trains it so; ResNet-110"
_LENET = "as in Jeong, Kim, Shin, 2023 (CAT-RS), whose code trains it so; LeNet"

PRESETS: dict[str, Preset] = {
    "ft-cadis/cifar10-vit-b16": Preset(
        "Jang, Kim, Shin, Jeong, 2024; full fine-tuning; its weight of 4 is published for sigma = 1 alone",
        "ft-cadis",
        {"draws": 4, "steps": 4, "epsilon": 0.125, "weight": 4.0},
        training={
            "adapt": "full",
            "epochs": 30,
            "batch": 128,
            "learning_rate": 5e-5,
            "warmup": 3.0,
            "weight_decay": (0.04, 0.4),
            "layer_decay": 0.65,
            "clip": 0.3,
            "precision": "float16",
        },
    ),
    "ft-cadis/imagenet-vit-b16-lora": Preset(
        "Jang, Kim, Shin, Jeong, 2024; LoRA of rank 4 on queries and values; its weight of 2 is published for "
        "sigma = 1 alone, its batch not at all",
        "ft-cadis",
        {"draws": 2, "steps": 1, "epsilon": 0.125, "weight": 2.0},
        training={
            "adapt": Lora(rank=4, alpha=4.0),
            "epochs": 10,
            "batch": 128,
            "learning_rate": 2e-4,
            "warmup": 1.0,
            "weight_decay": (0.01, 0.1),
            "layer_decay": 0.9,
            "clip": 1.0,
            "precision": "float16",
        },
    ),
    "cat-rs/cifar10": Preset(
        "Jeong, Kim, Shin, 2023; ResNet-110; there with smoothed predictions of a model trained at sigma = 0.25",
        "cat-rs",
        {"draws": 4, "steps": 4, "epsilon": 1.0},
        {0.25: {"weight": 0.5}, 0.5: {"weight": 1.0}, 1.0: {"weight": 2.0}},
        _KAIST_CIFAR,
        copies=_COPIES,
    ),
    "cat-rs/mnist": Preset(
        "Jeong, Kim, Shin, 2023; LeNet; the weight is published for sigma = 0.25 alone, the others are CIFAR-10's",
        "cat-rs",
        {"draws": 4, "steps": 4, "epsilon": 1.0},
        {0.25: {"weight": 1.0}, 0.5: {"weight": 1.0}, 1.0: {"weight": 2.0}},
        _KAIST_MNIST,
        copies=_COPIES,
    ),
    "gaussian/cifar10": Preset(f"Cohen, Rosenfeld, Kolter, 2019, {_KAIST}", "gaussian", training=_KAIST_CIFAR),
    "gaussian/mnist": Preset(f"Cohen, Rosenfeld, Kolter, 2019, {_LENET}", "gaussian", training=_KAIST_MNIST),
    "stability/cifar10": Preset(
        f"Li, Chen, Wang, Carin, 2019, {_KAIST}",
        "stability",
        {},
        {0.25: {"weight": 2.0}, 0.5: {"weight": 2.0}, 1.0: {"weight": 1.0}},
        _KAIST_CIFAR,
    ),
    "stability/mnist": Preset(
        f"Li, Chen, Wang, Carin, 2019, {_LENET}", "stability", {"weight": 2.0}, training=_KAIST_MNIST
    ),
    "consistency/cifar10": Preset(
        f"Jeong, Shin, 2020, {_KAIST}",
        "consistency",
        {"draws": 2, "entropy": 0.5},
        {0.25: {"weight": 20.0}, 0.5: {"weight": 10.0}, 1.0: {"weight": 10.0}},
        _KAIST_CIFAR,
        copies=_COPIES,
    ),
    "consistency/mnist": Preset(
        f"Jeong, Shin, 2020, {_LENET}",
        "consistency",
        {"draws": 2, "entropy": 0.5},
        {0.25: {"weight": 10.0}, 0.5: {"weight": 5.0}, 1.0: {"weight": 5.0}},
        _KAIST_MNIST,
        copies=_COPIES,
    ),
    "consistency/imagenet": Preset(
        "Jeong, Shin, 2020; ResNet-50",
        "consistency",
        {"draws": 2, "weight": 5.0},
        {0.5: {"entropy": 0.5}, 1.0: {"entropy": 0.1}},
        _KAIST_CIFAR | {"epochs": 90, "drop_every": 30},
        copies=_COPIES,
    ),
    "macer/cifar10": Preset(
        "Zhai, Dan, He, Zhang, Gong, Ravikumar, Hsieh, Wang, 2020; ResNet-110",
        "macer",
        {"draws": 16, "beta": 16.0, "gamma": 8.0},
        {0.25: {"weight": 12.0}, 0.5: {"weight": 4.0}, 1.0: {"weight": 12.0, "deferred": 200.0}},
        _KAIST_CIFAR
        | {"epochs": 440, "batch": 64, "learning_rate": 0.01, "drop_every": 200, "weight_decay": (5e-4, 5e-4)},
    ),
    "macer/mnist": Preset(
        f"Zhai, Dan, He, Zhang, Gong, Ravikumar, Hsieh, Wang, 2020, {_LENET}",
        "macer",
        {"draws": 16, "beta": 16.0, "gamma": 8.0, "deferred": 31.0},
        {0.25: {"weight": 16.0}, 0.5: {"weight": 16.0}, 1.0: {"weight": 6.0}},
        _KAIST_MNIST,
    ),
    "smoothadv/cifar10": Preset(
        f"Salman, Yang, Li, Zhang, Zhang, Razenshteyn, Bubeck, 2019, {_KAIST}",
        "smoothadv",
        {"steps": 10, "ramp": 10.0},
        {
            0.25: {"draws": 4, "epsilon": 1.0},
            0.5: {"draws": 8, "epsilon": 1.0},
            1.0: {"draws": 2, "epsilon": 2.0},
        },
        _KAIST_CIFAR,
        copies=_COPIES,
    ),
    "smoothadv/mnist": Preset(
        f"Salman, Yang, Li, Zhang, Zhang, Razenshteyn, Bubeck, 2019, {_LENET}",
        "smoothadv",
        {"steps": 10, "ramp": 10.0, "draws": 4, "epsilon": 255 / 256},
        training=_KAIST_MNIST,
        copies=_COPIES,
    ),
    "smoothadv+consistency/cifar10": Preset(
        f"Jeong, Shin, 2020, {_KAIST}",
        "smoothadv",
        {"steps": 10, "ramp": 10.0, "entropy": 0.5},
        {
            0.25: {"draws": 4, "epsilon": 255 / 256, "weight": 2.0},
            0.5: {"draws": 2, "epsilon": 2.0, "weight": 1.0},
            1.0: {"draws": 2, "epsilon": 2.0, "weight": 1.0},
        },
        _KAIST_CIFAR,
        copies=_COPIES,
    ),
    "smoothmix/cifar10": Preset(
        f"Jeong, Park, Kim, Lee, Kim, Shin, 2021, {_KAIST}",
        "smoothmix",
        {"draws": 2, "steps": 4, "weight": 5.0, "ramp": 10.0},
        {
            0.25: {"step_size": 0.5, "mix_steps": 0},
            0.5: {"step_size": 1.0, "mix_steps": 1},
            1.0: {"step_size": 2.0, "mix_steps": 1},
        },
        _KAIST_CIFAR,
        copies=_COPIES,
    ),
    "smoothmix/mnist": Preset(
        f"Jeong, Park, Kim, Lee, Kim, Shin, 2021, {_LENET}",
        "smoothmix",
        {"draws": 4, "step_size": 1.0, "weight": 5.0, "ramp": 10.0},
        {0.25: {"steps": 2}, 0.5: {"steps": 4}, 1.0: {"steps": 8}},
        _KAIST_MNIST,
        copies=_COPIES,
    ),
}

_CACHE_BYTES = 4 * 2**30
"""Disk space that default recipes spend on denoised copies."""

_STEPS = 3000
"""Steps that default recipes aim at, in 1 to 30 epochs."""


def find_recipe(what: str | Objective, model: SmoothedClassifier, images: int) -> Recipe:
    """A published recipe by its name, or a recipe for this model by the name of an objective.

    Arguments:
        what: A key of `PRESETS`, an objective's name, or an objective.
        model: What is to be tuned.
        images: How many there are to learn from.

    Raises:
        InputError: If there is no such recipe or objective.
    """
    if isinstance(what, Objective):
        return default_recipe(what, model, images)
    if what in PRESETS:
        return PRESETS[what].recipe(model.sigma)
    if "/" in what:
        raise InputError(f"no recipe named {what!r}; there are {', '.join(PRESETS)}")
    own = default_recipe(objective_at(what, model.sigma), model, images)
    preset = PRESETS.get(f"{what}/cifar10")
    return own if preset is None else _lasting(own, own.epochs / preset.training["epochs"])


_GENTLE = {"ft-cadis": {"weight": 0.5}}
"""The published weights, 4 and 2 at sigma = 1, are for strong classifiers: on Fashion-MNIST at 0.5, a weight of 2 gave
up the class that is hardest to tell apart, whose copies were soon never recognised and so never learned from."""


def objective_at(name: str, sigma: float) -> Objective:
    """An objective as its authors set it for sigma: by its CIFAR-10 preset where there is one; FT-CADIS more gently.

    Raises:
        PluginError: If there is no such objective.
    """
    preset = PRESETS.get(f"{name}/cifar10")
    return preset.recipe(sigma).objective if preset is not None else OBJECTIVES.find(name)(**_GENTLE.get(name, {}))


def _lasting(recipe: Recipe, factor: float, *fixed: str) -> Recipe:
    """The recipe with its objective's durations, but for the `fixed` ones, so many times as long."""
    objective = recipe.objective
    longer = {name: getattr(objective, name) * factor for name in objective.in_epochs if name not in fixed}
    return replace(recipe, objective=replace(objective, **longer)) if longer else recipe  # type: ignore[type-var]


def default_recipe(objective: Objective, model: SmoothedClassifier, images: int) -> Recipe:
    """Sane defaults: adapters where the network can take them, about 3,000 steps, copies cached where they can be."""
    adapt: Any = Lora()
    try:
        targets(model.classifier)
    except ModelError:
        adapt = "full"
    batch = min(64, images)
    epochs = min(30, max(1, round(_STEPS * batch / images)))
    channels, height, width = model.contract.shape
    copies = objective.draws * (2 if epochs < 4 else 4)
    fits = 2 * images * copies * channels * height * width <= _CACHE_BYTES
    pays = objective.cacheable and copies < objective.draws * epochs
    return Recipe(
        objective=objective,
        adapt=adapt,
        epochs=epochs,
        batch=batch,
        learning_rate=1e-3 if isinstance(adapt, Lora) else 2e-4,
        warmup=0.1 * epochs,
        weight_decay=(0.01, 0.01),
        clip=1.0,
        precision=model.precision,
        cache=copies if pays and fits and not isinstance(model.denoiser, Identity) else 0,
    )


def changed(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with other settings; those that it does not know are its objective's.

    Raises:
        InputError: If neither knows one.
    """
    own = {f.name for f in fields(Recipe)} - {"objective"}
    inner = {key: value for key, value in settings.items() if key not in own}
    known: set[str] = {f.name for f in fields(recipe.objective)} if is_dataclass(recipe.objective) else set()
    if unknown := sorted(inner.keys() - known):
        raise InputError(f"no setting named {unknown[0]!r}; there are {', '.join(sorted(own | known))}")
    objective = replace(recipe.objective, **inner) if inner else recipe.objective  # type: ignore[type-var]
    outer = {key: value for key, value in settings.items() if key in own}
    cache = outer.get("cache", recipe.cache and max(recipe.cache, objective.draws))
    recipe = replace(recipe, objective=objective, cache=cache)
    if "epochs" in outer:  # what depends on it follows, unless it is given too
        epochs = max(1, outer["epochs"])
        recipe = _lasting(recipe, epochs / recipe.epochs, *inner)
        outer = {
            "warmup": recipe.warmup * epochs / recipe.epochs,
            "drop_every": recipe.drop_every and max(1, round(recipe.drop_every * epochs / recipe.epochs)),
            "cache": min(recipe.cache, epochs * objective.draws),
            **outer,
        }
    return replace(recipe, **outer)
