"""A timm model behind our boundary gives the logits that timm's own pipeline gives."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image as PILImage
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config
from timm.models import save_for_hf
from torch import Tensor, nn

from robustify import robustify
from robustify.classifiers import ImageClassifier
from robustify.classifiers.timm import load, names, wrap
from robustify.contract import InputContract
from robustify.errors import InputError, ModelError
from robustify.smoothing.inputs import to_pixels

STATISTICS = {
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "zero-one": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "uneven": ((0.15, 0.45, 0.8), (0.4, 0.2, 0.3)),
}
SIZES = {"wide": (97, 61), "tall": (53, 71), "small": (31, 23)}
LABELS = [f"label {i}" for i in range(7)]


def create(awaken: Callable[[nn.Module], nn.Module], **changes: object) -> nn.Module:
    """A small network with a configuration of its own."""
    config = {"input_size": (3, 48, 48), "crop_pct": 0.9, "interpolation": "bicubic", **changes}
    return awaken(timm.create_model("test_resnet", num_classes=7, pretrained_cfg_overlay=config))


def logits(classifier: ImageClassifier, picture: PILImage.Image) -> Tensor:
    """Ours: picture to pixels, pixels to logits; sigma is 0 and there is no denoiser."""
    p = classifier.preprocessing
    pixels = to_pixels(picture, p, InputContract(p.channels, *p.size))
    with torch.no_grad():
        return classifier(pixels.unsqueeze(0))


def timm_logits(network: nn.Module, picture: PILImage.Image) -> Tensor:
    """timm's: its transform, its model."""
    transform = create_transform(**resolve_model_data_config(network), is_training=False)
    with torch.no_grad():
        return network(transform(picture).unsqueeze(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, awaken: Callable[[nn.Module], nn.Module]) -> Path:
    """A model as timm saves it."""
    place = tmp_path_factory.mktemp("timm")
    mean, std = STATISTICS["uneven"]
    network = create(awaken, mean=mean, std=std, crop_mode="border", license="mit")
    save_for_hf(network, place, model_config={"label_names": LABELS}, safe_serialization=True)
    return place


class TestPipeline:
    @pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
    @pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
    @pytest.mark.parametrize("statistics", STATISTICS.values(), ids=STATISTICS)
    def test_logits_are_timms(
        self,
        statistics: tuple[tuple[float, ...], tuple[float, ...]],
        crop_mode: str,
        size: tuple[int, int],
        awaken: Callable[[nn.Module], nn.Module],
        picture: Callable[..., PILImage.Image],
    ) -> None:
        mean, std = statistics
        network = create(awaken, mean=mean, std=std, crop_mode=crop_mode)
        expected = timm_logits(network, picture(*size))
        torch.testing.assert_close(logits(wrap(network), picture(*size)), expected, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("input_size", [(3, 48, 48), (3, 40, 56)], ids=["square", "oblong"])
    @pytest.mark.parametrize("crop_pct", [0.6, 1.0])
    @pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
    @pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
    def test_geometry_is_timms(
        self,
        input_size: tuple[int, int, int],
        crop_pct: float,
        interpolation: str,
        crop_mode: str,
        awaken: Callable[[nn.Module], nn.Module],
        picture: Callable[..., PILImage.Image],
    ) -> None:
        network = create(
            awaken,
            input_size=input_size,
            crop_pct=crop_pct,
            interpolation=interpolation,
            crop_mode=crop_mode,
        )
        classifier = wrap(network)
        assert classifier.preprocessing.size == input_size[1:]
        expected = timm_logits(network, picture())
        torch.testing.assert_close(logits(classifier, picture()), expected, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
    def test_other_pictures_are_converted_to_rgb_first(
        self, mode: str, awaken: Callable[[nn.Module], nn.Module], picture: Callable[..., PILImage.Image]
    ) -> None:
        network = create(awaken)
        converted = picture().convert(mode)
        expected = timm_logits(network, converted.convert("RGB"))
        torch.testing.assert_close(logits(wrap(network), converted), expected, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
    def test_one_channel(
        self,
        crop_mode: str,
        awaken: Callable[[nn.Module], nn.Module],
        picture: Callable[..., PILImage.Image],
    ) -> None:
        config = {"input_size": (1, 48, 48), "mean": (0.3,), "std": (0.2,), "crop_mode": crop_mode}
        network = awaken(timm.create_model("test_resnet", num_classes=7, in_chans=1, pretrained_cfg_overlay=config))
        gray = picture(mode="L")
        expected = timm_logits(network, gray)
        torch.testing.assert_close(logits(wrap(network), gray), expected, rtol=1e-5, atol=1e-5)

    def test_one_channel_made_of_a_colour_configuration_takes_the_mean_statistics(
        self, awaken: Callable[[nn.Module], nn.Module]
    ) -> None:
        config = {"mean": (0.2, 0.3, 0.7), "std": (0.1, 0.2, 0.6)}
        network = timm.create_model("test_resnet", num_classes=7, in_chans=1, pretrained_cfg_overlay=config)
        preprocessing = wrap(awaken(network)).preprocessing
        assert preprocessing.mean == pytest.approx((0.4,))
        assert preprocessing.std == pytest.approx((0.3,))

    def test_size_that_the_model_was_created_with(self, awaken: Callable[[nn.Module], nn.Module]) -> None:
        network = timm.create_model("test_vit", num_classes=7, img_size=(32, 48))
        assert wrap(awaken(network)).preprocessing.size == (32, 48)

    @pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
    def test_gray_contract_before_a_colour_model(
        self,
        crop_mode: str,
        awaken: Callable[[nn.Module], nn.Module],
        picture: Callable[..., PILImage.Image],
    ) -> None:
        """A gray denoiser works on one channel; the model then sees that channel three times."""
        network = create(awaken, mean=(0.5, 0.5, 0.5), crop_mode=crop_mode)
        classifier = wrap(network)
        gray = picture(mode="L")
        pixels = to_pixels(gray, classifier.preprocessing, InputContract(1, 48, 48))
        with torch.no_grad():
            ours = classifier(pixels.unsqueeze(0))
        torch.testing.assert_close(ours, timm_logits(network, gray.convert("RGB")), rtol=1e-5, atol=1e-5)

    def test_gray_border_is_the_mean_of_the_colour_border(self, awaken: Callable[[nn.Module], nn.Module]) -> None:
        classifier = wrap(create(awaken, mean=(0.1, 0.2, 0.9), crop_mode="border", crop_pct=1.0))
        pixels = classifier.preprocessing.geometry(PILImage.new("L", (96, 48)), 48, 48)
        assert pixels.shape == (1, 48, 48)
        assert pixels[0, 0].unique().tolist() == [round(255 * 0.4)]
        assert pixels[0, 24].unique().tolist() == [0]


class TestLoad:
    def test_folder_round_trip(
        self, folder: Path, awaken: Callable[[nn.Module], nn.Module], picture: Callable[..., PILImage.Image]
    ) -> None:
        classifier = load(f"local-dir:{folder}")
        mean, std = STATISTICS["uneven"]
        saved = create(awaken, mean=mean, std=std, crop_mode="border")
        expected = timm_logits(saved, picture())
        torch.testing.assert_close(logits(classifier, picture()), expected, rtol=1e-5, atol=1e-5)
        assert classifier.labels == tuple(LABELS)
        assert classifier.name == f"timm:local-dir:{folder}"
        assert classifier.licence == "mit"
        assert not any(module.training for module in classifier.modules())

    def test_folder_without_pretrained_weights_is_refused(self, folder: Path) -> None:
        network = timm.create_model(f"local-dir:{folder}").eval()
        with pytest.raises(ModelError, match=r"random weights.*pretrained=True"):
            wrap(network)

    def test_folder_with_pretrained_weights_is_accepted(self, folder: Path) -> None:
        network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        assert wrap(network).labels == tuple(LABELS)

    def test_replaced_head_drops_the_folders_labels(self, folder: Path) -> None:
        network = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=4).eval()
        assert wrap(network).labels == ("0", "1", "2", "3")

    def test_folder_without_configuration(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"config\.json"):
            load(f"local-dir:{tmp_path}")

    def test_folder_without_weights(self, folder: Path, tmp_path: Path) -> None:
        shutil.copy(folder / "config.json", tmp_path)
        with pytest.raises(InputError, match=f"local-dir:{tmp_path}"):
            load(f"local-dir:{tmp_path}")

    def test_folder_with_damaged_weights(self, folder: Path, tmp_path: Path) -> None:
        shutil.copy(folder / "config.json", tmp_path)
        (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
        with pytest.raises(InputError, match=f"local-dir:{tmp_path}"):
            load(f"local-dir:{tmp_path}")

    def test_unknown_name(self) -> None:
        with pytest.raises(InputError, match=r"(?s)no_such_model.*robustify plugins timm"):
            load("no_such_model")

    def test_names_are_those_with_weights(self) -> None:
        assert "resnet50.a1_in1k" in names("resnet50.*")
        assert all(name.startswith("resnet50.") for name in names("resnet50.*"))
        assert names("no such pattern") == []
        assert names("resnet50.*") == sorted(names("resnet50.*"))


class TestRefusal:
    def test_training_mode(self, awaken: Callable[[nn.Module], nn.Module]) -> None:
        with pytest.raises(ModelError, match=r"training mode.*\n.*model\.eval\(\)"):
            wrap(create(awaken).train())

    @pytest.mark.parametrize("options", [{"num_classes": 0}, {"features_only": True}], ids=str)
    def test_feature_extractor(self, options: dict[str, object]) -> None:
        with pytest.raises(ModelError, match="feature extractor"):
            wrap(timm.create_model("test_resnet", **options).eval())


class TestLabels:
    def test_of_imagenet(self) -> None:
        labels = wrap(timm.create_model("test_resnet", num_classes=1000).eval()).labels
        assert len(labels) == 1000
        assert "tench" in labels[0]
        assert "toilet tissue" in labels[999]

    def test_are_numbers_where_nobody_names_them(self, awaken: Callable[[nn.Module], nn.Module]) -> None:
        assert wrap(create(awaken)).labels == tuple("0123456")

    def test_may_be_given_by_index(self, awaken: Callable[[nn.Module], nn.Module]) -> None:
        named = {str(i): label for i, label in enumerate(LABELS)}
        assert wrap(create(awaken, label_names=named)).labels == tuple(LABELS)

    def test_head_that_was_replaced_by_hand(self, awaken: Callable[[nn.Module], nn.Module]) -> None:
        """timm still counts 1000 classes then, and would name them after ImageNet's."""
        network = awaken(timm.create_model("test_resnet"))
        network.fc = nn.Linear(network.num_features, 3).eval()
        assert wrap(network).labels == ("0", "1", "2")
        assert robustify(network, classes=["cat", "dog", "fox"], sigma=0.5).classifier.labels == ("cat", "dog", "fox")

    def test_head_that_was_set_by_hand_on_a_backbone(self, awaken: Callable[[nn.Module], nn.Module]) -> None:
        network = awaken(timm.create_model("test_resnet", num_classes=0))
        network.fc = nn.Linear(network.num_features, 3).eval()
        assert wrap(network).labels == ("0", "1", "2")

    def test_that_several_classes_share_are_numbered(self, awaken: Callable[[nn.Module], nn.Module]) -> None:
        network = create(awaken, label_names=["crane", "crane", "fox", "fox", "crane", "owl", "emu"])
        with pytest.warns(UserWarning, match=r"3 classes of timm:test_resnet.*'crane \(2\)' first"):
            found = wrap(network).labels
        assert found == ("crane", "crane (2)", "fox", "fox (2)", "crane (3)", "owl", "emu")

    def test_name_tells_the_architecture(self, awaken: Callable[[nn.Module], nn.Module]) -> None:
        assert wrap(create(awaken)).name == "timm:test_resnet"
        assert wrap(create(awaken), name="mine").name == "mine"


class TestWeights:
    """What is said of weights is true of these weights."""

    def test_random_ones_are_not_called_pretrained(self) -> None:
        """The configuration of timm names weights and their licence, although none were loaded."""
        network = timm.create_model("test_resnet").eval()
        assert network.pretrained_cfg["license"] == "apache-2.0"
        classifier = wrap(network)
        assert classifier.name == "timm:test_resnet (random weights)"
        assert classifier.licence is None

    def test_trained_ones_keep_the_licence_of_the_configuration(self, awaken: Callable[[nn.Module], nn.Module]) -> None:
        assert wrap(awaken(timm.create_model("test_resnet"))).licence == "apache-2.0"

    @pytest.mark.parametrize(
        ("asked", "found"),
        [("test_resnet", "test_resnet.r160_in1k"), ("test_resnet.r160_in1k", "test_resnet.r160_in1k")],
    )
    def test_name_tells_which_weights_timm_chose(
        self,
        asked: str,
        found: str,
        awaken: Callable[[nn.Module], nn.Module],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The default of a name changes between versions of timm; the download is a file here."""
        save_file(awaken(timm.create_model("test_resnet")).state_dict(), tmp_path / "weights.safetensors")
        create_model = timm.create_model
        overlay = {"file": str(tmp_path / "weights.safetensors")}
        monkeypatch.setattr(timm, "create_model", partial(create_model, pretrained_cfg_overlay=overlay))
        classifier = load(asked)
        assert classifier.name == f"timm:{found}"
        assert classifier.licence == "apache-2.0"
