"""An open_clip model behind our boundary gives open_clip's own zero-shot logits, without its text tower."""

import shutil
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from unittest.mock import Mock

import open_clip
import pytest
import torch
from open_clip.model import set_model_preprocess_cfg
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image as PILImage
from torch import Tensor, nn

from robustify.classifiers import ImageClassifier
from robustify.classifiers.open_clip import OpenCLIP, load, names
from robustify.contract import InputContract
from robustify.errors import InputError, ModelError
from robustify.smoothing.inputs import to_pixels
from tests.conftest import CLIP_CONFIG

CLASSES = ["cat", "dog", "ankle boot"]
TEMPLATES = ["a photo of a {}.", "{} in the rain", "no {}"]
STATISTICS = {
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD),
    "zero-one": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "uneven": ((0.15, 0.45, 0.8), (0.4, 0.2, 0.3)),
}


def logits(classifier: ImageClassifier, picture: PILImage.Image) -> Tensor:
    """Ours: picture to pixels, pixels to logits; sigma is 0 and there is no denoiser."""
    p = classifier.preprocessing
    pixels = to_pixels(picture, p, InputContract(p.channels, *p.size))
    with torch.no_grad():
        return classifier(pixels.unsqueeze(0))


def clip_logits(
    model: nn.Module,
    tokenizer: Callable[..., Tensor],
    picture: PILImage.Image,
    templates: Sequence[object] = TEMPLATES,
) -> Tensor:
    """open_clip's: its transform, its two towers, its head."""
    transform = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    head = open_clip.build_zero_shot_classifier(model, tokenizer, CLASSES, templates)
    with torch.no_grad():
        embedding = model.encode_image(transform(picture).unsqueeze(0), normalize=True)
        scaled: Tensor = model.logit_scale.exp() * embedding @ head
    bias = getattr(model, "logit_bias", None)
    return scaled if bias is None else scaled + bias.detach()


class TestPipeline:
    @pytest.mark.parametrize("size", [(97, 61), (53, 71), (23, 19)], ids=["wide", "tall", "small"])
    @pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
    @pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
    @pytest.mark.parametrize("statistics", STATISTICS.values(), ids=STATISTICS)
    def test_logits_are_open_clips(
        self,
        statistics: tuple[tuple[float, ...], tuple[float, ...]],
        interpolation: str,
        resize_mode: str,
        size: tuple[int, int],
        clip_model: nn.Module,
        clip_tokenizer: Callable[..., Tensor],
        picture: Callable[..., PILImage.Image],
    ) -> None:
        mean, std = statistics
        changes = {"mean": mean, "std": std, "interpolation": interpolation, "resize_mode": resize_mode}
        set_model_preprocess_cfg(clip_model, {**clip_model.visual.preprocess_cfg, **changes})
        classifier = OpenCLIP(clip_model, clip_tokenizer).classifier(CLASSES, TEMPLATES)
        expected = clip_logits(clip_model, clip_tokenizer, picture(*size))
        torch.testing.assert_close(logits(classifier, picture(*size)), expected, rtol=1e-5, atol=1e-5)

    def test_gray_picture_before_the_colour_model(
        self,
        clip_model: nn.Module,
        clip_tokenizer: Callable[..., Tensor],
        picture: Callable[..., PILImage.Image],
    ) -> None:
        classifier = OpenCLIP(clip_model, clip_tokenizer).classifier(CLASSES, TEMPLATES)
        gray = picture(mode="L")
        pixels = to_pixels(gray, classifier.preprocessing, InputContract(1, 32, 32))
        uneven = clip_logits(clip_model, clip_tokenizer, gray)
        with torch.no_grad():
            torch.testing.assert_close(classifier(pixels.unsqueeze(0)), uneven, rtol=1e-5, atol=1e-5)

    def test_learned_bias_and_scale(
        self,
        clip_model: nn.Module,
        clip_tokenizer: Callable[..., Tensor],
        picture: Callable[..., PILImage.Image],
    ) -> None:
        clip_model.logit_bias = nn.Parameter(torch.tensor(-7.0))
        clip_model.logit_scale = nn.Parameter(torch.tensor(3.0))
        classifier = OpenCLIP(clip_model, clip_tokenizer).classifier(CLASSES, TEMPLATES)
        expected = clip_logits(clip_model, clip_tokenizer, picture())
        torch.testing.assert_close(logits(classifier, picture()), expected, rtol=1e-5, atol=1e-5)

    def test_model_made_without_create_model_takes_explicit_preprocessing(
        self,
        awaken: Callable[[nn.Module], nn.Module],
        clip_model: nn.Module,
        clip_tokenizer: Callable[..., Tensor],
        picture: Callable[..., PILImage.Image],
    ) -> None:
        """It then is the model of the folder, whose preprocessing is given by hand."""
        own = OpenCLIP(clip_model, clip_tokenizer).preprocessing
        bare = awaken(open_clip.CLIP(**deepcopy(CLIP_CONFIG)))
        classifier = OpenCLIP(bare, clip_tokenizer, preprocessing=own).classifier(CLASSES, TEMPLATES)
        expected = clip_logits(clip_model, clip_tokenizer, picture())
        torch.testing.assert_close(logits(classifier, picture()), expected, rtol=1e-5, atol=1e-5)

    def test_tower_that_also_returns_tokens(
        self,
        clip_model: nn.Module,
        clip_tokenizer: Callable[..., Tensor],
        picture: Callable[..., PILImage.Image],
    ) -> None:
        expected = clip_logits(clip_model, clip_tokenizer, picture())
        clip_model.visual.output_tokens = True
        classifier = OpenCLIP(clip_model, clip_tokenizer).classifier(CLASSES, TEMPLATES)
        torch.testing.assert_close(logits(classifier, picture()), expected, rtol=1e-5, atol=1e-5)


class TestHead:
    @pytest.mark.parametrize("name", ["openai", "simple"])
    def test_template_sets_are_open_clips(
        self,
        name: str,
        clip_model: nn.Module,
        clip_tokenizer: Callable[..., Tensor],
        picture: Callable[..., PILImage.Image],
    ) -> None:
        templates = {
            "openai": open_clip.OPENAI_IMAGENET_TEMPLATES,
            "simple": open_clip.SIMPLE_IMAGENET_TEMPLATES,
        }
        expected = clip_logits(clip_model, clip_tokenizer, picture(), templates[name])
        classifier = OpenCLIP(clip_model, clip_tokenizer).classifier(CLASSES, name)
        torch.testing.assert_close(logits(classifier, picture()), expected, rtol=1e-5, atol=1e-5)

    def test_openai_templates_are_the_default(
        self, clip_model: nn.Module, clip_tokenizer: Callable[..., Tensor]
    ) -> None:
        model = OpenCLIP(clip_model, clip_tokenizer)
        heads = [model.classifier(CLASSES, *given).network.head for given in ((), ("openai",), ("simple",))]
        torch.testing.assert_close(heads[0], heads[1], rtol=0, atol=0)
        assert not torch.allclose(heads[0], heads[2])

    def test_needs_no_text_tower_afterwards(
        self,
        clip_model: nn.Module,
        clip_tokenizer: Callable[..., Tensor],
        picture: Callable[..., PILImage.Image],
    ) -> None:
        expected = clip_logits(clip_model, clip_tokenizer, picture())
        tokenizer = Mock(side_effect=clip_tokenizer)
        classifier = OpenCLIP(clip_model, tokenizer).classifier(CLASSES, TEMPLATES)
        assert tokenizer.call_count == 1
        tokenizer.side_effect = AssertionError("the tokenizer was asked again")
        clip_model.encode_text = Mock(side_effect=AssertionError("the text tower was asked again"))
        del clip_model.transformer, clip_model.token_embedding
        for _ in range(2):
            torch.testing.assert_close(logits(classifier, picture()), expected, rtol=1e-5, atol=1e-5)
        kept = {name.removeprefix("network.").partition(".")[0] for name in classifier.state_dict()}
        assert kept == {"visual", "head"}

    def test_head_is_fixed(self, clip_model: nn.Module, clip_tokenizer: Callable[..., Tensor]) -> None:
        network = OpenCLIP(clip_model, clip_tokenizer).classifier(CLASSES, TEMPLATES).network
        assert not network.head.requires_grad
        assert network.head.shape == (16, 3)
        torch.testing.assert_close(network.head.norm(dim=0), torch.ones(3))

    def test_labels_and_name(self, clip_model: nn.Module, clip_tokenizer: Callable[..., Tensor]) -> None:
        classifier = OpenCLIP(clip_model, clip_tokenizer).classifier(CLASSES, TEMPLATES)
        assert classifier.labels == tuple(CLASSES)
        assert classifier.name == "open_clip:CLIP"
        assert OpenCLIP(clip_model, clip_tokenizer, name="mine").classifier(CLASSES, TEMPLATES).name == "mine"

    @pytest.mark.parametrize("classes", [[], ["cat"], ["cat", "cat"], ["cat", "dog", "cat"], "cat"], ids=str)
    def test_classes_are_two_or_more_distinct_names(
        self, classes: Sequence[str], clip_model: nn.Module, clip_tokenizer: Callable[..., Tensor]
    ) -> None:
        with pytest.raises(InputError, match=r"at least 2 distinct class names; got .*"):
            OpenCLIP(clip_model, clip_tokenizer).classifier(classes, TEMPLATES)

    @pytest.mark.parametrize(
        ("templates", "reason"),
        [
            ("imagenet", r"no template set named 'imagenet'; there are openai, simple"),
            ([], r"expected templates that contain \{\}"),
            (["a photo of a {}.", "a photo"], r"expected templates that contain \{\}.*a photo"),
        ],
    )
    def test_templates_are_a_known_set_or_have_a_place_for_the_name(
        self,
        templates: str | list[str],
        reason: str,
        clip_model: nn.Module,
        clip_tokenizer: Callable[..., Tensor],
    ) -> None:
        with pytest.raises(InputError, match=reason):
            OpenCLIP(clip_model, clip_tokenizer).classifier(CLASSES, templates)


class TestRefusal:
    @pytest.mark.parametrize("part", [None, "visual", "transformer"])
    def test_training_mode_before_any_text_is_encoded(
        self, part: str | None, clip_model: nn.Module, clip_tokenizer: Callable[..., Tensor]
    ) -> None:
        (clip_model if part is None else getattr(clip_model, part)).train()
        tokenizer = Mock(side_effect=clip_tokenizer)
        with pytest.raises(ModelError, match="training mode"):
            OpenCLIP(clip_model, tokenizer).classifier(CLASSES, TEMPLATES)
        assert not tokenizer.called

    def test_model_that_does_not_say_how_it_sees_pixels(self, clip_tokenizer: Callable[..., Tensor]) -> None:
        """`open_clip.CLIP(…)` itself sets no `preprocess_cfg`; `create_model` does."""
        with pytest.raises(InputError, match=r"(?s)CLIP does not say .*preprocess_cfg.*preprocessing=Preprocessing"):
            OpenCLIP(open_clip.CLIP(**deepcopy(CLIP_CONFIG)).eval(), clip_tokenizer)

    def test_model_without_weights(self, clip_tokenizer: Callable[..., Tensor]) -> None:
        with torch.device("meta"):
            model = open_clip.CLIP(**deepcopy(CLIP_CONFIG)).eval()
        with pytest.raises(ModelError, match="on the meta device"):
            OpenCLIP(model, clip_tokenizer)

    def test_model_without_an_image_tower(self, clip_tokenizer: Callable[..., Tensor]) -> None:
        with pytest.raises(ModelError, match=r"`visual`.*`encode_text`; got Linear"):
            OpenCLIP(nn.Linear(2, 2).eval(), clip_tokenizer)


class TestLoad:
    def test_folder(
        self,
        clip_folder: Path,
        clip_model: nn.Module,
        clip_tokenizer: Callable[..., Tensor],
        picture: Callable[..., PILImage.Image],
    ) -> None:
        found = load(f"local-dir:{clip_folder}")
        assert not any(module.training for module in found.model.modules())
        classifier = found.classifier(CLASSES, TEMPLATES)
        expected = clip_logits(clip_model, clip_tokenizer, picture())
        torch.testing.assert_close(logits(classifier, picture()), expected, rtol=1e-5, atol=1e-5)
        assert classifier.name == found.name == f"open_clip:local-dir:{clip_folder}"
        assert classifier.licence is None

    def test_licence_is_the_model_cards(self, clip_folder: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(clip_folder, tmp_path / "copy")
        (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
        found = load(f"local-dir:{folder}")
        assert found.licence == found.classifier(CLASSES, TEMPLATES).licence == "apache-2.0"

    @pytest.mark.parametrize("missing", ["open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json"])
    def test_folder_that_lacks_a_file(self, missing: str, clip_folder: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(clip_folder, tmp_path / "copy")
        (folder / missing).unlink()
        with pytest.raises(InputError, match=f"open_clip cannot create 'local-dir:{folder}'"):
            load(f"local-dir:{folder}")

    def test_folder_with_damaged_weights(self, clip_folder: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(clip_folder, tmp_path / "copy")
        weights = folder / "open_clip_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
        with pytest.raises(InputError, match="open_clip cannot create"):
            load(f"local-dir:{folder}")

    def test_unknown_weights(self) -> None:
        with pytest.raises(InputError, match=r"open_clip cannot create 'RN50/no-such-weights'"):
            load("RN50/no-such-weights")

    @pytest.mark.parametrize("name", ["ViT-B-32", ""])
    def test_name_without_weights(self, name: str) -> None:
        with pytest.raises(InputError, match=r"expected open_clip:MODEL/WEIGHTS"):
            load(name)

    def test_unknown_model(self) -> None:
        with pytest.raises(InputError, match="open_clip cannot create 'NoSuchModel/openai'"):
            load("NoSuchModel/openai")

    def test_names_are_models_with_weights(self) -> None:
        assert "ViT-B-32/laion2b_s34b_b79k" in names()
        assert names() == sorted(names())
        assert names("RN50/*") == [name for name in names() if name.startswith("RN50/")] != []
