"""A tiny classifier of every kind of backbone."""

import pytest
from torch import nn

from robustify.classifiers import ImageClassifier, Preprocessing
from robustify.classifiers.open_clip import OpenCLIP
from robustify.registry import CLASSIFIERS
from tests.finetune.adapt.toys import BACKBONES, CLIP, HALF, Make
from tests.toys import Awaken, Tokenize


@pytest.fixture
def make(awaken: Awaken, clip_model: nn.Module, clip_tokenizer: Tokenize) -> Make:
    """A classifier of that kind, with weights that all matter."""

    def _make(name: str) -> ImageClassifier:
        if name in BACKBONES:
            build, size, *_ = BACKBONES[name]
            return ImageClassifier(awaken(build()), Preprocessing(HALF, HALF, (size, size)), name=name)
        if name == CLIP:
            return OpenCLIP(clip_model, clip_tokenizer).classifier(["cat", "dog", "fox"], "simple")
        found = CLASSIFIERS.load(name)
        if not isinstance(found, ImageClassifier):
            found = found.classifier(["cat", "dog", "fox"], "simple")
        return found

    return _make
