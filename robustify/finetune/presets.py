"""Published recipes, read from `presets.toml`."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, final

from robustify.finetune.adapt.lora import Lora
from robustify.finetune.objectives import Objective
from robustify.finetune.objectives.registered import OBJECTIVES
from robustify.finetune.recipe import Recipe


@final
@dataclass(frozen=True)
class Preset:
    """One published recipe.

    Arguments:
        source: Authors and year, the network, and which of the numbers are not published.
        objective: Name of the objective.
        settings: Settings of the objective at every sigma.
        by_sigma: Settings of the objective that depend on sigma, by sigma.
        training: Fields of `Recipe`.
        copies: Noisy copies per step, however many draws an image gets: sets the batch, where it is published so.
    """

    source: str
    objective: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    by_sigma: Mapping[float, Mapping[str, Any]] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    copies: int | None = None

    def objective_at(self, sigma: float) -> Objective:
        """The objective for sigma: with the settings of the published sigma that is nearest in ratio."""
        nearest = min(self.by_sigma, key=lambda published: abs(math.log(published / sigma)), default=None)
        extra = {} if nearest is None else self.by_sigma[nearest]
        return OBJECTIVES.find(self.objective)(**self.settings, **extra)

    def recipe(self, sigma: float) -> Recipe:
        """The recipe for sigma: with the settings of the published sigma that is nearest in ratio."""
        objective = self.objective_at(sigma)
        training = dict(self.training)
        if self.copies is not None:
            training["batch"] = self.copies // objective.draws
        return Recipe(objective=objective, **training)


def _read() -> dict[str, Preset]:
    tables = tomllib.loads((files("robustify.finetune") / "presets.toml").read_text(encoding="utf-8"))
    return {name: _preset(table, tables["bases"]) for name, table in tables["recipes"].items()}


def _preset(table: dict[str, Any], bases: dict[str, Any]) -> Preset:
    return Preset(
        source=table["source"],
        objective=table["objective"],
        settings=table.get("settings", {}),
        by_sigma={float(sigma): settings for sigma, settings in table.get("by_sigma", {}).items()},
        training=_inherited(table, bases) | _fields(table.get("training", {})),
        copies=table.get("copies"),
    )


def _inherited(table: dict[str, Any], bases: dict[str, Any]) -> dict[str, Any]:
    """Fields of the base that a table names, and of that base's own base."""
    if "base" not in table:
        return {}
    base = bases[table["base"]]
    own = {name: value for name, value in base.items() if name != "base"}
    return _inherited(base, bases) | _fields(own)


def _fields(table: dict[str, Any]) -> dict[str, Any]:
    """A table of TOML as fields of `Recipe`: `false` is None, a list a tuple, and a table of adapters a `Lora`."""
    fields = {name: None if value is False else value for name, value in table.items()}
    if "weight_decay" in fields:
        fields["weight_decay"] = tuple(table["weight_decay"])
    if isinstance(fields.get("adapt"), dict):
        fields["adapt"] = Lora(**table["adapt"])
    return fields


PRESETS: dict[str, Preset] = _read()
"""Published recipes by name, such as `ft-cadis/cifar10-vit-b16`."""
