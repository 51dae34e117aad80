"""`tune` takes raw data and names: the same run as with examples and a recipe."""

import inspect
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robustify import SmoothedClassifier
from robustify.certificates import Cascade, Translation
from robustify.data import Examples
from robustify.denoisers import Identity
from robustify.errors import InputError, UnknownPluginError
from robustify.finetune import Recipe, find_recipe, tune
from robustify.finetune.objectives import Gaussian, Objective
from robustify.finetune.train.progress import progress
from tests.finetune.train.toys import RECIPE, same
from tests.toys import MakeModel, Stripes


def test_raw_data_teach_and_validate_like_examples(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    model = make_model()
    images, labels = stripes
    ready = tune(
        model,
        Examples(model, images, labels),
        RECIPE,
        out=tmp_path / "ready",
        validation=Examples(model, images[:7], labels[:7]),
        quiet=True,
    )
    np.savez(tmp_path / "other.npz", images=images[:7].numpy(), labels=labels[:7].numpy())
    raw = tune(model, (images, labels), RECIPE, out=tmp_path / "raw", validation=tmp_path / "other.npz", quiet=True)
    assert same(ready.model, raw.model)
    assert ready.validation == raw.validation


@pytest.mark.parametrize("how", [None, "gaussian", Gaussian(draws=3)])
def test_an_objective_or_its_name_becomes_a_recipe_for_the_model(
    how: str | Objective | None, make_model: MakeModel, stripes: Stripes, tmp_path: Path
) -> None:
    model = make_model()
    if how is None:
        tune(model, stripes, out=tmp_path / "run", quiet=True)
    else:
        tune(model, stripes, how, out=tmp_path / "run", quiet=True)
    config = json.loads((tmp_path / "run" / "tune.json").read_text())
    assert config["pictures"] == {"orientation": "exif", "transparency": "white", "gray": False}
    expected = find_recipe(how or "ft-cadis", model, 44).described()
    assert {key: config[key] for key in expected if key != "micro_batch"} == {
        key: value for key, value in expected.items() if key != "micro_batch"
    }


@pytest.mark.parametrize(("how", "said"), [("full", "full fine-tuning"), ("head", "head fine-tuning; in full: 5")])
def test_what_is_adapted_is_printed_stored_and_shown(
    how: str,
    said: str,
    make_model: MakeModel,
    stripes: Stripes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tune(make_model(), stripes, replace(RECIPE, adapt=how, epochs=1, warmup=0.0), out=tmp_path / "run")
    assert said.split(";", maxsplit=1)[0] in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "tune.json").read_text())["adapts"] == said
    assert f"sigma = 0.25: {said}\n" in progress(tmp_path / "run")


def test_an_unknown_keyword_gets_the_nearest(make_model: MakeModel, stripes: Stripes) -> None:
    with pytest.raises(TypeError, match=r"tune\(\) got .* 'validaton'; did you mean 'validation'"):
        tune(make_model(), stripes, validaton=stripes)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'epochs'; it is a field of Recipe: give a recipe as how="):
        tune(make_model(), stripes, epochs=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'zzz'; there are model, data, how, out, validation"):
        tune(make_model(), stripes, zzz=3)  # type: ignore[call-arg]
    assert next(iter(inspect.signature(tune).parameters)) == "model"


def test_a_run_without_a_folder_is_named_after_the_model(
    make_model: MakeModel, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    model.classifier.name = "timm:ViT B/16.augreg"
    monkeypatch.chdir(tmp_path)
    recipe = Recipe(Gaussian(), epochs=1, batch=44, warmup=0.0)
    assert tune(model, stripes, recipe, quiet=True).folder == Path("timm-vit-b-16.augreg-gaussian-0.25")
    assert (tmp_path / "timm-vit-b-16.augreg-gaussian-0.25" / "tune.json").is_file()


def test_unknown_names_and_kinds_are_refused_before_any_folder_is_made(
    make_model: MakeModel, stripes: Stripes, tmp_path: Path
) -> None:
    model = make_model()
    with pytest.raises(UnknownPluginError, match="no objective named 'gausian'"):
        tune(model, stripes, "gausian", out=tmp_path / "run")
    with pytest.raises(InputError, match="no recipe named 'gaussian/cifar100'"):
        tune(model, stripes, "gaussian/cifar100", out=tmp_path / "run")
    with pytest.raises(InputError, match="there is no file or folder 'nowhere'"):
        tune(model, "nowhere", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_several_levels_of_noise_are_refused(make_model: MakeModel, stripes: Stripes) -> None:
    model = make_model()
    cascade = SmoothedClassifier(model.classifier, model.denoiser, family=Cascade((0.25, 0.5)))
    with pytest.raises(InputError, match=r"one level of noise to train at; got a model of 0.5, 0.25(.|\n)*sigma=0.5"):
        tune(cascade, stripes, "gaussian")


def test_an_objective_of_noise_is_refused_where_certificates_have_none(make_model: MakeModel, stripes: Stripes) -> None:
    classifier = make_model().classifier
    plain = SmoothedClassifier(classifier, Identity(), family=Translation())
    with pytest.raises(InputError, match="Gaussian teaches by noise; translation certificates add none"):
        tune(plain, stripes, "gaussian")
