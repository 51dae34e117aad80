"""The base function that is smoothed: denoise, then classify."""

import os
import shutil

import torch
from torch import nn

from robustify.classifiers import ImageClassifier
from robustify.contract import InputContract, Numerics
from robustify.denoisers import Denoiser, Identity
from robustify.denoisers.base import faults_of
from robustify.errors import InputError, ModelError
from robustify.smoothing.numerics import float32_products
from robustify.types import Levels, Logits, Pixels

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Data types of autocast, by name; float32 is none."""


class Pipeline(nn.Module):
    """One fixed function of each noisy image: a denoising step, then the classifier, which may be told the noise level.

    Arguments:
        classifier: Pixels to logits, in evaluation mode.
        denoiser: Noisy pixels to pixels; `Identity()` for none, as before a classifier that denoises by itself.
        precision: Data type of matrix products and convolutions: "float32", or "bfloat16" or "float16" by autocast,
            which is faster where the hardware has it.
        compiled: Whether torch.compile fuses the networks, in place and in channels-last memory, on a GPU as CUDA
            graphs. The first batch of a shape then takes up to a minute, those after it less; needs a C++ compiler.
        before: The pipeline of which this one is a changed version, for base functions that compare the two.

    Raises:
        InputError: If there is no such precision, or no compiler, or a denoiser before a noise-conditioned classifier.
        ModelError: If denoiser and classifier do not fit each other.
    """

    def __init__(
        self,
        classifier: ImageClassifier,
        denoiser: Denoiser,
        *,
        precision: str = "float32",
        compiled: bool = False,
        before: "Pipeline | None" = None,
    ) -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise InputError(f"expected precision {', '.join(PRECISIONS)}; got {precision!r}")
        _check_together(classifier, denoiser)
        self.classifier = classifier
        self.denoiser = denoiser
        self.precision = precision
        self.compiled = compiled
        self.before = before
        self.contract = _contract(classifier, denoiser)
        self.eval()
        if compiled:
            _compile(self)

    def forward(self, noisy: Pixels, sigma: Levels) -> Logits:
        """Logits of each noisy image, shape (B, classes).

        Arguments:
            noisy: Pixels under noise, shape (B, *contract.shape).
            sigma: Standard deviation of the noise in [0, 1] pixels: one number for all images, or one for each.
        """
        with self._autocast(noisy):
            logits: Logits = self.classifier(self._denoised(noisy, sigma), sigma)
        return logits

    def classify(self, pixels: Pixels) -> Logits:
        """Logits of the classifier alone, in the pipeline's own precision, whatever autocast there is around."""
        with self._autocast(pixels):
            logits: Logits = self.classifier(pixels)
        return logits

    def denoise(self, noisy: Pixels, sigma: Levels) -> Pixels:
        """What the classifier is shown; in the pipeline's own precision, whatever autocast there is around."""
        with self._autocast(noisy):
            denoised = self._denoised(noisy, sigma)
        return denoised.to(noisy.dtype)

    def _denoised(self, noisy: Pixels, sigma: Levels) -> Pixels:
        with faults_of(self.denoiser.name):
            denoised: Pixels = self.denoiser(noisy, sigma)
        return denoised

    def _autocast(self, noisy: Pixels) -> torch.autocast:
        lower = self.precision != "float32"
        return torch.autocast(noisy.device.type, PRECISIONS[self.precision] if lower else None, enabled=lower)

    @property
    def numerics(self) -> Numerics:
        """How the networks compute."""
        weights = str(self.classifier.dtype).removeprefix("torch.")
        return Numerics(weights, self.precision, self.compiled, float32_products(self.device.type))

    @property
    def device(self) -> torch.device:
        """Where the networks live."""
        return self.classifier.device


def _compile(pipeline: Pipeline) -> None:
    """Compiles the networks alone: what is around them in a denoiser computes timesteps, which dynamo cannot follow."""
    on_cpu = pipeline.device.type == "cpu"
    if on_cpu and not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
        raise InputError(
            "compiled=True needs a C++ compiler; found none.\n  Install one, such as g++, or leave it out."
        )
    pipeline.to(memory_format=torch.channels_last)
    mode = "default" if on_cpu else "reduce-overhead"
    for network in (pipeline.classifier.network, *pipeline.denoiser.children()):
        network.compile(mode=mode)


def _check_together(classifier: ImageClassifier, denoiser: Denoiser) -> None:
    """Raises `InputError` where the classifier takes no denoiser, or they live on two devices.

    Which of them should move is not ours to guess.
    """
    if classifier.noise_conditioned and not isinstance(denoiser, Identity):
        raise InputError(
            f"{classifier.name} denoises by itself, so no denoiser goes before it; got {denoiser.name}.\n"
            "  Leave out denoiser=."
        )
    elsewhere = {p.device for p in denoiser.parameters()} - {classifier.device}
    if elsewhere:
        raise InputError(
            f"the classifier is on {classifier.device}, the denoiser on {elsewhere.pop()}.\n"
            "  Move one of them, or say where both compute: device='cuda'."
        )


def _contract(classifier: ImageClassifier, denoiser: Denoiser) -> InputContract:
    """The denoiser's shape where it has one, else the classifier's; gray may feed RGB, not the reverse."""
    wanted = classifier.preprocessing.channels
    channels = denoiser.channels or wanted
    if channels not in (1, wanted):
        raise ModelError(
            f"{denoiser.name} works on {channels}-channel images, {classifier.name} on {wanted}-channel ones: "
            "they do not fit each other"
        )
    height, width = denoiser.size or classifier.preprocessing.size
    return InputContract(channels, height, width)
