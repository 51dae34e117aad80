"""Classifiers from Hugging Face transformers: `hf:google/vit-base-patch16-224`, `hf:/folder`.

References:
    Transformers: State-of-the-Art Natural Language Processing, Wolf et al., 2020,
    https://arxiv.org/abs/1910.03771
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from PIL import Image as PILImage
from safetensors import SafetensorError
from torch import Tensor, nn

from robustify.classifiers.base import ImageClassifier, check_evaluation_mode
from robustify.classifiers.preprocessing import Geometry, Preprocessing, ResizeCrop
from robustify.downloads import from_hub
from robustify.errors import InputError, ModelError
from robustify.licences import licence_of
from robustify.types import Bytes


@from_hub("")
def load(name: str, /) -> ImageClassifier:
    """Loads a pretrained image classifier with its image processor, from the Hub or a folder.

    Raises:
        InputError: If there is no such model, or the folder is not a transformers folder.
        ModelError: If the model has no image-classification head.
    """
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    folder = Path(name)
    if name.startswith(("/", ".", "~")) and not folder.is_dir():
        raise InputError(f"there is no folder {name!r}")
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise InputError(f"expected a transformers folder with config.json; {folder} has none")
    try:
        model, report = AutoModelForImageClassification.from_pretrained(name, output_loading_info=True)
        processor = AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(f"transformers cannot load an image classifier from {name!r}: {error}") from error
    if report["missing_keys"]:
        raise ModelError(
            f"hf:{name} lacks weights for {sorted(report['missing_keys'])[:3]}: they would be random.\n"
            "  Is it a backbone without a classification head?"
        )
    return wrap(model.eval(), processor, name=f"hf:{name}", licence=licence_of(name))


def names(pattern: str = "*", /) -> list[str]:
    """No names, since the Hub is too large to list; see https://huggingface.co/models?pipeline_tag=image-classification."""
    del pattern
    return []


def wrap(
    model: nn.Module,
    processor: Any,  # noqa: ANN401
    *,
    name: str | None = None,
    licence: str | None = None,
) -> ImageClassifier:
    """Wraps a transformers model that is in memory, with its image processor.

    Raises:
        ModelError: If the model is no image classifier, or is in training mode.
        InputError: If the processor does anything but resize to a fixed size, crop, rescale and normalise.
    """
    if "ForImageClassification" not in type(model).__name__:  # some names go on: "…WithTeacher"
        raise ModelError(
            f"expected a model for image classification; got {type(model).__name__}.\n"
            "  Load it with AutoModelForImageClassification."
        )
    check_evaluation_mode(model)
    config: Any = model.config
    name = name or f"hf:{getattr(config, 'name_or_path', '') or type(model).__name__}"
    labels = getattr(config, "id2label", None)
    return ImageClassifier(
        LogitsOf(model).eval(),
        _preprocessing(processor, channels=getattr(config, "num_channels", 3)),
        labels=[labels[i] for i in range(len(labels))] if labels else None,
        name=name,
        licence=licence,
    )


@final
class LogitsOf(nn.Module):
    """Returns the logits from a transformers model's output."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, normalised: Tensor) -> Tensor:
        logits: Tensor = self.model(pixel_values=normalised).logits
        return logits


@final
@dataclass(frozen=True)
class ProcessorGeometry(Geometry):
    """Resize and crop by a transformers image processor, with its own backend (torchvision or PIL).

    Arguments:
        processor: The image processor.
        size: Height and width of its output.
        interpolation: Interpolation of its resize.
    """

    processor: Any
    size: tuple[int, int]
    interpolation: str

    def __call__(self, picture: PILImage.Image, height: int, width: int) -> Bytes:
        output = self.processor(
            images=picture.convert("RGB") if picture.mode != "L" else picture,
            return_tensors="pt",
            do_normalize=False,
            do_convert_rgb=False,
            **self._scaled(height, width),
        )
        pixels: Tensor = output["pixel_values"][0]
        return (pixels * 255).round().clamp(0, 255).to(torch.uint8)

    def _scaled(self, height: int, width: int) -> dict[str, Any]:
        """The processor's sizes in proportion, as arguments, where a denoiser works at another size."""
        if (height, width) == self.size:
            return {}
        factor = {"height": height / self.size[0], "width": width / self.size[1]}
        factor |= {"shortest_edge": factor["height"], "longest_edge": factor["height"]}
        scaled: dict[str, Any] = {}
        for key in ("size", "crop_size"):
            entry = getattr(self.processor, key, None)
            if entry:
                scaled[key] = {k: round(v * factor[k]) for k, v in dict(entry).items() if v is not None}
        return scaled

    def __str__(self) -> str:
        return f"{type(self.processor).__name__}: {self.interpolation} resize"


def _preprocessing(processor: Any, *, channels: int) -> Preprocessing:  # noqa: ANN401
    """Preprocessing of an image processor; of timm's data configuration where the processor wraps timm."""
    config = getattr(processor, "data_config", None)
    if config:
        border = tuple(config["mean"])
        geometry = ResizeCrop(config["interpolation"], config["crop_pct"], config["crop_mode"], border)
        return Preprocessing(border, tuple(config["std"]), tuple(config["input_size"][-2:]), geometry)
    if not hasattr(processor, "image_mean"):
        raise InputError(f"expected an image processor, as AutoImageProcessor gives; got {type(processor).__name__}")
    probe = _probe(channels)
    size = _network_size(processor, probe)
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else (0.0, 1.0)
    preprocessing = Preprocessing(
        mean=tuple(np.broadcast_to(mean, channels)),
        std=tuple(np.broadcast_to(std, channels)),
        size=size,
        geometry=ProcessorGeometry(processor, size, _interpolation(processor)),
    )
    _check_split(processor, preprocessing, probe)
    return preprocessing


def _probe(channels: int) -> PILImage.Image:
    """A picture of unusual size, whose channels differ in brightness."""
    noise = np.random.default_rng(0).integers(0, 60, (211, 307, channels), dtype=np.uint8)
    return PILImage.fromarray((noise + np.uint8(90) * np.arange(channels, dtype=np.uint8)).squeeze())


def _network_size(processor: Any, probe: PILImage.Image) -> tuple[int, int]:  # noqa: ANN401
    """Height and width of the processor's output, which must not depend on the picture."""
    pictures = probe, probe.transpose(PILImage.Transpose.ROTATE_90)
    upright, turned = (tuple(processor(images=p, return_tensors="pt")["pixel_values"][0].shape) for p in pictures)
    if upright != turned or len(upright) != 3:
        raise InputError(
            f"expected an image processor with a fixed output size; {type(processor).__name__} makes shapes {upright} "
            f"and {turned} from pictures of size {pictures[0].size} and {pictures[1].size}.\n"
            "  Set do_center_crop and crop_size, or size={'height': …, 'width': …}."
        )
    return upright[1:]


def _check_split(processor: Any, preprocessing: Preprocessing, probe: PILImage.Image) -> None:  # noqa: ANN401
    """Checks that geometry and normalisation are all that the processor does, since noise is added between them.

    Raises:
        InputError: If it also swaps channels, normalises twice, pads after normalising or rescales otherwise.
    """
    whole: Tensor = processor(images=probe, return_tensors="pt")["pixel_values"]
    pixels = preprocessing.geometry(probe, *preprocessing.size).float() / 255
    brightness = pixels.mean(dim=(1, 2))
    split = preprocessing.network_input(pixels.unsqueeze(0))
    if not torch.allclose(split, whole.float(), atol=1e-4) or bool((brightness.diff() < 0).any()):
        raise InputError(
            f"expected an image processor that resizes, crops, rescales bytes by 1/255 and normalises RGB; "
            f"{type(processor).__name__} does something else.\n"
            "  Wrap the model with an explicit preprocessing=Preprocessing(…)."
        )


def _interpolation(processor: Any) -> str:  # noqa: ANN401
    """Name of the processor's interpolation, from PIL's resampling code; bilinear where it has none."""
    code = getattr(processor, "resample", None)
    names_by_code = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
    return names_by_code.get(int(code), "bilinear") if code is not None else "bilinear"
