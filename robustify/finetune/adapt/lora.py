"""Adapting a classifier: low-rank updates through peft, full fine-tuning, or the head alone.

References:
    LoRA: Low-Rank Adaptation of Large Language Models, Hu et al., 2021, https://arxiv.org/abs/2106.09685
    Confidence-aware Denoised Fine-tuning of Off-the-shelf Models for Certified Robustness, Jang et al., 2024,
    https://arxiv.org/abs/2411.08933 (rank 4, alpha 4, on queries and values; the head in full)
"""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, final

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from robustify.classifiers import ImageClassifier
from robustify.default_dtype import float32_by_default
from robustify.errors import InputError, ModelError
from robustify.finetune.adapt.lora_layers import Targets, core, find_head, targets


@final
@dataclass(frozen=True)
class Lora:
    """Adds `alpha / rank · B A` to weights, A and B of this rank; the defaults are those of FT-CADIS.

    Arguments:
        rank: Rank of every update; at least 1.
        alpha: Scale of the updates, times the rank.
        dropout: Share of an adapter's inputs dropped in training; in [0, 1).
        layers: `attention` (queries and values; every layer of the blocks where nothing attends), `all` layers of
            the blocks, or regular expressions that match whole module names. An `nn.MultiheadAttention` is adapted as
            a whole: queries, keys and values together.

    Raises:
        InputError: If a number is out of its range.
    """

    rank: int = 4
    alpha: float = 4.0
    dropout: float = 0.0
    layers: str | tuple[str, ...] = "attention"

    def __post_init__(self) -> None:
        if not (isinstance(self.rank, int) and self.rank >= 1 and self.alpha > 0 and 0 <= self.dropout < 1):
            raise InputError(f"expected rank >= 1, alpha > 0 and dropout in [0, 1); got {self}")


@final
@dataclass(frozen=True)
class Adaptation:
    """The modules that `adapt` made trainable; printed, it lists them.

    Arguments:
        how: Kind of training, in words.
        adapted: Modules with an adapter, by the names that the classifier's own library gives them.
        head: Modules trained in full beside the adapters, or alone.
        trainable: Number of parameters that learn.
        total: Number of all parameters, adapters among them.
    """

    how: str
    adapted: tuple[str, ...]
    head: tuple[str, ...]
    trainable: int
    total: int

    @property
    def line(self) -> str:
        """What learns, in one line: "LoRA of rank 4, alpha 4, on 12 × blocks.*.attn.qkv; in full: head"."""
        on = f", on {', '.join(self._counted())}" if self.adapted else ""
        return f"{self.how}{on}" + (f"; in full: {', '.join(self.head)}" if self.head else "")

    def _counted(self) -> list[str]:
        """Names of adapted modules, those together that differ in a number."""
        counted = Counter(re.sub(r"\d+", "*", name) for name in self.adapted)
        return [f"{count} × {name}" for name, count in counted.items()]

    def __str__(self) -> str:
        lines = [
            self.how,
            *(f"  adapted: {counted}" for counted in self._counted()),
            *(f"  in full: {name}" for name in self.head),
            f"  trainable: {self.trainable:,} of {self.total:,} parameters ({self.trainable / self.total:.2%})",
        ]
        return "\n".join(lines)


def adapt(classifier: ImageClassifier, how: str | Lora = "lora") -> Adaptation:
    """Prepares a classifier for training, in place: exactly the parameters that are to learn require gradients.

    The network keeps its class and stays in evaluation mode; see `train_mode`. An adapted network computes what it
    did before until its first step. Adapters start from torch's global random state.

    Arguments:
        classifier: Without adapters.
        how: A `Lora`, "lora" for the default one, "full" or "head".

    Raises:
        ModelError: If there is nothing of that kind to train, or the classifier has adapters already.
        InputError: If `how` is unknown or names modules that cannot be adapted.
    """
    if how not in ("lora", "full", "head") and not isinstance(how, Lora):
        raise InputError(f"expected how='lora', 'full', 'head' or a Lora(…); got {how!r}")
    if peft_layers(core(classifier.network)):
        raise ModelError(f"{classifier.name} has adapters already; load the classifier anew")
    classifier.eval()
    if isinstance(how, Lora):
        return _adapt_layers(classifier, how)
    if how == "lora":
        return _adapt_layers(classifier, Lora())
    return _adapt_head(classifier) if how == "head" else _adapt_everything(classifier)


def _adapt_layers(classifier: ImageClassifier, lora: Lora) -> Adaptation:
    network = core(classifier.network)
    found = targets(classifier, lora.layers)
    _check_head(network, found.head)
    classifier.requires_grad_(False)
    _inject(network, lora, found.adapted)
    _learn(network, found.head)
    return _adaptation(classifier, f"LoRA of rank {lora.rank}, alpha {lora.alpha:g}", found)


def _adapt_head(classifier: ImageClassifier) -> Adaptation:
    head = find_head(classifier)
    if not head:
        raise ModelError(
            f"{classifier.name} has no head to train: none of its layers gives the logits.\n"
            "  Choose how='lora' or 'full', or fit a head to its image tower: linear_probe(…)."
        )
    classifier.requires_grad_(False)
    _learn(core(classifier.network), head)
    return _adaptation(classifier, "head fine-tuning", Targets((), head))


def _adapt_everything(classifier: ImageClassifier) -> Adaptation:
    classifier.requires_grad_(True)
    return _adaptation(classifier, "full fine-tuning", Targets((), ()))


def _learn(network: nn.Module, names: tuple[str, ...]) -> None:
    for name in names:
        network.get_submodule(name).requires_grad_(True)


def _adaptation(classifier: ImageClassifier, how: str, found: Targets) -> Adaptation:
    parameters = list(classifier.parameters())
    return Adaptation(
        how=how,
        adapted=found.adapted,
        head=found.head,
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        total=sum(p.numel() for p in parameters),
    )


def train_mode(module: nn.Module) -> None:
    """Puts modules that learn into training mode and frozen ones into evaluation mode; replaces `train()`.

    A module without parameters (dropout, stochastic depth) follows the one it is in. Batch normalisation follows
    its own parameters: frozen, it keeps its statistics.
    """
    module.training = any(p.requires_grad for p in module.parameters())
    for child in module.children():
        if next(child.parameters(), None) is None and not isinstance(child, _NormBase):
            child.train(module.training)
        else:
            train_mode(child)


def _check_head(network: nn.Module, head: tuple[str, ...]) -> None:
    """Refuses a head whose name peft would confuse: it finds modules trained in full by the ends of their names."""
    for name in head:
        alike = [other for other, _ in network.named_modules() if other.endswith(name) and other != name]
        if alike:
            raise ModelError(
                f"peft would confuse the head {name!r} with {alike[0]!r} when it loads the adapter: the second name "
                "ends with the first.\n  Rename one, or train with how='full'."
            )


@float32_by_default()
def _inject(network: nn.Module, lora: Lora, names: tuple[str, ...]) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    fused = [name for name in names if isinstance(network.get_submodule(name), nn.MultiheadAttention)]
    if lora.dropout and fused:
        raise InputError(f"expected dropout=0: peft cannot drop inputs of {fused[0]!r}, an nn.MultiheadAttention")
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # declared as int; only ever divided by the rank
        lora_dropout=lora.dropout,
        target_modules="|".join(map(re.escape, names)),  # whole names: a list would match by suffix
    )
    inject_adapter_in_model(config, network)
    for name in fused:
        module: Any = network.get_submodule(name)
        module.get_base_layer().out_proj.requires_grad_(False)  # stays 0: peft adds this update twice
        module.register_forward_pre_hook(_remember_weights)
        module.register_forward_hook(_restore_weights)
    network.eval()


def _frozen_weights(attention: Any) -> tuple[nn.Parameter, nn.Parameter]:  # noqa: ANN401 - peft's, imported lazily
    layer = attention.get_base_layer()
    return layer.in_proj_weight, layer.out_proj.get_base_layer().weight


def _remember_weights(attention: Any, *_: object) -> None:  # noqa: ANN401
    """Keeps the weights of an attention before a pass.

    peft adds the update to the weights before each pass and subtracts it after: rounding would make them drift.
    """
    attention.remembered = [weight.data for weight in _frozen_weights(attention)]


def _restore_weights(attention: Any, *_: object) -> None:  # noqa: ANN401
    for weight, data in zip(_frozen_weights(attention), attention.remembered, strict=True):
        weight.data = data
    del attention.remembered


def peft_layers(network: nn.Module) -> dict[str, Any]:
    """The outermost layers of peft by name; no import of peft where there are none."""
    found: dict[str, Any] = {}
    for name, module in network.named_modules():
        if hasattr(module, "get_base_layer") and not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = module
    return found
