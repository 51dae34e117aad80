"""Conformance checks for authors of plugins; our own sources, classifiers and denoisers pass them.

Each check returns nothing where all is well and raises `ModelError` at the first thing that is wrong, saying
what it found, what a certificate needs instead and where to look. Call them from your tests:

    check_source(CLASSIFIERS.find("mine"))
    check_classifier(CLASSIFIERS.load("mine:small"))
"""

import inspect
from collections import Counter
from collections.abc import Callable
from fnmatch import fnmatchcase
from glob import escape
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor

from robustify.classifiers import ImageClassifier, Preprocessing
from robustify.classifiers.base import check_evaluation_mode
from robustify.classifiers.preprocessing import PIL_MODES
from robustify.denoisers import Denoiser
from robustify.errors import InputError, ModelError
from robustify.types import Logits, Pixels

TOLERANCE = 1e-3
"""Relative to an output's largest value: kernels may round differently with other batch-mates, no more."""

UNLIKELY = "no source lists this name"


def check_source(source: object) -> None:
    """A source has `load(name)` and `names(pattern)`; names come sorted and filtered. Nothing is loaded.

    Arguments:
        source: What the entry point resolves to: a module, usually.

    Raises:
        ModelError: If it is no source.
    """
    _check_signature(source, "load", ["name"])
    _check_signature(source, "names", [])
    _check_signature(source, "names", ["pattern*"])
    names: Callable[..., Any] = source.names  # type: ignore[attr-defined]  # its presence was just checked
    listed = names()
    _require(
        isinstance(listed, list) and all(isinstance(name, str) for name in listed),
        f"expected names() to return a list of str; got {_short(listed)}.\n"
        "  Return [] where there are too many to list.",
    )
    _require(
        listed == sorted(set(listed)),
        f"expected names() sorted and each once; got {_short(listed)}.\n  Return sorted(set(names)).",
    )
    first = listed[:1] or [UNLIKELY]
    for pattern in ("*", escape(first[0][:1]) + "*", escape(first[0]), UNLIKELY):
        expected = [name for name in listed if fnmatchcase(name, pattern)]
        found = names(pattern)
        _require(
            found == expected,
            f"expected names({pattern!r}) to be {_short(expected)}, as fnmatch.fnmatchcase filters; "
            f"got {_short(found)}.",
        )


def check_classifier(classifier: ImageClassifier) -> None:
    """A classifier is one fixed, differentiable function of each image; logits are finite, labels distinct.

    It is asked about a texture, the same under noise, black and white; about gray pixels, pixels of another
    size, and pictures. Costs about 30 forward passes of one image and 2 backward ones.

    Raises:
        ModelError: If no certificate would hold for it, or nobody could read one.
    """
    check_evaluation_mode(classifier)
    _check_labels(classifier)
    _check_geometry(classifier.preprocessing, classifier.name)
    pixels = _probe(classifier)
    with torch.no_grad():
        _check_logits(classifier, pixels)
        _check_fixed(classifier, pixels[:2], classifier.name)
        _check_other_sizes(classifier, pixels[:2])
        _check_other_channels(classifier, pixels[:2])
    _check_gradient(classifier, pixels[:2])


def check_denoiser(denoiser: Denoiser, clean: Pixels, *, sigma: float) -> None:
    """A denoiser is one fixed function of each image that adds no noise and beats leaving the noise in.

    It keeps shape and dtype, stays within [0, 1], and its mean squared error is below the noise's, which is
    sigma squared. `Identity` leaves the noise in, and fails.

    Arguments:
        denoiser: In evaluation mode.
        clean: In [0, 1], shape (B, C, H, W); real images that the denoiser should know how to handle.
        sigma: Of the noise to be removed, in [0, 1] pixels; choose one that people will use.

    Raises:
        InputError: If `clean` is not in [0, 1] or has not the denoiser's shape.
        ModelError: If the denoiser breaks its contract.
    """
    _check_clean(denoiser, clean)
    check_evaluation_mode(denoiser)
    line = denoiser.describe(sigma)
    _require(
        isinstance(line, str) and line.strip() != "" and "\n" not in line,
        f"expected describe(sigma) to be one line for the input contract; that of {denoiser.name} is {_short(line)}",
    )
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)).to(clean)
    noisy = clean + sigma * noise
    with torch.no_grad():
        estimate = denoiser(noisy.clone(), sigma)
        _check_estimate(estimate, noisy, denoiser.name)
        _check_fixed(lambda images: denoiser(images, sigma), noisy, denoiser.name)
    error, power = (float((images - clean).square().mean()) for images in (estimate, noisy))
    _require(
        error < power,
        f"{denoiser.name} is worse than leaving the noise in: mean squared error {error:.4g}, the noise's is "
        f"{power:.4g} (sigma={sigma:g}).\n"
        "  Does it take sigma in [0, 1] pixels, and scale pixels as the network was trained, such as 2x - 1?",
    )


def _check_signature(source: object, function: str, arguments: list[str]) -> None:
    """Whether `source.function(*arguments)` could be called; it is not."""
    found = getattr(source, function, None)
    call = f"{function}({', '.join(map(repr, arguments))})"
    _require(
        callable(found),
        f"{_short(source)} has no function {function!r}: a source is a module or object with load(name) and "
        "names(pattern='*').",
    )
    try:
        inspect.signature(found).bind(*arguments)  # type: ignore[arg-type]  # callable, as just checked
    except TypeError as error:
        raise ModelError(
            f"{function}{inspect.signature(found)} of {_short(source)} cannot be called as {call}: {error}.\n"  # type: ignore[arg-type]
            "  The core passes only the name or the pattern; options need defaults."
        ) from error


def _check_labels(classifier: ImageClassifier) -> None:
    twice = [f"{label!r}" for label, count in Counter(classifier.labels).items() if count > 1]
    _require(
        not twice,
        f"expected distinct labels; {classifier.name} names more than one class {', '.join(twice[:3])}: a "
        "certificate that is read by name would be ambiguous.\n"
        "  Add what tells them apart, such as a definition.",
    )


def _check_geometry(preprocessing: Preprocessing, name: str) -> None:
    """Pictures of another size, gray and (for an RGB network) colour, become bytes of the network's size."""
    height, width = preprocessing.size
    texture = np.random.default_rng(0).integers(0, 256, (height + 7, 2 * width, 3), dtype=np.uint8)
    for channels in {1, preprocessing.channels}:
        picture = PILImage.fromarray(texture).convert(PIL_MODES[channels])
        pixels = preprocessing.geometry(picture, height, width)
        found = (tuple(pixels.shape), pixels.dtype) if isinstance(pixels, Tensor) else type(pixels).__name__
        _require(
            found == ((channels, height, width), torch.uint8),
            f"expected the geometry of {name} to turn a picture of mode {picture.mode!r} into "
            f"bytes (torch.uint8) of shape {(channels, height, width)}; got {found}",
        )


def _probe(classifier: ImageClassifier) -> Pixels:
    """A texture, the same under noise (beyond [0, 1], as plain smoothing has it), black and white."""
    shape = (classifier.preprocessing.channels, *classifier.preprocessing.size)
    generator = torch.Generator().manual_seed(0)
    texture = torch.rand(shape, generator=generator)
    noisy = texture + torch.randn(shape, generator=generator)
    probe = torch.stack([texture, noisy, torch.zeros(shape), torch.ones(shape)])
    return probe.to(classifier.device)


def _check_logits(classifier: ImageClassifier, pixels: Pixels) -> Logits:
    logits = classifier(pixels.clone())
    expected = ((len(pixels), len(classifier.labels)), torch.float32)
    found = (tuple(logits.shape), logits.dtype) if isinstance(logits, Tensor) else type(logits).__name__
    _require(
        found == expected,
        f"expected logits of shape (batch, classes) = {expected[0]} in {expected[1]} for pixels of shape "
        f"{tuple(pixels.shape)}; {classifier.name} gives {found}",
    )
    _require(
        bool(logits.isfinite().all()),
        f"{classifier.name} gives NaN or infinite logits for a texture, noise on it, black or white.\n"
        "  Look for a division by an image's own deviation or maximum, a logarithm, or float16 overflow.",
    )
    return logits  # type: ignore[no-any-return]  # a tensor, as just checked


def _check_fixed(function: Callable[[Tensor], Tensor], images: Pixels, name: str) -> None:
    """One deterministic function of each image alone, that draws nothing and leaves its input as it was."""
    given = images.clone()
    output = function(given)
    _require(
        torch.equal(given, images),
        f"{name} changes in place the pixels that it is given.\n  Look for operations such as x.sub_(…) or x -= ….",
    )
    _require(
        torch.equal(function(images.clone()), output),
        f"{name} gives two answers for the same pixels: a certificate is about one fixed function.\n"
        "  Look for added noise, a sampler, or dropout that ignores eval(); the smoother alone adds noise.",
    )
    _check_draws_nothing(function, images, name)
    alone = function(images[:1].clone())
    _require(
        alone.shape == output[:1].shape,
        f"{name} gives shape {tuple(alone.shape)} for one image, {tuple(output.shape)} for {len(images)}.\n"
        "  Look for squeeze() without a dimension.",
    )
    _check_batch_mates(function, images[:1], name)


def _check_draws_nothing(function: Callable[[Tensor], Tensor], images: Pixels, name: str) -> None:
    """The generators of torch are left as they were."""
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.rand(1, device=images.device)  # to a state in which no seed inside the function would leave it
        before = _random_state(images.device)
        function(images.clone())
        after = _random_state(images.device)
    _require(
        all(map(torch.equal, before, after)),
        f"{name} draws random numbers: the smoother alone adds noise, exactly sigma.\n"
        "  Return the mean, not a sample. Seeding inside does not help: it changes the noise of others.",
    )


def _check_batch_mates(function: Callable[[Tensor], Tensor], image: Pixels, name: str) -> None:
    """The same image among black mates, and elsewhere among bright, noisy ones; the forward shape is the same."""
    black = torch.zeros_like(image)
    noisy = 1 + torch.randn(image.shape, generator=torch.Generator().manual_seed(0)).to(image)
    one = function(torch.cat([image, black, black]))[:1]
    other = function(torch.cat([noisy, noisy, image]))[-1:]
    gap = _gap(one, other)
    _require(
        gap <= TOLERANCE,
        f"the output of {name} for the same image changes by {gap:.1%} with other images in the batch: draws "
        "would not be independent and no certificate would hold.\n"
        "  Look for batch statistics, a maximum over the batch, or per-tensor quantisation.",
    )


def _check_other_sizes(classifier: ImageClassifier, pixels: Pixels) -> None:
    """A denoiser may work at another size; the classifier resizes to its own."""
    _check_logits(classifier, pixels[..., ::2, ::2])


def _check_other_channels(classifier: ImageClassifier, pixels: Pixels) -> None:
    """Gray pixels mean what they mean in RGB; colour never silently becomes gray."""
    gray = pixels[:, :1]
    colour = gray.repeat(1, 3, 1, 1)
    if classifier.preprocessing.channels == 1:
        _check_refuses_colour(classifier, colour)
        return
    gap = _gap(_check_logits(classifier, gray), classifier(colour))
    _require(
        gap <= TOLERANCE,
        f"{classifier.name} answers gray pixels and the same pixels repeated in 3 channels differently, "
        f"by {gap:.1%} of the largest logit",
    )


def _check_refuses_colour(classifier: ImageClassifier, colour: Pixels) -> None:
    try:
        classifier(colour)
    except InputError:
        return
    raise ModelError(
        f"{classifier.name} expects 1 channel (gray) but takes 3: colour would silently become gray.\n"
        "  Raise InputError."
    )


def _check_gradient(classifier: ImageClassifier, pixels: Pixels) -> None:
    """Attacks need to know how each pixel moves the logits."""
    pixels = pixels.clone().requires_grad_()
    with torch.enable_grad():
        logits = classifier(pixels)
    gradient = None
    if logits.requires_grad:
        # Random weights, for the plain sum of some outputs (probabilities, centred logits) is constant.
        weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)).to(logits)
        (gradient,) = torch.autograd.grad(logits, pixels, weights, allow_unused=True)
    _require(
        gradient is not None and bool(gradient.flatten(1).any(dim=1).all()),
        f"no gradient reaches the pixels through {classifier.name}: attacks could not test it.\n"
        "  Look for torch.no_grad(), inference_mode(), detach(), round(), or a detour through numpy or PIL.",
    )
    _require(
        gradient is None or bool(gradient.isfinite().all()),
        f"the gradient of {classifier.name} in its pixels is NaN or infinite",
    )


def _check_clean(denoiser: Denoiser, clean: Pixels) -> None:
    _, channels, height, width = clean.shape
    wanted = (denoiser.channels or channels, *(denoiser.size or (height, width)))
    if (channels, height, width) != wanted:
        raise InputError(f"{denoiser.name} works on images of shape {wanted}; got {(channels, height, width)}")
    if not bool((clean >= 0).all() and (clean <= 1).all()):
        raise InputError(f"expected clean pixels in [0, 1]; got {float(clean.min()):.4g} to {float(clean.max()):.4g}")


def _check_estimate(estimate: object, noisy: Pixels, name: str) -> None:
    expected = (tuple(noisy.shape), noisy.dtype)
    found = (tuple(estimate.shape), estimate.dtype) if isinstance(estimate, Tensor) else type(estimate).__name__
    _require(
        found == expected,
        f"expected denoised pixels of the same shape and dtype, {expected}; {name} gives {found}",
    )
    low, high = (float(v) for v in torch.aminmax(estimate)) if isinstance(estimate, Tensor) else (0.0, 1.0)
    _require(
        low >= 0 and high <= 1,  # also refuses NaN
        f"expected denoised pixels in [0, 1]; {name} gives {low:.4g} to {high:.4g}.\n"
        "  Map the network's own range back, such as (y + 1) / 2, then clamp(0, 1).",
    )


def _random_state(device: torch.device) -> list[Tensor]:
    """Of every generator of torch that a forward pass could draw from unasked."""
    on_device = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *on_device]


def _gap(one: Tensor, other: Tensor) -> float:
    """Largest difference, as a share of the largest value."""
    return float((one - other).abs().max() / one.abs().max().clamp(min=1e-6))


def _short(value: object, length: int = 200) -> str:
    text = repr(value)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ModelError(otherwise)
