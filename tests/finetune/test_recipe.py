"""Recipes: schedules against their formulas, published settings, bad settings refused."""

import json
import math
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
import torch

from robustify import SmoothedClassifier, robustify
from robustify.errors import InputError, UnknownPluginError
from robustify.finetune import PRESETS, Lora, Recipe, find_recipe
from robustify.finetune.changes import changed
from robustify.finetune.defaults import objective_at
from robustify.finetune.objectives import CATRS, FTCADIS, MACER, Gaussian, SmoothAdv, SmoothMix
from robustify.finetune.objectives.registered import OBJECTIVES
from tests.toys import MakeModel

COSINE = Recipe(Gaussian(), epochs=10, learning_rate=1.0, final_learning_rate=0.1, warmup=2.0)
STEPS = Recipe(Gaussian(), epochs=90, learning_rate=1.0, final_learning_rate=0.0, warmup=0.0, drop_every=30)


def test_the_cosine_schedule_warms_up_and_ends_at_its_final_rate() -> None:
    at = COSINE.learning_rate_at
    assert [at(0.0), at(0.5), at(1.0), at(2.0)] == [0.0, 0.25, 0.5, 1.0]
    assert [COSINE.learning_rate_at(e, step=0.25) for e in (0.0, 1.9)] == [0.125, 1.0]  # no step is lost
    assert at(6.0) == pytest.approx(0.55)
    assert at(4.0) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert at(10.0) == pytest.approx(0.1)


def test_steps_drop_to_a_tenth() -> None:
    at = STEPS.learning_rate_at
    assert [at(0.0), at(29.99)] == [1.0, 1.0]
    assert [at(30.0), at(59.9), at(60.0), at(89.9)] == pytest.approx([0.1, 0.1, 0.01, 0.01])


def test_weight_decay_follows_a_cosine() -> None:
    at = replace(COSINE, weight_decay=(0.04, 0.4)).weight_decay_at
    assert [at(0.0), at(5.0), at(10.0)] == pytest.approx([0.04, 0.22, 0.4])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"epochs": 0}, "epochs to be a whole number of at least 1; got 0"),
        ({"batch": 0}, "batch to be a whole number of at least 1; got 0"),
        ({"micro_batch": 0}, "micro_batch to be a whole number of at least 1"),
        ({"optimizer": "lion"}, "optimizer to be one of adamw, sgd; got 'lion'"),
        ({"learning_rate": 0.0}, "learning rate"),
        ({"learning_rate": math.nan}, "learning rate"),
        ({"final_learning_rate": 2.0}, "learning rate"),
        ({"warmup": -1.0}, "warmup"),
        ({"warmup": 10.0}, "a warmup of 0 to less than 10 epochs"),
        ({"seed": -1}, "seed"),
        ({"objective": FTCADIS(weight=-1.0)}, "a finite weight of at least 0; got -1.0"),
        ({"objective": FTCADIS(weight=math.nan)}, "a finite weight of at least 0; got nan"),
        ({"objective": MACER(deferred=-1.0)}, "a finite deferred of at least 0"),
        ({"drop_every": 0}, "drop_every"),
        ({"weight_decay": (0.1, -0.1)}, "weight decays"),
        ({"layer_decay": 1.1}, "layer_decay"),
        ({"layer_decay": 0.0}, "layer_decay"),
        ({"clip": 0.0}, "clip"),
        ({"precision": "int8"}, "precision to be one of float32, bfloat16, float16"),
        ({"augment": "mixup"}, "augment to be one of none, mirror, crop"),
        ({"objective": FTCADIS(draws=4), "cache": 3}, "cache of 0 or at least 4, the draws; got 3"),
        ({"objective": SmoothMix(), "cache": 8}, "SmoothMix needs more than denoised copies"),
        ({"cache": 8, "augment": "crop"}, "needs cache=0"),
    ],
)
def test_bad_settings_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        replace(COSINE, **wrong)


def test_a_recipe_prints_and_survives_json() -> None:
    recipe = replace(COSINE, objective=CATRS(targets=torch.full((5, 2), 0.5)), adapt=Lora(rank=2))
    described = json.loads(json.dumps(recipe.described()))
    assert described["objective"] == {
        "name": "CATRS",
        "draws": 4,
        "weight": 0.5,
        "epsilon": 1.0,
        "steps": 4,
        "targets": {"shape": [5, 2], "sha256": sha256(np.full((5, 2), 0.5, np.float32).data).hexdigest()},
    }
    assert described["adapt"]["rank"] == 2
    assert "learning_rate        1.0" in str(recipe)
    assert "name=CATRS" in str(recipe)


@pytest.mark.parametrize("name", sorted(PRESETS))
@pytest.mark.parametrize("sigma", [0.12, 0.25, 0.5, 1.0])
def test_every_preset_is_a_recipe_at_every_sigma(name: str, sigma: float) -> None:
    assert PRESETS[name].source
    recipe = PRESETS[name].recipe(sigma)
    assert type(recipe.objective) is OBJECTIVES.find(name.split("/", maxsplit=1)[0].split("+", maxsplit=1)[0])


def test_published_settings_depend_on_sigma() -> None:
    assert [PRESETS["cat-rs/cifar10"].recipe(s).objective.weight for s in (0.2, 0.25, 0.5, 0.9)] == [0.5, 0.5, 1, 2]  # type: ignore[attr-defined]
    assert objective_at("macer", 0.5) == MACER(weight=4.0)
    both = PRESETS["smoothadv+consistency/cifar10"].recipe(1.0).objective
    assert both == SmoothAdv(draws=2, epsilon=2.0, weight=1.0, entropy=0.5)
    vit = PRESETS["ft-cadis/cifar10-vit-b16"].recipe(1.0)
    assert (vit.learning_rate, vit.layer_decay, vit.clip, vit.epochs) == (5e-5, 0.65, 0.3, 30)
    assert vit.objective == FTCADIS(draws=4, weight=4.0, epsilon=0.125, steps=4)
    lora = PRESETS["ft-cadis/imagenet-vit-b16-lora"].recipe(1.0)
    assert lora.adapt == Lora(rank=4, alpha=4.0)
    assert lora.objective == FTCADIS(draws=2, weight=2.0, epsilon=0.125, steps=1)


def test_defaults_fit_model_and_data(make_model: MakeModel) -> None:
    plain = make_model()
    recipe = find_recipe("ft-cadis", plain, 2000)
    assert recipe.adapt == "full"  # nothing to adapt in three layers
    assert recipe.objective == FTCADIS(weight=0.5)
    assert (recipe.epochs, recipe.cache) == (30, 16)
    assert find_recipe("ft-cadis", make_model(denoiser=False), 2000).cache == 0  # nothing to save
    short = changed(recipe, {"epochs": 2})
    assert (short.warmup, short.cache) == (pytest.approx(0.2), 8)
    assert changed(recipe, {"epochs": 2, "cache": 12}).cache == 12
    assert find_recipe("ft-cadis", plain, 1_000_000).epochs == 1
    assert find_recipe("ft-cadis", plain, 1_000_000_000).cache == 0  # no disk for so many copies
    assert find_recipe("smoothmix", plain, 2000).cache == 0
    assert find_recipe(SmoothAdv(), plain, 7).batch == 7
    zoo = robustify("zoo:timm", denoiser="zoo:ddpm", sigma=0.5, precision="bfloat16")
    recipe = find_recipe("ft-cadis", zoo, 2000)
    assert isinstance(recipe.adapt, Lora)
    assert recipe.precision == "bfloat16"


def test_what_objectives_count_in_epochs_keeps_its_share_of_the_run(make_model: MakeModel) -> None:
    """Published: 200 of 440 epochs, or 10 of 150. As they are, they would outlast short runs."""
    plain = make_model()
    noisy = SmoothedClassifier(plain.classifier, plain.denoiser, sigma=1.0)
    macer = changed(find_recipe("macer", noisy, 2000), {"epochs": 11})
    assert macer.objective.deferred == pytest.approx(5.0)  # type: ignore[attr-defined]
    assert find_recipe("smoothadv", plain, 2000).objective.ramp == pytest.approx(2.0)  # type: ignore[attr-defined]
    own = Recipe(SmoothMix(ramp=4.0), epochs=8, warmup=0.0)
    assert changed(own, {"epochs": 2}).objective == SmoothMix(ramp=1.0)
    assert changed(own, {"epochs": 2, "ramp": 4.0}).objective == SmoothMix(ramp=4.0)
    assert changed(own, {"learning_rate": 1e-3}).objective == SmoothMix(ramp=4.0)
    assert [changed(STEPS, {"epochs": n}).drop_every for n in (180, 30, 1)] == [60, 10, 1]
    assert changed(STEPS, {"epochs": 30, "drop_every": 30}).drop_every == 30


def test_unknown_names_are_refused(make_model: MakeModel) -> None:
    with pytest.raises(UnknownPluginError, match=r"no objective named 'ft-cadi'.\n  Did you mean 'ft-cadis'"):
        find_recipe("ft-cadi", make_model(), 10)
    with pytest.raises(InputError, match=r"no recipe named 'ft-cadis/cifar100'; .*\n  Did you mean 'ft-cadis/cifar10"):
        find_recipe("ft-cadis/cifar100", make_model(), 10)
    with pytest.raises(InputError, match=r"expected adapt to be one of lora, full, head, a Lora; got 'all'"):
        replace(COSINE, adapt="all")
    assert replace(COSINE, adapt="lora").lora == Lora()
    assert replace(COSINE, adapt="lora").described() == replace(COSINE, adapt=Lora()).described()
    assert replace(COSINE, adapt="head").lora is None


def test_settings_reach_the_recipe_or_its_objective() -> None:
    recipe = changed(COSINE, {"epochs": 5, "draws": 5})
    assert recipe == replace(COSINE, epochs=5, warmup=1.0, objective=Gaussian(draws=5))
    with pytest.raises(InputError, match=r"no setting named 'weigth'; there are adapt, augment"):
        changed(COSINE, {"weigth": 1.0})


@pytest.mark.parametrize(
    ("name", "sigma", "batch"),
    [
        ("cat-rs/cifar10", 0.5, 64),
        ("smoothadv/cifar10", 0.25, 64),
        ("smoothadv/cifar10", 0.5, 32),
        ("smoothadv/cifar10", 1.0, 128),
        ("smoothmix/mnist", 0.5, 64),
        ("consistency/imagenet", 0.5, 128),
        ("macer/mnist", 0.5, 256),
        ("gaussian/cifar10", 0.5, 256),
    ],
)
def test_published_batches_are_split_among_the_draws(name: str, sigma: float, batch: int) -> None:
    assert PRESETS[name].recipe(sigma).batch == batch


def test_copies_are_kept_where_that_saves_something(make_model: MakeModel) -> None:
    plain = make_model()
    assert (find_recipe("ft-cadis", plain, 100_000).epochs, find_recipe("ft-cadis", plain, 100_000).cache) == (2, 0)
    assert (find_recipe("ft-cadis", plain, 64_000).epochs, find_recipe("ft-cadis", plain, 64_000).cache) == (3, 8)
    kept = find_recipe("ft-cadis", plain, 2000)
    assert changed(kept, {"draws": 32}).cache == 32
    assert changed(kept, {"draws": 2}).cache == 16
