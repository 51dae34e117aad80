"""The attempts at the images of a run, as a ledger counts them, and what one more attempt may spend."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import final

from robustify.certificates import Provenance
from robustify.certificates.views import View, levels_of
from robustify.data import Sample
from robustify.errors import InputError
from robustify.runs.ledger import Attempt, Ledger
from robustify.smoothing import Settings, SmoothedClassifier
from robustify.smoothing.fingerprint import denoiser_fingerprint, pixels_fingerprint


@final
@dataclass(frozen=True)
class Attempts:
    """The attempts at the images of a run, by a ledger.

    Arguments:
        ledger: The ledger.
        model: Name of the smoothed classifier.
        images: SHA-256 of the pixels of each image.
        total: Allowed chance, for each image, that any of all attempts is false.
    """

    ledger: Ledger
    model: str
    images: frozenset[str]
    total: float

    @classmethod
    def at(
        cls, model: SmoothedClassifier, samples: Sequence[Sample], share: Settings, ledger: str | PathLike[str]
    ) -> "Attempts":
        """The attempts at these samples; all images are read, and those that cannot be used are left out.

        Arguments:
            model: The smoothed classifier.
            samples: The images of the run.
            share: How to certify each of them, with what all attempts at it may spend.
            ledger: Folder of the ledger.
        """
        images = image_keys(model, samples, share.soundness)
        return cls(Ledger(Path(ledger)), model_key(model, model.provenance(share)), images, share.alpha)

    def made(self) -> int:
        """The largest number of attempts so far at any of the images.

        Raises:
            RunError: If attempts at some of the images share another alpha, or a charge is lost.
        """
        return self.ledger.attempts(self.model, self.images, self.total)

    def next(self) -> Attempt:
        """The attempt that would be charged next; errors are those of `made`."""
        return Attempt(self.made() + 1, self.total)

    def charge(self) -> Attempt:
        """Charges one more attempt; errors are those of `made`."""
        return self.ledger.charge(self.model, self.images, self.total)


def spending(share: Settings, attempt: Attempt | None) -> Settings:
    """The settings with which each image is certified: with the alpha of the attempt, where there is one."""
    return share if attempt is None else replace(share, alpha=attempt.alpha)


def image_keys(model: SmoothedClassifier, samples: Sequence[Sample], soundness: str) -> frozenset[str]:
    """SHA-256 hashes of the pixels of all samples that can be used."""
    keys = set[str]()
    for sample in samples:
        with suppress(InputError):
            keys.add(pixels_fingerprint(model.prepare(sample.image, soundness)))
    return frozenset(keys)


def model_key(model: SmoothedClassifier, provenance: Provenance) -> str:
    """Name of the smoothed classifier that certificates with this provenance are about.

    Families that share their first view share attempts, as their claims are much alike: mixtures of any weight and
    cascades of any lower levels would otherwise be as many free attempts at one claim.
    """
    p, first = provenance, provenance.plan.views[0]
    denoiser = denoiser_fingerprint(model.denoiser, levels_of([first]))
    return f"{p.classifier} {denoiser} {p.numerics} {_view_key(first)} {p.contract}"


def _view_key(view: View) -> str:
    if view == View(view.sigma):
        return repr(view.sigma)
    base = ":".join(view.base.split(":")[:2])  # without its settings
    return f"{base} {view.sigma!r} {view.change!r}"
