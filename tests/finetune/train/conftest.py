"""Checkpoints after every step."""

import pytest

from robustify.finetune.train import checkpoint


@pytest.fixture
def checkpoint_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes a checkpoint after every step, however short it was."""
    monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", 0.0)
