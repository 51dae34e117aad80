"""Preprocessing of a classifier's images, as data from the classifier's own configuration.

The geometry (resize, crop) turns a picture of any size into the pixels that noise is added to. The rest runs after the
noise, inside the classifier: resize to the network's size where a denoiser works at another, gray to RGB, mean and
standard deviation.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from statistics import fmean
from typing import final

import torch
import torch.nn.functional as F
from PIL import Image as PILImage
from torch import Tensor

from robustify.errors import InputError
from robustify.types import Bytes, NetworkInput, Pixels

PIL_MODES = {1: "L", 3: "RGB"}


class Geometry(ABC):
    """Resizes and crops a picture, with the library that the classifier comes from."""

    interpolation: str
    """Interpolation of the resize: bilinear, bicubic, nearest or lanczos."""

    @abstractmethod
    def __call__(self, picture: PILImage.Image, height: int, width: int) -> Bytes:
        """Pixels as bytes of shape (C, height, width), with as many channels as the picture."""

    def keeps_view(self, own: tuple[int, int], other: tuple[int, int]) -> bool:
        """Whether pixels of height and width `other` show the same part of a picture as those of `own`.

        Where they do not, pictures are made at the network's own size and then resized. Here: if the shape is the same.
        """
        return own[0] * other[1] == own[1] * other[0]

    @abstractmethod
    def __str__(self) -> str:
        """A description in one line, which models print."""


@final
@dataclass(frozen=True)
class ResizeCrop(Geometry):
    """timm's evaluation geometry.

    Arguments:
        interpolation: bilinear, bicubic, nearest or lanczos.
        crop_pct: Share of the resized picture's edges that the crop keeps; 1 keeps all.
        crop_mode: `center` (shortest edge), `squash` (both edges) or `border` (longest edge, padded).
        border: Colour of the padding, one value in [0, 1] per channel; its mean where a picture has fewer channels.
    """

    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    crop_mode: str = "center"
    border: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        if self.crop_mode not in ("center", "squash", "border"):
            raise InputError(f"expected crop_mode center, squash or border; got {self.crop_mode!r}")
        if not self.crop_pct > 0:
            raise InputError(f"expected crop_pct > 0; got {self.crop_pct}")

    def __call__(self, picture: PILImage.Image, height: int, width: int) -> Bytes:
        from timm.data.transforms_factory import transforms_imagenet_eval

        channels = len(picture.getbands())
        border = self.border if len(self.border) == channels else (fmean(self.border),) * channels
        transform = transforms_imagenet_eval(
            img_size=(height, width),
            crop_pct=self.crop_pct,
            crop_mode=self.crop_mode,
            interpolation=self.interpolation,
            mean=border,
            normalize=False,
        )
        pixels: Tensor = transform(picture)
        return pixels

    def __str__(self) -> str:
        return f"{self.interpolation} resize, {self.crop_mode} crop keeping {self.crop_pct:g}"


def check_floating(pixels: Tensor) -> None:
    """Raises `InputError` where pixels are no floating-point numbers: bytes would count as 0 to 255."""
    if not pixels.is_floating_point():
        raise InputError(
            f"expected pixels in [0, 1] as floating-point numbers; got {pixels.dtype}.\n"
            "  Divide bytes by 255: pixels.float() / 255."
        )


@final
@dataclass(frozen=True)
class Preprocessing:
    """Conversion of pixels in [0, 1] to the input of a network.

    Arguments:
        mean: Mean of each channel, in [0, 1] pixels; as many numbers as the network has channels, 1 or 3.
        std: Standard deviation of each channel, in [0, 1] pixels, positive.
        size: Height and width of the network's input.
        geometry: Resize and crop of pictures of other sizes.
        gray: Whether colour pictures become gray where gray ones are needed, which are refused otherwise. No part of
            what the network is: the same pixels give the same answers.

    Raises:
        InputError: If the number of channels is not 1 or 3, or a standard deviation or size is not positive.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]
    geometry: Geometry = field(default_factory=ResizeCrop)
    gray: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        # Users may pass lists and arrays, and library configurations hold NumPy numbers; fingerprints need plain ones.
        object.__setattr__(self, "mean", tuple(map(float, self.mean)))
        object.__setattr__(self, "std", tuple(map(float, self.std)))
        if any(side != int(side) for side in self.size):
            raise InputError(f"expected size=(height, width) in whole pixels; got {self.size}")
        object.__setattr__(self, "size", tuple(map(int, self.size)))
        if len(self.mean) != len(self.std) or len(self.mean) not in PIL_MODES:
            raise InputError(f"expected mean and std of 1 or 3 channels each; got {self.mean} and {self.std}")
        if not all(0 < std < math.inf for std in self.std) or not all(map(math.isfinite, self.mean)):
            raise InputError(f"expected a finite mean and a positive std per channel; got {self.mean} and {self.std}")
        if len(self.size) != 2 or min(self.size) <= 0:
            raise InputError(f"expected size=(height, width) in pixels; got {self.size}")

    @property
    def channels(self) -> int:
        """Number of channels that the network expects: 1 or 3."""
        return len(self.mean)

    def mean_colour(self, channels: int) -> tuple[float, ...]:
        """The mean, in images of so many channels; its average where gray is repeated for a network of colours."""
        return self.mean if channels == self.channels else (fmean(self.mean),) * channels

    def __str__(self) -> str:
        mean = ", ".join(f"{v:.3g}" for v in self.mean)
        std = ", ".join(f"{v:.3g}" for v in self.std)
        gray = "colours made gray; " if self.gray else ""
        return f"{gray}{self.geometry}; network sees {self.size[0]}×{self.size[1]}, mean ({mean}), std ({std})"

    def picture_bytes(self, picture: PILImage.Image, height: int, width: int) -> Bytes:
        """Bytes of shape (C, height, width), which show the part of the picture that the network is used to.

        Made by the geometry; where its part of the picture depends on the size, at the network's own size first.
        """
        if self.geometry.keeps_view(self.size, (height, width)):
            return self.geometry(picture, height, width)
        own = self.geometry(picture, *self.size).unsqueeze(0)
        return self._resized(own.float(), (height, width))[0].round().clamp(0, 255).to(torch.uint8)

    def network_input(self, pixels: Pixels) -> NetworkInput:
        """Resizes pixels of another size, repeats gray for an RGB network, subtracts the mean, divides by std.

        Raises:
            InputError: If the pixels are no floating-point numbers, or have neither one channel nor as many as the
                network expects.
        """
        check_floating(pixels)
        if pixels.shape[1] not in (1, self.channels):
            raise InputError(f"expected {self.channels} channels; got {pixels.shape[1]}")
        if tuple(pixels.shape[-2:]) != self.size:
            pixels = self._resized(pixels, self.size)
        mean = torch.tensor(self.mean, dtype=pixels.dtype, device=pixels.device).view(-1, 1, 1)
        std = torch.tensor(self.std, dtype=pixels.dtype, device=pixels.device).view(-1, 1, 1)
        return (pixels - mean) / std

    def _resized(self, pixels: Tensor, size: tuple[int, int]) -> Tensor:
        """Floating-point pixels of another size, by the geometry's interpolation where torch has it smooth."""
        mode = self.geometry.interpolation
        mode = mode if mode in ("bilinear", "bicubic") else "bicubic"
        return F.interpolate(pixels, size, mode=mode, antialias=True)


def with_channels(picture: PILImage.Image, channels: int, *, gray: bool = False) -> PILImage.Image:
    """The picture with 1 or 3 channels of 8 bits; its transparent parts are on white, as transformers puts them.

    Gray becomes RGB; RGB with three equal channels becomes gray. Colours become gray only where that is wanted.

    Arguments:
        picture: A picture of any PIL mode. PIL itself keeps the higher byte of colours of 16 bits when it reads them.
        channels: 1 or 3.
        gray: Whether colours may become gray: their luma, as ITU-R BT.601 weights them.

    Raises:
        InputError: If colours would have to become gray, or the picture's one channel has more than 8 bits.
    """
    if picture.mode[0] in "IF":  # PIL would clip their values at 255
        raise InputError(
            f"expected a picture with 8 bits per channel; got PIL mode {picture.mode!r}.\n"
            "  Scale its values to 0 to 255 and convert it to 'L' first."
        )
    opaque = _on_white(picture) if picture.has_transparency_data else picture
    mode = PIL_MODES[channels]
    if opaque.mode == mode:
        return opaque
    return opaque.convert("RGB") if mode == "RGB" else _gray_of(opaque.convert("RGB"), picture.mode, gray)


def _on_white(picture: PILImage.Image) -> PILImage.Image:
    """The picture on a white ground, as RGB."""
    layers = picture.convert("LA") if picture.mode == "La" else picture  # PIL makes nothing else of La
    white = PILImage.new("RGBA", picture.size, "white")
    return PILImage.alpha_composite(white, layers.convert("RGBA")).convert("RGB")


def _gray_of(picture: PILImage.Image, mode: str, convert: bool) -> PILImage.Image:
    """The one channel of an RGB picture whose channels are equal; of others their luma, where they may be converted."""
    red, green, blue = picture.split()
    if red.tobytes() == green.tobytes() == blue.tobytes():
        return red
    if not convert:
        raise InputError(
            f"expected a gray picture; got PIL mode {mode!r} with colours in it.\n"
            "  To discard the colours, say so: --gray on the command line, 'gray=True' in Python."
        )
    return picture.convert("L")
