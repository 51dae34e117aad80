"""`tune`: a classifier learns to read what its denoiser makes of noise."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, final

import torch
from accelerate import PartialState

from robustify.data.examples import Examples
from robustify.errors import InputError, ModelError
from robustify.finetune.adapt.lora import adapt
from robustify.finetune.adapt.tuned import load_tuned, save_tuned
from robustify.finetune.recipe import Recipe
from robustify.finetune.train.batches import Batches
from robustify.finetune.train.denoised import DenoisedCopies
from robustify.finetune.train.folder import RunFolder
from robustify.finetune.train.loop import Loop
from robustify.finetune.train.plots import training_svg
from robustify.finetune.train.validation import HeldOut
from robustify.folders import disk, write_whole
from robustify.smoothing import SmoothedClassifier
from robustify.smoothing.fingerprint import classifier_fingerprint, denoiser_fingerprint

SHOWN = 10
"""Classes that a result names."""

JUDGED = {"hit": "copies of held-out images recognised", "steady": "held-out images with all copies recognised"}
"""What a result tells of held-out images."""


@final
@dataclass(frozen=True)
class Tuned:
    """What came out of training; as text, the classes recognised least and where everything is.

    Arguments:
        model: The tuned classifier behind the same denoiser and noise, plain and in evaluation mode.
        folder: The run: `load_tuned` makes the same classifier from it and the base.
        hallucination: For each class, the share of its copies not recognised in the last epoch, the largest first.
        history: One row per stretch of steps: loss, hit rate, learning rate and more.
        held_out: Of held-out images, before training and after each epoch: `hit`, the share of their noisy copies
            that were recognised, and `steady`, the share of images all of whose copies were.
        warnings: What went badly in this call.
    """

    model: SmoothedClassifier
    folder: Path
    hallucination: dict[str, float]
    history: list[dict[str, float | int]] = field(repr=False)
    held_out: list[dict[str, float | int]] = field(repr=False)
    warnings: list[str]

    def __str__(self) -> str:
        worst = list(self.hallucination.items())[:SHOWN]
        lines = [f"not recognised, last epoch: {share:6.1%}  {name}" for name, share in worst]
        for first, last in [(self.held_out[0], self.held_out[-1])] if self.held_out else []:
            lines += [f"{what}: {first[name]:.1%} before, {last[name]:.1%} after" for name, what in JUDGED.items()]
        return "\n".join([*lines, f"weights, history.parquet and training.svg are in {str(self.folder)!r}"])


def tune(
    model: SmoothedClassifier,
    examples: Examples,
    recipe: Recipe,
    out: str | PathLike[str],
    *,
    held_out: Examples | None = None,
    workers: int = 0,
    log: Callable[[dict[str, float | int]], object] | None = None,
    quiet: bool = False,
) -> Tuned:
    """Trains a copy of the model's classifier behind its denoiser; the model itself is left as it is.

    Interrupted, the same call continues at the last checkpoint, at most a minute back. Under `accelerate launch`
    (on CPUs `torchrun`: the other starts one process there) every process takes its share of each batch.

    Arguments:
        model: In evaluation mode.
        examples: What to learn from.
        recipe: How.
        out: Folder of the run.
        held_out: Other images with labels, which only tell how well it goes: their noisy copies are looked at before
            training and after each epoch.
        workers: Processes that decode images.
        log: Called with each row of the history and of what held-out images tell, such as `wandb.log`; a run that
            continues repeats rows after its checkpoint.
        quiet: Prints nothing and shows no progress bar.

    Raises:
        InputError: If data and recipe do not fit each other; before any training.
        ModelError: If the recipe's adapters do not fit the network.
        RunError: If the folder holds another run or cannot be written, or the loss is not finite; the state of the
            last checkpoint stays.
    """
    out = Path(out)
    processes = PartialState(cpu=model.classifier.device.type == "cpu")
    _check(model, examples, recipe, processes.num_processes)
    judge = _judge(processes, held_out, recipe, quiet)
    student = copy.deepcopy(model)
    student.denoiser.requires_grad_(False)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(recipe.seed)
        summary = adapt(student.classifier, recipe.adapt)
    folder = _open(processes, out, _config(model, examples, held_out, recipe))
    if processes.num_processes > 1:
        student.to(processes.device)
    if processes.is_main_process and not quiet:
        print(f"{recipe}\n{summary}")
    batches = Batches(
        examples,
        recipe,
        model.sigma,
        _cached(processes, student, examples, recipe, out, quiet),
        processes.process_index,
        processes.num_processes,
        workers,
    )
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        loop = Loop(student, batches, recipe, folder, processes, held_out=judge, log=log, quiet=quiet)
        history = loop.run()
    if processes.is_main_process:
        save_tuned(out, student.classifier, recipe.adapt)
        svg = training_svg(history.rows, history.hallucination(), history.held_out)
        with disk(out, "Tuned weights"):
            write_whole(out / "training.svg", svg.encode())
    processes.wait_for_everyone()
    tuned = SmoothedClassifier(
        load_tuned(out, model.classifier),
        model.denoiser,
        sigma=model.sigma,
        precision=model.precision,
        compiled=model.compiled,
    )
    result = Tuned(tuned, out, history.hallucination(), history.rows, history.held_out, loop.warnings)
    if processes.is_main_process and not quiet:
        print(result)
    return result


def _check(model: SmoothedClassifier, examples: Examples, recipe: Recipe, processes: int) -> None:
    if not isinstance(examples, Examples):
        raise InputError(f"expected Examples(model, images, labels); got {type(examples).__name__}")
    if not isinstance(recipe, Recipe):
        raise InputError(
            f"expected a Recipe; got {recipe!r}.\n  find_recipe({recipe!r}, model, images) makes one of a name."
        )
    if recipe.objective.needs_labels and examples.labels is None:
        raise InputError(
            f"{type(recipe.objective).__name__} needs labels; the data has none.\n"
            "  Label the images, or use stability, which learns from the model's own clean predictions."
        )
    if torch.finfo(model.classifier.dtype).bits < 32:
        raise ModelError(
            f"the weights of {model.classifier.name} are {model.dtype}: small steps would be rounded away.\n"
            "  Load them in float32; Recipe(precision='bfloat16') computes in lower precision all the same."
        )
    recipe.objective.check(len(examples), len(model.labels))
    if processes > 1 and recipe.objective.remembers:
        raise InputError(
            f"{type(recipe.objective).__name__} remembers every image, and {processes} processes would each remember "
            "some.\n  Run it in one process."
        )
    examples.__getitems__([0])  # an unusable image shows before any work


def _judge(processes: PartialState, held_out: Examples | None, recipe: Recipe, quiet: bool) -> HeldOut | None:
    if held_out is None:
        return None
    quiet = quiet or not processes.is_main_process
    copies = (recipe.micro_batch or recipe.batch) * recipe.objective.draws
    return HeldOut(held_out, recipe.seed, copies, processes.process_index, processes.num_processes, quiet)


def _open(processes: PartialState, out: Path, config: dict[str, Any]) -> RunFolder:
    """The run's folder; made by the main process."""
    if processes.is_main_process:
        RunFolder(out, config)
    processes.wait_for_everyone()
    return RunFolder(out, config)


def _config(model: SmoothedClassifier, examples: Examples, held_out: Examples | None, recipe: Recipe) -> dict[str, Any]:
    """Everything that decides what comes out; over how many forward passes and processes it is spread does not."""
    described = {key: value for key, value in recipe.described().items() if key != "micro_batch"}
    return {
        "classifier": model.classifier.name,
        "classifier_sha256": classifier_fingerprint(model.classifier),
        "denoiser": f"{model.denoiser.name}: {model.denoiser.describe(model.sigma)}",
        "denoiser_sha256": denoiser_fingerprint(model.denoiser, [model.sigma]),
        "sigma": model.sigma,
        "dtype": model.dtype,
        "images": len(examples),
        "data_sha256": examples.fingerprint(),
        "held_out_sha256": None if held_out is None else held_out.fingerprint(),
        **described,
    }


def _cached(
    processes: PartialState,
    student: SmoothedClassifier,
    examples: Examples,
    recipe: Recipe,
    out: Path,
    quiet: bool,
) -> DenoisedCopies | None:
    """The denoised copies, made by the main process."""
    if not recipe.cache:
        return None
    shape = student.contract.shape
    if processes.is_main_process:
        copies = DenoisedCopies(out, len(examples), recipe.cache, shape)
        copies.fill(student, examples, seed=recipe.seed, batch=64, quiet=quiet)
    processes.wait_for_everyone()
    return DenoisedCopies(out, len(examples), recipe.cache, shape)
