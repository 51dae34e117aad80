"""Genuine runs of each rule."""

from pathlib import Path

import pytest

from robustify import Settings, SmoothedClassifier
from robustify.data import Sample
from robustify.runs.certify import certify_dataset
from robustify.runs.folder import Run, read_run
from robustify.verify.replay import replay

SETTINGS = {
    "fixed": Settings(n=100, seed=3),
    "adaptive": Settings(n_max=500, seed=3),
    "decision": Settings(radius=[0.05, 0.1], n_max=500, seed=3),
}


@pytest.fixture(params=list(SETTINGS))
def run(request: pytest.FixtureRequest, model: SmoothedClassifier, samples: list[Sample], out: Path) -> Run:
    """A genuine run of each rule."""
    certify_dataset(model, samples, out, SETTINGS[request.param])
    return read_run(out)


@pytest.fixture
def led(model: SmoothedClassifier, samples: list[Sample], out: Path) -> Run:
    """A run whose labels were never chosen."""
    certify_dataset(model, samples, out, Settings(radius=[0.05, 0.1], n_max=500, n0=0, seed=3))
    return read_run(out)


@pytest.fixture
def known(model: SmoothedClassifier, samples: list[Sample], out: Path) -> Run:
    """A run that tested the true labels; every second of them is what the classifier says."""
    said = [int(model.classifier(model.prepare(s.image, "float")[None]).argmax()) for s in samples]
    pairs = enumerate(zip(samples, said, strict=True))
    labelled = [Sample(s.id, s.image, c if i % 2 else (c + 1) % 3) for i, (s, c) in pairs]
    certify_dataset(model, labelled, out, Settings(radius=[0.05, 0.1], n_max=500, known_label=True, seed=3))
    assert replay(model, labelled, read_run(out), 4) == []
    return read_run(out)
