"""Models of transformers: which are classifiers, and how they load."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image as PILImage
from torch import nn
from transformers import (
    AutoImageProcessor,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTModel,
)

from robustify import robustify
from robustify.classifiers.transformers import load, names, wrap
from robustify.errors import InputError, ModelError
from tests.classifiers.hf_toys import EDGES, MEAN, STD, hf_logits, logits, vit


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, awaken: Callable[[nn.Module], nn.Module]) -> Path:
    """A model and its image processor as transformers saves them."""
    place = tmp_path_factory.mktemp("hf")
    awaken(vit(id2label={i: f"label {i}" for i in range(5)})).save_pretrained(place)
    ViTImageProcessor(size=EDGES, image_mean=MEAN, image_std=STD, resample=3).save_pretrained(place)
    return place


class TestModel:
    @pytest.mark.parametrize("part", ["", "vit", "classifier"])
    def test_training_mode_is_refused_and_left_as_it_was(
        self, part: str, awaken: Callable[[nn.Module], nn.Module]
    ) -> None:
        model = awaken(vit())
        module = model.get_submodule(part).train()
        with pytest.raises(ModelError, match=r"training mode.*\n.*model\.eval\(\)"):
            wrap(model, ViTImageProcessor(size=EDGES))
        assert module.training

    def test_without_a_head_is_refused(self) -> None:
        with pytest.raises(ModelError, match=r"image classification; got ViTModel.*\n.*AutoModelForImage"):
            wrap(ViTModel(vit().config).eval(), ViTImageProcessor(size=EDGES))

    def test_with_two_heads_is_accepted(self, awaken: Callable[[nn.Module], nn.Module]) -> None:
        config = transformers.DeiTConfig(**vit().config.to_diff_dict())
        model = awaken(transformers.DeiTForImageClassificationWithTeacher(config))
        assert len(wrap(model, ViTImageProcessor(size=EDGES)).labels) == 5

    def test_processor_of_another_size_is_refused(self, awaken: Callable[[nn.Module], nn.Module]) -> None:
        with pytest.raises(ModelError, match=r"\(4, 3, 48, 48\).*\n.*size"):
            wrap(awaken(vit()), ViTImageProcessor(size={"height": 48, "width": 48}))

    @pytest.mark.parametrize(
        "head",
        [{"num_labels": 1}, {"problem_type": "multi_label_classification"}, {"problem_type": "regression"}],
        ids=str,
    )
    def test_head_that_chooses_no_class_is_refused(
        self, head: dict[str, object], awaken: Callable[[nn.Module], nn.Module]
    ) -> None:
        with pytest.raises(ModelError, match=r"one of at least 2 classes; ViTForImageClassification has num_labels="):
            wrap(awaken(vit(**head)), ViTImageProcessor(size=EDGES))

    def test_no_head_is_refused(self, awaken: Callable[[nn.Module], nn.Module]) -> None:
        """It returns features as `logits`, 16 of them here."""
        with pytest.raises(ModelError, match=r"no classification head \(num_labels=0\)"):
            wrap(awaken(vit(num_labels=0)), ViTImageProcessor(size=EDGES))

    def test_head_for_one_label_is_accepted(self, awaken: Callable[[nn.Module], nn.Module]) -> None:
        model = awaken(vit(problem_type="single_label_classification"))
        assert len(wrap(model, ViTImageProcessor(size=EDGES)).labels) == 5

    def test_head_that_was_replaced_by_hand(self, awaken: Callable[[nn.Module], nn.Module]) -> None:
        model = awaken(vit())
        model.classifier = nn.Linear(16, 3).eval()
        processor = ViTImageProcessor(size=EDGES)
        assert wrap(model, processor).labels == ("0", "1", "2")
        named = robustify(model, processor=processor, classes=["cat", "dog", "fox"], sigma=0.5)
        assert named.classifier.labels == ("cat", "dog", "fox")

    def test_labels_that_several_classes_share_are_numbered(self, awaken: Callable[[nn.Module], nn.Module]) -> None:
        model = awaken(vit(num_labels=3, id2label={0: "crane", 1: "fox", 2: "crane"}))
        with pytest.warns(UserWarning, match="the name of another class"):
            assert wrap(model, ViTImageProcessor(size=EDGES)).labels == ("crane", "fox", "crane (2)")

    def test_random_weights_are_not_called_by_the_name_of_trained_ones(self) -> None:
        """A configuration knows the name that it was loaded by, also where the weights were not."""
        config = vit().config
        config._name_or_path = "google/vit-base-patch16-224"
        classifier = wrap(ViTForImageClassification(config).eval(), ViTImageProcessor(size=EDGES))
        assert classifier.name == "hf:ViTForImageClassification (random weights)"

    def test_labels_and_name(self, awaken: Callable[[nn.Module], nn.Module]) -> None:
        model = awaken(vit(num_labels=3, id2label={0: "zero", 1: "one", 2: "two"}))
        classifier = wrap(model, ViTImageProcessor(size=EDGES))
        assert classifier.labels == ("zero", "one", "two")
        assert classifier.name == "hf:ViTForImageClassification"
        assert wrap(model, ViTImageProcessor(size=EDGES), name="mine").name == "mine"


class TestLoad:
    def test_folder(self, folder: Path, picture: Callable[..., PILImage.Image]) -> None:
        classifier = load(str(folder))
        model = ViTForImageClassification.from_pretrained(folder).eval()
        expected = hf_logits(model, AutoImageProcessor.from_pretrained(folder), picture())
        torch.testing.assert_close(logits(classifier, picture()), expected, rtol=1e-5, atol=1e-5)
        assert classifier.labels == tuple(f"label {i}" for i in range(5))
        assert classifier.name == f"hf:{folder}"
        assert classifier.licence is None
        assert not any(module.training for module in classifier.modules())

    def test_licence_is_the_model_cards(self, folder: Path, tmp_path: Path) -> None:
        copy = shutil.copytree(folder, tmp_path / "copy")
        (copy / "README.md").write_text("---\nlicense: bsd-3-clause\n---\n")
        assert load(str(copy)).licence == "bsd-3-clause"

    @pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "preprocessor_config.json"])
    def test_folder_that_lacks_a_file(self, missing: str, folder: Path, tmp_path: Path) -> None:
        copy = shutil.copytree(folder, tmp_path / "copy")
        (copy / missing).unlink()
        with pytest.raises(InputError, match=str(copy)):
            load(str(copy))

    def test_folder_with_damaged_weights(self, folder: Path, tmp_path: Path) -> None:
        copy = shutil.copytree(folder, tmp_path / "copy")
        (copy / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
        with pytest.raises(InputError, match="transformers cannot load an image classifier"):
            load(str(copy))

    def test_backbone_would_get_a_random_head(self, folder: Path, tmp_path: Path) -> None:
        copy = shutil.copytree(folder, tmp_path / "copy")
        ViTModel(vit().config).save_pretrained(copy)
        with pytest.raises(ModelError, match=r"lacks weights for \['classifier\.bias.*random"):
            load(str(copy))

    def test_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="there is no folder"):
            load(str(tmp_path / "nowhere"))

    def test_lists_no_names(self) -> None:
        assert names() == names("*") == []
