"""The training loop: exact resume, several processes, a stop at the first loss that is not finite.

A step is a function of the weights and its number alone, so a run that was interrupted ends with the same bits as one
that was not, on the same kind of device. Several processes compute the same gradient up to the order of summation, and
to batch statistics and dropout, of which each has its own.
"""

import math
import sys
from collections.abc import Callable
from typing import final

import torch
from accelerate import PartialState
from torch import nn
from tqdm import tqdm

from robustify.bars import bar
from robustify.data.examples import Minibatch
from robustify.errors import RunError
from robustify.finetune.adapt.lora import train_mode
from robustify.finetune.adapt.lora_layers import run
from robustify.finetune.objectives.attacks import frozen
from robustify.finetune.recipe import Recipe
from robustify.finetune.saved.weights import restore_trained, trained_state
from robustify.finetune.seeds import generator
from robustify.finetune.train.batches import Batches
from robustify.finetune.train.checkpoint import Checkpoints
from robustify.finetune.train.collector import Collector
from robustify.finetune.train.folder import TrainingFolder, read_progress
from robustify.finetune.train.history import History, Row
from robustify.finetune.train.optimizer import RecipeOptimizer
from robustify.finetune.train.totals import Totals, add_up_gradients
from robustify.finetune.train.validation import Validation
from robustify.finetune.train.watch import worse_than_before
from robustify.smoothing import SmoothedClassifier
from robustify.smoothing.pipeline import PRECISIONS


@final
class Loop:
    """All steps of one run.

    Arguments:
        student: Model whose network is prepared for training; trained in place.
        batches: This process's share of the steps.
        recipe: How to train.
        folder: Where checkpoints go.
        processes: All processes of the run.
        validation: Images to measure on before the first step and after each epoch; None for none.
        log: Called with each row of the history.
        quiet: Shows no progress bar and prints no warnings.
    """

    def __init__(
        self,
        student: SmoothedClassifier,
        batches: Batches,
        recipe: Recipe,
        folder: TrainingFolder,
        processes: PartialState,
        *,
        validation: Validation | None = None,
        log: Callable[[Row], object] | None = None,
        quiet: bool = False,
    ) -> None:
        self.step = 0
        self.warnings: list[str] = []
        self._student = student
        self._batches = batches
        self._recipe = recipe
        self._folder = folder
        self._processes = processes
        self._validation = validation
        self._quiet = quiet or not processes.is_main_process
        self._network: nn.Module = student.classifier.network
        self._device = student.classifier.device
        self._optimizer = RecipeOptimizer(self._network, recipe, self._device)
        self._collector = Collector(student.labels, every=max(1, batches.steps // 1000), log=log)
        self._checkpoints = Checkpoints(folder, lambda: self._collector.history, writes=processes.is_main_process)

    def run(self) -> History:
        """Trains to the end, from the last checkpoint if there is one.

        Raises:
            RunError: If a loss, a gradient or the trained network is not finite, or the folder cannot be written.
            KeyboardInterrupt: Where interrupted, with the number of steps that are kept.
        """
        self._restore()
        try:
            return self._run()
        except KeyboardInterrupt:
            kept = read_progress(self._folder.folder) or {"step": 0}
            raise KeyboardInterrupt(f"{kept['step']:,} of {self._batches.steps:,} steps are kept") from None

    def _run(self) -> History:
        self._validate()
        if self.step < self._batches.steps:
            self._train()
            self._finish()
        self._processes.wait_for_everyone()
        return self._collector.history

    def _train(self) -> None:
        train_mode(self._network)
        with bar("tune", self._batches.steps, "step", done=self.step, hide=self._quiet) as shown:
            for minibatch in self._batches.load(self.step):
                shown.set_postfix(self._one_step(minibatch), refresh=False)
                shown.update()
                if self.step % self._batches.per_epoch == 0:
                    self._validate()
                if self._checkpoints.is_due():
                    self._checkpoints.take(self._state())

    def _validate(self) -> None:
        """Measures on validation images, unless that was done at this epoch before the run was interrupted."""
        epoch, inside = divmod(self.step, self._batches.per_epoch)
        measured = self._collector.history.validation
        if self._validation is None or inside or len(measured) > epoch:
            return
        self._collector.add_validation(self._validation.measure(self._student), epoch)
        if epoch == self._recipe.epochs:
            self._warn(worse_than_before(measured))

    def _warn(self, warning: str | None) -> None:
        if warning is None:
            return
        self.warnings.append(warning)
        if not self._quiet:
            tqdm.write(f"warning: {warning}", file=sys.stderr)

    def _one_step(self, minibatch: Minibatch) -> dict[str, str]:
        """Moves the weights once. Returns what the progress bar shows."""
        epoch = self.step / self._batches.per_epoch
        rows = self._batches.rows(self.step)
        rate = self._optimizer.set_rates(epoch, step=1 / self._batches.per_epoch)
        totals = self._gradients(minibatch, len(rows))
        means = totals.means(len(rows))
        self._check_finite("loss", means["loss"], rows)
        self._optimizer.unscale()
        if not self._optimizer.skips_overflow():
            self._check_finite("gradient", self._optimizer.steepest(), rows)
        self._checkpoints.confirm()
        self._optimizer.step()
        self._collector.add_classes(totals.correct, totals.images)
        self._warn(self._collector.add_step(means, step=self.step, epoch=epoch, rate=rate, images=len(rows)))
        self.step += 1
        if self.step % self._batches.per_epoch == 0:
            self._warn(self._collector.end_epoch(self.step // self._batches.per_epoch))
        return {name.replace("_", " "): f"{means[name]:.3f}" for name in ("loss", "noisy_accuracy") if name in means}

    def _gradients(self, minibatch: Minibatch, total: int) -> Totals:
        """Leaves the gradient of the whole step on the parameters; returns sums over its images.

        Arguments:
            minibatch: This process's images.
            total: Images of all processes.
        """
        torch.manual_seed(_dropout_seed(self._recipe.seed, self.step, self._processes.process_index))
        precision = self._recipe.precision
        totals = Totals.zero(len(self._student.labels))
        for batch in self._batches.parts(minibatch, self.step, self._device):
            with torch.autocast(self._device.type, PRECISIONS[precision], enabled=precision != "float32"):
                outcome = self._recipe.objective(self._student, batch)
            self._optimizer.backward(outcome.loss * (len(batch.rows) / total))
            totals.add(batch, outcome)
        if self._processes.num_processes == 1:
            return totals
        add_up_gradients(self._optimizer.learning)
        return totals.over_all_processes(self._device)

    def _check_finite(self, what: str, value: float, rows: list[int]) -> None:
        if not math.isfinite(value):
            where = f"at step {self.step} of {self._batches.steps}, rows {rows[:4]} and {max(0, len(rows) - 4)} more"
            raise RunError(f"the {what} is {value} {where}: training stopped.\n  {self._advice()}")

    def _advice(self) -> str:
        kept = "keeps the state of the last checkpoint" if self._checkpoints.load() else "has no checkpoint yet"
        return f"{str(self._folder.folder)!r} {kept}. Try a smaller learning rate or precision='float32'."

    def _finish(self) -> None:
        """Writes the last state, unless the trained network gives logits that are not finite."""
        with frozen(self._student):
            logits = run(self._student.classifier)
        if not bool(logits.isfinite().all()):
            raise RunError(f"the logits are not finite after the last step: nothing was made.\n  {self._advice()}")
        self._checkpoints.take(self._state())
        self._checkpoints.confirm()

    def _state(self) -> dict[str, object]:
        return {
            "step": self.step,
            "network": trained_state(self._network),
            "objective": dict(self._recipe.objective.state_dict()),
            "history": self._collector.state(),
            **self._optimizer.state(),
        }

    def _restore(self) -> None:
        state = self._checkpoints.load()
        if state is None:
            self._recipe.objective.load_state_dict({})  # what it remembers of another run
            return
        self.step = state["step"]
        restore_trained(self._network, state["network"])
        self._optimizer.restore(state)
        self._recipe.objective.load_state_dict(state["objective"])
        self._collector.restore(state["history"])
        if not self._quiet:
            print(f"continues: {self.step:,} of {self._batches.steps:,} steps are there", file=sys.stderr)


def _dropout_seed(seed: int, step: int, process: int) -> int:
    return int(generator(seed, "dropout", step, process).integers(2**63))
