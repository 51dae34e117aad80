"""A linear classifier on frozen features of denoised noisy images: minutes on a CPU, for any backbone.

References:
    CNN Features off-the-shelf: an Astounding Baseline for Recognition, Razavian et al., 2014,
    https://arxiv.org/abs/1403.6382
"""

from collections.abc import Sequence
from typing import Any, TypeAlias, final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from scipy.optimize import minimize
from torch import Tensor, nn

from robustify.classifiers import ImageClassifier, Preprocessing
from robustify.classifiers.base import check_evaluation_mode
from robustify.denoisers import Denoiser, Identity
from robustify.errors import InputError, ModelError
from robustify.types import Pixels

Features: TypeAlias = Float[Tensor, "rows features"]
"""Feature vectors of unit length."""

Labels: TypeAlias = Int64[Tensor, " rows"]

STRENGTHS = tuple(10.0**k for k in range(-3, 4))
"""Values of C, the weight of the data against that of a small head."""

_VALIDATION = 0.2
"""Share of each class that chooses C."""


@final
class ProbedNetwork(nn.Module):
    """Backbone, features scaled to unit length, and a linear head.

    Arguments:
        backbone: Maps (B, C, H, W) to features (B, width); a transformers encoder or an open_clip tower will do.
        head: Maps features to logits.
    """

    def __init__(self, backbone: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, normalised: Tensor) -> Tensor:
        logits: Tensor = self.head(unit_features(self.backbone, normalised))
        return logits


def linear_probe(
    backbone: nn.Module,
    preprocessing: Preprocessing,
    images: Pixels,
    labels: Labels,
    *,
    sigma: float,
    denoiser: Denoiser | None = None,
    classes: Sequence[str] | None = None,
    copies: int = 4,
    per_class: int | None = None,
    batch: int = 64,
    seed: int = 0,
) -> ImageClassifier:
    """Fits a multinomial logistic regression to features of denoised noisy images.

    C is the value of `STRENGTHS` with the best accuracy on a fifth of the images of each class, on which the compared
    heads are not fitted; the head returned is fitted to all images.

    Arguments:
        backbone: In evaluation mode, without a head (`num_classes=0`, a transformers encoder, an open_clip tower).
        preprocessing: Preprocessing that the backbone expects.
        images: Clean, in [0, 1], at the size at which noise will be added; on the backbone's device.
        labels: True classes, from 0; every class at least twice.
        sigma: Standard deviation of the noise, in [0, 1] pixels.
        denoiser: Denoiser in front of the backbone; None leaves the noise in.
        classes: Names of the classes; where None, numbers from 0 to the largest label.
        copies: Noisy copies of each image.
        per_class: At most this many images of each class, chosen at random; all where None.
        batch: Copies that pass the networks together.
        seed: Seed of the noise and of all random choices.

    Raises:
        InputError: If images, labels, classes or a number do not fit.
        ModelError: If the backbone is in training mode or gives no features, one vector per image.
    """
    check_evaluation_mode(backbone)
    count = len(classes) if classes is not None else int(labels.max()) + 1 if len(labels) else 0
    _check_numbers(sigma=sigma, copies=copies, per_class=per_class, batch=batch)
    _check_data(images, labels, count, denoiser)
    generator = torch.Generator().manual_seed(seed)
    rows, validation = _choose(labels.cpu(), per_class, generator)
    noisy_features = [
        _features(backbone, preprocessing, denoiser or Identity(), images[rows], sigma, batch, generator)
        for _ in range(copies)
    ]
    features = torch.cat(noisy_features).double()
    targets = labels.cpu()[rows].repeat(copies)
    head = fit(features, targets, validation.repeat(copies), classes=count)
    like = next(backbone.parameters(), images)
    network = ProbedNetwork(backbone, head.to(like.device, like.dtype)).eval()
    return ImageClassifier(
        network, preprocessing, labels=classes, name=f"{type(backbone).__name__} with a linear probe"
    )


def fit(features: Float[Tensor, "rows features"], targets: Labels, validation: Tensor, *, classes: int) -> nn.Linear:
    """Chooses C on the validation rows, by accuracy and then by loss; then fits a head to all rows.

    Arguments:
        features: Features of unit length in float64, shape (rows, width).
        targets: Class indices from 0 to classes - 1, shape (rows).
        validation: True for the rows that choose C, shape (rows).
        classes: Number of outputs.
    """
    scores: dict[float, tuple[float, float]] = {}
    parameters = None
    for strength in STRENGTHS:  # weakest first: each fit starts at the last
        parameters = regress(features[~validation], targets[~validation], classes, strength, start=parameters)
        logits = _affine(features[validation], parameters)
        accuracy = float((logits.argmax(1) == targets[validation]).double().mean())
        scores[strength] = accuracy, -float(F.cross_entropy(logits, targets[validation]))
    best = max(STRENGTHS, key=scores.__getitem__)
    parameters = regress(features, targets, classes, best)
    head = nn.Linear(features.shape[1], classes, dtype=torch.float32)
    with torch.no_grad():
        head.weight.copy_(parameters[:, :-1])
        head.bias.copy_(parameters[:, -1])
    return head


def regress(
    features: Float[Tensor, "rows features"],
    targets: Labels,
    classes: int,
    strength: float,
    *,
    start: Float[Tensor, "classes features_and_one"] | None = None,
) -> Float[Tensor, "classes features_and_one"]:
    """Weights, then biases, that minimise C · Σ cross entropy + ½ ‖weights‖²; biases cost nothing. L-BFGS."""
    shape = classes, features.shape[1] + 1
    scale = 1 / (strength * len(features))

    def objective(flat: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, np.ndarray[Any, np.dtype[np.float64]]]:
        parameters = torch.from_numpy(flat).view(shape).requires_grad_()
        loss = F.cross_entropy(_affine(features, parameters), targets)
        total = loss + scale / 2 * parameters[:, :-1].square().sum()
        (gradient,) = torch.autograd.grad(total, parameters)
        return float(total.detach()), gradient.flatten().numpy()

    first = torch.zeros(shape, dtype=torch.float64) if start is None else start
    with torch.enable_grad():
        found = minimize(
            objective,
            first.flatten().numpy(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 2000, "ftol": 1e-12, "gtol": 1e-7},
        )
    return torch.from_numpy(found.x).view(shape)


def unit_features(backbone: nn.Module, normalised: Tensor) -> Tensor:
    """One vector of unit length per image, shape (B, width).

    Of a transformers output it is the pooled one, or the first token where the pooler has weights of its own, which
    are often not pretrained.

    Raises:
        ModelError: If the backbone gives something else.
    """
    output: Any = backbone(normalised)
    if hasattr(output, "last_hidden_state"):
        pooler = getattr(backbone, "pooler", None)
        learned = isinstance(pooler, nn.Module) and any(True for _ in pooler.parameters())
        pooled = None if learned else getattr(output, "pooler_output", None)
        output = output.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)
    elif isinstance(output, tuple):  # open_clip towers that also return their tokens
        output = output[0]
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != len(normalised):
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ModelError(
            f"expected features of shape (batch, width); {type(backbone).__name__} gives {found}.\n"
            "  Pool them; timm does with num_classes=0."
        )
    return F.normalize(output, dim=-1)


@torch.no_grad()
def _features(
    backbone: nn.Module,
    preprocessing: Preprocessing,
    denoiser: Denoiser,
    images: Pixels,
    sigma: float,
    batch: int,
    generator: torch.Generator,
) -> Features:
    """Features of one noisy copy of each image, on the CPU."""
    found = []
    for pixels in torch.split(images, batch):
        noise = torch.randn(pixels.shape, generator=generator, dtype=torch.float32).to(pixels)
        normalised = preprocessing.network_input(denoiser(pixels + sigma * noise, sigma))
        like = next(backbone.parameters(), normalised)
        found.append(unit_features(backbone, normalised.to(like.dtype)).float().cpu())
    return torch.cat(found)


def _choose(labels: Labels, per_class: int | None, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows to use, class by class, and which of them are for validation: a fifth of each class, at least one."""
    rows: list[Tensor] = []
    validation: list[Tensor] = []
    for label in range(int(labels.max()) + 1):
        members = (labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)][:per_class]
        rows.append(members)
        validation.append(torch.arange(len(members)) < max(1, round(_VALIDATION * len(members))))
    return torch.cat(rows), torch.cat(validation)


def _affine(features: Tensor, parameters: Tensor) -> Tensor:
    return features @ parameters[:, :-1].mT + parameters[:, -1]


def _check_numbers(*, sigma: float, copies: int, per_class: int | None, batch: int) -> None:
    if not 0 <= sigma < float("inf"):
        raise InputError(f"expected sigma >= 0; got {sigma}")
    if copies < 1 or batch < 1 or (per_class is not None and per_class < 2):
        raise InputError(
            f"expected copies >= 1, batch >= 1 and per_class >= 2; got copies={copies}, batch={batch}, "
            f"per_class={per_class}"
        )


def _check_data(images: Pixels, labels: Labels, count: int, denoiser: Denoiser | None) -> None:
    if len(images) != len(labels):
        raise InputError(f"expected one label per image; got {len(labels)} labels for {len(images)} images")
    if len(labels) == 0 or not bool((images >= 0).all() and (images <= 1).all()):
        raise InputError("expected at least one image, with pixels in [0, 1]")
    if count < 2 or int(labels.min()) < 0 or int(labels.max()) >= count:
        raise InputError(
            f"expected at least 2 classes and labels in 0 … {count - 1}; got {int(labels.min())} … {int(labels.max())}"
        )
    rare = [label for label, n in enumerate(torch.bincount(labels.cpu(), minlength=count).tolist()) if n < 2]
    if rare:
        raise InputError(
            f"expected at least 2 images of every class, one to fit and one for validation; of class {rare[0]} "
            f"there are {int((labels == rare[0]).sum())}.\n  Leave such classes out and number the others from 0."
        )
    shape = tuple(images.shape[1:])
    if denoiser is not None and shape != (denoiser.channels or shape[0], *(denoiser.size or shape[1:])):
        raise InputError(
            f"{denoiser.name} works on images of {denoiser.channels or 'any'} channels and size "
            f"{denoiser.size or 'any'}; got shape {shape}"
        )
