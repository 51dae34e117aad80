"""A precision that this processor is slow at is named before a run."""

import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from robustify import Preprocessing, Settings, SmoothedClassifier, certify_dataset, robustify
from robustify.data import Sample
from robustify.runs.estimate import estimate

SETTINGS = Settings(n=20, n0=10)


class Emulated(nn.Module):
    """Linear; where autocast asks for another precision, each pass takes so many times longer."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 3)
        self.factor = factor

    def forward(self, pixels: Tensor) -> Tensor:
        time.sleep(0.06 * (self.factor if torch.is_autocast_enabled("cpu") else 1))
        logits: Tensor = self.linear(pixels.flatten(1))
        return logits


def emulated(factor: float, precision: str = "bfloat16") -> SmoothedClassifier:
    plain = Preprocessing((0.5,), (0.5,), (4, 4))
    return robustify(Emulated(factor).eval(), preprocessing=plain, precision=precision)


@contextmanager
def told() -> Iterator[list[str]]:
    """Texts of the warnings within."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield texts
        texts += [str(w.message) for w in caught]


def test_a_slow_precision_is_named_with_both_speeds_before_a_run(samples: list[Sample], out: Path) -> None:
    model = emulated(3)
    with told() as texts:
        certify_dataset(model, samples[:2], out, SETTINGS)
    (text,) = texts
    found = re.search(r"bfloat16 is (.*) times slower than float32 .*: (.*) against (.*) draws a second", text)
    assert found is not None
    times, lower, full = map(float, found.groups())
    assert times == pytest.approx(3, rel=0.3)
    assert full / lower == pytest.approx(times, rel=0.05)
    assert lower == pytest.approx(4 / 0.18, rel=0.3)
    assert "precision='float32'" in text
    with pytest.warns(UserWarning, match="times slower than float32"):
        estimate(model, samples[:2], SETTINGS)
    model.forget_checks()
    with told() as texts, pytest.raises(InterruptedError):
        model.certify(samples[0].image, n=20, progress=_stop)
    assert [text.split(" is ")[0] for text in texts] == ["bfloat16"]  # said although the run never got anywhere


def _stop(_: int) -> None:
    raise InterruptedError


@pytest.mark.parametrize(("factor", "precision"), [(0.5, "bfloat16"), (1, "bfloat16"), (3, "float32")])
def test_a_precision_that_is_no_slower_is_not(factor: float, precision: str, samples: list[Sample], out: Path) -> None:
    with told() as texts:
        certify_dataset(emulated(factor, precision), samples[:2], out, SETTINGS)
    assert texts == []
