"""The images of a run that have no row yet: read one by one, certified, and stored."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import index
from typing import Any, final

from torch import Tensor

from robustify.certificates import Certificate, Provenance
from robustify.data import Sample
from robustify.errors import InputError
from robustify.runs.begun import BegunStore
from robustify.runs.digests import row_digest
from robustify.runs.ending import Unusable
from robustify.runs.rows import Row
from robustify.runs.store import RowStore
from robustify.smoothing import SmoothedClassifier
from robustify.smoothing.fingerprint import pixels_fingerprint
from robustify.smoothing.rounds import Begun

SHOWN = 10
"""Number of unusable images that are named while a run goes on; the run's result names all."""


@final
@dataclass
class Work:
    """What is left to do in a run.

    Arguments:
        model: The smoothed classifier.
        samples: The images without a row.
        provenance: What certificates depend on.
        truths: True labels by name, where the plan tests them.
        store: Where rows go.
        key: Digest of the run's configuration, which keys those of the rows.
        bar: Shows draws.
        images: Number of rows that were added.
        unusable: Images that could not be used.
    """

    model: SmoothedClassifier
    samples: Sequence[Sample]
    provenance: Provenance
    truths: Mapping[str, int]
    store: RowStore
    key: str
    bar: Any
    images: int = field(init=False, default=0)
    unusable: list[Unusable] = field(init=False, default_factory=list)
    _seen: dict[str, tuple[int | None, str]] = field(init=False, default_factory=dict)
    _begun: dict[str, Begun] = field(init=False, default_factory=dict)
    _drawn: int = field(init=False, default=0)

    def do(self) -> None:
        """Adds a row for each image that can be used, as soon as it is certified."""
        started, p = time.monotonic(), self.provenance
        found = self.model.certificates(
            self._read(), p, self._progress, self.truths, begun=self._begun, keep=self._keep
        )
        for certificate in found:
            seconds, started = time.monotonic() - started, time.monotonic()
            row = _row(certificate, *self._seen.pop(certificate.sample), seconds)
            self.store.add(replace(row, digest=row_digest(row, self.key)))
            self._kept.forget(row.sample)
            self._begun.pop(row.sample, None)
            self.images += 1
            self._drawn -= row.draws
            self.bar.total -= p.plan.most_draws - row.draws  # what an early decision saved
        self._kept.clear()

    @property
    def lost(self) -> int:
        """Number of draws of images under way that are not on the disk."""
        return self._drawn - sum(map(_draws, self._begun.values()))

    @property
    def _kept(self) -> BegunStore:
        return BegunStore(self.store.folder, self.key, self.provenance.batch)

    def _progress(self, draws: int) -> None:
        self._drawn += draws
        self.bar.update(draws)

    def _keep(self, begun: Mapping[str, Begun]) -> None:
        """Writes the draws of undecided images."""
        self._kept.write({sample: self._seen[sample][1] for sample in begun}, begun)
        self._begun.update(begun)

    def _read(self) -> Iterator[tuple[str, Tensor]]:
        """Name and pixels of each image that can be used, read when the engine has room for it."""
        kept = self._kept.read()
        for sample in self.samples:
            try:
                image = self.model.prepare(sample.image, self.provenance.soundness)
            except InputError as error:
                self._leave_out(Unusable(sample.id, truth_of(sample), str(error)))
                continue
            pixels = pixels_fingerprint(image)
            self._seen[sample.id] = truth_of(sample), pixels
            if begun := kept.get((sample.id, pixels, self.provenance.batch)):
                self._begun[sample.id] = begun
                self._progress(_draws(begun))
            yield sample.id, image

    def _leave_out(self, image: Unusable) -> None:
        self.unusable.append(image)
        if len(self.unusable) <= SHOWN:
            more = "\n…and so on" if len(self.unusable) == SHOWN else ""
            self.bar.write(f"left out {image}{more}", file=sys.stderr)


def _draws(begun: Begun) -> int:
    """Number of draws that were counted, failures too as far as they are kept."""
    return sum(map(sum, (*begun.told, *begun.counted)))


def truth_of(sample: Sample) -> int | None:
    """The true class of a sample as a plain number; None where it is unknown."""
    return None if sample.label is None else index(sample.label)


def _row(certificate: Certificate, truth: int | None, pixels: str, seconds: float) -> Row:
    c = certificate
    return Row(
        sample=c.sample,
        truth=truth,
        label=c.label,
        radius=c.radius,
        bounds=c.bounds,
        tallies=c.tallies,
        batch=c.provenance.batch,
        pixels=pixels,
        seconds=seconds,
        uncertified=c.uncertified,
    )
