"""The loop: exact resume, several processes, nothing lost, and learning itself."""

import json
import subprocess
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

from robustify import SmoothedClassifier
from robustify.denoisers import Denoiser
from robustify.errors import InputError, RunError
from robustify.finetune import Examples, Lora, Recipe, load_tuned, tune
from robustify.finetune import loop as loop_module
from robustify.finetune.batches import Batches
from robustify.finetune.history import PATIENCE, History
from robustify.finetune.loop import parameter_groups
from robustify.finetune.objectives import FTCADIS, EarlyLearning, Gaussian, SmoothMix, Stability
from robustify.finetune.objectives.base import Batch, Objective, Outcome
from tests.finetune.conftest import MakeModel

Stripes = tuple[Tensor, Tensor]
RECIPE = Recipe(Gaussian(draws=2), epochs=2, batch=8, learning_rate=0.01, warmup=0.5)


class StopError(Exception):
    """What the tests interrupt a run with."""


def weights(model: SmoothedClassifier) -> dict[str, Tensor]:
    return model.classifier.network.state_dict()


def same(a: SmoothedClassifier, b: SmoothedClassifier) -> bool:
    return all(torch.equal(x, y) for x, y in zip(weights(a).values(), weights(b).values(), strict=True))


def interrupted(model: SmoothedClassifier, examples: Examples, recipe: Recipe, out: Path, steps: int) -> None:
    """Runs so many steps, then dies."""
    seen = []

    def log(row: dict[str, float]) -> None:
        seen.append(row)
        if len(seen) == steps:
            raise StopError

    with pytest.raises(StopError):
        tune(model, examples, recipe, out, log=log, quiet=True)


def test_it_learns_and_leaves_the_model_as_it_was(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    model, untouched = make_model(), make_model()
    result = tune(model, Examples(model, *stripes), replace(RECIPE, epochs=8), tmp_path / "run", quiet=True)
    assert same(model, untouched)
    assert not same(result.model, untouched)
    assert not any(module.training for module in result.model.modules())
    assert not any(p.requires_grad for p in result.model.classifier.parameters())
    assert result.model.denoiser is model.denoiser
    assert result.history[0]["hit"] < 0.7
    assert result.history[-1]["hit"] > 0.95
    assert set(result.hallucination) == {"0", "1", "2"}
    assert max(result.hallucination.values()) < 0.2
    assert result.warnings == []
    stored = pq.read_table(tmp_path / "run" / "history.parquet").to_pylist()
    assert stored == result.history
    hits = pq.read_table(tmp_path / "run" / "hits.parquet").to_pylist()
    assert [h["images"] for h in hits if h["epoch"] == 8] == [15, 15, 14]  # no image is left out
    assert {h["class"]: 1 - h["hit"] for h in hits if h["epoch"] == 8} == result.hallucination
    assert (tmp_path / "run" / "training.svg").read_text().startswith("<svg")
    assert result.model.certify(stripes[0][0], n=200, seed=0).label == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("recipe", "model"),
    [
        (RECIPE, {}),
        (replace(RECIPE, optimizer="sgd", clip=None), {"norm": True, "dropout": 0.5}),
        (replace(RECIPE, objective=FTCADIS(draws=2, steps=1), cache=3), {}),
        (replace(RECIPE, objective=SmoothMix(steps=1, warmup=1), augment="crop", micro_batch=3), {}),
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
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop_module, "CHECKPOINT_SECONDS", 0.0)
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


def test_checkpoints_are_continued_and_not_trained_again(
    make_model: MakeModel, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "CHECKPOINT_SECONDS", 0.0)
    model = make_model()
    interrupted(model, Examples(model, *stripes), RECIPE, tmp_path / "run", 9)
    steps: list[dict[str, float]] = []
    tune(model, Examples(model, *stripes), RECIPE, tmp_path / "run", log=steps.append, quiet=True)
    assert [int(row["step"]) for row in steps] == [8, 9, 10, 11]  # the ninth step was not kept: it died in it
    steps.clear()
    tune(model, Examples(model, *stripes), RECIPE, tmp_path / "run", log=steps.append, quiet=True)
    assert steps == []


def test_the_callers_random_numbers_are_left_alone(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    model = make_model(dropout=0.5)
    torch.manual_seed(3)
    tune(model, Examples(model, *stripes), replace(RECIPE, adapt="head"), tmp_path / "run", quiet=True)
    assert torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(3))


def test_micro_batches_change_memory_and_not_the_result(
    make_model: MakeModel, stripes: Stripes, tmp_path: Path
) -> None:
    model = make_model()
    examples = Examples(model, *stripes)
    whole = tune(model, examples, RECIPE, tmp_path / "whole", quiet=True).model
    parts = tune(model, examples, replace(RECIPE, micro_batch=3), tmp_path / "parts", quiet=True).model
    for a, b in zip(weights(whole).values(), weights(parts).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_step_is_the_published_one(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    """One step of SGD by hand: the same images, noise, gradient and weight decay."""
    recipe = Recipe(
        Gaussian(draws=2),
        epochs=1,
        batch=44,
        optimizer="sgd",
        learning_rate=0.1,
        warmup=0.0,
        weight_decay=(0.1, 0.1),
        clip=None,
    )
    model = make_model()
    examples = Examples(model, *stripes)
    tuned = tune(model, examples, recipe, tmp_path / "run", quiet=True).model
    (picked,) = Batches(examples, recipe, model.sigma).load(0)
    (batch,) = Batches(examples, recipe, model.sigma).parts(picked, 0, torch.device("cpu"))
    assert sorted(picked.rows) == list(range(44))
    network = model.classifier.network.requires_grad_(True)
    logits = model.logits((batch.pixels + batch.noise).flatten(0, 1))
    loss = nn.functional.cross_entropy(logits, stripes[1][picked.rows].repeat(2))
    for p, grad in zip(network.parameters(), torch.autograd.grad(loss, list(network.parameters())), strict=True):
        with torch.no_grad():
            p.sub_(0.1 * (grad + (0.1 * p if p.ndim > 1 else 0)))  # biases do not decay
    for p, q in zip(network.parameters(), tuned.classifier.network.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_noise_is_gaussian_fresh_in_every_epoch_and_owned_by_its_row(make_model: MakeModel) -> None:
    model = make_model()
    examples = Examples(model, np.zeros((400, 1, 6, 6), np.uint8), np.zeros(400, np.int64))
    recipe = replace(RECIPE, batch=100)

    def noise(recipe: Recipe) -> dict[tuple[int, int], Tensor]:
        batches = Batches(examples, recipe, model.sigma)
        found = {}
        for step, picked in enumerate(batches.load(0)):
            for batch in batches.parts(picked, step, torch.device("cpu")):
                found |= {
                    (step // batches.per_epoch, row): batch.noise[:, i] for i, row in enumerate(batch.rows.tolist())
                }
        return found

    first = noise(recipe)
    every = torch.stack(list(first.values()))
    assert abs(float(every.std()) / 0.25 - 1) < 0.01
    assert abs(float(every.mean())) < 0.002
    assert len({tuple(t.flatten().tolist()) for n in first.values() for t in n}) == 2 * 400 * 2
    other = noise(replace(recipe, batch=64, micro_batch=7))
    assert all(torch.equal(first[key], other[key]) for key in first)
    assert not torch.equal(first[0, 0], noise(replace(recipe, seed=1))[0, 0])


def test_batches_visit_every_image_once_an_epoch_in_new_orders(make_model: MakeModel, stripes: Stripes) -> None:
    model = make_model()
    batches = Batches(Examples(model, *stripes), RECIPE, model.sigma)
    rows = [picked.rows for picked in batches.load(0)]
    assert [len(r) for r in rows] == [8, 8, 8, 8, 8, 4] * 2
    assert sorted(chain(*rows[:6])) == sorted(chain(*rows[6:])) == list(range(44))
    assert rows[:6] != rows[6:]
    assert [picked.rows for picked in batches.load(4)] == rows[4:]
    halves = [Batches(Examples(model, *stripes), RECIPE, model.sigma, None, i, 2) for i in (0, 1)]
    shared = [[p.rows for p in half.load(0)] for half in halves]
    assert all(sorted(a + b) == sorted(whole) for a, b, whole in zip(*shared, rows, strict=True))
    with pytest.raises(InputError, match=r"last batch of an epoch has 4 of 44 images: too few for 5 processes"):
        Batches(Examples(model, *stripes), RECIPE, model.sigma, None, 0, 5)


def test_cached_copies_are_the_denoised_ones_and_save_the_denoiser(
    make_model: MakeModel, stripes: Stripes, tmp_path: Path
) -> None:
    model = make_model()
    examples = Examples(model, *stripes)
    cached, fresh = replace(RECIPE, cache=4), RECIPE
    tune(model, examples, cached, tmp_path / "run", quiet=True)
    copies = np.load(tmp_path / "run" / "denoised.npy")
    assert copies.shape == (44, 4, 1, 6, 6)
    batches = Batches(examples, fresh, model.sigma)
    for step, picked in enumerate(batches.load(0)):
        for batch in batches.parts(picked, step, torch.device("cpu")):
            first = 2 * (step // batches.per_epoch)
            expected = torch.from_numpy(copies[picked.rows][:, first : first + 2]).float().transpose(0, 1)
            torch.testing.assert_close(batch.copies(model), expected, atol=2e-3, rtol=0)
    a = tune(model, examples, cached, tmp_path / "again", quiet=True).model
    b = tune(model, examples, fresh, tmp_path / "fresh", quiet=True).model
    for x, y in zip(weights(a).values(), weights(b).values(), strict=True):
        torch.testing.assert_close(x, y, atol=3e-3, rtol=1e-2)


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


def test_label_free_training_and_training_without_a_denoiser(
    make_model: MakeModel, stripes: Stripes, tmp_path: Path
) -> None:
    model = make_model(denoiser=False)
    unlabelled = Examples(model, stripes[0])
    result = tune(model, unlabelled, replace(RECIPE, objective=Stability()), tmp_path / "free", quiet=True)
    assert result.hallucination == {}
    assert not same(result.model, model)
    with pytest.raises(InputError, match=r"Gaussian needs labels; the data has none"):
        tune(model, unlabelled, RECIPE, tmp_path / "labels", quiet=True)
    assert not (tmp_path / "labels").exists()


def test_early_learning_goes_on_where_it_was(
    make_model: MakeModel, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "CHECKPOINT_SECONDS", 0.0)
    model = make_model()
    examples = Examples(model, *stripes)

    def recipe() -> Recipe:
        return replace(RECIPE, objective=EarlyLearning(Gaussian(draws=2), images=44))

    whole = tune(model, examples, recipe(), tmp_path / "whole", quiet=True).model
    interrupted(model, examples, recipe(), tmp_path / "parts", 8)
    assert same(whole, tune(model, examples, recipe(), tmp_path / "parts", quiet=True).model)


class Broken(Objective):
    """Not a number at a certain step."""

    draws = 1

    def __init__(self, at: float) -> None:
        self.at = at

    def __call__(self, model: SmoothedClassifier, batch: Batch) -> Outcome:
        loss, metrics = Gaussian()(model, batch)
        return Outcome(loss * (float("nan") if batch.epoch >= self.at else 1.0), metrics)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(
    make_model: MakeModel, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "CHECKPOINT_SECONDS", 0.0)
    model = make_model()
    recipe = replace(RECIPE, objective=Broken(at=0.9))
    with pytest.raises(RunError, match=r"the loss is nan at step 6 of 12, rows \[\d+, \d+, \d+, \d+\] and 4 more"):
        tune(model, Examples(model, *stripes), recipe, tmp_path / "run", quiet=True)
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert state["step"] == 6
    assert all(t.isfinite().all() for t in state["network"].values())
    with pytest.raises(InputError, match="is not done"):
        load_tuned(tmp_path / "run", model.classifier)


def test_a_full_disk_keeps_the_checkpoint_before(
    make_model: MakeModel, stripes: Stripes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "CHECKPOINT_SECONDS", 0.0)
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


def test_another_run_is_refused_with_the_difference(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    model = make_model()
    examples = Examples(model, *stripes)
    tune(model, examples, RECIPE, tmp_path / "run", quiet=True)
    with pytest.raises(RunError, match=r"another training run:\n  epochs: there 2, now 3\n  Choose another folder"):
        tune(model, examples, replace(RECIPE, epochs=3), tmp_path / "run", quiet=True)
    with pytest.raises(RunError, match=r"data_sha256: there"):
        tune(model, Examples(model, stripes[0], stripes[1].flip(0)), RECIPE, tmp_path / "run", quiet=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    with pytest.raises(RunError, match="holds something that is no training run"):
        tune(model, examples, RECIPE, tmp_path / "other", quiet=True)
    (tmp_path / "run" / "state.pt").write_bytes(b"torn")
    with pytest.raises(RunError, match=r"cannot read .*state.pt"):
        tune(model, examples, RECIPE, tmp_path / "run", quiet=True)


def test_tuned_weights_come_back_for_the_same_base_alone(
    make_model: MakeModel, stripes: Stripes, tmp_path: Path
) -> None:
    model = make_model(norm=True)
    result = tune(model, Examples(model, *stripes), RECIPE, tmp_path / "run", quiet=True)
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


def test_frozen_normalisation_keeps_its_statistics(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    model = make_model(norm=True)
    examples = Examples(model, *stripes)
    head = tune(model, examples, replace(RECIPE, adapt="head"), tmp_path / "head", quiet=True).model
    full = tune(model, examples, RECIPE, tmp_path / "full", quiet=True).model
    changed = {k for k in weights(model) if not torch.equal(weights(head)[k], weights(model)[k])}
    assert changed == {"5.weight", "5.bias"}
    assert not torch.equal(weights(full)["1.running_mean"], weights(model)["1.running_mean"])


def test_lora_on_the_zoo_trains_little_and_merges_exactly(tmp_path: Path) -> None:
    from peft import PeftModel
    from safetensors.torch import load_file

    from robustify import robustify
    from robustify.zoo import HELD_OUT

    model = robustify("zoo:timm", denoiser="zoo:ddpm", sigma=0.5)
    held_out = load_file(HELD_OUT)
    examples = Examples(model, held_out["images"][:16].view(16, 1, 32, 32), held_out["labels"][:16])
    recipe = Recipe(FTCADIS(draws=2, steps=1), Lora(), epochs=2, batch=8, learning_rate=1e-3, warmup=0.0)
    result = tune(model, examples, recipe, tmp_path / "run", quiet=True)
    base = robustify("zoo:timm").classifier.network
    theirs = PeftModel.from_pretrained(base, tmp_path / "run" / "adapter").eval()
    pixels = examples.__getitems__([0, 1]).pixels
    inside = result.model.classifier.preprocessing.network_input(pixels)
    torch.testing.assert_close(theirs(inside), result.model.classifier.network(inside), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(model.classifier(pixels), result.model.classifier(pixels), atol=1e-3)


def test_layers_near_the_input_learn_more_slowly() -> None:
    class Blocks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(2, 2)
            self.blocks = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
            self.head = nn.Linear(2, 2)

    scales, groups = parameter_groups(Blocks(), 0.5)
    found = {(scale, group["decays"]) for scale, group in zip(scales, groups, strict=True)}
    assert found == {(0.5**k, decays) for k in range(4) for decays in (True, False)}
    assert all((p.ndim > 1) == group["decays"] for group in groups for p in group["params"])
    scales, groups = parameter_groups(nn.Sequential(nn.Linear(2, 2)), 1.0)
    assert scales == [1.0, 1.0]


def test_a_collapsing_run_is_noticed_once() -> None:
    history = History(("a", "b"), every=10)
    warnings = [
        history.add({"loss": 1.0, "hit": hit}, step=i, epoch=0.0, rate=0.1, images=4)
        for i, hit in enumerate([0.8] * PATIENCE + [0.2] * (PATIENCE - 1))
    ]
    said = [w for w in warnings if w]
    assert len(said) == 1
    assert warnings.index(said[0]) == PATIENCE + PATIENCE * 2 // 3  # once the mean is below .4
    assert "the run may be collapsing" in said[0]
    assert "80% at best before" in said[0]


def test_a_class_that_is_given_up_is_named() -> None:
    history = History(("cat", "dog", "fox"), every=1)

    def epoch(number: int, cat: float, dog: float, fox: float) -> str | None:
        history.add_hits(torch.tensor([20 * cat, 19 * dog, 20 * fox]), torch.tensor([20.0, 19.0, 20.0]))
        return history.end_epoch(number)

    assert epoch(1, 0.8, 0.9, 0.5) is None
    assert epoch(2, 0.4, 0.1, 0.1) is None  # half and no less; too few dogs; foxes were never better than chance
    assert "giving up 1 of its classes" in (said := epoch(3, 0.39, 0.1, 0.1) or "")
    assert "fell for 'cat' 80% to 39%" in said
    assert epoch(4, 0.1, 0.1, 0.1) is None  # said once


def test_history_means_weigh_by_images() -> None:
    rows: list[dict[str, float]] = []
    history = History(("a",), every=2, log=rows.append)
    history.add({"loss": 1.0}, step=0, epoch=0.0, rate=0.1, images=3)
    history.add({"loss": 3.0}, step=1, epoch=0.5, rate=0.2, images=1)
    assert rows == history.rows == [{"step": 1, "epoch": 0.5, "learning_rate": 0.2, "images": 4, "loss": 1.5}]


def test_two_processes_do_what_one_does(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    """A real `accelerate launch`; without batch statistics and dropout only the order of summation differs."""
    torch.save({"images": stripes[0], "labels": stripes[1]}, tmp_path / "data.pt")
    script = tmp_path / "train.py"
    script.write_text(
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from tests.finetune.conftest import _model\n"
        "from robustify.finetune import Examples, tune\n"
        "from tests.finetune.test_trainer import RECIPE\n"
        "torch.set_num_threads(1)\n"
        "data = torch.load(sys.argv[1] + '/data.pt')\n"
        "model = _model()\n"
        "from dataclasses import replace\n"
        "out = Path(sys.argv[1]) / 'two'\n"
        "tune(model, Examples(model, data['images'], data['labels']), replace(RECIPE, cache=4), out, quiet=True)\n"
    )
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--main_process_port", "0"]
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, *launch, "--mixed_precision", "no", str(script), str(tmp_path)],
        check=True,
        capture_output=True,
        cwd=root,
        env={**__import__("os").environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        timeout=120,
    )
    model = make_model()
    one = tune(model, Examples(model, *stripes), replace(RECIPE, cache=4), tmp_path / "one", quiet=True)
    two = load_tuned(tmp_path / "two", model.classifier)
    for a, b in zip(weights(one.model).values(), two.network.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    rows = pq.read_table(tmp_path / "two" / "history.parquet").to_pylist()
    assert [row["images"] for row in rows] == [row["images"] for row in one.history]
    assert [row["hit"] for row in rows] == pytest.approx([row["hit"] for row in one.history])
    assert json.loads((tmp_path / "two" / "tune.json").read_text())["images"] == 44


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
    lambda: tune(model, (images, labels), Recipe(FTCADIS()), "run"),
    lambda: tune(model, examples, "ft-cadis", "run"),
    lambda: robustify(model.classifier, tune=True, data=(images, labels)),
    lambda: Examples(model, images, ["a", "b", "c", "a"]),
    lambda: Examples(model, DataLoader([1])),
    lambda: Recipe("ft-cadis"),
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
    assert len(refused) == 10, found.stdout
    assert refused[0] == "refused: expected Examples(model, images, labels); got tuple"
    assert refused[1] == "refused: expected a Recipe; got 'ft-cadis'."
    assert refused[4].endswith("of pairs (image, label); got DataLoader.")
    assert not (tmp_path / "run").exists()
