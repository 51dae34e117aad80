r"""A ledger of attempts: certifying again until it works must not pay.

If each of :math:`m` independent attempts at one image is false with chance at most :math:`\alpha`, the chance that any
is false is up to :math:`1 - (1 - \alpha)^m`. With a ledger the i-th attempt at an image may err only with chance
:math:`\frac{6}{\pi^2 i^2} \alpha`; since :math:`\sum_i i^{-2} = \pi^2 / 6`, all attempts together stay within alpha,
however many there are and whichever of them is shown.

An attempt is at one image under one model, whatever is asked: another radius or number of draws is one more try. A run
asks the same of all of its images, so its number is one more than the most attempts at any of them so far; numbers of
attempts at one image never repeat, which is all that the sum needs.
"""

import json
import math
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

from robustify.certificates.bounds import check_alpha
from robustify.certificates.radii import check_count
from robustify.errors import RunError
from robustify.folders import disk, make_folder, write_once


@final
@dataclass(frozen=True)
class Attempt:
    """One of the attempts at an image, and what it may spend.

    Arguments:
        number: Number of the attempt, from 1.
        total: Allowed chance that, of all attempts at one image, any is false.
    """

    number: int
    total: float

    def __post_init__(self) -> None:
        check_count("the number of an attempt", self.number)
        check_alpha(self.total)

    @property
    def alpha(self) -> float:
        """Allowed chance that this attempt is false, rounded down."""
        return self.total * 6 / (math.pi * self.number) ** 2 * (1 - 1e-12)


@final
@dataclass(frozen=True)
class _Charge:
    """The content of one file of a ledger."""

    model: str
    attempt: int
    total: float
    images: list[str]


@final
class Ledger:
    """A folder with one file for each charge; files are added, never changed.

    A charge is on disk, whole, before `charge` returns: killed at any moment, a run has drawn nothing that is not
    charged. Several processes may charge at once.

    Arguments:
        folder: Made where missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def attempts(self, model: str, images: Collection[str], total: float) -> int:
        """The largest number of attempts so far at any of the images.

        Arguments:
            model: Name of the smoothed classifier, as `robustify.runs.preparation` makes it.
            images: SHA-256 of the pixels of each.
            total: Allowed chance that, of all attempts at one image, any is false.

        Raises:
            RunError: If attempts at some of the images were charged under another total, or a charge is lost.
        """
        return self._attempts(self._charges(), model, images, total)

    def charge(self, model: str, images: Collection[str], total: float) -> Attempt:
        """Charges one more attempt at all of the images.

        Arguments and errors are those of `attempts`.
        """
        while True:
            charges = self._charges()
            attempt = Attempt(self._attempts(charges, model, images, total) + 1, total)
            charge = _Charge(model, attempt.number, total, sorted(set(images)))
            if self._add(json.dumps(asdict(charge)).encode(), len(charges)):
                return attempt

    def _attempts(self, charges: list[_Charge], model: str, images: Collection[str], total: float) -> int:
        wanted = set(images)
        known = [c for c in charges if c.model == model and not wanted.isdisjoint(c.images)]
        if other := next((c.total for c in known if c.total != total), None):
            raise RunError(
                f"attempts at some of these images share alpha = {other:g} by the ledger {str(self.folder)!r}; "
                f"got {total:g}.\n  Ask with alpha = {other:g} an image."
            )
        return max((c.attempt for c in known), default=0)

    def _add(self, content: bytes, position: int) -> bool:
        """Writes the file of a position whole, or not at all where another process was faster."""
        with disk(self.folder, "Charges written before"):
            make_folder(self.folder)
            return write_once(self._file(position), content)

    def _charges(self) -> list[_Charge]:
        found = []
        for position, file in enumerate(sorted(self.folder.glob("*.json"))):
            if file != self._file(position):
                raise RunError(f"the ledger {str(self.folder)!r} lacks {self._file(position).name}: a charge was lost")
            try:
                found.append(_Charge(**json.loads(file.read_text(encoding="utf-8"))))
            except (OSError, ValueError, TypeError) as error:
                raise RunError(f"cannot read {str(file)!r}, a charge of a ledger: {error}") from error
        return found

    def _file(self, position: int) -> Path:
        return self.folder / f"{position:06d}.json"
