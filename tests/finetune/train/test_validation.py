"""Validation measures through noise, before training and after each epoch, and changes nothing."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from robustify.data import Examples
from robustify.errors import InputError
from robustify.finetune import tune
from robustify.finetune.seeds import normal
from robustify.finetune.train.validation import DRAWS, Validation
from tests.finetune.train.toys import RECIPE, interrupted, same
from tests.toys import MakeModel, Stripes


@pytest.mark.parametrize("batch", [1, 3 * DRAWS + 1, 1000])
def test_shares_are_those_counted_by_hand(batch: int, make_model: MakeModel, stripes: Stripes) -> None:
    model = make_model()
    images, labels = stripes[0][:7], stripes[1][:7]
    right = torch.zeros(7, DRAWS)
    for row in range(7):
        for copy in range(DRAWS):
            noisy = images[row] / 255 + 0.25 * normal(5, [row], [copy], (1, 6, 6))[0, 0]
            right[row, copy] = model.logits(noisy[None]).argmax() == labels[row]
    assert 0 < right.mean() < 1
    found = Validation(Examples(model, images, labels), seed=5, batch=batch, quiet=True).measure(model)
    assert found["noisy_accuracy"] == pytest.approx(float(right.mean()))
    assert found["all_draws_accuracy"] == pytest.approx(float(right.all(dim=1).float().mean()))


def test_it_is_measured_before_training_and_after_each_epoch_and_trains_nothing(
    make_model: MakeModel, stripes: Stripes, tmp_path: Path
) -> None:
    model = make_model(norm=True, dropout=0.5)
    examples = Examples(model, stripes[0][:30], stripes[1][:30])
    other = Examples(model, stripes[0][30:], stripes[1][30:])
    recipe, rows = replace(RECIPE, epochs=3, adapt="full"), []
    result = tune(model, examples, recipe, out=tmp_path / "run", validation=other, log=rows.append, quiet=True)
    measuring = Validation(other, recipe.seed, batch=64, quiet=True)
    assert [row["epoch"] for row in result.validation] == [0, 1, 2, 3]
    assert result.validation[0] == {"epoch": 0, **measuring.measure(model)}
    assert result.validation[3] == {"epoch": 3, **measuring.measure(result.model)}
    assert result.validation[3]["noisy_accuracy"] > result.validation[0]["noisy_accuracy"]
    assert {"epoch": 3, **{f"validation_{k}": v for k, v in measuring.measure(result.model).items()}} in rows
    assert same(result.model, tune(model, examples, recipe, out=tmp_path / "alone", quiet=True).model)
    assert pq.read_table(tmp_path / "run" / "validation.parquet").to_pylist() == result.validation
    assert ">validation<" in (tmp_path / "run" / "training.svg").read_text()
    assert ">validation<" not in (tmp_path / "alone" / "training.svg").read_text()
    before, after = (f"{result.validation[i]['noisy_accuracy']:.1%}" for i in (0, -1))
    assert f"noisy accuracy on validation images: {before} before, {after} after" in str(result)


@pytest.mark.usefixtures("checkpoint_each_step")
@pytest.mark.parametrize("at", [2, 8, 14])  # rows of the log: one when measured first, six an epoch, one when measured
def test_an_interrupted_run_measures_each_epoch_once(
    at: int, make_model: MakeModel, stripes: Stripes, tmp_path: Path
) -> None:
    model = make_model()
    examples, other = Examples(model, *stripes), Examples(model, stripes[0][:5], stripes[1][:5])
    whole = tune(model, examples, RECIPE, out=tmp_path / "whole", validation=other, quiet=True)
    interrupted(model, examples, RECIPE, tmp_path / "run", at, validation=other)
    resumed = tune(model, examples, RECIPE, out=tmp_path / "run", validation=other, quiet=True)
    assert resumed.validation == whole.validation
    assert same(resumed.model, whole.model)
    seen: list[object] = []
    again = tune(model, examples, RECIPE, out=tmp_path / "run", validation=other, log=seen.append, quiet=True)
    assert again.validation == whole.validation
    assert seen == []  # nothing was measured again


def test_a_run_that_makes_it_worse_says_so(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    model = make_model()
    examples = Examples(model, *stripes)
    good = tune(model, examples, replace(RECIPE, epochs=8), out=tmp_path / "good", quiet=True).model
    wrong = Examples(model, stripes[0], (stripes[1] + 1) % 3)
    harsh = replace(RECIPE, epochs=6, learning_rate=0.05)
    result = tune(good, wrong, harsh, out=tmp_path / "wrong", validation=examples, quiet=True)
    assert len(result.warnings) == 1
    assert "training made it worse" in result.warnings[0]
    assert f"was {result.validation[0]['noisy_accuracy']:.1%} before it" in result.warnings[0]


def test_unlabelled_images_validate_nothing(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    model = make_model()
    examples = Examples(model, *stripes)
    with pytest.raises(InputError, match=r"validation compares classes with labels; these images have none"):
        tune(model, examples, RECIPE, out=tmp_path / "run", validation=Examples(model, stripes[0]), quiet=True)
    assert not (tmp_path / "run").exists()
