from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from robustify import Preprocessing, SmoothedClassifier, robustify
from robustify.data import Sample


@pytest.fixture
def model() -> SmoothedClassifier:
    """A linear classifier of 1×4×4 pixels with 3 classes."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    return robustify(network, preprocessing=Preprocessing((0.5,), (0.5,), (4, 4)), sigma=0.25)


@pytest.fixture
def samples() -> list[Sample]:
    """Twelve images."""
    images = np.random.default_rng(0).integers(0, 256, (12, 4, 4), dtype=np.uint8)
    return [Sample(f"{i:02d}.png", image, i % 3) for i, image in enumerate(images)]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A run folder that does not exist yet."""
    return tmp_path / "run"
