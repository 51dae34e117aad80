"""The smoothed classifier: what the base classifier says most often under Gaussian noise.

References:
    Certified Adversarial Robustness via Randomized Smoothing, Cohen, Rosenfeld, Kolter, 2019,
    https://arxiv.org/abs/1902.02918
    Denoised Smoothing: A Provable Defense for Pretrained Classifiers, Salman, Sun, Yang, Kapoor, Kolter, 2020,
    https://arxiv.org/abs/2003.01908
"""

import math
import os
import shutil
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import NoReturn, cast, final

import torch
from torch import nn
from tqdm import tqdm

from robustify.certificates import Certificate, Prediction, Provenance
from robustify.certificates.bounds import check_alpha
from robustify.certificates.certificate import conclude
from robustify.certificates.radii import check_count
from robustify.certificates.prediction import predict_votes
from robustify.certificates.queries import Poll, Transcript
from robustify.classifiers import ImageClassifier
from robustify.classifiers.base import check_evaluation_mode
from robustify.contract import InputContract
from robustify.denoisers import Denoiser, Identity
from robustify.errors import InputError, ModelError
from robustify.smoothing.checks.fixed_function import Margin, probe, rounding_of, state
from robustify.smoothing.checks.independence import VoteCheck
from robustify.smoothing.checks.noise_law import NoiseCheck
from robustify.smoothing.engine import Job, Progress, Q, run
from robustify.smoothing.fingerprint import classifier_fingerprint, denoiser_fingerprint
from robustify.smoothing.inputs import ImageInput, OneImage, is_batch, to_pixels
from robustify.smoothing.noise import Soundness
from robustify.smoothing.settings import Settings
from robustify.types import Image, Logits, Pixels

BAR_AFTER = 2.0
"""Seconds of sampling before a bar appears: most answers are there sooner."""

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@final
class SmoothedClassifier(nn.Module):
    """A classifier behind noise and a denoiser, with certificates.

    Arguments:
        classifier: Pixels to logits, in evaluation mode.
        denoiser: Noisy pixels to pixels; `Identity()` for plain smoothing.
        sigma: Standard deviation of the noise in [0, 1] pixels, positive.
        precision: Of matrix products and convolutions: "float32", or "bfloat16" or "float16" by autocast, which is
            faster where the hardware has it. Another precision is another base classifier, with its own certificates.
        compiled: Whether torch.compile fuses the networks, in place and in channels-last memory, on a GPU as CUDA
            graphs. The first batch of a shape then takes up to a minute, those after it less; needs a C++ compiler. It
            rounds differently, so this too is another base classifier.

    Raises:
        InputError: If sigma is not positive, the denoiser cannot work at it, or there is no such precision, or
            no compiler.
        ModelError: If denoiser and classifier do not fit each other.
    """

    def __init__(
        self,
        classifier: ImageClassifier,
        denoiser: Denoiser,
        *,
        sigma: float,
        precision: str = "float32",
        compiled: bool = False,
    ) -> None:
        super().__init__()
        if not _is_positive(sigma):
            raise InputError(f"expected a finite sigma > 0, the noise in units of [0, 1] pixels; got {sigma!r}")
        if precision not in PRECISIONS:
            raise InputError(f"expected precision {', '.join(PRECISIONS)}; got {precision!r}")
        denoiser.describe(sigma)  # raises where the schedule does not reach sigma
        self.classifier = classifier
        self.denoiser = denoiser.to(classifier.device)
        self.sigma = float(sigma)
        self.precision = precision
        self.compiled = compiled
        self.contract = _contract(classifier, denoiser)
        self._probed: tuple[Hashable, Margin] | None = None
        self.eval()
        if compiled:
            _compile(self)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.classifier.labels

    def logits(self, noisy: Pixels) -> Logits:
        """The base classifier: one denoising step, then the classifier; a fixed function of each noisy image."""
        with self._autocast(noisy):
            logits: Logits = self.classifier(self.denoiser(noisy, self.sigma))
        return logits

    def denoise(self, noisy: Pixels) -> Pixels:
        """What the classifier is shown; in the model's own precision, whatever autocast there is around."""
        with self._autocast(noisy):
            denoised: Pixels = self.denoiser(noisy, self.sigma)
        return denoised.to(noisy.dtype)

    def _autocast(self, noisy: Pixels) -> torch.autocast:
        lower = self.precision != "float32"
        return torch.autocast(noisy.device.type, PRECISIONS[self.precision] if lower else None, enabled=lower)

    @property
    def dtype(self) -> str:
        """How the networks compute: the precision of their weights, of autocast where it is lower, if compiled."""
        parts = [str(self.classifier.dtype).removeprefix("torch.")]
        if self.precision != "float32":
            parts.append(f"{self.precision} autocast")
        return ", ".join([*parts, "compiled"] if self.compiled else parts)

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
        radius: float | Sequence[float] | None = None,
        n: int | None = None,
        n_max: int = 10_000,
        n0: int = 100,
        alpha: float = 0.001,
        soundness: str = "grid",
        batch: int = 64,
        seed: int | None = None,
        progress: Progress | None = None,
    ) -> Certificate | list[Certificate]:
        """Certifies the prediction at one image or each of a batch; abstains rather than guesses.

        `certify(x)` finds the largest radius, from as many of `n_max` draws as seem worth while;
        `certify(x, radius=r)` decides, usually with far fewer draws, whether the label holds within r, or within
        each of several radii; `certify(x, n=n)` is the classical certificate from exactly n draws.

        Arguments:
            images: A path, PIL image, array or tensor; or a batch of them, answered by a list.
            radius, n, n_max, n0, alpha, soundness, batch, seed: See `Settings`.
            progress: Called with the number of draws just finished; where None, a bar appears when it takes a while.

        Raises:
            InputError: Before any sampling, if an image or a setting cannot be used.
            ModelError: If the model was put in training mode or is no fixed function of one image, or the noise that
                it was fed is not what it should be.
        """
        settings = Settings(radius, n, n_max, n0, alpha, soundness, batch, seed)
        provenance = self.provenance(settings)
        samples = {str(i): image for i, image in enumerate(self._prepare(images, settings))}
        plan, found = provenance.plan, {}
        with _bar("certify", (plan.n0 + plan.n) * len(samples), progress) as bar:
            for sample, certificate in self.certificates(samples.items(), provenance, progress or bar.update):
                found[sample] = certificate
                bar.total -= plan.n - certificate.n  # what an early decision saved
        certificates = [found[sample] for sample in samples]
        return certificates if is_batch(images) else certificates[0]

    def predict(
        self,
        images: ImageInput,
        *,
        n: int = 1_000,
        alpha: float = 0.001,
        soundness: str = "grid",
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
        settings = Settings(alpha=alpha, soundness=soundness, batch=batch, seed=seed)
        check_evaluation_mode(self)
        seed, _ = settings.entropy()
        pixels = self._prepare(images, settings)
        polls = [Poll(len(self.labels), n) for _ in pixels]
        jobs = [Job(x, seed, str(i), poll) for i, (x, poll) in enumerate(zip(pixels, polls, strict=True))]
        with _bar("predict", n * len(jobs), progress) as bar:
            for _ in self._run(jobs, settings.soundness, min(batch, n), progress or bar.update):
                pass
        slack = settings.slack(self.sigma, self.contract)
        predictions = [predict_votes(poll.votes, self.labels, n=n, alpha=alpha, slack=slack) for poll in polls]
        return predictions if is_batch(images) else predictions[0]

    def provenance(self, settings: Settings) -> Provenance:
        """What certificates of this model depend on besides votes, for a sample still to be named.

        Raises:
            InputError: If nothing could ever be certified so.
            ModelError: If the model was put in training mode.
        """
        plan = settings.plan(self.sigma, self.contract)
        check_evaluation_mode(self)
        seed, fresh = settings.entropy()
        return Provenance(
            plan=plan,
            seed=seed,
            fresh=fresh,
            sample="",
            soundness=settings.soundness,
            contract=self.contract,
            classifier=classifier_fingerprint(self.classifier),
            denoiser=denoiser_fingerprint(self.denoiser, self.sigma),
            dtype=self.dtype,
            batch=min(settings.batch, max(plan.n, plan.n0)),
        )

    def certificates(
        self,
        samples: Iterable[tuple[str, Image]],
        provenance: Provenance,
        progress: Progress | None = None,
        truths: Mapping[str, int] | None = None,
    ) -> Iterator[tuple[str, Certificate]]:
        """Certifies named images that meet the contract; yields each as soon as it is decided.

        Arguments:
            samples: Taken one by one, when a batch has room.
            provenance: What the certificates shall depend on; each carries its own sample's name.
            progress: Called with the number of draws just finished.
            truths: True labels by name, where the plan tests them.
        """
        plan, classes, truths = provenance.plan, len(self.labels), truths or {}
        jobs = (Job(x, provenance.seed, name, Transcript(plan, classes, truths.get(name))) for name, x in samples)
        for job in self._run(jobs, provenance.soundness, provenance.batch, progress):
            yield job.sample, conclude(job.questions, replace(provenance, sample=job.sample), self.labels)

    def _run(self, jobs: Iterable[Job[Q]], soundness: str, batch: int, progress: Progress | None) -> Iterator[Job[Q]]:
        check_evaluation_mode(self)
        noise = Soundness(soundness)
        check, votes = NoiseCheck(self.sigma, grid=noise is Soundness.GRID), VoteCheck()
        due = 0  # checked as provenance doubles: each check may refuse true noise once in a million times
        for job in run(
            self.logits,
            jobs,
            sigma=self.sigma,
            soundness=noise,
            batch=batch,
            margin=self._margin(batch),
            watch=check.add,
            check=votes,
            progress=progress,
        ):
            if check.sampled > due or votes.refused:  # noise that repeats explains votes that agree
                check.verify()
                due = 2 * check.sampled
            votes.verify()
            yield job
        check.verify()

    def _margin(self, batch: int) -> Margin:
        """By how much a vote must be ahead to count; probed again where the model or the batch changed."""
        lower = None if self.precision == "float32" else PRECISIONS[self.precision]
        key = (batch, self.sigma, self.precision, state(self.classifier, self.denoiser))
        if self._probed is None or self._probed[0] != key:
            found = probe(
                self.logits,
                self.contract.shape,
                sigma=self.sigma,
                batch=batch,
                rounding=rounding_of(self.classifier, self.denoiser, lower=lower),
                device=self.classifier.device,
            )
            self._probed = key, found
        return self._probed[1]

    def prepare(self, image: OneImage, soundness: str = "grid") -> Image:
        """One image as pixels that meet the contract, on the model's device.

        Raises:
            InputError: If the image cannot be read, does not meet the contract or, for "grid", is not 8-bit.
        """
        pixels = to_pixels(image, self.classifier.preprocessing, self.contract)
        return Soundness(soundness).check(pixels).to(self.classifier.device)

    def _prepare(self, images: ImageInput, settings: Settings) -> list[Image]:
        if not is_batch(images):
            return [self.prepare(cast(OneImage, images), settings.soundness)]
        if len(batch := cast(Sequence[OneImage], images)) == 0:
            raise InputError("expected at least one image; got an empty batch")
        return [self.prepare(image, settings.soundness) for image in batch]

    def __repr__(self) -> str:
        parts = {"classifier": self.classifier.licence}
        if not isinstance(self.denoiser, Identity):
            parts["denoiser"] = self.denoiser.licence
        gray = self.contract.channels < self.classifier.preprocessing.channels
        licences = ", ".join(f"{part} {licence or 'unknown'}" for part, licence in parts.items())
        lines = {
            "noise": f"sigma = {self.sigma:g}, added to {self.contract}; never clipped",
            **({"colour": "none: images are gray, and repeated to RGB for the classifier"} if gray else {}),
            "denoiser": f"{self.denoiser.name}: {self.denoiser.describe(self.sigma)}",
            "classifier": f"{self.classifier.name}, {len(self.labels)} classes",
            "inside": str(self.classifier.preprocessing),
            "dtype": f"{self.dtype}; on {self.classifier.device}",
            "licences": licences,
        }
        return "SmoothedClassifier\n" + "\n".join(f"  {key:<10} {value}" for key, value in lines.items())


def _bar(title: str, draws: int, progress: Progress | None) -> "tqdm[NoReturn]":
    """Over at most so many draws; never shown where somebody else is told of progress."""
    hidden = progress is not None
    return tqdm(total=draws, desc=title, unit="draw", unit_scale=True, delay=BAR_AFTER, leave=False, disable=hidden)


def _compile(model: SmoothedClassifier) -> None:
    """The networks alone: what is around them in a denoiser computes timesteps, which dynamo cannot follow."""
    on_cpu = model.classifier.device.type == "cpu"
    if on_cpu and not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
        raise InputError(
            "compiled=True needs a C++ compiler; found none.\n  Install one, such as g++, or leave it out."
        )
    model.to(memory_format=torch.channels_last)
    mode = "default" if on_cpu else "reduce-overhead"
    for network in (model.classifier.network, *model.denoiser.children()):
        network.compile(mode=mode)


def _is_positive(number: object) -> bool:
    return isinstance(number, Real) and 0 < float(number) < math.inf


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
