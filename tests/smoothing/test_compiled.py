"""Compiled networks: the same certificates up to rounding, under a name of their own."""

import shutil

import pytest
import torch
from torch import nn

from robustify import Preprocessing, SmoothedClassifier, robustify
from robustify.errors import InputError
from robustify.smoothing.fingerprint import classifier_fingerprint

PLAIN = Preprocessing(mean=(0.4,), std=(0.5,), size=(8, 8))
IMAGE = torch.full((1, 8, 8), 128 / 255)


def model(*, compiled: bool) -> SmoothedClassifier:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    return robustify(network, preprocessing=PLAIN, sigma=0.5, compiled=compiled)


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_compiled_networks_vote_the_same_and_say_so() -> None:
    plain, fused = model(compiled=False), model(compiled=True)
    a, b = (m.certify(IMAGE, n=200, batch=64, seed=1) for m in (plain, fused))
    assert a.votes == b.votes
    assert (str(a.provenance.numerics), str(b.provenance.numerics)) == ("float32", "float32, compiled")
    assert "float32, compiled" in repr(fused)
    assert fused.classifier.network._compiled_call_impl is not None
    assert plain.classifier.network._compiled_call_impl is None
    assert classifier_fingerprint(plain.classifier) == classifier_fingerprint(fused.classifier)
    assert not IMAGE.is_inference()


def test_without_a_compiler_it_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(InputError, match=r"needs a C\+\+ compiler; found none"):
        model(compiled=True)
