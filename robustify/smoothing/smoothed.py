"""The smoothed classifier: what the base classifier says most often under Gaussian noise.

References:
    Certified Adversarial Robustness via Randomized Smoothing, Cohen, Rosenfeld, Kolter, 2019,
    https://arxiv.org/abs/1902.02918
    Denoised Smoothing: A Provable Defense for Pretrained Classifiers, Salman, Sun, Yang, Kapoor, Kolter, 2020,
    https://arxiv.org/abs/2003.01908
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast, final

import torch
from torch import nn

from robustify.certificates import Certificate, Evidence, Prediction
from robustify.certificates.bounds import check_alpha
from robustify.certificates.certificate import certify_votes
from robustify.certificates.prediction import predict_votes
from robustify.certificates.radius import check_budget, check_count
from robustify.classifiers import ImageClassifier
from robustify.classifiers.base import check_evaluation_mode
from robustify.denoisers import Denoiser
from robustify.errors import InputError, ModelError
from robustify.smoothing.engine import Progress, count_votes
from robustify.smoothing.identity import classifier_hash, denoiser_hash
from robustify.smoothing.inputs import ImageInput, OneImage, is_batch, to_pixels
from robustify.smoothing.noise import ESTIMATION, PREDICTION, SELECTION, NoiseAddress, fresh_seed
from robustify.types import Image, InputContract, Logits, Pixels


@final
class SmoothedClassifier(nn.Module):
    """A classifier behind noise and a denoiser, with certificates.

    Arguments:
        classifier: Pixels to logits, in evaluation mode.
        denoiser: Noisy pixels to pixels; `Identity()` for plain smoothing.
        sigma: Standard deviation of the noise in [0, 1] pixels, positive.

    Raises:
        InputError: If sigma is not positive or the denoiser cannot work at it.
        ModelError: If denoiser and classifier do not fit each other.
    """

    def __init__(self, classifier: ImageClassifier, denoiser: Denoiser, *, sigma: float) -> None:
        super().__init__()
        if not (sigma > 0 and math.isfinite(sigma)):
            raise InputError(f"expected sigma > 0, the noise's standard deviation in [0, 1] pixels; got {sigma}")
        denoiser.describe(sigma)  # raises where the schedule does not reach sigma
        self.classifier = classifier
        self.denoiser = denoiser.to(classifier.device)
        self.sigma = float(sigma)
        self.contract = _contract(classifier, denoiser)
        self.eval()

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.classifier.labels

    def logits(self, noisy: Pixels) -> Logits:
        """The base classifier: one denoising step, then the classifier; a fixed function of each noisy image."""
        logits: Logits = self.classifier(self.denoiser(noisy, self.sigma))
        return logits

    def forward(self, pixels: Pixels, draws: int = 8) -> Logits:
        """Differentiable log-probabilities, averaged over fresh noise draws; for attacks and training, no proof.

        Arguments:
            pixels: In [0, 1], shape (B, *contract.shape).
            draws: Noise draws per image.
        """
        copies = pixels.repeat_interleave(draws, dim=0)
        logits = self.logits(copies + self.sigma * torch.randn_like(copies))
        log_probabilities = logits.log_softmax(dim=1).view(len(pixels), draws, -1)
        mean: Logits = log_probabilities.logsumexp(dim=1) - math.log(draws)
        return mean

    def certify(
        self,
        images: ImageInput,
        *,
        n: int = 10_000,
        n0: int = 100,
        alpha: float = 0.001,
        batch: int = 64,
        seed: int | None = None,
        progress: Progress | None = None,
    ) -> Certificate | list[Certificate]:
        """Certifies the prediction at one image or each of a batch; abstains rather than guesses.

        Arguments:
            images: A path, PIL image, array or tensor; or a batch of them, answered by a list.
            n: Draws that certify; radii grow with it, see `largest_radius`.
            n0: Draws, disjoint from those, that choose the label.
            alpha: Allowed chance, per image, that the certificate is false.
            batch: Draws per forward pass, at most; memory depends on it alone.
            seed: Of the noise. None takes fresh entropy; a given seed marks the certificate a reproduction.
            progress: Called with the number of draws just finished.

        Raises:
            InputError: Before any sampling, if an image or a setting cannot be used.
            ModelError: If the model was put in training mode.
        """
        evidence = self.evidence(n=n, n0=n0, alpha=alpha, batch=batch, seed=seed)
        pixels = self._prepare(images)
        certificates = [
            self.certify_pixels(image, replace(evidence, sample=str(i)), progress) for i, image in enumerate(pixels)
        ]
        return certificates if is_batch(images) else certificates[0]

    def predict(
        self,
        images: ImageInput,
        *,
        n: int = 1_000,
        alpha: float = 0.001,
        batch: int = 64,
        seed: int | None = None,
        progress: Progress | None = None,
    ) -> Prediction | list[Prediction]:
        """The smoothed classifier's label at one image or each of a batch, without a radius.

        The label differs from the ideal smoothed classifier's with chance at most `alpha`; where the two leading
        classes cannot be told apart it abstains. Arguments and errors are those of `certify`.
        """
        check_alpha(alpha)
        check_count("n", n)
        check_count("batch", batch)
        seed, _ = _seed(seed)
        pixels = self._prepare(images)
        predictions = [
            predict_votes(
                self._votes(image, NoiseAddress(seed, str(i), PREDICTION), n, batch, progress),
                self.labels,
                n=n,
                alpha=alpha,
            )
            for i, image in enumerate(pixels)
        ]
        return predictions if is_batch(images) else predictions[0]

    def evidence(self, *, n: int, n0: int, alpha: float, batch: int, seed: int | None = None) -> Evidence:
        """What certificates of this model depend on besides votes, for a sample still to be named.

        Raises:
            InputError: If nothing could ever be certified so.
            ModelError: If the model was put in training mode.
        """
        check_budget(n=n, n0=n0, alpha=alpha)
        check_count("batch", batch)
        check_evaluation_mode(self)
        seed, fresh = _seed(seed)
        return Evidence(
            sigma=self.sigma,
            alpha=alpha,
            n0=n0,
            n=n,
            seed=seed,
            fresh=fresh,
            sample="",
            contract=self.contract,
            classifier=classifier_hash(self.classifier),
            denoiser=denoiser_hash(self.denoiser, self.sigma),
            dtype=str(self.classifier.dtype).removeprefix("torch."),
            batch=min(batch, max(n, n0)),
        )

    def certify_pixels(self, image: Image, evidence: Evidence, progress: Progress | None = None) -> Certificate:
        """Certifies one image that meets the contract, with the noise at the address that the evidence names."""
        selection, votes = (
            self._votes(image, NoiseAddress(evidence.seed, evidence.sample, stage), n, evidence.batch, progress)
            for stage, n in ((SELECTION, evidence.n0), (ESTIMATION, evidence.n))
        )
        return certify_votes(selection, votes, evidence, self.labels)

    def prepare(self, image: OneImage) -> Image:
        """One image as pixels that meet the contract, on the model's device.

        Raises:
            InputError: If the image cannot be read or does not meet the contract.
        """
        return to_pixels(image, self.classifier.preprocessing, self.contract).to(self.classifier.device)

    def _prepare(self, images: ImageInput) -> list[Image]:
        if not is_batch(images):
            return [self.prepare(cast(OneImage, images))]
        if len(batch := cast(Sequence[OneImage], images)) == 0:
            raise InputError("expected at least one image; got an empty batch")
        return [self.prepare(image) for image in batch]

    def _votes(
        self, image: Image, address: NoiseAddress, n: int, batch: int, progress: Progress | None
    ) -> tuple[int, ...]:
        check_evaluation_mode(self)
        return count_votes(
            self.logits,
            image,
            address,
            classes=len(self.labels),
            sigma=self.sigma,
            n=n,
            batch=batch,
            progress=progress,
        )

    def __repr__(self) -> str:
        parts = {"classifier": self.classifier.licence, "denoiser": self.denoiser.licence}
        licences = ", ".join(f"{part} {licence or 'unknown'}" for part, licence in parts.items())
        lines = {
            "noise": f"sigma = {self.sigma:g}, added to {self.contract}; never clipped",
            "denoiser": f"{self.denoiser.name}: {self.denoiser.describe(self.sigma)}",
            "classifier": f"{self.classifier.name}, {len(self.labels)} classes",
            "inside": str(self.classifier.preprocessing),
            "dtype": str(self.classifier.dtype).removeprefix("torch."),
            "licences": licences,
        }
        return "SmoothedClassifier\n" + "\n".join(f"  {key:<10} {value}" for key, value in lines.items())


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


def _seed(seed: int | None) -> tuple[int, bool]:
    """The seed to use and whether it is fresh."""
    if seed is None:
        return fresh_seed(), True
    if not 0 <= seed < 2**128:
        raise InputError(f"expected a seed from 0 to 2**128 - 1; got {seed}")
    return seed, False
