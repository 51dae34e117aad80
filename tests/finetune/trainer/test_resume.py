"""A run that dies goes on with the same bits; one that fails keeps its last good checkpoint."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from robustify import SmoothedClassifier
from robustify.denoisers import Denoiser
from robustify.errors import InputError, RunError
from robustify.finetune import Examples, Recipe, load_tuned, tune
from robustify.finetune.objectives import FTCADIS, EarlyLearning, Gaussian, SmoothMix
from robustify.finetune.objectives.base import Batch, Objective, Outcome
from tests.finetune.conftest import MakeModel, Stripes
from tests.finetune.trainer.conftest import RECIPE, StopError, interrupted, same


@pytest.mark.usefixtures("checkpoint_each_step")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("recipe", "model"),
    [
        (RECIPE, {}),
        (replace(RECIPE, optimizer="sgd", clip=None), {"norm": True, "dropout": 0.5}),
        (replace(RECIPE, objective=FTCADIS(draws=2, steps=1), cache=3), {}),
        (replace(RECIPE, objective=SmoothMix(steps=1, ramp=1.0), augment="crop", micro_batch=3), {}),
    ],
)
@pytest.mark.parametrize("at", [1, 7])
def test_an_interrupted_run_ends_with_the_same_bits(
    recipe: Recipe,
    model: dict[str, Any],
    at: int,
    precision: str,
    make_model: MakeModel,
    stripes: Stripes,
    tmp_path: Path,
) -> None:
    smoothed = make_model(**model)
    recipe = replace(recipe, precision=precision)
    examples = Examples(smoothed, *stripes)
    whole = tune(smoothed, examples, recipe, tmp_path / "whole", quiet=True)
    interrupted(smoothed, examples, recipe, tmp_path / "parts", at)
    torch.manual_seed(99)  # whatever the process did meanwhile
    resumed = tune(smoothed, examples, recipe, tmp_path / "parts", quiet=True)
    assert same(whole.model, resumed.model)
    assert whole.history == resumed.history
    assert whole.hallucination == resumed.hallucination


@pytest.mark.usefixtures("checkpoint_each_step")
def test_checkpoints_are_continued_and_not_trained_again(
    make_model: MakeModel, stripes: Stripes, tmp_path: Path
) -> None:
    model = make_model()
    interrupted(model, Examples(model, *stripes), RECIPE, tmp_path / "run", 9)
    steps: list[dict[str, float]] = []
    tune(model, Examples(model, *stripes), RECIPE, tmp_path / "run", log=steps.append, quiet=True)
    assert [int(row["step"]) for row in steps] == [8, 9, 10, 11]  # the ninth step was not kept: it died in it
    steps.clear()
    tune(model, Examples(model, *stripes), RECIPE, tmp_path / "run", log=steps.append, quiet=True)
    assert steps == []


@pytest.mark.usefixtures("checkpoint_each_step")
def test_early_learning_goes_on_where_it_was(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    model = make_model()
    examples = Examples(model, *stripes)

    def recipe() -> Recipe:
        return replace(RECIPE, objective=EarlyLearning(Gaussian(draws=2), images=44))

    whole = tune(model, examples, recipe(), tmp_path / "whole", quiet=True).model
    interrupted(model, examples, recipe(), tmp_path / "parts", 8)
    assert same(whole, tune(model, examples, recipe(), tmp_path / "parts", quiet=True).model)


def test_an_interrupted_cache_is_filled_where_it_was(
    make_model: MakeModel, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    recipe = replace(RECIPE, cache=32)  # two images at once
    calls: list[int] = []
    forward = type(model.denoiser).forward

    def dying(self: Denoiser, noisy: Tensor, sigma: float) -> Tensor:
        calls.append(len(noisy))
        if len(calls) == 6:
            raise StopError
        return forward(self, noisy, sigma)

    monkeypatch.setattr(type(model.denoiser), "forward", dying)
    with pytest.raises(StopError):
        tune(model, Examples(model, *stripes), recipe, tmp_path / "run", quiet=True)
    calls[:] = [0] * 10
    tune(model, Examples(model, *stripes), recipe, tmp_path / "run", quiet=True)
    assert sum(calls) == (44 - 10) * 32


class Broken(Objective):
    """Not a number at a certain step."""

    draws = 1

    def __init__(self, at: float) -> None:
        self.at = at

    def __call__(self, model: SmoothedClassifier, batch: Batch) -> Outcome:
        loss, metrics = Gaussian()(model, batch)
        return Outcome(loss * (float("nan") if batch.epoch >= self.at else 1.0), metrics)


@pytest.mark.usefixtures("checkpoint_each_step")
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(
    make_model: MakeModel, stripes: Stripes, tmp_path: Path
) -> None:
    model = make_model()
    recipe = replace(RECIPE, objective=Broken(at=0.9))
    with pytest.raises(RunError, match=r"the loss is nan at step 6 of 12, rows \[\d+, \d+, \d+, \d+\] and 4 more"):
        tune(model, Examples(model, *stripes), recipe, tmp_path / "run", quiet=True)
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert state["step"] == 5  # what the step before made gave no finite loss: it may be what is wrong
    assert all(t.isfinite().all() for t in state["network"].values())
    with pytest.raises(InputError, match="is not done"):
        load_tuned(tmp_path / "run", model.classifier)


@pytest.mark.usefixtures("checkpoint_each_step")
def test_a_full_disk_keeps_the_checkpoint_before(
    make_model: MakeModel, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    examples = Examples(model, *stripes)
    whole = tune(model, examples, RECIPE, tmp_path / "whole", quiet=True).model
    interrupted(model, examples, RECIPE, tmp_path / "run", 4)
    before = (tmp_path / "run" / "state.pt").read_bytes()

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr(Path, "replace", full)
        with pytest.raises(RunError, match=r"No space left on device.\n  Steps up to the last checkpoint are safe"):
            tune(model, examples, RECIPE, tmp_path / "run", quiet=True)
    assert (tmp_path / "run" / "state.pt").read_bytes() == before
    assert not list((tmp_path / "run").glob(".*"))
    assert same(whole, tune(model, examples, RECIPE, tmp_path / "run", quiet=True).model)
