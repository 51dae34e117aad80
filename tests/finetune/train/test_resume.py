"""A run that dies goes on with the same bits; one that fails keeps its last good checkpoint."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from robustify import SmoothedClassifier
from robustify.data import Examples
from robustify.denoisers import Denoiser
from robustify.errors import InputError, ModelError, RunError
from robustify.finetune import Recipe, load_tuned, tune
from robustify.finetune.objectives import FTCADIS, EarlyLearning, Gaussian, SmoothMix
from robustify.finetune.objectives.base import Batch, Objective, Outcome
from tests.finetune.train.toys import LOUD, RECIPE, StopError, interrupted, same
from tests.toys import MakeModel, Stripes


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
    whole = tune(smoothed, examples, recipe, out=tmp_path / "whole", quiet=True)
    interrupted(smoothed, examples, recipe, tmp_path / "parts", at)
    torch.manual_seed(99)  # whatever the process did meanwhile
    resumed = tune(smoothed, examples, recipe, out=tmp_path / "parts", quiet=True)
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
    tune(model, Examples(model, *stripes), RECIPE, out=tmp_path / "run", log=steps.append, quiet=True)
    assert [int(row["step"]) for row in steps] == [8, 9, 10, 11]  # the ninth step was not kept: it died in it
    steps.clear()
    tune(model, Examples(model, *stripes), RECIPE, out=tmp_path / "run", log=steps.append, quiet=True)
    assert steps == []


@pytest.mark.usefixtures("checkpoint_each_step")
def test_early_learning_goes_on_where_it_was(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    model = make_model()
    examples = Examples(model, *stripes)

    def recipe() -> Recipe:
        return replace(RECIPE, objective=EarlyLearning(Gaussian(draws=2), images=44))

    whole = tune(model, examples, recipe(), out=tmp_path / "whole", quiet=True).model
    interrupted(model, examples, recipe(), tmp_path / "parts", 8)
    assert same(whole, tune(model, examples, recipe(), out=tmp_path / "parts", quiet=True).model)


@pytest.mark.usefixtures("checkpoint_each_step")
def test_the_scale_of_float16_goes_on_where_it_was(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    model = make_model()
    examples = Examples(model, *stripes)
    whole = tune(model, examples, LOUD, out=tmp_path / "whole", quiet=True).model
    interrupted(model, examples, LOUD, tmp_path / "parts", 3)
    assert same(whole, tune(model, examples, LOUD, out=tmp_path / "parts", quiet=True).model)


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
    with pytest.raises(ModelError, match="StopError"):
        tune(model, Examples(model, *stripes), recipe, out=tmp_path / "run", quiet=True)
    calls[:] = [0] * 10
    tune(model, Examples(model, *stripes), recipe, out=tmp_path / "run", quiet=True)
    assert sum(calls) == (44 - 10) * 32


class Broken(Objective):
    """A loss, or a gradient of a finite loss, that is not finite from a certain epoch on."""

    draws = 1

    def __init__(self, what: str, at: float) -> None:
        self.what, self.at = what, at

    def __call__(self, model: SmoothedClassifier, batch: Batch) -> Outcome:
        loss, metrics = Gaussian()(model, batch)
        nothing = (loss - loss.detach()).abs().sqrt()  # 0, of infinite slope
        broken = loss * float("nan") if self.what == "loss" else loss + nothing
        return Outcome(broken if batch.epoch >= self.at else loss, metrics)


@pytest.mark.usefixtures("checkpoint_each_step")
@pytest.mark.parametrize(
    ("what", "at", "step", "others"),
    [("loss", 0.9, 6, 4), ("gradient", 0.9, 6, 4), ("loss", 1.8, 11, 0), ("gradient", 1.8, 11, 0)],
)
def test_what_is_not_finite_stops_the_run_and_keeps_the_last_good_state(
    what: str, at: float, step: int, others: int, make_model: MakeModel, stripes: Stripes, tmp_path: Path
) -> None:
    """In the middle, and in the very last step."""
    model = make_model()
    recipe = replace(RECIPE, objective=Broken(what, at))
    said = rf"the {what} is nan at step {step} of 12, rows \[\d+, \d+, \d+, \d+\] and {others} more"
    with pytest.raises(RunError, match=rf"{said}(?s:.*) keeps the state of the last checkpoint"):
        tune(model, Examples(model, *stripes), recipe, out=tmp_path / "run", quiet=True)
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert state["step"] == step - 1  # what the step before made gave nothing finite: it may be what is wrong
    assert all(t.isfinite().all() for t in state["network"].values())
    with pytest.raises(InputError, match="is not done"):
        load_tuned(tmp_path / "run", model.classifier)


@pytest.mark.usefixtures("checkpoint_each_step")
def test_a_full_disk_keeps_the_checkpoint_before(
    make_model: MakeModel, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    examples = Examples(model, *stripes)
    whole = tune(model, examples, RECIPE, out=tmp_path / "whole", quiet=True).model
    interrupted(model, examples, RECIPE, tmp_path / "run", 4)
    before = (tmp_path / "run" / "state.pt").read_bytes()

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr(Path, "replace", full)
        with pytest.raises(RunError, match=r"No space left on device.\n  Steps up to the last checkpoint are safe"):
            tune(model, examples, RECIPE, out=tmp_path / "run", quiet=True)
    assert (tmp_path / "run" / "state.pt").read_bytes() == before
    assert not list((tmp_path / "run").glob(".*"))
    assert same(whole, tune(model, examples, RECIPE, out=tmp_path / "run", quiet=True).model)


def test_a_last_step_that_ruins_the_network_is_noticed(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    model = make_model()
    ruin = Recipe(Gaussian(), epochs=1, batch=44, optimizer="sgd", learning_rate=1e38, warmup=0.0, clip=None)
    with pytest.raises(RunError, match=r"the logits are not finite after the last step.*\n.*has no checkpoint yet"):
        tune(model, Examples(model, *stripes), ruin, out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "weights.safetensors").exists()


def test_a_scaler_leaves_out_steps_that_overflow_and_goes_on(
    make_model: MakeModel, stripes: Stripes, tmp_path: Path
) -> None:
    class Large(Objective):
        draws = 1

        def __call__(self, model: SmoothedClassifier, batch: Batch) -> Outcome:
            loss, metrics = Gaussian()(model, batch)
            return Outcome(1e3 * loss, metrics)  # times the scaler's first scale: infinite slopes

    model = make_model()
    recipe = replace(RECIPE, objective=Large(), precision="float16", epochs=4)
    result = tune(model, Examples(model, *stripes), recipe, out=tmp_path / "run", quiet=True)
    assert not same(result.model, model)


@pytest.mark.usefixtures("checkpoint_each_step")
def test_the_history_so_far_is_there_while_a_run_goes_on(
    make_model: MakeModel, stripes: Stripes, tmp_path: Path
) -> None:
    model = make_model()
    interrupted(model, Examples(model, *stripes), RECIPE, tmp_path / "run", 9)
    rows = pq.read_table(tmp_path / "run" / "history.parquet").to_pylist()
    assert [row["step"] for row in rows] == list(range(8))


def test_a_disk_that_fills_while_copies_are_made_is_said(
    make_model: MakeModel, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room is taken first: a full disk under a mapped file would kill the process."""
    model = make_model()
    examples, recipe = Examples(model, *stripes), replace(RECIPE, cache=4)

    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr("os.posix_fallocate", full)
        with pytest.raises(RunError, match=r"No space left on device.\n  Files written before are safe"):
            tune(model, examples, recipe, out=tmp_path / "run", quiet=True)
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"tune.json"}
    tune(model, examples, recipe, out=tmp_path / "run", quiet=True)
    file = (tmp_path / "run" / "denoised.npy").stat()
    assert file.st_blocks * 512 >= file.st_size


def test_a_folder_that_a_killed_process_began_is_used(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    model = make_model()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".tune.json.123").write_text("{")
    tune(model, Examples(model, *stripes), RECIPE, out=tmp_path / "run", quiet=True)


def test_early_learning_forgets_other_runs(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    model = make_model()
    examples = Examples(model, *stripes)
    recipe = replace(RECIPE, objective=EarlyLearning(Gaussian(draws=2), images=44))
    first = tune(model, examples, recipe, out=tmp_path / "first", quiet=True).model
    assert same(first, tune(model, examples, recipe, out=tmp_path / "second", quiet=True).model)
