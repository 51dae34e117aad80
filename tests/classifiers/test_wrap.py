"""One function takes every kind of model; where it can't, it says what to pass."""

from collections.abc import Callable
from unittest.mock import sentinel

import pytest
import timm
import torch
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor

from robustify.classifiers import ImageClassifier, Preprocessing, wrap
from robustify.classifiers.open_clip import OpenCLIP
from robustify.errors import InputError, ModelError

PREPROCESSING = Preprocessing((0.1, 0.4, 0.8), (0.5, 0.25, 0.2), (32, 32))


@pytest.fixture
def timm_model() -> nn.Module:
    return timm.create_model("test_resnet", num_classes=3).eval()


@pytest.fixture
def hf_model() -> nn.Module:
    config = {"embedding_size": 8, "hidden_sizes": [8], "depths": [1], "layer_type": "basic", "num_labels": 4}
    return ResNetForImageClassification(ResNetConfig(**config)).eval()


@pytest.fixture
def plain_model() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5)).eval()


@pytest.fixture
def processor() -> ViTImageProcessor:
    return ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.1, 0.2, 0.3])


class TestWrap:
    def test_timm(self, timm_model: nn.Module) -> None:
        classifier = wrap(timm_model)
        assert isinstance(classifier, ImageClassifier)
        assert classifier.network is timm_model
        assert classifier.name == "timm:test_resnet (random weights)"
        assert classifier.preprocessing.size == (160, 160)

    def test_transformers(self, hf_model: nn.Module, processor: ViTImageProcessor) -> None:
        classifier = wrap(hf_model, processor=processor)
        assert isinstance(classifier, ImageClassifier)
        assert classifier.name == "hf:ResNetForImageClassification (random weights)"
        assert classifier.preprocessing.mean == (0.1, 0.2, 0.3)

    def test_open_clip(self, clip_model: nn.Module, clip_tokenizer: Callable[..., Tensor]) -> None:
        found = wrap(clip_model, tokenizer=clip_tokenizer)
        assert isinstance(found, OpenCLIP)
        assert found.classifier(["cat", "dog"], ["{}"]).labels == ("cat", "dog")

    def test_any_module_with_preprocessing(self, plain_model: nn.Module) -> None:
        classifier = wrap(plain_model, preprocessing=PREPROCESSING)
        assert isinstance(classifier, ImageClassifier)
        assert classifier.preprocessing is PREPROCESSING
        assert classifier.name == "Sequential"
        pixels = torch.rand(2, 3, 32, 32)
        torch.testing.assert_close(classifier(pixels), plain_model(PREPROCESSING.network_input(pixels)))

    def test_open_clip_with_preprocessing(self, clip_model: nn.Module, clip_tokenizer: Callable[..., Tensor]) -> None:
        """Explicit preprocessing wins over the model's own."""
        found = wrap(clip_model, tokenizer=clip_tokenizer, preprocessing=PREPROCESSING)
        assert isinstance(found, OpenCLIP)
        assert found.classifier(["cat", "dog"], ["{}"]).preprocessing is PREPROCESSING

    def test_explicit_preprocessing_wins_over_timms(self, timm_model: nn.Module) -> None:
        classifier = wrap(timm_model, preprocessing=PREPROCESSING)
        assert isinstance(classifier, ImageClassifier)
        assert classifier.preprocessing is PREPROCESSING


class TestHints:
    def test_transformers_needs_its_processor(self, hf_model: nn.Module) -> None:
        with pytest.raises(InputError, match=r"ResNetForImageClassification looks like a transformers.*processor="):
            wrap(hf_model)

    def test_open_clip_needs_its_tokenizer(self, clip_model: nn.Module) -> None:
        with pytest.raises(InputError, match=r"CLIP looks like an open_clip.*tokenizer=…, classes="):
            wrap(clip_model)

    def test_open_clip_with_preprocessing_still_needs_its_tokenizer(self, clip_model: nn.Module) -> None:
        with pytest.raises(InputError, match=r"CLIP looks like an open_clip.*tokenizer=…, classes="):
            wrap(clip_model, preprocessing=PREPROCESSING)

    def test_any_other_module_needs_preprocessing(self, plain_model: nn.Module) -> None:
        with pytest.raises(InputError, match=r"Sequential does not say.*\n.*preprocessing=Preprocessing\(mean="):
            wrap(plain_model)


class TestWrongCombinations:
    @pytest.mark.parametrize(
        "given",
        [
            ("preprocessing", "processor"),
            ("processor", "tokenizer"),
            ("preprocessing", "processor", "tokenizer"),
        ],
        ids=" and ".join,
    )
    def test_more_than_one_way_to_see_pixels(self, given: tuple[str, ...], plain_model: nn.Module) -> None:
        values = {"preprocessing": PREPROCESSING, "processor": sentinel.processor, "tokenizer": lambda texts: texts}
        with pytest.raises(InputError, match=f"expected a processor without .*; got {' and '.join(given)}$"):
            wrap(plain_model, **{name: values[name] for name in given})

    def test_processor_with_a_model_that_is_not_transformers(
        self, plain_model: nn.Module, timm_model: nn.Module, processor: ViTImageProcessor
    ) -> None:
        for model in (plain_model, timm_model):
            with pytest.raises(ModelError, match="expected a model for image classification; got"):
                wrap(model, processor=processor)

    def test_tokenizer_with_a_model_that_is_not_open_clip(
        self, timm_model: nn.Module, clip_tokenizer: Callable[..., Tensor]
    ) -> None:
        with pytest.raises(ModelError, match="expected an open_clip model"):
            wrap(timm_model, tokenizer=clip_tokenizer)

    def test_processor_that_is_no_image_processor(self, hf_model: nn.Module) -> None:
        with pytest.raises(InputError, match=r"expected an image processor, .*; got object"):
            wrap(hf_model, processor=object())
