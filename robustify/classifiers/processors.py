"""Image processors of transformers, split where noise is added: geometry before it, arithmetic after it.

A processor resizes, crops and pads bytes, and maps them to the network's input by one affine function a channel, maybe
with the channels in reverse. The geometry calls the processor itself, so pixels are the library's own; the arithmetic
is read from its settings. Whether both together are all that it does is checked with a picture.
"""

from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, final

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor

from robustify.classifiers.preprocessing import Geometry, Preprocessing, ResizeCrop
from robustify.default_dtype import float32_by_default
from robustify.errors import InputError
from robustify.types import Bytes

_AFTER_GEOMETRY = ("do_convert_rgb", "do_rescale", "do_normalize", "do_pad", "do_flip_channel_order", "include_top")
"""Switches of processors for everything but geometry; `do_pad` pads after normalising."""

_LEVELS = 6
"""Gray levels of 255 by which the places that two sizes show may differ, besides three quarters of a pixel."""

_SHARE = 0.9
"""Share of the pixels for which that must hold; others are at the border of black padding."""


@final
@dataclass(frozen=True)
class ProcessorGeometry(Geometry):
    """Resize, crop and padding by a transformers image processor, with its own backend (torchvision or PIL).

    Arguments:
        processor: The image processor.
        size: Height and width of its output.
        interpolation: Interpolation of its resize.
        border: Colour of the padding, one value in [0, 1] per channel: what normalising turns into the processor's
            padding of zeros, as the nearest byte.
    """

    processor: Any
    size: tuple[int, int]
    interpolation: str
    border: tuple[float, ...] = field(default=(0.0,), repr=False)  # the mean, which preprocessing shows
    _kept: dict[tuple[int, int], bool] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, picture: PILImage.Image, height: int, width: int) -> Bytes:
        shown = self.unpadded(picture, height, width)
        channels, *found = shown.shape
        if not getattr(self.processor, "do_pad", False) or found == [height, width]:
            return shown
        border = self.border if len(self.border) == channels else (fmean(self.border),) * channels
        padded = torch.tensor([round(255 * v) for v in border], dtype=torch.uint8).view(-1, 1, 1)
        padded = padded.repeat(1, height, width)
        padded[:, : found[0], : found[1]] = shown
        return padded

    def unpadded(self, picture: PILImage.Image, height: int, width: int) -> Bytes:
        """The bytes without the padding that processors add on the right and below."""
        off = {switch: False for switch in _AFTER_GEOMETRY if hasattr(self.processor, switch)}
        shown = picture.convert("RGB") if picture.mode != "L" else picture
        pixels = _processed(self.processor, shown, **off, **self._scaled(height, width))
        return pixels.float().round().clamp(0, 255).to(torch.uint8)

    def _scaled(self, height: int, width: int) -> dict[str, Any]:
        """The processor's sizes in proportion, as arguments, where a denoiser works at another size."""
        if (height, width) == self.size:
            return {}
        scaled: dict[str, Any] = {}
        for key in ("size", "crop_size"):
            entry = {k: v for k, v in dict(getattr(self.processor, key, None) or {}).items() if v is not None}
            if entry:
                # `width` and `max_width`; edges follow the height
                scaled[key] = {
                    k: round(v * (width / self.size[1] if "width" in k else height / self.size[0]))
                    for k, v in entry.items()
                }
        return scaled

    def keeps_view(self, own: tuple[int, int], other: tuple[int, int]) -> bool:
        """Whether the processor with its sizes in proportion shows the same part, asked with pictures of places.

        Some processors do not: ConvNeXt's crops below 384 pixels and squashes from there on; without a resize, a
        larger crop shows more.
        """
        if own == other:
            return True
        if other not in self._kept:
            self._kept[other] = super().keeps_view(own, other) and all(
                self._shows_the_same(places, own, other) for places in _places(own)
            )
        return self._kept[other]

    def _shows_the_same(self, places: PILImage.Image, own: tuple[int, int], other: tuple[int, int]) -> bool:
        one, two = self(places, *own).float(), self(places, *other).float()
        if tuple(two.shape[1:]) != other:
            return False
        smaller = min(own, other)
        one, two = (torch.nn.functional.adaptive_avg_pool2d(pixels, smaller) for pixels in (one, two))
        return float((one - two).abs().quantile(_SHARE)) <= _LEVELS + 0.75 * 255 / min(smaller)

    def __str__(self) -> str:
        return f"{type(self.processor).__name__}: {self.interpolation} resize"


def preprocessing_of(processor: Any, *, channels: int) -> Preprocessing:  # noqa: ANN401
    """Preprocessing of an image processor; of timm's data configuration where the processor wraps timm.

    Raises:
        InputError: If it is no image processor, its output has no fixed size, or it does more than geometry and one
            affine function a channel.
    """
    config = getattr(processor, "data_config", None)
    if config:
        border = tuple(config["mean"])
        resize = ResizeCrop(config["interpolation"], config["crop_pct"], config["crop_mode"], border)
        return Preprocessing(border, tuple(config["std"]), tuple(config["input_size"][-2:]), resize)
    if not hasattr(processor, "image_mean"):
        raise InputError(f"expected an image processor, as AutoImageProcessor gives; got {type(processor).__name__}")
    mean, std = _statistics(processor, channels)
    probe = _probe(channels)
    size = _network_size(processor, probe)
    geometry = ProcessorGeometry(processor, size, _interpolation(processor), mean)
    preprocessing = Preprocessing(mean, std, size, geometry)
    _check_split(geometry, preprocessing, probe)
    return preprocessing


def _processed(processor: Any, picture: PILImage.Image, **options: Any) -> Tensor:  # noqa: ANN401
    """What the processor makes of a picture; processors compute in torch's default data type."""
    with float32_by_default():
        pixels: Tensor = processor(images=picture, return_tensors="pt", **options)["pixel_values"][0]
    return pixels


def flips_channels(processor: Any) -> bool:  # noqa: ANN401
    """Whether the network expects blue, green, red."""
    return bool(getattr(processor, "do_flip_channel_order", False))


def _statistics(processor: Any, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:  # noqa: ANN401
    """Mean and standard deviation in [0, 1] pixels of all that the processor does to the values of bytes."""
    mean, std, top = np.zeros(channels), np.ones(channels), np.ones(channels)
    if processor.do_normalize:
        mean, std = (_per_channel(processor, name, channels) for name in ("image_mean", "image_std"))
    if getattr(processor, "include_top", False):  # EfficientNet divides by the deviation once more
        top = _per_channel(processor, "image_std", channels)
    factor = 255 * processor.rescale_factor if processor.do_rescale else 255.0
    offset = 1.0 if processor.do_rescale and getattr(processor, "rescale_offset", False) else 0.0
    return tuple(((mean + offset) / factor).tolist()), tuple((std * top / factor).tolist())


def _per_channel(processor: Any, name: str, channels: int) -> Any:  # noqa: ANN401
    """A statistic of the processor as one number for each channel."""
    values = np.atleast_1d(np.asarray(getattr(processor, name), dtype=object))
    if len(values) not in (1, channels) or any(v is None for v in values):
        raise InputError(
            f"expected {name} of {type(processor).__name__} to have 1 or {channels} numbers, as the model has "
            f"{channels} channels; got {getattr(processor, name)}.\n  Set it, or do_normalize=False."
        )
    return np.broadcast_to(values.astype(float), channels)


def _probe(channels: int) -> PILImage.Image:
    """A picture of unusual size, whose channels differ in brightness."""
    if channels not in (1, 3):
        raise InputError(f"expected a model of pictures with 1 or 3 channels; got num_channels={channels}")
    noise = np.random.default_rng(0).integers(0, 60, (211, 307, channels), dtype=np.uint8)
    return PILImage.fromarray((noise + np.uint8(90) * np.arange(channels, dtype=np.uint8)).squeeze())


def _places(own: tuple[int, int]) -> list[PILImage.Image]:
    """Pictures whose pixels tell their place, columns in red and rows in green: wide, tall and small."""
    height, width = own
    sizes = ((2 * width + 9, height + 40), (width + 30, 2 * height + 7), (width // 2 + 1, height // 2 + 5))
    ramp = PILImage.linear_gradient("L")
    pictures = [(ramp.rotate(90).resize(size), ramp.resize(size)) for size in sizes]
    return [PILImage.merge("RGB", [columns, rows, rows]) for columns, rows in pictures]


def _network_size(processor: Any, probe: PILImage.Image) -> tuple[int, int]:  # noqa: ANN401
    """Height and width of the processor's output, which must not depend on the picture."""
    pictures = probe, probe.transpose(PILImage.Transpose.ROTATE_90)
    try:
        upright, turned = (tuple(_processed(processor, picture).shape) for picture in pictures)
    except Exception as error:  # processors are anybody's code
        raise InputError(
            f"{type(processor).__name__} fails on a picture of size {probe.size} and mode {probe.mode!r}: "
            f"{type(error).__name__}: {error}\n  Check its settings: processor(images=picture, return_tensors='pt')."
        ) from error
    if upright != turned or len(upright) != 3:
        raise InputError(
            f"expected an image processor with a fixed output size; {type(processor).__name__} makes shapes {upright} "
            f"and {turned} from pictures of size {pictures[0].size} and {pictures[1].size}.\n"
            "  Set do_center_crop and crop_size, or size={'height': …, 'width': …}."
        )
    return upright[1:]


def _check_split(geometry: ProcessorGeometry, preprocessing: Preprocessing, probe: PILImage.Image) -> None:
    """Checks that geometry and arithmetic are all that the processor does, since noise is added between them.

    Raises:
        InputError: If it does anything else.
    """
    processor, size = geometry.processor, geometry.size
    whole = _processed(processor, probe).float()
    whole = whole.flip(0) if flips_channels(processor) else whole
    pixels = geometry(probe, *size)
    height, width = geometry.unpadded(probe, *size).shape[1:]
    split = preprocessing.network_input(pixels.float().unsqueeze(0) / 255)[0]
    scale = max(1.0, 1 / min(preprocessing.std))
    same = torch.allclose(split[:, :height, :width], whole[:, :height, :width], rtol=1e-5, atol=1e-5 * scale)
    whole[:, :height, :width] = 0  # the rest is padding
    brightness = pixels.float().mean(dim=(1, 2))
    if not same or bool(whole.any()) or bool((brightness.diff() < 0).any()):
        raise InputError(
            "expected an image processor that resizes, crops, pads, rescales bytes, normalises RGB and flips channels; "
            f"{type(processor).__name__} does something else.\n"
            "  Wrap a module that returns the model's logits, with an explicit preprocessing=Preprocessing(…)."
        )


def _interpolation(processor: Any) -> str:  # noqa: ANN401
    """Name of the processor's interpolation, from PIL's resampling code; bilinear where it has none."""
    code = getattr(processor, "resample", None)
    names_by_code = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
    return names_by_code.get(int(code), "bilinear") if code is not None else "bilinear"
