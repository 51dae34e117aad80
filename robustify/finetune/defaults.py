"""The recipe for a model at hand, by the name of a published recipe or of an objective."""

from dataclasses import replace

from robustify.denoisers import Identity
from robustify.errors import InputError, ModelError, did_you_mean
from robustify.finetune.adapt.lora import Lora
from robustify.finetune.adapt.lora_layers import targets
from robustify.finetune.changes import stretched
from robustify.finetune.objectives import Objective
from robustify.finetune.objectives.registered import OBJECTIVES
from robustify.finetune.presets import PRESETS
from robustify.finetune.recipe import Recipe
from robustify.smoothing import SmoothedClassifier

_CACHE_BYTES = 4 * 2**30
"""Most disk space that a default recipe spends on denoised copies."""

_STEPS = 3000
"""Optimizer steps that default recipes aim at, in 1 to 30 epochs."""

_GENTLE = {"ft-cadis": {"weight": 0.5}}
"""Settings of objectives without a CIFAR-10 preset. The published weights of FT-CADIS, 4 and 2 at sigma = 1, are for
strong classifiers: on Fashion-MNIST at sigma = 0.5 a weight of 2 gave up the hardest class, whose copies were soon
never classified correctly and so never learned from."""


def find_recipe(what: str | Objective, model: SmoothedClassifier, images: int) -> Recipe:
    """A published recipe by its name, or a recipe for this model by the name of an objective.

    Arguments:
        what: A key of `PRESETS`, the name of an objective, or an objective.
        model: The model that is to be tuned.
        images: Number of images to learn from.

    Raises:
        InputError: If there is no recipe of that name.
        PluginError: If there is no objective of that name.
    """
    if isinstance(what, Objective):
        return default_recipe(what, model, images)
    if what in PRESETS:
        return PRESETS[what].recipe(model.sigma)
    if "/" in what:
        raise InputError(f"no recipe named {what!r}; there are {', '.join(PRESETS)}{did_you_mean(what, PRESETS)}")
    recipe = default_recipe(objective_at(what, model.sigma), model, images)
    preset = PRESETS.get(f"{what}/cifar10")
    if preset is None:
        return recipe
    return replace(recipe, objective=stretched(recipe.objective, recipe.epochs / preset.training["epochs"]))


def objective_at(name: str, sigma: float) -> Objective:
    """An objective with the settings that its authors published for CIFAR-10 at sigma; FT-CADIS with a smaller weight.

    Raises:
        PluginError: If there is no such objective.
    """
    preset = PRESETS.get(f"{name}/cifar10")
    return OBJECTIVES.find(name)(**_GENTLE.get(name, {})) if preset is None else preset.objective_at(sigma)


def default_recipe(objective: Objective, model: SmoothedClassifier, images: int) -> Recipe:
    """A recipe with adapters where the network can take them, and copies cached where that saves time.

    Without a denoiser everything learns: the classifier itself must learn to see through noise.

    Arguments:
        objective: The loss that is minimised.
        model: The model that is to be tuned.
        images: Number of images to learn from.
    """
    batch = min(64, images)
    epochs = min(30, max(1, round(_STEPS * batch / images)))
    adapts = _takes_adapters(model)
    return Recipe(
        objective=objective,
        adapt=Lora() if adapts else "full",
        epochs=epochs,
        batch=batch,
        learning_rate=1e-3 if adapts else 2e-4,
        warmup=0.1 * epochs,
        weight_decay=(0.01, 0.01),
        clip=1.0,
        precision=model.precision,
        cache=_copies_worth_caching(objective, model, images, epochs),
    )


def _takes_adapters(model: SmoothedClassifier) -> bool:
    if isinstance(model.denoiser, Identity):
        return False
    try:
        targets(model.classifier)
    except ModelError:
        return False
    return True


def _copies_worth_caching(objective: Objective, model: SmoothedClassifier, images: int, epochs: int) -> int:
    """Denoised copies of each image to keep; 0 where they save nothing or need too much room."""
    copies = objective.draws * (2 if epochs < 4 else 4)
    channels, height, width = model.contract.shape
    fits = 2 * images * copies * channels * height * width <= _CACHE_BYTES  # two bytes a value
    saves = copies < objective.draws * epochs and not isinstance(model.denoiser, Identity)
    return copies if objective.cacheable and fits and saves else 0
