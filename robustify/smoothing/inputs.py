"""Images as users have them (paths, pictures, arrays, tensors), turned into pixels that meet the input contract."""

import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as PILImage
from PIL import ImageOps
from torch import Tensor

from robustify.classifiers import Preprocessing
from robustify.classifiers.preprocessing import with_channels
from robustify.contract import InputContract
from robustify.errors import InputError
from robustify.types import Bytes, Image

OneImage: TypeAlias = str | PathLike[str] | PILImage.Image | npt.NDArray[Any] | Tensor
ImageInput: TypeAlias = OneImage | Sequence[OneImage]
"""One image or a batch: a list of anything, or an array or tensor with a leading batch axis."""

_IMAGE_RANKS = (2, 3)
_BATCH_RANK = 4

_DAMAGED = (OSError, ValueError, SyntaxError, TypeError, struct.error)
"""What PIL raises where pixels or EXIF data are damaged."""


def is_batch(images: ImageInput) -> bool:
    """Whether the answer should be a list."""
    if isinstance(images, np.ndarray | Tensor):
        return images.ndim == _BATCH_RANK
    return isinstance(images, Sequence) and not isinstance(images, str)


def to_pixels(image: OneImage, preprocessing: Preprocessing, contract: InputContract) -> Image:
    """One image as float32 pixels in [0, 1] of the contract's shape; arguments and errors are those of `to_image`."""
    found = to_image(image, preprocessing, contract)
    return found.float() / 255 if found.dtype == torch.uint8 else found


def to_image(image: OneImage, preprocessing: Preprocessing, contract: InputContract) -> Image | Bytes:
    """One image of the contract's shape: bytes where it has 8 bits, else float32 pixels in [0, 1].

    Paths and pictures are turned upright as their EXIF orientation says, transparent parts are put on white, and the
    classifier's own geometry resizes and crops them. Arrays and tensors must already have
    the contract's shape: their size is never changed silently.

    Raises:
        InputError: If the image cannot be read or does not meet the contract.
    """
    if isinstance(image, str | PathLike | PILImage.Image):
        picture = with_channels(_upright(image), contract.channels, gray=preprocessing.gray)
        pixels = preprocessing.picture_bytes(picture, contract.height, contract.width)
    elif isinstance(image, np.ndarray):
        pixels = _from_array(image, contract)
    elif isinstance(image, Tensor):
        pixels = image.detach().unsqueeze(0) if image.ndim == 2 else image.detach()
    else:
        raise InputError(f"expected a path, PIL image, array or tensor; got {type(image).__name__}")
    if tuple(pixels.shape) != contract.shape:
        raise InputError(
            f"expected an image of shape {contract.shape} (channels, height, width); got {tuple(pixels.shape)}.\n"
            "  A path or PIL image of any size is resized and cropped as the classifier expects; its channels must fit."
        )
    return _checked(pixels)


def _upright(image: str | PathLike[str] | PILImage.Image) -> PILImage.Image:
    if not isinstance(image, PILImage.Image):
        return read_picture(image)
    with _decoding("a PIL picture"):
        return ImageOps.exif_transpose(image)


def picture_rules(preprocessing: Preprocessing) -> dict[str, str | bool]:
    """How paths and pictures become pixels, as a run records it."""
    return {"orientation": "exif", "transparency": "white", "gray": preprocessing.gray}


def read_picture(path: str | PathLike[str]) -> PILImage.Image:
    """A decoded picture, turned upright as its EXIF orientation says.

    Raises:
        InputError: If the file is missing or not a readable image.
    """
    with _decoding(repr(str(path))), PILImage.open(path) as picture:
        picture.load()
        return ImageOps.exif_transpose(picture)


@contextmanager
def _decoding(source: str) -> Iterator[None]:
    """Silences PIL's warnings of size and odd metadata, and raises `InputError` where pixels do not decode."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (*_DAMAGED, PILImage.DecompressionBombError) as error:
        raise InputError(f"cannot read an image from {source}: {error}") from error


def check_unmasked(array: npt.NDArray[Any]) -> None:
    """Refuses arrays of numpy.ma some of whose pixels are masked.

    Raises:
        InputError: With their number.
    """
    if np.ma.is_masked(array):
        raise InputError(
            f"expected an array whose pixels all count; {np.ma.getmaskarray(array).sum():,} are masked.\n"
            "  Say what they are: array.filled(0) makes them black."
        )


def _from_array(array: npt.NDArray[Any], contract: InputContract) -> Tensor:
    """(H, W), (H, W, C) as pictures have it, or (C, H, W) as networks do."""
    check_unmasked(array)
    if array.ndim not in _IMAGE_RANKS:
        raise InputError(f"expected an array of 2 or 3 axes; got shape {array.shape}")
    if array.dtype.kind not in "uif":
        raise InputError(f"expected an array of numbers; got dtype {array.dtype}")
    # A copy of our own: torch takes neither read-only arrays nor the other byte order.
    tensor = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    if tensor.ndim == 2:
        return tensor.unsqueeze(0)
    if tuple(tensor.shape) == (contract.height, contract.width, contract.channels):
        return tensor.permute(2, 0, 1)
    return tensor


def _checked(pixels: Tensor) -> Image | Bytes:
    """Bytes as they are, or floats in [0, 1] as float32; other integers are refused as ambiguous."""
    if pixels.dtype == torch.uint8:
        return pixels
    if not pixels.is_floating_point():
        raise InputError(
            f"expected uint8 (0 to 255) or floats in [0, 1]; got {pixels.dtype}.\n  Convert with .to(torch.uint8)."
        )
    if not bool(pixels.isfinite().all()):
        raise InputError("expected finite pixels; got NaN or infinity")
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        hint = "Values look like 0 to 255: divide by 255." if high > 2 else "Undo any normalisation first."
        raise InputError(f"expected pixels in [0, 1]; got values from {low:.4g} to {high:.4g}.\n  {hint}")
    return pixels.float()
