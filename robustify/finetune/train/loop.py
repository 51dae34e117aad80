"""The training loop: exact resume, several processes, a stop at the first loss that is not finite.

A step is a function of the weights and its number alone, so a run that was interrupted ends with the same bits as one
that was not, on the same kind of device. Several processes compute the same gradient up to the order of summation, and
to batch statistics and dropout, of which each has its own.
"""

import math
import sys
import time
from collections.abc import Callable
from typing import Any, final

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor, nn
from tqdm import tqdm

from robustify.data.examples import Picked
from robustify.errors import RunError
from robustify.finetune.adapt.lora import train_mode
from robustify.finetune.adapt.modules import run, weight_layers
from robustify.finetune.objectives.attacks import frozen
from robustify.finetune.recipe import Recipe
from robustify.finetune.seeds import generator
from robustify.finetune.train.batches import Batches
from robustify.finetune.train.folder import RunFolder, packed, restore_trained, trained_state
from robustify.finetune.train.history import History
from robustify.finetune.train.layers import layer_depths
from robustify.finetune.train.validation import HeldOut
from robustify.smoothing import SmoothedClassifier
from robustify.smoothing.pipeline import PRECISIONS

CHECKPOINT_SECONDS = 60.0
"""Between checkpoints; the last step is always kept."""

Sums = dict[str, Tensor]
"""Sums over the images of a step, by metric."""


@final
class Loop:
    """All steps of one run.

    Arguments:
        student: Its network prepared for training; trained in place.
        batches: This process's share of the steps.
        recipe: How to train.
        folder: Where checkpoints go.
        processes: Of this run.
        held_out: Judged before the first step and after each epoch.
        log: Called with each row of the history.
        quiet: No progress bar.
    """

    def __init__(
        self,
        student: SmoothedClassifier,
        batches: Batches,
        recipe: Recipe,
        folder: RunFolder,
        processes: PartialState,
        *,
        held_out: HeldOut | None = None,
        log: Callable[[dict[str, float | int]], object] | None = None,
        quiet: bool = False,
    ) -> None:
        self.student, self.batches, self.recipe, self.folder = student, batches, recipe, folder
        self.processes, self.quiet = processes, quiet or not processes.is_main_process
        self.held_out = held_out
        self.network: nn.Module = student.classifier.network
        self.device = student.classifier.device
        self.learning = [p for p in self.network.parameters() if p.requires_grad]
        self.scales, groups = parameter_groups(self.network, recipe.layer_decay)
        self.optimizer = _OPTIMIZERS[recipe.optimizer](groups)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "float16")
        self.history = History(student.labels, every=max(1, batches.steps // 1000), log=log)
        self.step = 0
        self.warnings: list[str] = []
        self._kept: bytes | None = None

    def run(self) -> History:
        """Trains to the end, from the last checkpoint if there is one."""
        self._restore()
        self._judge()
        train_mode(self.network)
        done, kept = self.step == self.batches.steps, -math.inf  # the first step is kept at once
        with tqdm(total=self.batches.steps, initial=self.step, desc="tune", unit="step", disable=self.quiet) as bar:
            for picked in () if done else self.batches.load(self.step):
                bar.set_postfix(self._one_step(picked), refresh=False)
                bar.update()
                if self.step % self.batches.per_epoch == 0:
                    self._judge()
                if time.monotonic() - kept > CHECKPOINT_SECONDS:
                    self._keep()
                    kept = time.monotonic()
        if not done:
            self._finish()
        self.processes.wait_for_everyone()
        return self.history

    def _judge(self) -> None:
        """Looks at held-out images, unless that was done at this epoch before the run was interrupted."""
        epoch, inside = divmod(self.step, self.batches.per_epoch)
        if self.held_out is None or inside or len(self.history.held_out) > epoch:
            return
        self.history.add_held_out(self.held_out.judge(self.student), epoch)
        if epoch == self.recipe.epochs and (warning := self.history.worse()):
            self._warn(warning)

    def _warn(self, warning: str) -> None:
        self.warnings.append(warning)
        if not self.quiet:
            tqdm.write(f"warning: {warning}", file=sys.stderr)

    def _one_step(self, picked: Picked) -> dict[str, str]:
        epoch, rows = self.step / self.batches.per_epoch, self.batches.rows(self.step)
        rate = self._set_rates(epoch)
        sums, hits, seen = self._gradients(picked, len(rows))
        self._check_finite("loss", float(sums["loss"]), rows)
        self.scaler.unscale_(self.optimizer)
        if not self.scaler.is_enabled() or self.scaler.get_scale() < 1:  # else the scaler leaves such a step out
            self._check_finite("gradient", self._steepest(), rows)
        self._write()
        if self.recipe.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.learning, self.recipe.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        means = {name: float(value) / len(rows) for name, value in sums.items()}
        self.history.add_hits(hits, seen)
        found = [self.history.add(means, step=self.step, epoch=epoch, rate=rate, images=len(rows))]
        self.step += 1
        if self.step % self.batches.per_epoch == 0:
            found.append(self.history.end_epoch(self.step // self.batches.per_epoch))
        for warning in filter(None, found):
            self._warn(warning)
        return {name: f"{means[name]:.3f}" for name in ("loss", "hit") if name in means}

    def _gradients(self, picked: Picked, total: int) -> tuple[Sums, Tensor, Tensor]:
        """Leaves the whole batch's gradient on the parameters; returns sums over its images, and hits per class."""
        torch.manual_seed(_dropout_seed(self.recipe.seed, self.step, self.processes.process_index))
        classes, lower = len(self.student.labels), self.recipe.precision != "float32"
        sums: Sums = {"loss": torch.zeros(())}
        hits, seen = torch.zeros(classes), torch.zeros(classes)
        for batch in self.batches.parts(picked, self.step, self.device):
            with torch.autocast(self.device.type, PRECISIONS[self.recipe.precision] if lower else None, enabled=lower):
                loss, metrics = self.recipe.objective(self.student, batch)
            share = len(batch.rows)
            torch.autograd.backward(self.scaler.scale(loss * (share / total)))
            sums["loss"] = sums["loss"] + loss.detach().float().cpu() * share
            for name, values in metrics.items():
                sums[name] = sums.get(name, torch.zeros(())) + values.float().sum().cpu()
            if batch.labels is not None and "hit" in metrics:
                hits.index_add_(0, batch.labels.cpu(), metrics["hit"].float().cpu())
                seen += torch.bincount(batch.labels.cpu(), minlength=classes)
        return (sums, hits, seen) if self.processes.num_processes == 1 else self._reduced(sums, hits, seen)

    def _reduced(self, sums: Sums, hits: Tensor, seen: Tensor) -> tuple[Sums, Tensor, Tensor]:
        """Adds up what the processes found: gradients in place, the rest as results."""
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.learning]
        whole = reduce(torch.cat([g.flatten() for g in gradients]), reduction="sum")
        for p, part in zip(self.learning, whole.split([p.numel() for p in self.learning]), strict=True):
            p.grad = part.view_as(p)
        packed = reduce(torch.cat([torch.stack(list(sums.values())), hits, seen]).to(self.device), reduction="sum")
        values, hits, seen = packed.cpu().split([len(sums), len(hits), len(seen)])
        return dict(zip(sums, values, strict=True)), hits, seen

    def _check_finite(self, what: str, value: float, rows: list[int]) -> None:
        if not math.isfinite(value):
            where = f"at step {self.step} of {self.batches.steps}, rows {rows[:4]} and {max(0, len(rows) - 4)} more"
            raise RunError(f"the {what} is {value} {where}: training stopped.\n  {self._advice()}")

    def _steepest(self) -> float:
        """The largest entry of the gradient."""
        slopes = [torch.linalg.vector_norm(p.grad, math.inf) for p in self.learning if p.grad is not None]
        return float(torch.stack(slopes).amax()) if slopes else 0.0

    def _advice(self) -> str:
        kept = "keeps the state of the last checkpoint" if self.folder.load() else "kept no step yet"
        return f"{str(self.folder.folder)!r} {kept}. Try a smaller learning rate or precision='float32'."

    def _set_rates(self, epoch: float) -> float:
        rate = self.recipe.learning_rate_at(epoch, step=1 / self.batches.per_epoch)
        decay = self.recipe.weight_decay_at(epoch)
        for group, scale in zip(self.optimizer.param_groups, self.scales, strict=True):
            group["lr"] = rate * scale
            group["weight_decay"] = decay if group["decays"] else 0.0
        return rate

    def _finish(self) -> None:
        """Writes the last state, if the network answers with numbers."""
        with frozen(self.student):
            logits = run(self.student.classifier)
        if not bool(logits.isfinite().all()):
            raise RunError(f"the logits are not finite after the last step: nothing was made.\n  {self._advice()}")
        self._keep()
        self._write()

    def _keep(self) -> None:
        """Takes the state down; it is written once the next loss and gradient show that it is good."""
        if self.processes.is_main_process:
            state = {
                "step": self.step,
                "network": trained_state(self.network),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "objective": dict(self.recipe.objective.state_dict()),
                "history": self.history.state(),
            }
            self._kept = packed(state)

    def _write(self) -> None:
        if self._kept is not None:
            self.folder.save(self._kept)
            self.history.write(self.folder.folder)
            self._kept = None

    def _restore(self) -> None:
        if (state := self.folder.load()) is None:
            self.recipe.objective.load_state_dict({})  # what it remembers of another run
            return
        self.step = state["step"]
        restore_trained(self.network, state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.recipe.objective.load_state_dict(state["objective"])
        self.history.restore(state["history"])


def parameter_groups(network: nn.Module, layer_decay: float) -> tuple[list[float], list[dict[str, Any]]]:
    """Parameters that learn, by depth and by whether they decay: each group's scale of the rate, and the groups.

    Weights of layers decay, and adapters; biases, norms, tokens, positions and scales do not.
    """
    depths = layer_depths(network) if layer_decay < 1 else {}
    last = max(depths.values(), default=0)
    weights = {id(p) for _, layer in weight_layers(network) for p in layer.parameters() if p.ndim > 1}
    found: dict[tuple[int, bool], list[Tensor]] = {}
    for name, p in network.named_parameters():
        if p.requires_grad:
            found.setdefault((depths.get(name, 0), id(p) in weights), []).append(p)
    scales = [layer_decay ** (last - depth) for depth, _ in found]
    return scales, [{"params": params, "decays": decays} for (_, decays), params in found.items()]


def _dropout_seed(seed: int, step: int, process: int) -> int:
    return int(generator(seed, "dropout", step, process).integers(2**63))


_OPTIMIZERS: dict[str, Any] = {
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.0),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.0, momentum=0.9),
}
