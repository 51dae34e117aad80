"""A transformers model behind our boundary gives the logits of its own image processor and model."""

from collections.abc import Callable

import pytest
import torch
import transformers
from PIL import Image as PILImage
from torch import Tensor, nn
from transformers import (
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    TimmWrapperImageProcessor,
    ViTImageProcessor,
)

from robustify.classifiers.transformers import wrap
from robustify.contract import InputContract
from robustify.errors import InputError
from robustify.smoothing.inputs import to_pixels
from tests.classifiers.hf_toys import EDGES, FAMILIES, MEAN, STD, hf_logits, logits, resnet, vit


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
