"""Ctrl-C and SIGTERM stop certify and tune alike: what is kept is said, and the same command continues."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from robustify.finetune.train import checkpoint
from robustify.finetune.train.optimizer import RecipeOptimizer
from robustify.runs.store import RowStore
from robustify.zoo import HELD_OUT

Command = Callable[..., Any]
SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
"""Signals and the status that shells expect after them."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Sixteen images with labels."""
    arrays = load_file(HELD_OUT)
    np.savez(tmp_path / "data.npz", images=arrays["images"][:16].numpy(), labels=arrays["labels"][:16].numpy())
    return tmp_path / "data.npz"


@pytest.fixture(autouse=True)
def interrupts_arrive() -> Iterator[None]:
    """Ctrl-C as in a terminal: a process that a shell started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def sent_at_call(number: int, kind: type, method: str, sent: signal.Signals, patch: pytest.MonkeyPatch) -> None:
    """Makes the n-th call of a method send a signal to this process first."""
    genuine, calls = getattr(kind, method), iter(range(1, 1_000))

    def watched(self: object, *arguments: object) -> object:
        if next(calls) == number:
            os.kill(os.getpid(), sent)
        return genuine(self, *arguments)

    patch.setattr(kind, method, watched)


@pytest.mark.parametrize(("sent", "status"), SIGNALS)
def test_certify_is_stopped_and_continues(
    sent: signal.Signals, status: int, data: Path, tmp_path: Path, robustify: Command
) -> None:
    command = ("certify", "zoo:timm", data, "--every", 3, "--n", 40, "--n0", 20, "--out", "run")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        sent_at_call(3, RowStore, "add", sent, patch)
        stopped = robustify(*command)
    assert stopped.status == status
    told = (
        r"interrupted: 2 of 6 images are kept, \d+ draws of others are lost; run the same command again to continue\n"
    )
    assert re.search(told, stopped.stderr)
    assert signal.getsignal(signal.SIGTERM) is before
    assert len(list((tmp_path / "run" / "rows").iterdir())) == 2
    continued = robustify(*command)
    assert continued.status == 0, continued.stderr
    assert "continues: 2 of 6 images are there\n" in continued.stderr
    assert pq.read_table(tmp_path / "run" / "rows.parquet").num_rows == 6


@pytest.mark.parametrize(("sent", "status"), SIGNALS)
def test_tune_is_stopped_and_continues(
    sent: signal.Signals, status: int, data: Path, robustify: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", -1.0)
    short = ("--epochs", 2, "--batch", 8, "--cache", 0, "--adapt", "head", "--objective", "gaussian", "--out", "tuned")
    command = ("tune", "zoo:timm", data, *short)
    with pytest.MonkeyPatch.context() as patch:
        sent_at_call(3, RecipeOptimizer, "step", sent, patch)
        stopped = robustify(*command)
    assert stopped.status == status
    assert "interrupted: 2 of 4 steps are kept; run the same command again to continue\n" in stopped.stderr
    continued = robustify(*command)
    assert continued.status == 0, continued.stderr
    assert "continues: 2 of 4 steps are there\n" in continued.stderr


def test_a_stop_before_anything_was_done_says_so_too(
    data: Path, robustify: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robustify.runs.certify.open_config", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    stopped = robustify("certify", "zoo:timm", data, "--n", 40, "--out", "run")
    assert stopped.status == 143
    assert "interrupted: what was finished is kept; run the same command again to continue" in stopped.stderr
