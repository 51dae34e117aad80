"""Whatever holds an image becomes the same pixels in [0, 1], or is refused before anything is computed."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from torch import Tensor

from robustify.classifiers import Preprocessing, ResizeCrop
from robustify.contract import InputContract
from robustify.errors import InputError
from robustify.smoothing.inputs import is_batch, read_picture, to_pixels

RGB = InputContract(3, 12, 20)
GRAY = InputContract(1, 12, 20)
GEOMETRY = ResizeCrop("bilinear", crop_pct=0.8)
COLOUR = Preprocessing((0.1, 0.4, 0.8), (0.5, 0.25, 0.2), (12, 20), GEOMETRY)
"""The statistics must not matter here: they belong to the classifier, after the noise."""

Given = np.ndarray | Tensor


def bytes_of(contract: InputContract) -> np.ndarray:
    """Every byte there is, once or more, of shape (C, H, W)."""
    values = np.arange(np.prod(contract.shape)) * 7
    return values.astype(np.uint8).reshape(contract.shape)


def as_bytes(picture: PILImage.Image) -> Tensor:
    array = np.asarray(picture)
    return torch.from_numpy(array.copy()).reshape(*array.shape[:2], -1).permute(2, 0, 1)


class TestArraysAndTensors:
    @pytest.mark.parametrize("contract", [RGB, GRAY], ids=["rgb", "gray"])
    @pytest.mark.parametrize("make", [np.asarray, torch.from_numpy], ids=["array", "tensor"])
    def test_bytes_are_divided_by_255_exactly(
        self, make: Callable[[np.ndarray], Given], contract: InputContract
    ) -> None:
        given = bytes_of(contract)
        pixels = to_pixels(make(given), COLOUR, contract)
        expected = torch.from_numpy(given).float() / torch.tensor(255.0)
        assert pixels.dtype is torch.float32
        torch.testing.assert_close(pixels, expected, rtol=0, atol=0)

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    @pytest.mark.parametrize("make", [np.asarray, torch.from_numpy], ids=["array", "tensor"])
    def test_floats_stay_as_they_are(self, make: Callable[[np.ndarray], Given], dtype: str) -> None:
        given = np.linspace(0, 1, 3 * 12 * 20).reshape(RGB.shape).astype(dtype)
        pixels = to_pixels(make(given), COLOUR, RGB)
        assert pixels.dtype is torch.float32
        np.testing.assert_array_equal(pixels.numpy(), given.astype("float32"))

    def test_height_width_channels_as_pictures_have_it(self) -> None:
        given = bytes_of(RGB)
        pixels = to_pixels(np.moveaxis(given, 0, 2), COLOUR, RGB)
        torch.testing.assert_close(pixels, torch.from_numpy(given) / 255, rtol=0, atol=0)

    @pytest.mark.parametrize("shape", [(12, 20), (1, 12, 20), (12, 20, 1)], ids=str)
    def test_gray_arrays(self, shape: tuple[int, ...]) -> None:
        given = bytes_of(GRAY)
        pixels = to_pixels(given.reshape(shape), COLOUR, GRAY)
        torch.testing.assert_close(pixels, torch.from_numpy(given) / 255, rtol=0, atol=0)

    def test_views_with_negative_strides(self) -> None:
        given = bytes_of(RGB)
        pixels = to_pixels(given[:, ::-1], COLOUR, RGB)
        torch.testing.assert_close(pixels, torch.from_numpy(given).flip(1) / 255, rtol=0, atol=0)

    def test_read_only_arrays(self) -> None:
        given = bytes_of(RGB)
        given.flags.writeable = False
        assert to_pixels(given, COLOUR, RGB).shape == RGB.shape

    def test_arrays_of_the_other_byte_order(self) -> None:
        given = np.linspace(0, 1, 3 * 12 * 20).reshape(RGB.shape).astype(">f4")
        np.testing.assert_array_equal(to_pixels(given, COLOUR, RGB).numpy(), given.astype("<f4"))

    def test_no_gradient_flows_back(self) -> None:
        given = torch.rand(RGB.shape, requires_grad=True)
        assert not to_pixels(given, COLOUR, RGB).requires_grad

    @pytest.mark.parametrize("value", [0.0, 1.0])
    def test_ends_of_the_range_are_inside(self, value: float) -> None:
        assert bool((to_pixels(torch.full(RGB.shape, value), COLOUR, RGB) == value).all())

    def test_changing_pixels_leaves_bytes_alone(self) -> None:
        given = bytes_of(RGB)
        kept = given.copy()
        to_pixels(given, COLOUR, RGB).zero_()
        np.testing.assert_array_equal(given, kept)


class TestValues:
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")], ids=str)
    @pytest.mark.parametrize("make", [np.asarray, torch.from_numpy], ids=["array", "tensor"])
    def test_not_finite(self, make: Callable[[np.ndarray], Given], value: float) -> None:
        given = np.full(RGB.shape, 0.5)
        given[1, 2, 3] = value
        with pytest.raises(InputError, match="finite pixels; got NaN or infinity"):
            to_pixels(make(given), COLOUR, RGB)

    @pytest.mark.parametrize(
        ("low", "high", "reason"),
        [
            (0, 255, r"got values from 0 to 255\.\n.*divide by 255"),
            (0, 2.1, "divide by 255"),
            (-2.1, 2.0, r"got values from -2\.1 to 2\.\n.*normalisation"),
            (-0.001, 0.5, r"values from -0\.001 to 0\.5\.\n.*normalisation"),
            (0.5, 1.001, r"values from 0\.5 to 1\.001\.\n.*normalisation"),
        ],
    )
    def test_outside_zero_to_one(self, low: float, high: float, reason: str) -> None:
        given = np.linspace(low, high, 3 * 12 * 20).reshape(RGB.shape)
        with pytest.raises(
            InputError, match=rf"(?s)expected pixels in \[0, 1\]; {reason}" if "got" in reason else reason
        ):
            to_pixels(given, COLOUR, RGB)

    @pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint16"])
    @pytest.mark.parametrize("make", [np.asarray, torch.from_numpy], ids=["array", "tensor"])
    def test_integers_that_are_not_bytes(self, make: Callable[[np.ndarray], Given], dtype: str) -> None:
        given = make(np.ones(RGB.shape, dtype))
        with pytest.raises(InputError, match=rf"expected uint8.*got torch\.{dtype}\.\n.*torch\.uint8"):
            to_pixels(given, COLOUR, RGB)

    @pytest.mark.parametrize("dtype", ["bool", "complex64", "U1", "object"])
    def test_arrays_of_no_numbers(self, dtype: str) -> None:
        with pytest.raises(InputError, match="expected an array of numbers; got dtype"):
            to_pixels(np.zeros(RGB.shape, dtype), COLOUR, RGB)

    @pytest.mark.parametrize("dtype", [torch.bool, torch.complex64])
    def test_tensors_of_no_numbers(self, dtype: torch.dtype) -> None:
        with pytest.raises(InputError, match=rf"expected uint8.*got {dtype}"):
            to_pixels(torch.zeros(RGB.shape, dtype=dtype), COLOUR, RGB)


class TestShapes:
    @pytest.mark.parametrize(
        "shape",
        [(1, 12, 20), (4, 12, 20), (3, 20, 12), (3, 12, 21), (3, 24, 40), (12, 20), (20, 12, 3), (12, 20, 4)],
        ids=str,
    )
    def test_arrays_are_never_resized_or_turned(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(InputError, match=r"expected an image of shape \(3, 12, 20\).*got .*\n.*path or PIL"):
            to_pixels(np.zeros(shape), COLOUR, RGB)

    @pytest.mark.parametrize("shape", [(3, 12, 20), (20, 12), (2, 12, 20)], ids=str)
    def test_colour_never_becomes_gray(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(InputError, match=r"expected an image of shape \(1, 12, 20\)"):
            to_pixels(np.zeros(shape), COLOUR, GRAY)

    @pytest.mark.parametrize("shape", [(12, 20, 3), (12, 20), (1, 3, 12, 20), ()], ids=str)
    def test_tensors_have_channels_first(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(InputError, match=r"expected an image of shape \(3, 12, 20\).*got \("):
            to_pixels(torch.zeros(shape), COLOUR, RGB)

    @pytest.mark.parametrize("shape", [(), (12,), (1, 3, 12, 20)], ids=str)
    def test_arrays_have_2_or_3_axes(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(InputError, match="expected an array of 2 or 3 axes; got shape"):
            to_pixels(np.zeros(shape), COLOUR, RGB)

    def test_equal_sides_are_read_as_pictures_are(self) -> None:
        """Where (H, W, C) and (C, H, W) are the same shape, the picture's order wins."""
        given = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
        pixels = to_pixels(given, COLOUR, InputContract(3, 3, 3))
        torch.testing.assert_close(pixels, torch.from_numpy(given).permute(2, 0, 1) / 255, rtol=0, atol=0)


class TestPictures:
    @pytest.mark.parametrize("size", [(97, 61), (61, 97), (7, 5)], ids=["wide", "tall", "small"])
    def test_are_resized_by_the_classifiers_geometry(
        self, size: tuple[int, int], picture: Callable[..., PILImage.Image]
    ) -> None:
        pixels = to_pixels(picture(*size), COLOUR, RGB)
        assert pixels.shape == RGB.shape
        torch.testing.assert_close(pixels, GEOMETRY(picture(*size), 12, 20) / 255, rtol=0, atol=0)

    def test_of_the_contracts_size_stay_exact(self, picture: Callable[..., PILImage.Image]) -> None:
        whole = Preprocessing(COLOUR.mean, COLOUR.std, COLOUR.size, ResizeCrop(crop_pct=1.0))
        given = picture(20, 12)
        torch.testing.assert_close(to_pixels(given, whole, RGB), as_bytes(given) / 255, rtol=0, atol=0)

    def test_follow_the_contract_not_the_network(self, picture: Callable[..., PILImage.Image]) -> None:
        pixels = to_pixels(picture(), COLOUR, InputContract(3, 24, 40))
        torch.testing.assert_close(pixels, GEOMETRY(picture(), 24, 40) / 255, rtol=0, atol=0)

    def test_gray_becomes_rgb(self, picture: Callable[..., PILImage.Image]) -> None:
        gray = picture(mode="L")
        pixels = to_pixels(gray, COLOUR, RGB)
        torch.testing.assert_close(pixels, to_pixels(gray, COLOUR, GRAY).expand(3, -1, -1), rtol=0, atol=0)

    @pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK", "LA", "1", "YCbCr", "HSV", "LAB"])
    def test_other_modes_become_rgb(self, mode: str, picture: Callable[..., PILImage.Image]) -> None:
        given = PILImage.new("LAB", (97, 61), (90, 110, 140)) if mode == "LAB" else picture().convert(mode)
        expected = to_pixels(given.convert("RGB"), COLOUR, RGB)
        torch.testing.assert_close(to_pixels(given, COLOUR, RGB), expected, rtol=0, atol=0)

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
    def test_colour_never_becomes_gray(self, mode: str, picture: Callable[..., PILImage.Image]) -> None:
        with pytest.raises(InputError, match=f"a gray picture; got PIL mode '{mode}'"):
            to_pixels(picture().convert(mode), COLOUR, GRAY)


class TestFiles:
    @pytest.mark.parametrize("kind", [str, Path])
    @pytest.mark.parametrize("suffix", ["png", "bmp", "tiff"])
    def test_are_read_as_pictures(
        self, suffix: str, kind: Callable[[Path], str | Path], tmp_path: Path, picture: Callable[..., PILImage.Image]
    ) -> None:
        file = tmp_path / f"picture.{suffix}"
        picture().save(file)
        expected = to_pixels(picture(), COLOUR, RGB)
        torch.testing.assert_close(to_pixels(kind(file), COLOUR, RGB), expected, rtol=0, atol=0)

    def test_file_is_closed_and_its_pixels_are_in_memory(
        self, tmp_path: Path, picture: Callable[..., PILImage.Image]
    ) -> None:
        file = tmp_path / "picture.png"
        picture().save(file)
        found = read_picture(file)
        file.unlink()
        assert found.tobytes() == picture().tobytes()

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"cannot read an image from '.*nowhere\.png': .*No such file"):
            to_pixels(tmp_path / "nowhere.png", COLOUR, RGB)

    def test_folder(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=f"cannot read an image from '{tmp_path}'"):
            to_pixels(str(tmp_path), COLOUR, RGB)

    def test_not_a_picture(self, tmp_path: Path) -> None:
        (tmp_path / "text.png").write_text("no picture")
        with pytest.raises(InputError, match=r"cannot read an image from .*cannot identify"):
            to_pixels(tmp_path / "text.png", COLOUR, RGB)

    @pytest.mark.parametrize("suffix", ["png", "jpeg"])
    def test_cut_short(self, suffix: str, tmp_path: Path, picture: Callable[..., PILImage.Image]) -> None:
        file = tmp_path / f"picture.{suffix}"
        picture().save(file)
        file.write_bytes(file.read_bytes()[:1500])
        with pytest.raises(InputError, match=f"cannot read an image from '{file}'"):
            to_pixels(file, COLOUR, RGB)

    def test_damaged_between_its_parts(self, tmp_path: Path, picture: Callable[..., PILImage.Image]) -> None:
        file = tmp_path / "picture.png"
        picture(200, 200).save(file)
        first, second, rest = file.read_bytes().split(b"IDAT", 2)
        file.write_bytes(first + b"IDAT" + second + bytes(4) + rest)
        with pytest.raises(InputError, match=r"cannot read an image from .*broken PNG"):
            to_pixels(file, COLOUR, RGB)

    def test_damaged_header(self, tmp_path: Path) -> None:
        (tmp_path / "picture.ppm").write_text("P6 123456789012345678901234567890 1 255 ")
        with pytest.raises(InputError, match=r"cannot read an image from .*too long"):
            to_pixels(tmp_path / "picture.ppm", COLOUR, RGB)

    def test_large_ones_are_read_without_a_warning(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Callable[..., PILImage.Image]
    ) -> None:
        picture().save(tmp_path / "large.png")
        monkeypatch.setattr(PILImage, "MAX_IMAGE_PIXELS", 97 * 61 - 1)
        assert read_picture(tmp_path / "large.png").size == (97, 61)

    def test_too_large_to_be_a_picture(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Callable[..., PILImage.Image]
    ) -> None:
        picture().save(tmp_path / "bomb.png")
        monkeypatch.setattr(PILImage, "MAX_IMAGE_PIXELS", 1000)
        with pytest.raises(InputError, match=r"cannot read an image.*decompression bomb"):
            to_pixels(tmp_path / "bomb.png", COLOUR, RGB)


def test_masked_pixels_are_refused() -> None:
    image = np.ma.MaskedArray(np.full((12, 20, 3), 7, np.uint8), mask=False)
    assert to_pixels(image, COLOUR, RGB).shape == RGB.shape  # nothing is masked
    image[0, 0] = np.ma.masked
    with pytest.raises(InputError, match=r"expected an array whose pixels all count; 3 are masked.\n.*filled\(0\)"):
        to_pixels(image, COLOUR, RGB)


class TestBatches:
    @pytest.mark.parametrize(
        ("images", "batch"),
        [
            ("picture.png", False),
            (Path("picture.png"), False),
            (PILImage.new("L", (2, 2)), False),
            (np.zeros((12, 20)), False),
            (np.zeros((3, 12, 20)), False),
            (torch.zeros(3, 12, 20), False),
            (np.zeros((1, 3, 12, 20)), True),
            (torch.zeros(1, 3, 12, 20), True),
            ([torch.zeros(3, 12, 20)], True),
            ((Path("a.png"), "b.png"), True),
            ([], True),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_are_lists_or_have_a_leading_axis(self, images: Sequence[Given] | Given | str | Path, batch: bool) -> None:
        assert is_batch(images) is batch
