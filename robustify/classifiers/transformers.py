"""Classifiers from Hugging Face transformers: `hf:google/vit-base-patch16-224`, `hf:/folder`.

References:
    Transformers: State-of-the-Art Natural Language Processing, Wolf et al., 2020,
    https://arxiv.org/abs/1910.03771
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from PIL import Image as PILImage
from torch import Tensor, nn

from robustify.cards import licence_of
from robustify.classifiers.base import ImageClassifier
from robustify.classifiers.preprocessing import Geometry, Preprocessing, ResizeCrop
from robustify.errors import InputError, ModelError
from robustify.types import Bytes


def load(name: str, /) -> ImageClassifier:
    """A pretrained image classifier with its image processor, from the Hub or a folder.

    Raises:
        InputError: If there is no such model, or the folder is not a transformers folder.
        ModelError: If the model has no image-classification head.
    """
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    folder = Path(name)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise InputError(f"expected a transformers folder with config.json; {folder} has none")
    try:
        model, report = AutoModelForImageClassification.from_pretrained(name, output_loading_info=True)
        processor = AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"transformers cannot load an image classifier from {name!r}: {error}") from error
    if report["missing_keys"]:
        raise ModelError(
            f"hf:{name} lacks weights for {sorted(report['missing_keys'])[:3]}: they would be random.\n"
            "  Is it a backbone without a classification head?"
        )
    return wrap(model.eval(), processor, name=f"hf:{name}", licence=licence_of(name))


def names(pattern: str = "*", /) -> list[str]:
    """Nothing: the Hub is too large to list; see https://huggingface.co/models?pipeline_tag=image-classification."""
    del pattern
    return []


def wrap(
    model: nn.Module,
    processor: Any,  # noqa: ANN401
    *,
    name: str | None = None,
    licence: str | None = None,
) -> ImageClassifier:
    """A transformers model of this process with its image processor.

    Raises:
        ModelError: If the model returns no logits per image.
        InputError: If the processor is not an image processor with a fixed size.
    """
    config = model.config
    name = name or f"hf:{getattr(config, 'name_or_path', '') or type(model).__name__}"
    if not type(model).__name__.endswith("ForImageClassification"):
        raise ModelError(
            f"expected a model for image classification; got {type(model).__name__}.\n"
            "  Load it with AutoModelForImageClassification."
        )
    labels = getattr(config, "id2label", None)
    return ImageClassifier(
        LogitsOf(model).train(model.training),
        _preprocessing(processor),
        labels=[labels[i] for i in range(len(labels))] if labels else None,
        name=name,
        licence=licence,
    )


@final
class LogitsOf(nn.Module):
    """Unpacks `.logits` from a transformers output."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, normalised: Tensor) -> Tensor:
        logits: Tensor = self.model(pixel_values=normalised).logits
        return logits


@final
@dataclass(frozen=True)
class ProcessorGeometry(Geometry):
    """The image processor's own resize and crop; its backend (torchvision or PIL) is kept."""

    processor: Any
    size: tuple[int, int]
    interpolation: str

    def __call__(self, picture: PILImage.Image, height: int, width: int) -> Bytes:
        output = self.processor(
            images=picture.convert("RGB") if picture.mode != "L" else picture,
            return_tensors="pt",
            do_normalize=False,
            do_rescale=False,
            **self._scaled(height, width),
        )
        pixels: Tensor = output["pixel_values"][0]
        return pixels.round().clamp(0, 255).to(torch.uint8)

    def _scaled(self, height: int, width: int) -> dict[str, Any]:
        """The processor's sizes, in proportion, where a denoiser works at another resolution."""
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


def _preprocessing(processor: Any) -> Preprocessing:  # noqa: ANN401
    """Mean, std and size from an image processor; timm's data configuration where it wraps timm."""
    config = getattr(processor, "data_config", None)
    if config:
        mean = tuple(config["mean"])
        geometry = ResizeCrop(config["interpolation"], config["crop_pct"], config["crop_mode"], border=mean)
        return Preprocessing(mean, tuple(config["std"]), tuple(config["input_size"][-2:]), geometry)
    if not getattr(processor, "do_rescale", False) or abs(processor.rescale_factor * 255 - 1) > 1e-6:  # noqa: PLR2004
        raise InputError(f"expected a processor that rescales bytes by 1/255; got {type(processor).__name__}")
    size = _network_size(processor)
    channels = len(processor.image_mean)
    normalises = bool(processor.do_normalize)
    return Preprocessing(
        mean=tuple(processor.image_mean) if normalises else (0.0,) * channels,
        std=tuple(processor.image_std) if normalises else (1.0,) * channels,
        size=size,
        geometry=ProcessorGeometry(processor, size, _interpolation(processor)),
    )


def _network_size(processor: Any) -> tuple[int, int]:  # noqa: ANN401
    """Height and width that leave the processor: the crop's where it crops, else the resize's."""
    crops = getattr(processor, "do_center_crop", None)
    entry = dict(processor.crop_size if crops else processor.size)
    if entry.get("height") and entry.get("width"):
        return int(entry["height"]), int(entry["width"])
    raise InputError(
        f"expected an image processor with a fixed output size; {type(processor).__name__} has {entry}.\n"
        "  Set do_center_crop and crop_size, or size={'height': …, 'width': …}."
    )


def _interpolation(processor: Any) -> str:  # noqa: ANN401
    """The name that torch knows for PIL's resampling code."""
    code = getattr(processor, "resample", None)
    names_by_code = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
    return names_by_code.get(int(code), "bilinear") if code is not None else "bilinear"
