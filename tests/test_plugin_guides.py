"""The plugins of the guides work as they are typed."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from robustify.errors import (
    BrokenPluginError,
    InputError,
)
from robustify.registry import CLASSIFIERS, DENOISERS
from robustify.testing import check_denoiser, check_source
from tests.toys_plugins import Install

PLUGINS = Path(__file__).parents[1] / "plugins"


def readme(language: str) -> list[str]:
    """The blocks of code in the plugin authors' guide."""
    return re.findall(rf"```{language}\n(.*?)```", (PLUGINS / "README.md").read_text(), flags=re.DOTALL)


def test_the_guides_classifier_plugin_works_as_typed(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import models

    def random_weights(*_: object, **__: object) -> dict[str, Any]:  # instead of a download
        with torch.random.fork_rng():
            torch.manual_seed(0)
            state: dict[str, Any] = models.resnet18(weights=None).state_dict()
        return state

    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", random_weights)
    monkeypatch.setattr(CLASSIFIERS, "_ready", dict(CLASSIFIERS._ready))
    project, _ = readme("toml")
    (entry,) = tomllib.loads(project)["project"]["entry-points"][CLASSIFIERS.group].items()
    plugin, test, *_ = readme("python")
    install("robustify-torchvision", *entry, plugin, group=CLASSIFIERS.group)
    checks: dict[str, Any] = {}
    exec(test, checks)
    checks["test_the_source_conforms"]()
    checks["test_a_classifier_conforms"]()
    with pytest.raises(InputError, match="torchvision has no classifier 'resnet'"):
        CLASSIFIERS.load("torchvision:resnet")


def test_the_guides_denoiser_plugin_works_as_typed(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DENOISERS, "_ready", dict(DENOISERS._ready))
    *_, plugin, _ = readme("python")
    install("robustify-blur", "blur", "robustify_blur", plugin, group=DENOISERS.group)
    images = torch.linspace(0, 1, 32).expand(2, 3, 32, 32)
    check_source(DENOISERS.find("blur"))
    check_denoiser(DENOISERS.load("blur:5"), images, sigma=0.25)
    with pytest.raises(InputError, match="expected a window of 3, 5, 7 pixels; got '4'"):
        DENOISERS.load("blur:4")


def test_the_guides_objective_plugin_works_as_typed(
    install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from robustify import Examples, robustify, tune
    from robustify.finetune import changed, find_recipe
    from robustify.finetune.objectives.registered import OBJECTIVES

    monkeypatch.setattr(OBJECTIVES, "_ready", dict(OBJECTIVES._ready))
    *_, plugin = readme("python")
    *_, project = readme("toml")
    (entry,) = tomllib.loads(project)["project"]["entry-points"][OBJECTIVES.group].items()
    install("robustify-brier", entry[0], "robustify_brier", plugin, group=OBJECTIVES.group, attribute=":Brier")
    assert entry[1] == "robustify_brier:Brier"
    model = robustify("zoo:timm", denoiser="zoo:ddpm", sigma=0.5)
    data = Examples(model, torch.zeros(4, 1, 32, 32, dtype=torch.uint8), [0, 1, 2, 3])
    recipe = changed(find_recipe("brier", model, 4), {"epochs": 1})
    assert 0 < tune(model, data, recipe, out=tmp_path / "run", quiet=True).history[-1]["loss"] < 2
    install("robustify-wrong", "wrong", "robustify_wrong", "loss = 1", group=OBJECTIVES.group, attribute=":loss")
    with pytest.raises(BrokenPluginError, match="expected a subclass of Objective; got 1"):
        OBJECTIVES.find("wrong")
