"""The smoothed classifier: what the base classifier says most often under Gaussian noise.

References:
    Certified Adversarial Robustness via Randomized Smoothing, Cohen, Rosenfeld, Kolter, 2019,
    https://arxiv.org/abs/1902.02918
    Denoised Smoothing: A Provable Defense for Pretrained Classifiers, Salman, Sun, Yang, Kapoor, Kolter, 2020,
    https://arxiv.org/abs/2003.01908
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import cast, final

import torch
from torch import Tensor, nn

from robustify.bars import passing_bar
from robustify.certificates import Certificate, Prediction, Provenance
from robustify.certificates.answers import Answers
from robustify.certificates.certificate import conclude
from robustify.certificates.choice import family_of
from robustify.certificates.family import Family, Plan, Subject
from robustify.certificates.gaussian import check_sigma
from robustify.certificates.views import View, levels_of
from robustify.classifiers import ImageClassifier
from robustify.classifiers.base import check_evaluation_mode
from robustify.classifiers.preprocessing import check_floating
from robustify.contract import InputContract, Numerics
from robustify.denoisers import Denoiser
from robustify.errors import InputError
from robustify.options import method_takes
from robustify.smoothing.channels import Channels
from robustify.smoothing.checks import Checks
from robustify.smoothing.describe import described
from robustify.smoothing.engine import Engine, Keep
from robustify.smoothing.fingerprint import classifier_fingerprint, denoiser_fingerprint
from robustify.smoothing.inputs import ImageInput, OneImage, is_batch, to_image
from robustify.smoothing.laws import law_of
from robustify.smoothing.noise import accepted
from robustify.smoothing.pipeline import Pipeline
from robustify.smoothing.rounds import NONE_YET, Begun, Job, Q
from robustify.smoothing.settings import CertifyOptions, PredictOptions, Progress, Sampling, Settings
from robustify.types import Logits, Pixels


@final
class SmoothedClassifier(nn.Module):
    """A classifier behind noise and a denoiser, with certificates.

    Arguments:
        classifier: Pixels to logits, in evaluation mode.
        denoiser: Noisy pixels to pixels; `Identity()` for plain smoothing.
        sigma: Standard deviation of the noise in [0, 1] pixels, positive: certificates are then of the family
            `Gaussian(sigma)`.
        family: The kind of certificates, where it is another.
        precision: See `Pipeline`. Another precision is another base classifier, with its own certificates.
        compiled: See `Pipeline`. It rounds differently, so this too is another base classifier.
        before: See `Pipeline`.

    Raises:
        InputError: If neither or both of sigma and family are given, a sigma is not positive, the denoiser cannot
            work at it, or there is no such precision, or no compiler.
        ModelError: If denoiser and classifier do not fit each other.
    """

    def __init__(
        self,
        classifier: ImageClassifier,
        denoiser: Denoiser,
        *,
        sigma: float | None = None,
        family: Family | None = None,
        precision: str = "float32",
        compiled: bool = False,
        before: Pipeline | None = None,
    ) -> None:
        super().__init__()
        if sigma is None and family is None:
            raise InputError("give the standard deviation of the noise, sigma, or a family of certificates")
        self.family = family_of(sigma, family)
        for level in self.family.levels:
            check_sigma(level)
            denoiser.describe(level)  # raises where the schedule does not reach sigma
        self.pipeline = Pipeline(classifier, denoiser, precision=precision, compiled=compiled, before=before)
        self._channels = Channels(self.pipeline, self.family.bases)
        self.eval()

    @property
    def classifier(self) -> ImageClassifier:
        """The classifier behind noise and denoiser."""
        return self.pipeline.classifier

    @property
    def denoiser(self) -> Denoiser:
        """The denoiser between noise and classifier."""
        return self.pipeline.denoiser

    @property
    def sigma(self) -> float:
        """Standard deviation of the noise in [0, 1] pixels; the first, where there are several; 0 without noise."""
        return (*self.family.levels, 0.0)[0]

    @property
    def precision(self) -> str:
        """Data type of matrix products and convolutions."""
        return self.pipeline.precision

    @property
    def contract(self) -> InputContract:
        """The space in which noise is added and radii live."""
        return self.pipeline.contract

    @property
    def numerics(self) -> Numerics:
        """How the networks compute."""
        return self.pipeline.numerics

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.classifier.labels

    def logits(self, noisy: Pixels) -> Logits:
        """The base classifier's logits of images under noise of `sigma`, shape (B, classes)."""
        logits: Logits = self.pipeline(noisy, self.sigma)
        return logits

    def denoise(self, noisy: Pixels) -> Pixels:
        """What the classifier is shown of images under noise of `sigma`."""
        return self.pipeline.denoise(noisy, self.sigma)

    def forward(self, pixels: Pixels, draws: int = 8) -> Logits:
        """Differentiable log-probabilities, averaged over fresh noise draws; for attacks and training, no proof.

        Arguments:
            pixels: Images in [0, 1], shape (B, *contract.shape).
            draws: Noise draws per image.

        Raises:
            InputError: If the pixels are no floating-point numbers.
        """
        check_floating(pixels)
        copies = pixels.repeat_interleave(draws, dim=0)
        logits = self.logits(copies + self.sigma * torch.randn_like(copies))
        log_probabilities = logits.log_softmax(dim=1).view(len(pixels), draws, -1)
        mean: Logits = log_probabilities.logsumexp(dim=1) - math.log(draws)
        return mean

    @method_takes(CertifyOptions)
    def certify(self, images: ImageInput, settings: CertifyOptions) -> Certificate | list[Certificate]:
        """Certifies the prediction at one image or each of a batch; abstains rather than guesses.

        `certify(x)` finds the largest radius, from as many of `n_max` draws as seem worth while;
        `certify(x, radius=r)` decides, usually with far fewer draws, whether the label holds within r, or within
        each of several radii; `certify(x, n=n)` is the classical certificate from exactly n draws.

        Arguments:
            images: A path, PIL image, array or tensor; or a batch of them, answered by a list.
            settings: The options of `Settings` as keywords, and `progress`, which is called with the number of draws
                just finished; where it is None, a bar appears when it takes a while.

        Raises:
            InputError: Before any sampling, if an image or an option cannot be used.
            ModelError: If the model was put in training mode or is no fixed function of one image, or the noise that
                it was fed is not what it should be.
        """
        provenance = self.provenance(settings)
        samples = {str(i): image for i, image in enumerate(self._prepare(images, settings))}
        most, found = provenance.plan.most_draws, {}
        with passing_bar("certify", most * len(samples), hide=settings.progress is not None) as bar:
            for certificate in self.certificates(samples.items(), provenance, settings.progress or bar.update):
                found[certificate.sample] = certificate
                bar.total -= most - certificate.draws  # what an early decision saved
        certificates = [found[sample] for sample in samples]
        return Answers(certificates) if is_batch(images) else certificates[0]

    @method_takes(PredictOptions)
    def predict(self, images: ImageInput, settings: PredictOptions) -> Prediction | list[Prediction]:
        """The smoothed classifier's label at one image or each of a batch, without a radius.

        The label differs from the ideal smoothed classifier's with chance at most `alpha`; where the two leading
        classes cannot be told apart it abstains.

        Arguments:
            images: A path, PIL image, array or tensor; or a batch of them, answered by a list.
            settings: The options of `PredictSettings` as keywords, and `progress`, as `certify` takes it.

        Raises:
            InputError, ModelError: As `certify` does.
        """
        check_evaluation_mode(self)
        seed, _ = settings.entropy()
        poll = self.family.poll(settings.n, settings.alpha, self.subject(settings))
        jobs = [Job(x, str(i), poll.query(len(self.labels))) for i, x in enumerate(self._prepare(images, settings))]
        batch = settings.batch_for(poll.n)
        with passing_bar("predict", poll.n * len(jobs), hide=settings.progress is not None) as bar:
            for _ in self.answered(jobs, poll.views, settings.soundness, seed, batch, settings.progress or bar.update):
                pass
        predictions = [poll.answer(job.query, self.labels) for job in jobs]
        return Answers(predictions) if is_batch(images) else predictions[0]

    def subject(self, settings: Sampling) -> Subject:
        """What these settings ask about: the space of the images, the classes, and how exact the noise is."""
        return Subject(
            self.contract,
            len(self.labels),
            slack=lambda view: settings.slack(view.sigma, self.contract),
            mean=self.classifier.preprocessing.mean_colour(self.contract.channels),
        )

    def plan(self, settings: Settings) -> Plan:
        """What certificates with these settings ask of each image.

        Raises:
            InputError: If nothing could ever be certified so.
        """
        return self.family.plan(settings, self.subject(settings))

    def provenance(self, settings: Settings) -> Provenance:
        """What certificates of this model depend on besides image and votes.

        Raises:
            InputError: If nothing could ever be certified so.
            ModelError: If the model was put in training mode.
        """
        plan = self.plan(settings)
        for view in plan.views:
            law_of(view, settings.soundness).evidence()  # raises where there is no such noise, before a run is begun
        check_evaluation_mode(self)
        seed, fresh = settings.entropy()
        return Provenance(
            plan=plan,
            seed=seed,
            fresh=fresh,
            soundness=settings.soundness,
            contract=self.contract,
            classifier=classifier_fingerprint(self.classifier),
            denoiser=denoiser_fingerprint(self.denoiser, levels_of(plan.views)),
            numerics=self.numerics,
            batch=settings.batch_for(plan.most_draws),
        )

    def certificates(
        self,
        samples: Iterable[tuple[str, Tensor]],
        provenance: Provenance,
        progress: Progress | None = None,
        truths: Mapping[str, int] | None = None,
        begun: Mapping[str, Begun] | None = None,
        keep: Keep | None = None,
    ) -> Iterator[Certificate]:
        """Certifies named images that meet the contract; yields each certificate as soon as it is decided.

        Arguments:
            samples: Names and images, as `prepare` makes them, taken one by one, when a batch has room.
            provenance: What the certificates depend on.
            progress: Called with the number of draws just finished.
            truths: True labels by name, where the plan tests them.
            begun: Draws by name that were kept before, under the same provenance.
            keep: Called about every 20 seconds with the draws so far of images that are not decided yet, by name.
        """
        p, known, before = provenance, truths or {}, {} if begun is None else begun
        query = partial(p.plan.query, len(self.labels))
        jobs = (
            Job(accepted(x, p.soundness), name, query(known.get(name)), before.get(name, NONE_YET))
            for name, x in samples
        )
        for job in self.answered(jobs, p.plan.views, p.soundness, p.seed, p.batch, progress, keep):
            yield conclude(job.query, sample=job.sample, provenance=p, labels=self.labels)

    def answered(
        self,
        jobs: Iterable[Job[Q]],
        views: Sequence[View],
        soundness: str,
        seed: int,
        batch: int,
        progress: Progress | None,
        keep: Keep | None = None,
    ) -> Iterator[Job[Q]]:
        """Answers the jobs' queries; what the certificates rest on is verified before any answer is passed on."""
        check_evaluation_mode(self)
        waiting = iter(jobs)
        if (first := next(waiting, None)) is None:  # nothing to answer, so nothing to check
            return
        channels = self._channels.open(views, soundness, batch)
        checks = Checks([channel.law.evidence() for channel in channels])
        engine: Engine[Q] = Engine(channels, seed=seed, batch=batch, checks=checks, progress=progress, keep=keep)
        yield from checks.guard(engine.run(chain([first], waiting)))

    def forget_checks(self) -> None:
        """Makes the next certificate check the model anew, as a new process would."""
        self._channels.forget()

    def prepare(self, image: OneImage, soundness: str = "grid") -> Tensor:
        """One image that meets the contract, on the model's device: bytes for "grid", else floats in [0, 1].

        Raises:
            InputError: If the image cannot be read, does not meet the contract or, for "grid", is not 8-bit.
        """
        found = to_image(image, self.classifier.preprocessing, self.contract)
        return accepted(found, soundness).to(self.classifier.device)

    def _prepare(self, images: ImageInput, settings: Sampling) -> list[Tensor]:
        if not is_batch(images):
            return [self.prepare(cast(OneImage, images), settings.soundness)]
        if len(batch := cast(Sequence[OneImage], images)) == 0:
            raise InputError("expected at least one image; got an empty batch")
        return [self.prepare(image, settings.soundness) for image in batch]

    def __repr__(self) -> str:
        return described(self.pipeline, self.family)
