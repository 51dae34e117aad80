"""Folders of other runs, other bases and wrong kinds of arguments are refused in words."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from robustify import SmoothedClassifier
from robustify.data import Examples
from robustify.errors import InputError, ModelError, RunError
from robustify.finetune import load_tuned, tune
from robustify.finetune.objectives import CATRS
from tests.finetune.train.toys import RECIPE, weights
from tests.toys import MakeModel, Stripes


def test_another_run_is_refused_with_the_difference(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    model = make_model()
    examples = Examples(model, *stripes)
    tune(model, examples, RECIPE, out=tmp_path / "run", quiet=True)
    with pytest.raises(RunError, match=r"another training run:\n  epochs: there 2, now 3\n  Choose another folder"):
        tune(model, examples, replace(RECIPE, epochs=3), out=tmp_path / "run", quiet=True)
    with pytest.raises(RunError, match=r"data_sha256: there"):
        tune(model, Examples(model, stripes[0], stripes[1].flip(0)), RECIPE, out=tmp_path / "run", quiet=True)
    newer = make_model()
    newer.denoiser.register_buffer("learned", torch.ones(1))  # of the same name and description
    with pytest.raises(RunError, match=r"denoiser_sha256: there"):
        tune(newer, examples, RECIPE, out=tmp_path / "run", quiet=True)
    with pytest.raises(RunError, match=r"validation_sha256: there None"):
        tune(model, examples, RECIPE, out=tmp_path / "run", validation=examples, quiet=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    with pytest.raises(RunError, match="holds something that is no training run"):
        tune(model, examples, RECIPE, out=tmp_path / "other", quiet=True)
    (tmp_path / "run" / "state.pt").write_bytes(b"torn")
    with pytest.raises(RunError, match=r"cannot read .*state.pt"):
        tune(model, examples, RECIPE, out=tmp_path / "run", quiet=True)


def test_tuned_weights_come_back_for_the_same_base_alone(
    make_model: MakeModel, stripes: Stripes, tmp_path: Path
) -> None:
    model = make_model(norm=True)
    result = tune(model, Examples(model, *stripes), RECIPE, out=tmp_path / "run", quiet=True)
    again = load_tuned(tmp_path / "run", make_model(norm=True).classifier)
    assert all(torch.equal(again.network.state_dict()[k], v) for k, v in weights(result.model).items())
    assert again.name.endswith("tuned with Gaussian at sigma = 0.25 behind shrink")
    assert again.labels == model.labels
    with pytest.raises(InputError, match=r"Load the classifier that was tuned"):
        load_tuned(tmp_path / "run", again)
    with pytest.raises(InputError, match=r"expected the folder of a training run"):
        load_tuned(tmp_path, again)
    (tmp_path / "run" / "weights.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match="cannot read the tuned weights"):
        load_tuned(tmp_path / "run", model.classifier)


def test_wrong_kinds_of_arguments_are_said_in_words(tmp_path: Path) -> None:
    """In a process of its own, without the type checks of these tests."""
    script = """
import torch
from torch import nn
from torch.utils.data import DataLoader
from robustify import Examples, Lora, Preprocessing, Recipe, robustify, tune
from robustify.errors import InputError
from robustify.finetune.objectives import FTCADIS
network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
model = robustify(network, preprocessing=Preprocessing((0.5,), (0.5,), (4, 4)))
images, labels = torch.zeros(4, 1, 4, 4), [0, 1, 2, 0]
examples = Examples(model, images, labels)
for wrong in (
    lambda: tune(model, 3, Recipe(FTCADIS()), out="run"),
    lambda: tune(model, examples, 3, out="run"),
    lambda: robustify(model.classifier, tune=True, data=(images, labels)),
    lambda: Examples(model, images, ["a", "b", "c", "a"]),
    lambda: Examples(model, DataLoader([1])),
    lambda: tune(model, examples, Recipe(FTCADIS()), out="run", validation=(images, labels[:3])),
    lambda: robustify(model.classifier, validation=(images, labels)),
    lambda: robustify(model.classifier, sigma="a"),
    lambda: Recipe("ft-cadis"),
    lambda: Recipe(FTCADIS(draws=2.5)),
    lambda: Recipe(FTCADIS(), epochs=1.5),
    lambda: Recipe(FTCADIS(), seed=None),
    lambda: Recipe(FTCADIS(), weight_decay=0.1),
    lambda: Lora(rank=2.5),
):
    try:
        wrong()
    except InputError as error:
        print("refused:", str(error).splitlines()[0])
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    refused = found.stdout.splitlines()
    assert len(refused) == 14, found.stdout
    assert refused[0] == "refused: expected images, or a data set with a length, of pairs (image, label); got int."
    assert refused[1] == "refused: expected 'ft-cadis', another objective or a Recipe to tune with; got 3"
    assert refused[4].endswith("of pairs (image, label); got DataLoader.")
    assert refused[5] == "refused: expected one label for each of the 4 images; got 3"
    assert refused[6].endswith("say how to learn with tune= and from what with data=")
    assert refused[7].endswith("the noise in units of [0, 1] pixels; got 'a'")
    assert not (tmp_path / "run").exists()


def test_half_precision_weights_and_targets_of_other_data_are_refused(
    make_model: MakeModel, stripes: Stripes, tmp_path: Path
) -> None:
    model = make_model()
    examples = Examples(model, *stripes)
    other = replace(RECIPE, objective=CATRS(targets=torch.full((43, 3), 1 / 3)))
    with pytest.raises(InputError, match=r"expected targets of shape \(44, 3\), .*; got \(43, 3\)"):
        tune(model, examples, other, out=tmp_path / "run", quiet=True)
    model.classifier.to(torch.bfloat16)
    with pytest.raises(ModelError, match=r"are bfloat16: small steps would be rounded away.\n  Load them in float32"):
        tune(model, examples, RECIPE, out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_model_in_another_precision_is_another_run(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    model = make_model()
    lower = SmoothedClassifier(model.classifier, model.denoiser, sigma=model.sigma, precision="bfloat16")
    tune(model, Examples(model, *stripes), RECIPE, out=tmp_path / "run", quiet=True)
    with pytest.raises(RunError, match="numerics: there float32, now float32, bfloat16 autocast"):
        tune(lower, Examples(lower, *stripes), RECIPE, out=tmp_path / "run", quiet=True)
