"""The only Monte Carlo: noise in, votes out. Every forward pass is one full batch over many images.

Each image has a query that asks for draws of a view: noise of some level, shown to some base function. The engine
fills every batch with draws of whichever images are still undecided, of any views that share a base function, and a few
probes of that function; decided images leave, new ones enter. Memory depends on the batch alone: not on the number of
draws, nor on the number of images. While a network runs, the noise of the next batch is drawn.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar, final

import numpy as np
import torch
from torch import Tensor

from robustify.certificates.queries import Ask, Query
from robustify.errors import InputError
from robustify.smoothing.checks.fixed_function import FixedFunction, Margin, Shown
from robustify.smoothing.checks.run import Checks
from robustify.smoothing.checks.votes import Wager
from robustify.smoothing.noise import NoiseAddress, NoiseLaw, NoiseStream
from robustify.smoothing.settings import Progress
from robustify.types import Bytes, Image, Levels, Logits, Pixels

Q = TypeVar("Q", bound=Query)


@final
@dataclass(frozen=True, eq=False)
class Base:
    """A base function.

    Arguments:
        function: One fixed function of each image: noisy pixels and their noise level to logits, shape (B, classes).
        margin: The lead that a logit needs over the second for its vote to count.
        fixed: The check that it is one fixed function, whose probes join the draws; None where that needs no check.
        mixes: Whether views of several levels share the function; it then takes a level for each image.
    """

    function: Callable[[Pixels, Levels], Logits]
    margin: Margin
    fixed: FixedFunction | None = None
    mixes: bool = False

    @property
    def probes_due(self) -> int:
        """Number of places of the next batch that are not for draws."""
        return 0 if self.fixed is None else self.fixed.probes_due


@final
@dataclass(frozen=True)
class Channel:
    """A view that is ready to be drawn from.

    Arguments:
        law: The noise, and how it meets pixels.
        base: What is shown the noisy images.
    """

    law: NoiseLaw
    base: Base


@final
@dataclass
class Job(Generic[Q]):
    """One image on its way to an answer.

    Arguments:
        image: Clean, shape (C, H, W), on the device of the model, as the noise law takes it.
        sample: Name of the image within the seed.
        query: What is asked of it; it holds the answers at the end.
    """

    image: Image | Bytes
    sample: str
    query: Q


@final
@dataclass
class _Open:
    """An ask on its way to an answer: how many of its draws still need a batch, and the votes of the others.

    Arguments:
        ask: What a query asked for.
        channel: The view of the ask.
        stream: The noisy copies of the image for the ask's view and stage.
        classes: Number of classes.
    """

    ask: Ask
    channel: Channel
    stream: NoiseStream
    classes: int
    waiting: int = field(init=False)
    unanswered: int = field(init=False)
    wager: Wager = field(init=False)

    def __post_init__(self) -> None:
        self.waiting = self.unanswered = self.ask.draws
        self.wager = Wager(np.zeros(self.classes + 1, np.int64))  # failures last

    def count(self, winners: Tensor) -> None:
        """Adds the votes of one batch."""
        self.wager.add(torch.bincount(winners, minlength=self.classes + 1).numpy())
        self.unanswered -= len(winners)


@final
@dataclass
class _Round(Generic[Q]):
    """A job and what it asks for at once.

    Arguments:
        job: The image and its query.
        streams: The job's noise so far, by view and stage.
        opened: The asks, in the order in which their votes will be told.
    """

    job: Job[Q]
    streams: dict[tuple[int, str], NoiseStream] = field(default_factory=dict)
    opened: list[_Open] = field(default_factory=list)


@final
class Engine(Generic[Q]):
    """Answers the queries of many images with full batches.

    Arguments:
        channels: One for each view that queries may ask for.
        seed: Seed of the noise.
        batch: Images per forward pass. Every batch has exactly so many, the last too (it is filled up with gray):
            another shape may round differently and would be another base function.
        checks: Are shown what is fed and how votes fall.
        progress: Called with the number of draws just finished.
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        *,
        seed: int,
        batch: int,
        checks: Checks,
        progress: Progress | None = None,
    ) -> None:
        self.channels = channels
        self.seed = seed
        self.batch = batch
        self.checks = checks
        self.progress = progress
        self._active: deque[_Round[Q]] = deque()

    def run(self, jobs: Iterable[Job[Q]]) -> Iterator[Job[Q]]:
        """Yields each job as soon as nothing more is asked of it; takes jobs one by one, when a batch has room."""
        source = iter(jobs)
        while True:
            yield from self._admit(source)
            if not (shares := self._shares()):
                return
            self._pass(shares)
            yield from self._answered()

    def _admit(self, source: Iterator[Job[Q]]) -> Iterator[Job[Q]]:
        """Opens jobs until the next batch is full; gives back those that ask for nothing."""
        while not self._full() and len(self._active) < self.batch:
            if (job := next(source, None)) is None:
                return
            if not self._open(_Round(job)):
                yield job

    def _open(self, found: _Round[Q]) -> bool:
        """Takes in what a job asks for next; False where nothing more is asked."""
        job, streams = found.job, found.streams
        found.opened = []
        for ask in job.query.ask():
            if ask.draws < 1:
                raise InputError(f"expected a query to ask for at least 1 draw; got {ask}")
            channel, key = self.channels[ask.view], (ask.view, ask.stage)
            if key not in streams:
                address = NoiseAddress(self.seed, job.sample, ask.view, ask.stage)
                streams[key] = NoiseStream(channel.law, job.image, address)
            found.opened.append(_Open(ask, channel, streams[key], job.query.classes))
        if found.opened:
            self._active.append(found)
        return bool(found.opened)

    def _full(self) -> bool:
        """Whether the next batch has no place left."""
        shares = self._shares()
        places = self.batch - shares[0][0].channel.base.probes_due if shares else 1
        return sum(draws for _, draws in shares) == places

    def _shares(self) -> list[tuple[_Open, int]]:
        """Whose draws the next batch holds, oldest first: all of the base function for which most draws wait."""
        waiting = Counter[Base]()
        opened = [o for found in self._active for o in found.opened]
        for o in opened:
            waiting[o.channel.base] += o.waiting
        if (base := max(waiting, key=waiting.__getitem__, default=None)) is None:
            return []
        shares = []
        room = self.batch - base.probes_due
        for o in opened:
            if o.channel.base is base and (draws := min(room, o.waiting)):
                room -= draws
                shares.append((o, draws))
        return shares

    @torch.inference_mode()
    def _pass(self, shares: Sequence[tuple[_Open, int]]) -> None:
        """Feeds one batch, and counts its votes once its probes were compared."""
        base = shares[0][0].channel.base
        noisy = _joined([o.stream.take(draws) for o, draws in shares])
        probes = base.fixed.take() if base.fixed else None
        for o, draws in shares:
            o.waiting -= draws
        for o, draws in self._shares():
            o.stream.ahead(draws)
        self._watch(shares, noisy)
        fed = _filled([noisy, probes.images] if probes else [noisy], self.batch)
        logits, counted = base.function(fed, self._levels(base, shares, probes)), len(noisy)
        if base.fixed and probes:
            base.fixed.compare(logits[counted : counted + len(probes.images)])
        winners = _winners(logits[:counted], base.margin)
        for (o, _), won in zip(shares, torch.split(winners, [draws for _, draws in shares]), strict=True):
            o.count(won)
        if self.progress is not None:
            self.progress(counted)

    def _levels(self, base: Base, shares: Sequence[tuple[_Open, int]], probes: Shown | None) -> Levels:
        """The noise level of the batch: one number, or one for each image where views of several levels share it."""
        first = shares[0][0].channel.law.sigma
        if not base.mixes:
            return first
        levels = [o.channel.law.sigma for o, draws in shares for _ in range(draws)]
        levels += probes.levels if probes else []
        return torch.tensor([*levels, *[first] * (self.batch - len(levels))], dtype=torch.float64)

    def _watch(self, shares: Sequence[tuple[_Open, int]], noisy: Pixels) -> None:
        """Shows the checks what is fed, view by view."""
        parts = torch.split(noisy, [draws for _, draws in shares])
        for view in sorted({o.ask.view for o, _ in shares}):
            mine = [(part, o.stream.image) for part, (o, _) in zip(parts, shares, strict=True) if o.ask.view == view]
            clean = _joined([image.expand(len(part), *image.shape) for part, image in mine])
            self.checks.fed(view, noisy if len(mine) == len(parts) else _joined([part for part, _ in mine]), clean)

    def _answered(self) -> Iterator[Job[Q]]:
        """Hands complete votes to who asked, opens the next asks, lets decided jobs go."""
        for _ in range(len(self._active)):
            found = self._active.popleft()
            if any(o.unanswered for o in found.opened):
                self._active.append(found)
                continue
            for o in found.opened:
                if o.channel.base.fixed:
                    o.channel.base.fixed.vouch()
                self.checks.completed(o.wager)
                found.job.query.tell(o.ask, o.wager.votes[:-1].tolist())
            if not self._open(found):
                yield found.job


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """The parts as one batch; a single part is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _filled(parts: Sequence[Tensor], batch: int) -> Tensor:
    """A batch of draws, then probes, then gray."""
    shape = parts[0].shape[1:]
    free = batch - sum(map(len, parts))
    return _joined([*parts, parts[0].new_full((1, *shape), 0.5).expand(free, *shape)] if free else parts)


def _winners(logits: Logits, margin: Margin) -> Tensor:
    """The winning class of each image, on the CPU; one past the last where no logit is clearly ahead or some fail."""
    best, second = logits.topk(2, dim=1).values.unbind(dim=1)
    clear = logits.isfinite().all(dim=1) & (best - second > margin.of(logits))
    return torch.where(clear, logits.argmax(dim=1), logits.shape[1]).cpu()
