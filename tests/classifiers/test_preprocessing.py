"""Preprocessing: statistics, sizes, channels, and the part of a picture that a network is used to see."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image as PILImage
from torch import Tensor

from robustify.classifiers import Preprocessing, ResizeCrop
from robustify.classifiers.preprocessing import Geometry, with_channels
from robustify.errors import InputError

MEAN, STD, SIZE = (0.1, 0.4, 0.8), (0.5, 0.25, 0.2), (6, 8)
PREPROCESSING = Preprocessing(MEAN, STD, SIZE)


class Corner(Geometry):
    """Shows the upper left corner: a larger one at a larger size."""

    interpolation = "bilinear"

    def __call__(self, picture: PILImage.Image, height: int, width: int) -> Tensor:
        return torch.from_numpy(np.array(picture.crop((0, 0, width, height)))).permute(2, 0, 1)

    def keeps_view(self, own: tuple[int, int], other: tuple[int, int]) -> bool:
        return own == other

    def __str__(self) -> str:
        return "corner"


class TestView:
    def test_of_a_geometry_that_changes_with_the_size_is_the_networks_own(self) -> None:
        picture = PILImage.new("RGB", (64, 64), "white")
        picture.paste((200, 100, 0), (0, 0, 8, 6))
        preprocessing = Preprocessing(MEAN, STD, SIZE, Corner())
        assert preprocessing.geometry(picture, 12, 16).amax() == 255
        found = preprocessing.picture_bytes(picture, 12, 16)
        assert found.dtype == torch.uint8
        assert [channel.unique().tolist() for channel in found] == [[200], [100], [0]]
        assert found.shape == (3, 12, 16)

    @pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
    def test_before_a_denoiser_of_another_shape_is_the_networks_own(
        self, crop_mode: str, picture: Callable[..., PILImage.Image]
    ) -> None:
        """A square one before an oblong network: a square crop, squashed again, would be another picture."""
        preprocessing = Preprocessing(MEAN, STD, (24, 40), ResizeCrop("bilinear", 0.8, crop_mode))
        own = preprocessing.picture_bytes(picture(), 24, 40)
        square = preprocessing.picture_bytes(picture(), 40, 40)
        torch.testing.assert_close(own, preprocessing.geometry(picture(), 24, 40), rtol=0, atol=0)
        resized = F.interpolate(own.unsqueeze(0).float(), (40, 40), mode="bilinear", antialias=True)[0]
        torch.testing.assert_close(square, resized.round().to(torch.uint8), rtol=0, atol=0)

    def test_of_the_same_shape_is_made_at_once(self, picture: Callable[..., PILImage.Image]) -> None:
        preprocessing = Preprocessing(MEAN, STD, (24, 40))
        expected = preprocessing.geometry(picture(), 48, 80)
        torch.testing.assert_close(preprocessing.picture_bytes(picture(), 48, 80), expected, rtol=0, atol=0)


class TestPreprocessing:
    def test_is_plain_data(self) -> None:
        assert Preprocessing(MEAN, STD, SIZE) == PREPROCESSING != Preprocessing(STD, MEAN, SIZE)
        assert PREPROCESSING.channels == 3
        assert str(Preprocessing(MEAN, STD, SIZE)) == (
            "bicubic resize, center crop keeping 1; network sees 6×8, mean (0.1, 0.4, 0.8), std (0.5, 0.25, 0.2)"
        )

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"mean": (0.5,)}, r"mean and std of 1 or 3 channels each; got \(0\.5,\)"),
            ({"mean": (0.5, 0.5), "std": (1.0, 1.0)}, "1 or 3 channels"),
            ({"mean": (), "std": ()}, "1 or 3 channels"),
            ({"std": (0.5, 0.0, 0.5)}, r"positive std per channel; got .* and \(0\.5, 0\.0, 0\.5\)"),
            ({"std": (0.5, -1.0, 0.5)}, "positive std"),
            ({"size": (32, 0)}, r"size=\(height, width\) in pixels; got \(32, 0\)"),
            ({"size": (-1, 32)}, r"size=\(height, width\)"),
        ],
        ids=str,
    )
    def test_refuses(self, changes: dict[str, tuple[float, ...]], reason: str) -> None:
        with pytest.raises(InputError, match=reason):
            Preprocessing(**{"mean": MEAN, "std": STD, "size": SIZE, **changes})

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"crop_mode": "middle"}, "expected crop_mode center, squash or border; got 'middle'"),
            ({"crop_pct": 0.0}, "expected crop_pct > 0; got 0"),
            ({"crop_pct": float("nan")}, "expected crop_pct > 0"),
        ],
        ids=str,
    )
    def test_geometry_refuses(self, changes: dict[str, object], reason: str) -> None:
        with pytest.raises(InputError, match=reason):
            ResizeCrop(**changes)


class TestChannels:
    @pytest.mark.parametrize("mode", ["L", "1", "LA"])
    def test_gray_stays_gray(self, mode: str) -> None:
        assert with_channels(PILImage.new(mode, (4, 3)), 1).mode == "L"

    @pytest.mark.parametrize("mode", ["L", "1", "LA", "RGB", "RGBA", "P", "CMYK"])
    def test_everything_becomes_rgb(self, mode: str) -> None:
        assert with_channels(PILImage.new(mode, (4, 3)), 3).mode == "RGB"

    def test_no_copy_without_need(self) -> None:
        picture = PILImage.new("RGB", (4, 3))
        assert with_channels(picture, 3) is picture

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
    def test_gray_saved_as_colour_is_gray_again(self, mode: str) -> None:
        gray = PILImage.linear_gradient("L")
        found = with_channels(gray.convert(mode), 1)
        assert (found.mode, found.tobytes()) == ("L", gray.tobytes())

    @pytest.mark.parametrize("color", [(9, 9, 8), (9, 8, 9), (8, 9, 9)], ids=str)
    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK"])
    def test_colour_never_becomes_gray(self, mode: str, color: tuple[int, int, int]) -> None:
        picture = PILImage.new("RGB", (4, 3))
        picture.putpixel((3, 2), color)
        with pytest.raises(InputError, match=rf"gray picture; got PIL mode '{mode}' with colours.*\n.*--gray"):
            with_channels(picture.quantize() if mode == "P" else picture.convert(mode), 1)

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("mode", ["I;16", "I", "F"])
    def test_more_than_8_bits_are_not_cut_at_255(self, mode: str, channels: int) -> None:
        with pytest.raises(InputError, match=f"8 bits per channel; got PIL mode '{mode}'.*\n.*0 to 255"):
            with_channels(PILImage.new(mode, (4, 3)), channels)
