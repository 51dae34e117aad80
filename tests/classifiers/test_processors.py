"""An image processor behind a denoiser of another size shows the network the part of a picture that it is used to."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import transformers
from PIL import Image as PILImage
from torch import Tensor

from robustify.classifiers import Preprocessing
from robustify.classifiers.processors import ProcessorGeometry, preprocessing_of

BACKENDS = pytest.mark.parametrize("backend", ["", "Pil"], ids=["torchvision", "pil"])
BOX = {"height": 32, "width": 32}


def photograph(width: int, height: int) -> PILImage.Image:
    """Each pixel tells its place: columns in red, rows in green; blue is smooth."""
    columns = PILImage.linear_gradient("L").rotate(90).resize((width, height))
    rows = PILImage.linear_gradient("L").resize((width, height))
    return PILImage.merge("RGB", [columns, rows, PILImage.radial_gradient("L").resize((width, height))])


def own_view(processor: object, picture: PILImage.Image) -> Tensor:
    """The bytes that the library's own preprocessing shows, at the network's own size, in [0, 255]."""
    return processor(images=picture, return_tensors="pt", do_normalize=False)["pixel_values"][0] * 255


def made(name: str, backend: str, options: dict[str, object]) -> tuple[object, Preprocessing]:
    processor = getattr(transformers, name + backend)(**options)
    return processor, preprocessing_of(processor, channels=3)


SIZES = {"wide": (320, 200), "tall": (120, 260), "small": (41, 37)}
CONVNEXT = "ConvNextImageProcessor"
CHANGING = {
    "crops at 224, squashes from 384": (CONVNEXT, {"size": {"shortest_edge": 224}}, 512),
    "squashes at 384, crops below": (CONVNEXT, {"size": {"shortest_edge": 384}}, 256),
    "crop without a resize": ("CLIPImageProcessor", {"do_resize": False, "crop_size": BOX}, 64),
    "smaller crop without a resize": ("CLIPImageProcessor", {"do_resize": False, "crop_size": BOX}, 16),
}
STAYING = {
    "squash": ("ViTImageProcessor", {"size": BOX}, 64),
    "crop": ("CLIPImageProcessor", {"size": {"shortest_edge": 37}, "crop_size": BOX}, 64),
    "crop, smaller": ("CLIPImageProcessor", {"size": {"shortest_edge": 37}, "crop_size": BOX}, 16),
    "crop share": (CONVNEXT, {"size": {"shortest_edge": 224}}, 256),
    "crop, then resize": ("PerceiverImageProcessor", {"size": BOX, "crop_size": {"height": 40, "width": 40}}, 64),
    "longest edge": (
        "BitImageProcessor",
        {"size": {"shortest_edge": 24, "longest_edge": 40}, "crop_size": BOX},
        64,
    ),
    "greatest height and width": (
        "BitImageProcessor",
        {"size": {"max_height": 32, "max_width": 32}, "crop_size": BOX},
        64,
    ),
}


class TestView:
    @BACKENDS
    @pytest.mark.parametrize("picture", SIZES.values(), ids=SIZES)
    @pytest.mark.parametrize(
        ("name", "options", "size"), [*CHANGING.values(), *STAYING.values()], ids=[*CHANGING, *STAYING]
    )
    def test_at_another_size_is_that_at_the_own_size(
        self, name: str, options: dict[str, object], size: int, picture: tuple[int, int], backend: str
    ) -> None:
        processor, preprocessing = made(name, backend, options)
        expected = own_view(processor, photograph(*picture))
        pixels = preprocessing.picture_bytes(photograph(*picture), size, size)
        assert pixels.shape == (3, size, size)
        smaller = min(size, preprocessing.size[0])
        found, expected = (F.adaptive_avg_pool2d(x.float(), smaller) for x in (pixels, expected))
        gap = (found - expected).abs()  # at the border of padding, places jump by a pixel of the smaller picture
        assert gap.quantile(0.9) <= 4 + 255 / smaller

    @BACKENDS
    @pytest.mark.parametrize(("name", "options", "size"), CHANGING.values(), ids=CHANGING)
    def test_that_sizes_in_proportion_would_change_is_made_at_the_own_size(
        self, name: str, options: dict[str, object], size: int, backend: str
    ) -> None:
        processor, preprocessing = made(name, backend, options)
        assert not preprocessing.geometry.keeps_view(preprocessing.size, (size, size))
        picture = photograph(160, 100)
        smaller = min(size, preprocessing.size[0])
        pictures = preprocessing.geometry(picture, size, size), own_view(processor, picture)
        wrong, right = (F.adaptive_avg_pool2d(x.float(), smaller) for x in pictures)
        assert (wrong - right).abs().quantile(0.9) > 20

    @BACKENDS
    @pytest.mark.parametrize(("name", "options", "size"), STAYING.values(), ids=STAYING)
    def test_that_stays_is_made_at_once(self, name: str, options: dict[str, object], size: int, backend: str) -> None:
        """Pixels come from the picture itself, which may have more of them than the network sees."""
        _, preprocessing = made(name, backend, options)
        geometry = preprocessing.geometry
        assert geometry.keeps_view(preprocessing.size, (size, size))
        found = preprocessing.picture_bytes(photograph(320, 200), size, size)
        torch.testing.assert_close(found, geometry(photograph(320, 200), size, size), rtol=0, atol=0)

    def test_before_a_denoiser_of_another_shape_is_made_at_the_own_size(self) -> None:
        _, preprocessing = made(*("CLIPImageProcessor", ""), {"size": {"shortest_edge": 37}, "crop_size": BOX})
        assert not preprocessing.geometry.keeps_view((32, 32), (32, 48))


class TestPadding:
    @BACKENDS
    def test_is_what_normalising_makes_zero(self, backend: str, picture: Callable[..., PILImage.Image]) -> None:
        """Zeros after normalising are the mean before it, as the nearest byte; all other pixels are the library's."""
        options = {"size": {"height": 20, "width": 28}, "do_pad": True, "pad_size": BOX, "image_mean": [0.1, 0.4, 0.8]}
        processor, preprocessing = made("ViTImageProcessor", backend, options)
        assert preprocessing.size == (32, 32)
        pixels = preprocessing.picture_bytes(picture(), 32, 32)
        expected = processor(images=picture(), return_tensors="pt")["pixel_values"][0]
        found = preprocessing.network_input(pixels.unsqueeze(0).float() / 255)[0]
        torch.testing.assert_close(found[:, :20, :28], expected[:, :20, :28], rtol=1e-5, atol=1e-5)
        half_a_level = 0.5 / 255 / min(preprocessing.std)
        torch.testing.assert_close(found, expected, rtol=0, atol=half_a_level + 1e-6)
        assert pixels[:, 25, 3].tolist() == pixels[:, 3, 30].tolist() == [26, 102, 204]

    @BACKENDS
    def test_of_gray_pictures_is_the_mean_of_the_colours(
        self, backend: str, picture: Callable[..., PILImage.Image]
    ) -> None:
        options = {"size": {"height": 20, "width": 28}, "do_pad": True, "pad_size": BOX, "image_mean": [0.1, 0.3, 0.8]}
        _, preprocessing = made("ViTImageProcessor", backend, options)
        pixels = preprocessing.picture_bytes(picture(mode="L"), 32, 32)
        assert pixels.shape == (1, 32, 32)
        assert pixels[0, 25].unique().tolist() == [102]

    @BACKENDS
    def test_at_another_size_is_in_proportion(self, backend: str, picture: Callable[..., PILImage.Image]) -> None:
        options = {"size": {"height": 20, "width": 28}, "do_pad": True, "pad_size": BOX, "image_mean": [0.1, 0.4, 0.8]}
        _, preprocessing = made("ViTImageProcessor", backend, options)
        pixels = preprocessing.picture_bytes(picture(), 64, 64)
        assert pixels[:, 41, 3].tolist() == pixels[:, 3, 57].tolist() == [26, 102, 204]


def test_the_fingerprint_sees_processor_and_statistics_but_no_memory_of_questions() -> None:
    _, preprocessing = made("ViTImageProcessor", "", {"size": BOX})
    before = repr(preprocessing)
    geometry = preprocessing.geometry
    assert isinstance(geometry, ProcessorGeometry)
    assert geometry.keeps_view((32, 32), (64, 64))
    assert repr(preprocessing) == before
