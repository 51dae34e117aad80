"""Pictures as cameras and designers make them: turned, see-through, deeper than 8 bits, in colour for a gray model."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, ImageOps
from PIL import Image as PILImage
from torch import Tensor

from robustify.classifiers import Preprocessing, ResizeCrop
from robustify.contract import InputContract
from robustify.errors import InputError
from robustify.smoothing.inputs import picture_rules, to_pixels
from tests.toys import MakePicture

SIZE = (12, 20)
WHOLE = Preprocessing((0.5,) * 3, (0.5,) * 3, SIZE, ResizeCrop("nearest", crop_pct=1.0))
"""Pictures of 20×12 pixels pass its geometry unchanged."""

RGB, GRAY = InputContract(3, *SIZE), InputContract(1, *SIZE)
CONTRACTS = pytest.mark.parametrize("contract", [RGB, GRAY], ids=["rgb", "gray"])

TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda seen: seen,
    2: lambda seen: seen[:, ::-1],
    3: lambda seen: seen[::-1, ::-1],
    4: lambda seen: seen[::-1],
    5: lambda seen: seen.swapaxes(0, 1),
    6: lambda seen: np.rot90(seen, 1),
    7: lambda seen: np.rot90(seen, 1)[:, ::-1],
    8: lambda seen: np.rot90(seen, -1),
}
"""What a camera stores of what is seen, by the orientation that it notes (Exif 2.3, tag 274)."""


def bytes_of(picture: PILImage.Image) -> Tensor:
    """Pixels as bytes, shape (C, H, W)."""
    array = np.asarray(picture)
    return torch.from_numpy(array.copy()).reshape(*array.shape[:2], -1).permute(2, 0, 1)


def seen(given: PILImage.Image | Path, contract: InputContract = RGB, preprocessing: Preprocessing = WHOLE) -> Tensor:
    """The pixels that are certified, as bytes."""
    pixels = to_pixels(given, preprocessing, contract)
    return (pixels * 255).round().to(torch.uint8)


def noted(orientation: int) -> PILImage.Exif:
    """EXIF data with an orientation and a camera."""
    exif = PILImage.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Model] = "camera"
    return exif


class TestOrientation:
    @pytest.mark.parametrize("suffix", ["png", "tiff", "webp"])
    @pytest.mark.parametrize("orientation", TURNS)
    def test_of_files_is_undone(self, orientation: int, suffix: str, tmp_path: Path, picture: MakePicture) -> None:
        upright = picture(20, 12)
        stored = PILImage.fromarray(np.ascontiguousarray(TURNS[orientation](np.asarray(upright))))
        file = tmp_path / f"photo.{suffix}"
        stored.save(file, exif=noted(orientation), lossless=True)
        assert torch.equal(seen(file), bytes_of(upright))

    @pytest.mark.parametrize("orientation", TURNS)
    def test_of_jpeg_files_is_undone(self, orientation: int, tmp_path: Path, picture: MakePicture) -> None:
        stored, file = picture(32, 48).resize((97, 61)), tmp_path / "photo.jpg"
        stored.save(file, exif=noted(orientation), quality=95)
        expected = ImageOps.exif_transpose(PILImage.open(file))
        assert torch.equal(seen(file), seen(PILImage.fromarray(np.asarray(expected))))
        if orientation != 1:
            assert not torch.equal(seen(file), seen(PILImage.fromarray(np.asarray(PILImage.open(file)))))

    def test_of_pictures_given_is_undone_once(self, tmp_path: Path, picture: MakePicture) -> None:
        PILImage.fromarray(np.rot90(np.asarray(picture(20, 12)), 1).copy()).save(tmp_path / "a.png", exif=noted(6))
        with PILImage.open(tmp_path / "a.png") as given:
            assert torch.equal(seen(given), bytes_of(picture(20, 12)))
            upright = ImageOps.exif_transpose(given)
        assert torch.equal(seen(upright), bytes_of(picture(20, 12)))

    @pytest.mark.parametrize("orientation", [0, 9, 65535])
    def test_that_means_nothing_turns_nothing(self, orientation: int, tmp_path: Path, picture: MakePicture) -> None:
        picture(20, 12).save(tmp_path / "photo.png", exif=noted(orientation))
        assert torch.equal(seen(tmp_path / "photo.png"), bytes_of(picture(20, 12)))

    def test_that_cannot_be_read_is_an_error_of_ours(self, tmp_path: Path, picture: MakePicture) -> None:
        picture(20, 12).save(tmp_path / "photo.png", exif=b"Exif\0\0no TIFF header")
        with pytest.raises(InputError, match=r"cannot read an image from '.*photo\.png': .*TIFF"):
            seen(tmp_path / "photo.png")
        with PILImage.open(tmp_path / "photo.png") as given, pytest.raises(InputError, match=r"PIL picture: .*TIFF"):
            seen(given)

    def test_of_damaged_data_is_read_or_refused(self, picture: MakePicture) -> None:
        """PIL itself raises errors of several kinds at these."""
        exif, generator = noted(6), np.random.default_rng(0)
        exif[ExifTags.IFD.Exif] = {ExifTags.Base.DateTimeOriginal: "2020:01:01 00:00:00"}
        whole, read = exif.tobytes(), 0
        for _ in range(2_000):
            damaged = bytearray(whole)
            for place in generator.integers(len(whole), size=generator.integers(1, 6)):
                damaged[place] = generator.integers(256)
            given = picture(20, 12)
            given.info["exif"] = bytes(damaged)
            try:
                seen(given)
            except InputError:
                continue
            read += 1
        assert 1_000 < read < 1_900

    def test_pictures_given_are_decoded_or_refused(self, tmp_path: Path, picture: MakePicture) -> None:
        file = tmp_path / "cut.jpg"
        picture(97, 61).save(file)
        file.write_bytes(file.read_bytes()[:1500])
        with PILImage.open(file) as given, pytest.raises(InputError, match="cannot read an image from a PIL picture"):
            seen(given)


def with_alpha(mode: str, alpha: np.ndarray, picture: PILImage.Image) -> PILImage.Image:
    """The picture in a mode with an opacity for each pixel."""
    gray = mode.lower() == "la"
    layered = picture.convert("L" if gray else "RGB")
    layered.putalpha(PILImage.fromarray(alpha))
    return layered if layered.mode == mode else layered.convert(mode)


class TestTransparency:
    @CONTRACTS
    @pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa", "La"])
    def test_nothing_shows_of_what_is_fully_transparent(
        self, mode: str, contract: InputContract, picture: MakePicture
    ) -> None:
        given = with_alpha(mode, np.zeros((12, 20), np.uint8), picture(20, 12))
        assert bool((seen(given, contract) == 255).all())

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa", "La"])
    def test_what_is_opaque_stays_exact(self, mode: str, picture: MakePicture) -> None:
        opaque = picture(20, 12).quantize(16).convert("RGB")
        given = with_alpha(mode, np.full((12, 20), 255, np.uint8), opaque)
        assert torch.equal(
            seen(given), bytes_of(opaque.convert("L").convert("RGB") if mode in ("LA", "La") else opaque)
        )

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_the_rest_is_a_mean_of_itself_and_white(self, mode: str, picture: MakePicture) -> None:
        alpha = np.random.default_rng(1).integers(0, 256, (12, 20), dtype=np.uint8)
        given = with_alpha(mode, alpha, picture(20, 12))
        beneath = bytes_of((given.convert("LA") if mode == "LA" else given).convert("RGBA")).double()
        share = beneath[3:] / 255
        blended = beneath[:3] * share + 255 * (1 - share)
        torch.testing.assert_close(seen(given).double(), blended, rtol=0, atol=0.5 + 1e-9)

    @CONTRACTS
    @pytest.mark.parametrize("suffix", ["png", "gif"])
    def test_of_one_colour_of_a_palette(
        self, suffix: str, contract: InputContract, tmp_path: Path, picture: MakePicture
    ) -> None:
        palette = picture(20, 12, "L").quantize(16)
        palette.save(tmp_path / f"a.{suffix}", transparency=3)
        found = seen(tmp_path / f"a.{suffix}", contract)
        with PILImage.open(tmp_path / f"a.{suffix}") as stored:
            hidden = torch.from_numpy(np.asarray(stored) == stored.info["transparency"])
        assert 0 < int(hidden.sum()) < 240
        plain = bytes_of(palette.convert("RGB"))[: contract.channels]
        assert torch.equal(found, torch.where(hidden, torch.tensor(255, dtype=torch.uint8), plain))

    def test_of_each_colour_of_a_palette(self, tmp_path: Path, picture: MakePicture) -> None:
        palette = picture(20, 12).quantize(16)
        palette.save(tmp_path / "a.png", transparency=bytes(range(0, 256, 17)))
        opacity = (17 * np.asarray(palette)).astype(np.uint8)
        assert torch.equal(seen(tmp_path / "a.png"), seen(with_alpha("RGBA", opacity, palette.convert("RGB"))))

    def test_of_a_palette_that_holds_it(self) -> None:
        palette = PILImage.new("P", (20, 12), 1)
        palette.putpalette([10, 20, 30, 255, 40, 50, 60, 0], "RGBA")
        assert bool((seen(palette) == 255).all())

    @CONTRACTS
    @pytest.mark.parametrize("mode", ["L", "RGB", "1"])
    def test_of_one_colour_of_a_picture_without_palette(
        self, mode: str, contract: InputContract, tmp_path: Path, picture: MakePicture
    ) -> None:
        given = picture(20, 12, "L").convert(mode)
        hidden = np.asarray(given.convert("L")) == np.asarray(given.convert("L"))[5, 5]
        colour = given.getpixel((5, 5))
        given.save(tmp_path / "a.png", transparency=colour)
        expected = np.where(hidden, 255, np.asarray(given.convert("L")))
        found = seen(tmp_path / "a.png", contract)
        assert torch.equal(found, torch.from_numpy(expected.astype(np.uint8)).expand(contract.shape))
        if mode != "1":
            assert not bool((found == torch.as_tensor(given.convert("L").getpixel((5, 5)))).any())


class TestDepth:
    @CONTRACTS
    @pytest.mark.parametrize("mode", ["I", "F", "I;16", "I;16B", "I;16L"])
    def test_one_channel_of_more_than_8_bits_is_refused(self, mode: str, contract: InputContract) -> None:
        with pytest.raises(InputError, match=rf"8 bits per channel; got PIL mode '{mode}'\.\n.*convert it to 'L'"):
            seen(PILImage.new(mode, (20, 12)), contract)

    @CONTRACTS
    @pytest.mark.parametrize(("suffix", "dtype"), [("png", "uint16"), ("tiff", "uint16"), ("tiff", "float32")])
    def test_so_are_their_files(self, suffix: str, dtype: str, contract: InputContract, tmp_path: Path) -> None:
        deep = PILImage.fromarray(np.linspace(0, 65535, 240).reshape(12, 20).astype(dtype))
        deep.save(tmp_path / f"deep.{suffix}")
        with pytest.raises(InputError, match="8 bits per channel"):
            seen(tmp_path / f"deep.{suffix}", contract)

    def test_colours_of_16_bits_keep_their_higher_byte(self, tmp_path: Path) -> None:
        """PIL reads them so: rounded down to 8 bits, never cut at 255."""
        values = np.linspace(0, 65535, 720).reshape(12, 20, 3).astype(">u2")
        lines = b"".join(b"\0" + row.tobytes() for row in values)

        def chunk(kind: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        header = struct.pack(">IIBBBBB", 20, 12, 16, 2, 0, 0, 0)
        parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
        (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
        expected = torch.from_numpy((values >> 8).astype(np.uint8)).permute(2, 0, 1)
        assert torch.equal(seen(tmp_path / "deep.png"), expected)


class TestGray:
    TAKES_COLOUR = replace(WHOLE, gray=True)

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK"])
    def test_colour_is_refused_and_the_option_named(self, mode: str, picture: MakePicture) -> None:
        with pytest.raises(InputError, match=rf"a gray picture; got PIL mode '{mode}' with.*\n.*--gray.*'gray=True'"):
            seen(picture(20, 12).convert(mode), GRAY)

    def test_colour_becomes_its_luma_where_that_is_wanted(self, picture: MakePicture) -> None:
        found = seen(picture(20, 12), GRAY, self.TAKES_COLOUR).double()
        weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).view(3, 1, 1)  # ITU-R BT.601
        expected = (bytes_of(picture(20, 12)).double() * weights).sum(dim=0, keepdim=True)
        torch.testing.assert_close(found, expected, rtol=0, atol=0.51)

    @pytest.mark.parametrize("mode", ["L", "RGB"])
    def test_gray_stays_as_it_is(self, mode: str, picture: MakePicture) -> None:
        gray = picture(20, 12, "L")
        assert torch.equal(seen(gray.convert(mode), GRAY, self.TAKES_COLOUR), bytes_of(gray))

    def test_colours_stay_for_a_colour_model(self, picture: MakePicture) -> None:
        assert torch.equal(seen(picture(20, 12), RGB, self.TAKES_COLOUR), bytes_of(picture(20, 12)))

    def test_transparent_parts_are_white_before(self, picture: MakePicture) -> None:
        given = picture(20, 12)
        given.putalpha(0)
        assert bool((seen(given, GRAY, self.TAKES_COLOUR) == 255).all())

    def test_runs_record_the_rules(self) -> None:
        assert picture_rules(WHOLE) == {"orientation": "exif", "transparency": "white", "gray": False}
        assert picture_rules(self.TAKES_COLOUR)["gray"] is True

    def test_it_is_no_part_of_the_network(self) -> None:
        """Attempts at the same pixels count together in a ledger, however the pixels were made."""
        assert repr(self.TAKES_COLOUR) == repr(WHOLE)
        assert "colours made gray" in str(self.TAKES_COLOUR)
        assert "gray" not in str(WHOLE)
