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
    """Linear; each pass takes so many seconds in float32, and so many where autocast asks for less."""

    def __init__(self, full: float, lower: float) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 3)
        self.seconds = {False: full, True: lower}

    def forward(self, pixels: Tensor) -> Tensor:
        time.sleep(self.seconds[torch.is_autocast_enabled("cpu")])
        logits: Tensor = self.linear(pixels.flatten(1))
        return logits


def emulated(full: float, lower: float, precision: str = "bfloat16") -> SmoothedClassifier:
    plain = Preprocessing((0.5,), (0.5,), (4, 4))
    return robustify(Emulated(full, lower).eval(), preprocessing=plain, precision=precision)


@contextmanager
def told() -> Iterator[list[str]]:
    """Texts of the warnings within."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield texts
        texts += [str(w.message) for w in caught]


def test_a_slow_precision_is_named_with_both_speeds_before_a_run(samples: list[Sample], out: Path) -> None:
    model = emulated(0.06, 0.3)
    with told() as texts:
        certify_dataset(model, samples[:2], out, SETTINGS)
    (text,) = texts
    found = re.search(r"bfloat16 is (.*) times slower than float32 .*: (.*) against (.*) draws a second", text)
    assert found is not None
    times, lower, full = map(float, found.groups())
    assert 2 < times <= 5.5  # a busy machine adds to both
    assert full / lower == pytest.approx(times, rel=0.05)
    assert 4 / 0.6 < lower <= 4 / 0.3
    assert "precision='float32'" in text
    with pytest.warns(UserWarning, match="times slower than float32"):
        estimate(model, samples[:2], SETTINGS)
    model.forget_checks()
    with told() as texts, pytest.raises(InterruptedError):
        model.certify(samples[0].image, n=20, progress=_stop)
    assert [text.split(" is ")[0] for text in texts] == ["bfloat16"]  # said although the run never got anywhere


def _stop(_: int) -> None:
    raise InterruptedError


@pytest.mark.parametrize(
    ("full", "lower", "precision"),
    [(0.3, 0.08, "bfloat16"), (0.001, 0.01, "bfloat16"), (0.06, 0.3, "float32")],
    ids=["faster", "soon done anyway", "not asked for"],
)
def test_a_precision_that_costs_nothing_is_not(
    full: float, lower: float, precision: str, samples: list[Sample], out: Path
) -> None:
    with told() as texts:
        certify_dataset(emulated(full, lower, precision), samples[:2], out, SETTINGS)
    assert texts == []
