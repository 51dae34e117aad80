"""Recipes with other settings, and recipes of another length."""

from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from robustify.errors import InputError
from robustify.finetune.objectives import Objective
from robustify.finetune.recipe import Recipe

_FIELDS = {field.name for field in fields(Recipe)} - {"objective"}


def changed(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with other settings: fields of the recipe, and fields of its objective.

    What depends on the epochs or draws (warmup, drops of the rate, cached copies, what the objective counts in
    epochs) follows them, unless it is given too.

    Arguments:
        recipe: The recipe to start from; left as it is.
        settings: New values, by the name of the field.

    Raises:
        InputError: If neither recipe nor objective has such a field, or a value is out of range.
    """
    of_recipe = {name: value for name, value in settings.items() if name in _FIELDS}
    of_objective = {name: value for name, value in settings.items() if name not in _FIELDS}
    _check_known(recipe.objective, of_objective)
    recipe = _with_objective(recipe, of_objective)
    if "epochs" in of_recipe:
        recipe = _of_length(recipe, of_recipe["epochs"], given=of_objective)
    return replace(recipe, **of_recipe)


def stretched(objective: Objective, factor: float, *, given: Collection[str] = ()) -> Objective:
    """The objective with the fields that count epochs multiplied by a factor.

    Arguments:
        objective: The objective to start from; left as it is.
        factor: Number of epochs now, divided by the number before.
        given: Fields that keep their values.
    """
    return _replaced(objective, {n: getattr(objective, n) * factor for n in objective.in_epochs if n not in given})


def _with_objective(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    objective = _replaced(recipe.objective, settings)
    cache = max(recipe.cache, objective.draws) if recipe.cache else 0
    return replace(recipe, objective=objective, cache=cache)


def _of_length(recipe: Recipe, epochs: int, *, given: Collection[str]) -> Recipe:
    """The recipe over another number of epochs, with everything that is counted in epochs in proportion."""
    factor = epochs / recipe.epochs
    return replace(
        recipe,
        epochs=epochs,
        objective=stretched(recipe.objective, factor, given=given),
        warmup=recipe.warmup * factor,
        drop_every=None if recipe.drop_every is None else max(1, round(recipe.drop_every * factor)),
        cache=min(recipe.cache, epochs * recipe.objective.draws),
    )


def _replaced(objective: Objective, settings: Mapping[str, Any]) -> Objective:
    if not settings:
        return objective
    instance: Any = objective  # every objective that has fields is a dataclass, which its type does not say
    new: Objective = replace(instance, **settings)
    return new


def _check_known(objective: Objective, settings: Collection[str]) -> None:
    known: set[str] = {field.name for field in fields(objective)} if is_dataclass(objective) else set()
    if unknown := sorted(set(settings) - known):
        raise InputError(f"no setting named {unknown[0]!r}; there are {', '.join(sorted(_FIELDS | known))}")
