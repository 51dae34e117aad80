"""`tune`: fine-tunes a classifier behind its denoiser."""

import copy
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Any, final

import torch
from accelerate import PartialState

from robustify.data.examples import Examples, training_examples
from robustify.errors import InputError, ModelError
from robustify.finetune.adapt.lora import Adaptation, adapt
from robustify.finetune.defaults import find_recipe
from robustify.finetune.objectives import Objective
from robustify.finetune.recipe import Recipe
from robustify.finetune.saved.tuned import load_tuned, save_tuned
from robustify.finetune.train.batches import Batches
from robustify.finetune.train.denoised import DenoisedCopies
from robustify.finetune.train.folder import TrainingFolder
from robustify.finetune.train.history import History, Row
from robustify.finetune.train.loop import Loop
from robustify.finetune.train.plots import training_svg
from robustify.finetune.train.validation import Validation
from robustify.folders import disk, write_whole
from robustify.options import checked
from robustify.smoothing import SmoothedClassifier
from robustify.smoothing.fingerprint import classifier_fingerprint, denoiser_fingerprint
from robustify.smoothing.inputs import picture_rules

SHOWN = 10
"""Classes that a result names."""

_CACHE_BATCH = 64
"""Copies that are denoised together when they are cached."""


@final
@dataclass(frozen=True)
class Tuned:
    """The result of training; as text, the classes with the lowest noisy accuracy and where everything is.

    Arguments:
        model: The tuned classifier behind the same denoiser and noise, without adapters and in evaluation mode.
        folder: Folder of the run: `load_tuned` makes the same classifier from it and the base.
        hallucination: For each class, the share of its noisy copies not classified as it in the last epoch, the
            largest first.
        history: One row per stretch of steps: loss, noisy accuracy, learning rate and more.
        validation: One row from before training and one after each epoch: `noisy_accuracy`, the share of noisy copies
            of validation images classified as their label, and `all_draws_accuracy`, the share of images all of whose
            copies were.
        warnings: Warnings of this call, such as a collapse of the noisy accuracy.
    """

    model: SmoothedClassifier
    folder: Path
    hallucination: dict[str, float]
    history: list[Row] = field(repr=False)
    validation: list[Row] = field(repr=False)
    warnings: list[str]

    def __str__(self) -> str:
        worst = list(self.hallucination.items())[:SHOWN]
        lines = [f"copies not classified as their label, last epoch: {share:6.1%}  {name}" for name, share in worst]
        if self.validation:
            lines += [self._validated("noisy accuracy"), self._validated("all-draws accuracy")]
        return "\n".join([*lines, f"weights, history.parquet and training.svg are in {str(self.folder)!r}"])

    def _validated(self, what: str) -> str:
        column = re.sub(r"[ -]", "_", what)
        first, last = self.validation[0], self.validation[-1]
        return f"{what} on validation images: {first[column]:.1%} before, {last[column]:.1%} after"


@checked({field.name: "a field of Recipe: give a recipe as how=" for field in fields(Recipe)})
def tune(
    model: SmoothedClassifier,
    data: Any,  # noqa: ANN401
    how: str | Objective | Recipe = "ft-cadis",
    *,
    out: str | PathLike[str] | None = None,
    validation: Any = None,  # noqa: ANN401
    workers: int = 0,
    log: Callable[[Row], object] | None = None,
    quiet: bool = False,
) -> Tuned:
    """Trains a copy of the model's classifier behind its denoiser; the model itself is left as it is.

    Without a denoiser the classifier learns from noisy images as they are, by default with all its weights: any timm
    model, or a noise-conditioned one, becomes one that denoises by itself.

    Interrupted, the same call continues at the last checkpoint, at most a minute back. Under `accelerate launch`
    (on CPUs `torchrun`: the other starts one process there) every process takes its share of each batch.

    Arguments:
        model: In evaluation mode.
        data: Images to learn from, in [0, 1] or bytes, with class indices: a folder of class folders, an array file,
            a pair (images, labels), a data set of pairs, or `Examples`.
        how: An objective or its name, with defaults for this model and data; a key of `PRESETS`; or a `Recipe`.
        out: Folder of the run; named after model, objective and sigma where None.
        validation: Other labelled data of these kinds, from which nothing is learned: noisy and all-draws accuracy are
            measured on it before training and after each epoch.
        workers: Processes that decode images; 0 decodes in this one.
        log: Called with each row of the history and of validation, such as `wandb.log`; a run that continues repeats
            rows after its checkpoint.
        quiet: Prints nothing and shows no progress bar.

    Raises:
        InputError: If data and recipe do not fit each other; before any training.
        PluginError: If there is no objective of that name.
        ModelError: If the recipe's adapters do not fit the network.
        RunError: If the folder holds another run or cannot be written, or the loss is not finite; the state of the
            last checkpoint stays.
    """
    _check_one_level(model)
    examples = training_examples(model, data)
    others = None if validation is None else training_examples(model, validation)
    recipe = _recipe(how, model, examples)
    if recipe.objective.needs_noise and not model.family.levels:
        raise InputError(
            f"{type(recipe.objective).__name__} teaches by noise; {model.family.name} certificates add none.\n"
            "  Tune a model with sigma=, and give its folder as tuned=; 'greedy-cutout' teaches to bear masks."
        )
    out = _folder_of(model, recipe) if out is None else Path(out)
    processes = PartialState(cpu=model.classifier.device.type == "cpu")
    run = _Run(model, examples, others, recipe, out, processes, quiet or not processes.is_main_process)
    run.check()
    return run.train(workers, log)


def _check_one_level(model: SmoothedClassifier) -> None:
    """Raises `InputError` where there are several levels of noise: training is at one."""
    if len(levels := model.family.levels) > 1:
        raise InputError(
            f"expected one level of noise to train at; got a model of {', '.join(f'{sigma:g}' for sigma in levels)}.\n"
            f"  Tune a model of one of them, such as sigma={levels[0]:g}, and give its folder as tuned=."
        )


def _recipe(how: object, model: SmoothedClassifier, examples: Examples) -> Recipe:
    if isinstance(how, Recipe):
        return how
    if isinstance(how, str | Objective):
        return find_recipe(how, model, len(examples))
    raise InputError(f"expected 'ft-cadis', another objective or a Recipe to tune with; got {how!r}")


def _folder_of(model: SmoothedClassifier, recipe: Recipe) -> Path:
    name = f"{model.classifier.name}-{type(recipe.objective).__name__}-{model.sigma:g}".lower()
    return Path(re.sub(r"[^a-z0-9.]+", "-", name))


@final
@dataclass(frozen=True)
class _Run:
    """One training run, in this process.

    Arguments:
        model: The model that is to be tuned; left as it is.
        examples: Images to learn from.
        others: Images for validation; None for none.
        recipe: How to train.
        out: Folder of the run.
        processes: All processes of the run.
        quiet: Prints nothing and shows no progress bar.
    """

    model: SmoothedClassifier
    examples: Examples
    others: Examples | None
    recipe: Recipe
    out: Path
    processes: PartialState
    quiet: bool

    def check(self) -> None:
        """Refuses data, recipe, model and processes that do not fit each other."""
        objective = self.recipe.objective
        name = type(objective).__name__
        if objective.needs_labels and self.examples.labels is None:
            raise InputError(
                f"{name} needs labels; the data has none.\n"
                "  Label the images, or use stability, which learns from the model's own clean predictions."
            )
        if torch.finfo(self.model.classifier.dtype).bits < 32:
            raise ModelError(
                f"the weights of {self.model.classifier.name} are {self.model.numerics.weights}: small steps would be "
                "rounded away.\n  Load them in float32; Recipe(precision='bfloat16') still computes in lower precision."
            )
        objective.check(len(self.examples), len(self.model.labels))
        if self.processes.num_processes > 1 and objective.remembers:
            raise InputError(
                f"{name} remembers every image, and {self.processes.num_processes} processes would each remember "
                "some.\n  Run it in one process."
            )
        self.examples.__getitems__([0])  # an unusable image shows before any work

    def train(self, workers: int, log: Callable[[Row], object] | None) -> Tuned:
        """Trains to the end and loads what was learned."""
        validation = self._validation()
        student, summary = self._student()
        folder = self._open(summary)
        student.to(self.processes.device if self.processes.num_processes > 1 else self.model.classifier.device)
        self._say(f"{self.recipe}\n{summary}")
        batches = Batches(
            self.examples,
            self.recipe,
            self.model.sigma,
            self._cached(student),
            self.processes.process_index,
            self.processes.num_processes,
            workers,
        )
        with _own_random_numbers():
            loop = Loop(
                student, batches, self.recipe, folder, self.processes, validation=validation, log=log, quiet=self.quiet
            )
            history = loop.run()
        self._save(student, history)
        result = Tuned(
            model=self._loaded(),
            folder=self.out,
            hallucination=history.hallucination(),
            history=history.training,
            validation=history.validation,
            warnings=loop.warnings,
        )
        self._say(str(result))
        return result

    def _validation(self) -> Validation | None:
        if self.others is None:
            return None
        copies = (self.recipe.micro_batch or self.recipe.batch) * self.recipe.objective.draws
        index, count = self.processes.process_index, self.processes.num_processes
        return Validation(self.others, self.recipe.seed, copies, index, count, self.quiet)

    def _student(self) -> tuple[SmoothedClassifier, Adaptation]:
        """A copy of the model whose classifier is prepared for training."""
        student = copy.deepcopy(self.model)
        student.denoiser.requires_grad_(False)
        with _own_random_numbers():
            torch.manual_seed(self.recipe.seed)
            summary = adapt(student.classifier, self.recipe.adapt)
        return student, summary

    def _open(self, summary: Adaptation) -> TrainingFolder:
        """The folder of the run, made by the main process."""
        config = self._config() | {"adapts": summary.line}
        if self.processes.is_main_process:
            TrainingFolder(self.out, config)
        self.processes.wait_for_everyone()
        return TrainingFolder(self.out, config)

    def _config(self) -> dict[str, Any]:
        """Everything that decides the result; numbers of forward passes and processes do not."""
        model = self.model
        described = {key: value for key, value in self.recipe.described().items() if key != "micro_batch"}
        return {
            "classifier": model.classifier.name,
            "classifier_sha256": classifier_fingerprint(model.classifier),
            "denoiser": f"{model.denoiser.name}: {model.denoiser.describe(model.sigma)}",
            "denoiser_sha256": denoiser_fingerprint(model.denoiser, [model.sigma]),
            "sigma": model.sigma,
            "numerics": str(model.numerics),
            "images": len(self.examples),
            "pictures": picture_rules(model.classifier.preprocessing),
            "data_sha256": self.examples.fingerprint(),
            "validation_sha256": None if self.others is None else self.others.fingerprint(),
            **described,
        }

    def _cached(self, student: SmoothedClassifier) -> DenoisedCopies | None:
        """The denoised copies, made by the main process; None where the recipe keeps none."""
        recipe = self.recipe
        if not recipe.cache:
            return None
        shape = student.contract.shape
        if self.processes.is_main_process:
            copies = DenoisedCopies(self.out, len(self.examples), recipe.cache, shape)
            copies.fill(student, self.examples, seed=recipe.seed, batch=_CACHE_BATCH, quiet=self.quiet)
        self.processes.wait_for_everyone()
        return DenoisedCopies(self.out, len(self.examples), recipe.cache, shape)

    def _save(self, student: SmoothedClassifier, history: History) -> None:
        """Writes weights and picture, in the main process; the others wait."""
        if self.processes.is_main_process:
            save_tuned(self.out, student.classifier, self.recipe)
            with disk(self.out, "Tuned weights"):
                write_whole(self.out / "training.svg", training_svg(history).encode())
        self.processes.wait_for_everyone()

    def _loaded(self) -> SmoothedClassifier:
        return SmoothedClassifier(
            load_tuned(self.out, self.model.classifier),
            self.model.denoiser,
            family=self.model.family,
            precision=self.model.precision,
            compiled=self.model.pipeline.compiled,
        )

    def _say(self, text: str) -> None:
        if not self.quiet:
            print(text)


def _own_random_numbers() -> AbstractContextManager[None]:
    """Leaves torch's global random state as it was."""
    return torch.random.fork_rng(devices=range(torch.cuda.device_count()))
