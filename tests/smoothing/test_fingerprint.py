"""Modules that compute other functions have other fingerprints, and the same module always the same."""

import importlib
import linecache
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustify import ImageClassifier, Preprocessing
from robustify.smoothing.fingerprint import classifier_fingerprint

PLAIN = Preprocessing(mean=(0.0,), std=(1.0,), size=(4, 4))


class Scaled(nn.Module):
    """Linear, with settings that its repr does not show."""

    def __init__(self, **settings: object) -> None:
        super().__init__()
        for name, value in settings.items():
            setattr(self, name, value)
        self.linear = nn.Linear(16, 3)
        nn.init.constant_(self.linear.weight, 0.1)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x.flatten(1))
        return logits


def fingerprint(network: nn.Module) -> str:
    return classifier_fingerprint(ImageClassifier(network.eval(), PLAIN))


def double(x: Tensor) -> Tensor:
    return 2 * x


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"scale": 1.0}, {"scale": 2.0}),
        ({"scale": 1}, {"scale": True}),
        ({"mode": "mean"}, {"mode": "max"}),
        ({"sizes": (1, 2)}, {"sizes": (1, 3)}),
        ({"settings": {"temperature": 1.0}}, {"settings": {"temperature": 2.0}}),
        ({"settings": {"deep": [{"a": 1}]}}, {"settings": {"deep": [{"a": 2}]}}),
        ({"act": F.relu}, {"act": F.gelu}),
        ({"act": lambda x: x}, {"act": double}),
        ({"act": None}, {"act": double}),
    ],
    ids=["number", "kind", "word", "tuple", "mapping", "deep", "function", "lambda", "missing"],
)
def test_a_plain_attribute_makes_another_fingerprint(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert fingerprint(Scaled(**one)) == fingerprint(Scaled(**one))
    assert fingerprint(Scaled(**one)) != fingerprint(Scaled(**other))


def scaling(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda x: factor * x


def with_keyword(factor: float) -> Callable[..., Tensor]:
    def scaled(x: Tensor, *, by: float = factor) -> Tensor:
        return by * x

    return scaled


def patched(network: nn.Module, factor: float) -> None:
    network.forward = lambda x: factor * x.flatten(1)[:, :3]  # type: ignore[method-assign]


CHANGES: dict[str, Callable[[nn.Module, float], object]] = {
    "private": lambda n, v: setattr(n, "_t", v),
    "tensor": lambda n, v: setattr(n, "table", torch.tensor([v])),
    "buffer": lambda n, v: n.register_buffer("table", torch.tensor([v]), persistent=False),
    "array": lambda n, v: setattr(n, "table", np.array([v])),
    "partial": lambda n, v: setattr(n, "act", partial(F.leaky_relu, negative_slope=v)),
    "closure": lambda n, v: setattr(n, "act", scaling(v)),
    "object": lambda n, v: setattr(n, "config", SimpleNamespace(t=v)),
    "complex": lambda n, v: setattr(n, "phase", complex(v, 1)),
    "hook": lambda n, v: n.register_forward_hook(partial(lambda v, module, inputs, logits: v * logits, v)),
    "hook before": lambda n, v: n.linear.register_forward_pre_hook(scaling(v)),
    "patched": patched,
    "patched layer": lambda n, v: setattr(n.linear, "forward", scaling(v)),
    "keyword default": lambda n, v: setattr(n, "act", with_keyword(v)),
    "list of tensors": lambda n, v: setattr(n, "inner", [nn.Parameter(torch.full((2, 2), v))]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_a_network_computes_by_counts(change: Callable[[nn.Module, float], object]) -> None:
    def changed(value: float) -> str:
        network = Scaled()
        classifier = ImageClassifier(network.eval(), PLAIN)
        change(network, value)
        return classifier_fingerprint(classifier)

    assert changed(0.5) == changed(0.5)
    assert changed(0.5) != changed(0.25)


def test_a_hook_that_records_makes_no_difference_once_it_is_there() -> None:
    network, seen = Scaled(), list[object]()
    network.register_forward_hook(lambda module, inputs, logits: seen.append(logits.shape))
    before = fingerprint(network)
    seen.append("more")
    assert fingerprint(network) == before


def test_what_contains_itself_or_is_shared_makes_no_difference() -> None:
    first, second = Scaled(), Scaled()
    shared: list[object] = [1, 2]
    for network, values in ((first, (shared, shared)), (second, ([1, 2], [1, 2]))):
        network.one, network.other = values  # type: ignore[assignment]
    assert fingerprint(first) == fingerprint(second)
    shared.append(shared)
    assert fingerprint(first) == fingerprint(first) != fingerprint(second)


def test_an_activation_of_a_library_s_layer_counts() -> None:
    def encoder(act: Callable[[Tensor], Tensor]) -> str:
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(16, 2, 16, activation=act, batch_first=True)
        network = nn.Sequential(nn.Flatten(), nn.Unflatten(1, (1, 16)), layer, nn.Flatten(), nn.Linear(16, 3))
        return fingerprint(network)

    assert encoder(F.silu) == encoder(F.silu) != encoder(torch.tanh)


def test_code_makes_another_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same class of the same module, in which one number was edited between two runs."""
    source = (
        "from torch import nn\n\n\nclass Net(nn.Flatten):\n    def forward(self, x):\n"
        "        return FACTOR * super().forward(x)[:, :3]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for factor in ("1", "2", "1"):
        file = tmp_path / "edited_network.py"
        file.write_text(source.replace("FACTOR", factor))
        linecache.checkcache()
        sys.modules.pop("edited_network", None)
        importlib.invalidate_caches()
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        found.append(fingerprint(importlib.import_module("edited_network").Net()))
    sys.modules.pop("edited_network")
    assert found[0] != found[1]
    assert found[0] == found[2]


@pytest.mark.parametrize("change", [("global_pool", "avg"), ("num_prefix_tokens", 0)])
def test_so_does_a_setting_of_a_library_s_network(change: tuple[str, object]) -> None:
    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=3)
    preprocessing = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, size=(160, 160))
    classifier = ImageClassifier(network.eval(), preprocessing)
    before = classifier_fingerprint(classifier)
    setattr(network, *change)
    assert classifier_fingerprint(classifier) != before


@pytest.mark.parametrize(
    "move", [lambda n: n.train().eval(), lambda n: setattr(n, "name_or_path", "/elsewhere")], ids=["mode", "path"]
)
def test_where_a_model_came_from_makes_no_difference(move: Callable[[nn.Module], object]) -> None:
    network = Scaled(name_or_path="/here")
    before = fingerprint(network)
    move(network)
    assert fingerprint(network) == before


def test_another_process_finds_the_same() -> None:
    code = (
        "from tests.smoothing.test_fingerprint import *; print(fingerprint(Scaled(act=double, settings={'a': {1, 2}})))"
    )
    command = [sys.executable, "-c", code]
    found = {subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() for _ in range(2)}
    assert found == {fingerprint(Scaled(act=double, settings={"a": {1, 2}}))}
