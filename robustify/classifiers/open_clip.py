"""Zero-shot classifiers from open_clip: `open_clip:ViT-B-32/laion2b_s34b_b79k`, `open_clip:local-dir:/folder`.

References:
    Learning Transferable Visual Models From Natural Language Supervision, Radford et al., 2021,
    https://arxiv.org/abs/2103.00020
    OpenCLIP, Ilharco et al., 2021, https://doi.org/10.5281/zenodo.5143773
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, final

import torch
import torch.nn.functional as F
from PIL import Image as PILImage
from safetensors import SafetensorError
from torch import Tensor, nn

from robustify.classifiers.base import ImageClassifier, check_evaluation_mode
from robustify.classifiers.preprocessing import Geometry, Preprocessing
from robustify.classifiers.weights import check_loaded
from robustify.classifiers.zero_shot import ZeroShotModel
from robustify.downloads import from_hub
from robustify.errors import InputError, ModelError
from robustify.licences import licence_of
from robustify.types import Bytes


@from_hub("hf-hub:")
def load(name: str, /) -> "OpenCLIP":
    """Loads an image-text model with pretrained weights; its method `classifier` makes a classifier for given classes.

    Raises:
        InputError: If open_clip knows no such model, weights or folder.
    """
    import open_clip

    schema = name.startswith(("local-dir:", "hf-hub:"))
    architecture, slash, tag = (name, "", "") if schema else name.partition("/")
    if not schema and not slash:
        raise InputError(
            f"expected open_clip:MODEL/WEIGHTS, such as open_clip:ViT-B-32/laion2b_s34b_b79k; got {name!r}"
        )
    try:
        # without require_pretrained, open_clip uses random weights where a folder has none
        model = open_clip.create_model(architecture, pretrained=tag or None, require_pretrained=True).eval()
        tokenizer = open_clip.get_tokenizer(architecture)
    except (RuntimeError, ValueError, OSError, KeyError, SafetensorError) as error:
        raise InputError(f"open_clip cannot create {name!r}: {error}") from error
    place = name.removeprefix("local-dir:").removeprefix("hf-hub:")
    return OpenCLIP(model, tokenizer, name=f"open_clip:{name}", licence=licence_of(place) if schema else None)


def names(pattern: str = "*", /) -> list[str]:
    """Names of models with their weights, MODEL/WEIGHTS, that match a shell-style pattern."""
    import open_clip

    return sorted(n for n in map("/".join, open_clip.list_pretrained()) if fnmatchcase(n, pattern))


@final
class OpenCLIP(ZeroShotModel):
    """An open_clip model with its tokenizer.

    Arguments:
        model: An image-text model in evaluation mode, with `encode_text`, `visual` and `logit_scale`.
        tokenizer: Function of a list of N strings to token ids of shape (N, length).
        preprocessing: Preprocessing of the image tower; None for that of its own `preprocess_cfg`.
        name: Name of the model in certificates.
        licence: Licence of the weights, where it is known.

    Raises:
        ModelError: If the object is not an open_clip image-text model, or has no weights yet.
        InputError: If it does not say how it preprocesses pixels.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Callable[..., Tensor],
        *,
        preprocessing: Preprocessing | None = None,
        name: str | None = None,
        licence: str | None = None,
    ) -> None:
        if not (hasattr(model, "visual") and hasattr(model, "encode_text")):
            raise ModelError(
                f"expected an open_clip model with an image tower (`visual`) and `encode_text`; "
                f"got {type(model).__name__}"
            )
        check_loaded(model)
        self.preprocessing = preprocessing or _preprocessing(model)
        self.model: Any = model  # its towers are attributes that `nn.Module` does not declare
        self.tokenizer = tokenizer
        self.name = name or f"open_clip:{type(model).__name__}"
        self.licence = licence

    def classifier(self, classes: Sequence[str], templates: str | Sequence[str] = "openai") -> ImageClassifier:
        """The image tower with a linear head: for each class, its unit text embedding averaged over templates.

        Raises:
            InputError: If there are fewer than two distinct classes, or no such template set.
            ModelError: If the model is in training mode.
        """
        import open_clip

        if isinstance(classes, str) or len(set(classes)) < 2 or len(set(classes)) != len(classes):
            raise InputError(f"expected at least 2 distinct class names; got {classes!r}")
        check_evaluation_mode(self.model)
        device = next(self.model.parameters()).device
        head = open_clip.build_zero_shot_classifier(
            self.model, self.tokenizer, list(classes), template_set(templates), device=device
        )
        bias = getattr(self.model, "logit_bias", None)
        network = ZeroShotNetwork(
            visual=self.model.visual,
            head=head,
            scale=self.model.logit_scale.exp().item(),
            bias=0.0 if bias is None else bias.item(),
        )
        return ImageClassifier(network.eval(), self.preprocessing, labels=classes, name=self.name, licence=self.licence)


@final
class ZeroShotNetwork(nn.Module):
    """An image tower with a fixed head: logits are scaled cosines between an image and the texts of the classes.

    Arguments:
        visual: Image tower, which maps (B, 3, H, W) to embeddings of shape (B, dim).
        head: Text embeddings of the classes, as unit columns of shape (dim, classes).
        scale: The model's learned inverse temperature.
        bias: The learned bias of sigmoid-trained models; it never changes a vote.
    """

    def __init__(self, visual: nn.Module, head: Tensor, *, scale: float, bias: float) -> None:
        super().__init__()
        self.visual = visual
        self.register_buffer("head", head.detach().clone())
        self.head: Tensor
        self.scale = scale
        self.bias = bias

    def forward(self, normalised: Tensor) -> Tensor:
        embedding = self.visual(normalised)
        if isinstance(embedding, tuple):  # some towers also return their tokens
            embedding = embedding[0]
        return self.scale * F.normalize(embedding, dim=-1) @ self.head + self.bias


def template_set(templates: str | Sequence[str]) -> Sequence[Any]:
    """The templates of open_clip's sets `openai` (80) or `simple` (7), or the format strings that are given.

    Raises:
        InputError: If the set is unknown or a template lacks `{}`.
    """
    import open_clip

    sets = {"openai": open_clip.OPENAI_IMAGENET_TEMPLATES, "simple": open_clip.SIMPLE_IMAGENET_TEMPLATES}
    if isinstance(templates, str):
        if templates not in sets:
            raise InputError(
                f"no template set named {templates!r}; there are {', '.join(sets)}.\n"
                "  Or give a list of templates such as ['a photo of a {}.']"
            )
        return tuple(sets[templates])
    if not templates or any("{}" not in t for t in templates):
        raise InputError(f"expected templates that contain {{}}, such as 'a photo of a {{}}.'; got {templates}")
    return tuple(templates)


@final
@dataclass(frozen=True)
class OpenCLIPGeometry(Geometry):
    """open_clip's evaluation geometry: resize by `shortest`, `longest` (padded) or `squash`."""

    interpolation: str
    resize_mode: str
    fill_color: int = 0

    def __call__(self, picture: PILImage.Image, height: int, width: int) -> Bytes:
        from open_clip.transform import image_transform

        transform = image_transform(
            (height, width) if height != width else height,
            is_train=False,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            resize_mode=self.resize_mode,
            interpolation=self.interpolation,
            fill_color=self.fill_color,
        )
        pixels: Tensor = transform(picture.convert("RGB"))
        if picture.mode == "L":
            pixels = pixels[:1]
        return (pixels * 255).round().to(torch.uint8)

    def __str__(self) -> str:
        return f"{self.interpolation} resize ({self.resize_mode})"


def _preprocessing(model: Any) -> Preprocessing:  # noqa: ANN401
    """The preprocessing that the model's own `visual.preprocess_cfg` describes."""
    config = getattr(model.visual, "preprocess_cfg", None)
    if config is None:
        raise InputError(
            f"{type(model).__name__} does not say how it preprocesses pixels: it has no `visual.preprocess_cfg`, which "
            "open_clip.create_model sets.\n  Pass preprocessing=Preprocessing(mean=(…), std=(…), size=(height, width))."
        )
    size = config["size"]
    return Preprocessing(
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        size=(size, size) if isinstance(size, int) else tuple(size),
        geometry=OpenCLIPGeometry(
            interpolation=config["interpolation"],
            resize_mode=config["resize_mode"],
            fill_color=config.get("fill_color", 0),
        ),
    )
