"""A transformers model behind our boundary gives the logits of its own image processor and model."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image as PILImage
from torch import Tensor, nn
from transformers import (
    AutoImageProcessor,
    ResNetConfig,
    ResNetForImageClassification,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    TimmWrapperImageProcessor,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTModel,
)

from robustify import robustify
from robustify.classifiers import ImageClassifier
from robustify.classifiers.transformers import load, names, wrap
from robustify.contract import InputContract
from robustify.errors import InputError, ModelError
from robustify.smoothing.inputs import to_pixels

MEAN, STD = [0.15, 0.45, 0.8], [0.4, 0.2, 0.3]
EDGES = {"height": 32, "width": 32}
FAMILIES = {
    "squash": ("ViTImageProcessor", {"size": EDGES, "image_mean": MEAN, "image_std": STD}),
    "half": ("ViTImageProcessor", {"size": EDGES}),
    "bicubic": ("ViTImageProcessor", {"size": EDGES, "image_mean": MEAN, "image_std": STD, "resample": 3}),
    "clip": ("CLIPImageProcessor", {"size": {"shortest_edge": 37}, "crop_size": EDGES}),
    "imagenet": ("BitImageProcessor", {"size": {"shortest_edge": 32}, "crop_size": EDGES}),
    "crop only": ("BitImageProcessor", {"do_resize": False, "crop_size": EDGES, "image_mean": MEAN}),
    "zero-one": ("ViTImageProcessor", {"size": EDGES, "do_normalize": False}),
    "crop share": ("ConvNextImageProcessor", {"size": {"shortest_edge": 32}, "image_mean": MEAN}),
    "normalises twice": ("EfficientNetImageProcessor", {"size": EDGES, "image_mean": MEAN, "image_std": STD}),
    "normalises, then divides": (
        "EfficientNetImageProcessor",
        {"size": EDGES, "image_std": STD, "rescale_factor": 1 / 127.5, "rescale_offset": True},
    ),
    "divides alone": ("EfficientNetImageProcessor", {"size": EDGES, "image_std": STD, "do_normalize": False}),
    "no top": ("EfficientNetImageProcessor", {"size": EDGES, "image_mean": MEAN, "include_top": False}),
    "blue, green, red": ("MobileViTImageProcessor", {"size": {"shortest_edge": 36}, "crop_size": EDGES}),
    "not flipped": (
        "MobileViTImageProcessor",
        {"size": {"shortest_edge": 36}, "crop_size": EDGES, "do_flip_channel_order": False},
    ),
    "rescales otherwise": ("ViTImageProcessor", {"size": EDGES, "image_mean": MEAN, "rescale_factor": 1 / 127.5}),
    "does not rescale": ("ViTImageProcessor", {"size": EDGES, "do_rescale": False, "image_mean": [99, 110, 140]}),
    "bytes": ("ViTImageProcessor", {"size": EDGES, "do_rescale": False, "do_normalize": False}),
    "crop beyond the picture": ("CLIPImageProcessor", {"size": {"shortest_edge": 20}, "crop_size": EDGES}),
    "crop, then resize": ("PerceiverImageProcessor", {"size": EDGES, "crop_size": {"height": 40, "width": 40}}),
}


def vit(**changes: object) -> ViTForImageClassification:
    """A small network for 32×32 images."""
    config = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return ViTForImageClassification(
        ViTConfig(**{**config, "image_size": 32, "patch_size": 8, "num_labels": 5, **changes})
    )


def resnet(**changes: object) -> ResNetForImageClassification:
    """A small network for images of any size."""
    config = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic", "num_labels": 5}
    return ResNetForImageClassification(ResNetConfig(**{**config, **changes}))


def logits(classifier: ImageClassifier, picture: PILImage.Image) -> Tensor:
    """Ours: picture to pixels, pixels to logits; sigma is 0 and there is no denoiser."""
    p = classifier.preprocessing
    pixels = to_pixels(picture, p, InputContract(p.channels, *p.size))
    with torch.no_grad():
        return classifier(pixels.unsqueeze(0))


def hf_logits(model: nn.Module, processor: object, picture: PILImage.Image) -> Tensor:
    """transformers': its processor, its model."""
    with torch.no_grad():
        return model(**processor(images=picture, return_tensors="pt")).logits


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, awaken: Callable[[nn.Module], nn.Module]) -> Path:
    """A model and its image processor as transformers saves them."""
    place = tmp_path_factory.mktemp("hf")
    awaken(vit(id2label={i: f"label {i}" for i in range(5)})).save_pretrained(place)
    ViTImageProcessor(size=EDGES, image_mean=MEAN, image_std=STD, resample=3).save_pretrained(place)
    return place


class TestPipeline:
    @pytest.mark.parametrize("size", [(97, 61), (53, 71), (23, 19)], ids=["wide", "tall", "small"])
    @pytest.mark.parametrize("backend", ["", "Pil"], ids=["torchvision", "pil"])
    @pytest.mark.parametrize(("family", "options"), FAMILIES.values(), ids=FAMILIES)
    def test_logits_are_transformers(
        self,
        family: str,
        options: dict[str, object],
        backend: str,
        size: tuple[int, int],
        awaken: Callable[[nn.Module], nn.Module],
        picture: Callable[..., PILImage.Image],
    ) -> None:
        processor = getattr(transformers, family + backend)(**options)
        assert processor.backend == (backend.lower() or "torchvision")
        model = awaken(vit())
        expected = hf_logits(model, processor, picture(*size))
        ours = logits(wrap(model, processor), picture(*size))
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("backend", ["", "Pil"], ids=["torchvision", "pil"])
    def test_oblong(
        self,
        backend: str,
        awaken: Callable[[nn.Module], nn.Module],
        picture: Callable[..., PILImage.Image],
    ) -> None:
        processor = getattr(transformers, "ViTImageProcessor" + backend)(size={"height": 24, "width": 40})
        model = awaken(resnet())
        classifier = wrap(model, processor)
        assert classifier.preprocessing.size == (24, 40)
        expected = hf_logits(model, processor, picture())
        torch.testing.assert_close(logits(classifier, picture()), expected, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("backend", ["", "Pil"], ids=["torchvision", "pil"])
    @pytest.mark.parametrize(
        "statistics", [{"image_mean": [0.3], "image_std": [0.2]}, {"do_normalize": False}], ids=str
    )
    def test_one_channel(
        self,
        statistics: dict[str, object],
        backend: str,
        awaken: Callable[[nn.Module], nn.Module],
        picture: Callable[..., PILImage.Image],
    ) -> None:
        processor = getattr(transformers, "ViTImageProcessor" + backend)(size=EDGES, **statistics)
        model = awaken(resnet(num_channels=1))
        gray = picture(mode="L")
        classifier = wrap(model, processor)
        assert classifier.preprocessing.channels == 1
        expected = hf_logits(model, processor, gray)
        torch.testing.assert_close(logits(classifier, gray), expected, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("backend", ["", "Pil"], ids=["torchvision", "pil"])
    @pytest.mark.parametrize("family", ["clip", "half"])
    def test_gray_contract_before_a_colour_model(
        self,
        family: str,
        backend: str,
        awaken: Callable[[nn.Module], nn.Module],
        picture: Callable[..., PILImage.Image],
    ) -> None:
        """A gray denoiser works on one channel, also where the processor itself would make three of it."""
        name, options = FAMILIES[family]
        processor = getattr(transformers, name + backend)(**options)
        model = awaken(vit())
        classifier = wrap(model, processor)
        gray = picture(mode="L")
        pixels = to_pixels(gray, classifier.preprocessing, InputContract(1, 32, 32))
        expected = hf_logits(model, processor, gray.convert("RGB"))
        with torch.no_grad():
            torch.testing.assert_close(classifier(pixels.unsqueeze(0)), expected, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("backend", ["", "Pil"], ids=["torchvision", "pil"])
    @pytest.mark.parametrize("family", ["squash", "clip", "crop share"])
    def test_denoiser_of_another_size_sees_the_same_part_of_the_picture(
        self,
        family: str,
        backend: str,
        awaken: Callable[[nn.Module], nn.Module],
    ) -> None:
        """Each pixel tells its place: columns in red, rows in green."""
        name, options = FAMILIES[family]
        geometry = wrap(awaken(vit()), getattr(transformers, name + backend)(**options)).preprocessing.geometry
        columns = PILImage.linear_gradient("L").rotate(90).resize((320, 200))
        rows = PILImage.linear_gradient("L").resize((320, 200))
        places = PILImage.merge("RGB", [columns, rows, rows])
        small, large = geometry(places, 32, 32).float(), geometry(places, 64, 64).float()
        assert large.shape == (3, 64, 64)
        means = large.unflatten(1, (32, 2)).unflatten(3, (32, 2)).mean(dim=(2, 4))
        torch.testing.assert_close(means, small, rtol=0, atol=6)

    def test_timm_inside(
        self, awaken: Callable[[nn.Module], nn.Module], picture: Callable[..., PILImage.Image]
    ) -> None:
        config = {"input_size": [3, 48, 48], "mean": MEAN, "std": STD, "crop_pct": 0.8, "interpolation": "bilinear"}
        config |= {"crop_mode": "border"}
        processor = TimmWrapperImageProcessor(pretrained_cfg=config, architecture="test_resnet")
        model = TimmWrapperForImageClassification(
            TimmWrapperConfig(architecture="test_resnet", num_labels=5, pretrained_cfg=config)
        )
        classifier = wrap(awaken(model), processor)
        assert classifier.preprocessing.size == (48, 48)
        expected = hf_logits(model, processor, picture())
        torch.testing.assert_close(logits(classifier, picture()), expected, rtol=1e-5, atol=1e-5)


class Stretched(ViTImageProcessor):
    """Stretches each picture to its own brightest value."""

    def rescale_and_normalize(self, images: Tensor, *args: object, **kwargs: object) -> Tensor:
        return super().rescale_and_normalize(images * (255 / images.max()), *args, **kwargs)


class Broken(ViTImageProcessor):
    """Fails on every picture."""

    def resize(self, *args: object, **kwargs: object) -> Tensor:
        raise KeyError("shortest_edge")


class TestProcessorThatDoesSomethingElse:
    def test_is_refused(self, awaken: Callable[[nn.Module], nn.Module]) -> None:
        with pytest.raises(InputError, match=r"Stretched does something else.*\n.*preprocessing=Preprocessing"):
            wrap(awaken(vit()), Stretched(size=EDGES))

    @pytest.mark.parametrize("backend", ["", "Pil"], ids=["torchvision", "pil"])
    def test_setting_that_it_ignores_is_refused(self, backend: str, awaken: Callable[[nn.Module], nn.Module]) -> None:
        """MobileViT's never normalises, whatever `do_normalize` says."""
        kind = getattr(transformers, "MobileViTImageProcessor" + backend)
        processor = kind(size={"shortest_edge": 32}, crop_size=EDGES, do_normalize=True)
        with pytest.raises(InputError, match="does something else"):
            wrap(awaken(vit()), processor)

    def test_that_fails_on_a_picture_is_refused(self, awaken: Callable[[nn.Module], nn.Module]) -> None:
        with pytest.raises(InputError, match=r"Broken fails on a picture .*KeyError: 'shortest_edge'"):
            wrap(awaken(vit()), Broken(size=EDGES))

    @pytest.mark.parametrize(
        ("options", "channels", "reason"),
        [
            ({"image_mean": [0.1, 0.2]}, 3, r"image_mean of ViTImageProcessor to have 1 or 3 numbers.*\(0\.1, 0\.2\)"),
            ({"image_std": [0.1, 0.2, 0.3]}, 1, r"image_std of ViTImageProcessor to have 1 or 1 numbers"),
            ({}, 4, r"1 or 3 channels; got num_channels=4"),
        ],
        ids=["mean", "std of colour", "channels"],
    )
    def test_statistics_of_other_channels_are_refused(
        self, options: dict[str, object], channels: int, reason: str, awaken: Callable[[nn.Module], nn.Module]
    ) -> None:
        processor = ViTImageProcessor(size=EDGES, **{"image_mean": 0.5, "image_std": 0.5, **options})
        with pytest.raises(InputError, match=reason):
            wrap(awaken(resnet(num_channels=channels)), processor)

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("CLIPImageProcessor", {"size": {"shortest_edge": 32}, "do_center_crop": False}),
            ("BitImageProcessor", {"do_resize": False, "do_center_crop": False}),
            ("Siglip2ImageProcessor", {}),
        ],
        ids=["keeps the shape", "keeps the size", "makes patches"],
    )
    def test_without_a_fixed_size_is_refused(
        self, name: str, options: dict[str, object], awaken: Callable[[nn.Module], nn.Module]
    ) -> None:
        with pytest.raises(InputError, match=rf"fixed output size; {name} makes .*\n.*crop_size"):
            wrap(awaken(vit()), getattr(transformers, name)(**options))


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
