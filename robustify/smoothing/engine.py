"""The only Monte Carlo: noise in, votes out. Every forward pass is one full batch over many images.

Each image has a query that asks for draws of a view: noise of some level, shown to some base function. The engine
fills every batch with draws of whichever images are still undecided, of any views that share a base function, and a few
probes of that function; decided images leave, new ones enter. Memory depends on the batch alone: not on the number of
draws, nor on the number of images. While a network runs, the noise of the next batch is drawn.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, NamedTuple, TypeAlias, final

import torch
from torch import Tensor

from robustify.smoothing.bases import Base, Channel
from robustify.smoothing.checks.fixed_function import Margin
from robustify.smoothing.checks.run import Checks
from robustify.smoothing.checks.watch import Shown
from robustify.smoothing.rounds import Begun, Job, Open, Q, Round
from robustify.smoothing.settings import Progress
from robustify.types import Levels, Logits, Pixels

Keep: TypeAlias = Callable[[Mapping[str, Begun]], object]
"""Called with the draws so far of each image that is not decided yet, by name."""

Shares: TypeAlias = list[tuple[Open, int]]
"""Asks, and how many of their draws a batch holds, in its order."""


class Parts(NamedTuple):
    """A batch and its parts: draws, probes, draws."""

    batch: Pixels
    before: Tensor
    probes: Tensor
    after: Tensor


KEEP_AFTER = 20.0
"""Seconds after which the draws of images that are not decided yet are worth keeping, and again each time."""


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
        keep: Called about every 20 seconds with the draws so far of each image that is not decided yet, by name, once
            they were checked as answers are.
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        *,
        seed: int,
        batch: int,
        checks: Checks,
        progress: Progress | None = None,
        keep: Keep | None = None,
    ) -> None:
        self.channels = channels
        self.seed = seed
        self.batch = batch
        self.checks = checks
        self.progress = progress
        self.keep = keep
        self._active: deque[Round[Q]] = deque()
        self._kept = time.monotonic()

    def run(self, jobs: Iterable[Job[Q]]) -> Iterator[Job[Q]]:
        """Yields each job as soon as nothing more is asked of it; takes jobs one by one, when a batch has room."""
        source = iter(jobs)
        while True:
            yield from self._admit(source)
            if not (shares := self._shares()):
                return
            self._pass(shares)
            yield from self._answered()
            self._keep()

    def _admit(self, source: Iterator[Job[Q]]) -> Iterator[Job[Q]]:
        """Opens jobs until the next batch is full; gives back those that ask for nothing."""
        while not self._full() and len(self._active) < self.batch:
            if (job := next(source, None)) is None:
                return
            if (found := Round(job, self.channels, self.seed)).begin():
                self._active.append(found)
            else:
                yield job

    def _full(self) -> bool:
        """Whether the next batch has no place left."""
        shares = self._shares()
        places = self.batch - shares[0][0].channel.base.probes_due if shares else 1
        return sum(draws for _, draws in shares) == places

    def _shares(self) -> Shares:
        """Whose draws the next batch holds, oldest first: all of the base function for which most draws wait."""
        waiting = Counter[Base]()
        opened = [o for found in self._active for o in found.opened]
        for o in opened:
            waiting[o.channel.base] += o.waiting
        if (base := max(waiting, key=waiting.__getitem__, default=None)) is None:
            return []
        shares: Shares = []
        room = self.batch - base.probes_due
        for o in opened:
            if o.channel.base is base and (draws := min(room, o.waiting)):
                room -= draws
                shares.append((o, draws))
        return shares

    @torch.inference_mode()
    def _pass(self, shares: Shares) -> None:
        """Feeds one batch, and counts its votes once its probes were compared."""
        base, counted = shares[0][0].channel.base, sum(draws for _, draws in shares)
        probes = base.watch.take() if base.watch else None
        before, after = _around(shares, int((counted + 1) * probes.share) if probes else counted)
        parts = self._filled(before, probes, after)
        for o, draws in self._shares():
            o.stream.ahead(draws)
        for side, part in ((before, parts.before), (after, parts.after)):
            self._watch(side, part)
        logits = base.function(parts.batch, self._levels(base, before, probes, after))
        drawn, seen, beyond = torch.split(logits[: counted + len(parts.probes)], [len(part) for part in parts[1:]])
        if base.watch and probes:
            base.watch.compare(probes, seen)
        winners = _winners(torch.cat([drawn, beyond]), base.margin)
        shares = [*before, *after]
        for (o, _), won in zip(shares, torch.split(winners, [draws for _, draws in shares]), strict=True):
            o.count(won)
        if self.progress is not None:
            self.progress(counted)

    def _filled(self, before: Shares, probes: Shown | None, after: Shares) -> Parts:
        """A batch of draws, probes, draws, then gray."""
        image = (before or after)[0][0].stream.image
        batch = torch.full((self.batch, *image.shape), 0.5, device=image.device, dtype=torch.float32)
        shown = len(probes.images) if probes else 0
        lengths = [*(n for _, n in before), shown, *(n for _, n in after)]
        places = torch.split(batch[: sum(lengths)], lengths)
        middle = len(before)
        for (o, draws), place in zip([*before, *after], [*places[:middle], *places[middle + 1 :]], strict=True):
            o.stream.fill(place)
            o.waiting -= draws
        if probes:
            places[middle].copy_(probes.images)
        first = sum(lengths[:middle])
        return Parts(batch, batch[:first], places[middle], batch[first + shown : sum(lengths)])

    def _levels(self, base: Base, before: Shares, probes: Shown | None, after: Shares) -> Levels:
        """The noise level of the batch: one number, or one for each image where views of several levels share it."""
        first = (before or after)[0][0].channel.law.sigma
        if not base.mixes:
            return first
        levels = [o.channel.law.sigma for o, draws in before for _ in range(draws)]
        levels += probes.levels if probes else []
        levels += [o.channel.law.sigma for o, draws in after for _ in range(draws)]
        return torch.tensor([*levels, *[first] * (self.batch - len(levels))], dtype=torch.float64)

    def _watch(self, shares: Shares, noisy: Pixels) -> None:
        """Shows the checks what is fed, view by view."""
        if not shares:
            return
        parts = torch.split(noisy, [draws for _, draws in shares])
        for view in sorted({o.ask.view for o, _ in shares}):
            mine = [(part, o.stream.image) for part, (o, _) in zip(parts, shares, strict=True) if o.ask.view == view]
            clean = _joined([image.expand(len(part), *image.shape) for part, image in mine])
            self.checks.fed(view, noisy if len(mine) == len(parts) else _joined([part for part, _ in mine]), clean)

    def _answered(self) -> Iterator[Job[Q]]:
        """Hands complete votes to who asked, opens the next asks, lets decided jobs go."""
        for _ in range(len(self._active)):
            found = self._active.popleft()
            if found.answered:
                self._vouch(found)
                for o in found.opened:
                    if o.channel.law.alike:
                        self.checks.completed(o.wager)
                found.tell()
            if not found.answered or found.open():
                self._active.append(found)
            else:
                yield found.job

    def _vouch(self, found: Round[Q]) -> None:
        """Makes sure that the base functions of a job's draws are what they were."""
        for o in found.opened:
            if o.channel.base.watch:
                o.channel.base.watch.vouch()

    def _keep(self) -> None:
        """Hands out the draws of undecided images, when it is time."""
        if self.keep is None or time.monotonic() - self._kept < KEEP_AFTER:
            return
        for found in self._active:
            self._vouch(found)
        self.checks.verify()
        self.keep({found.job.sample: found.begun for found in self._active})
        self._kept = time.monotonic()


def _around(shares: Shares, draws: int) -> tuple[Shares, Shares]:
    """The shares of the first so many draws, and those of the others."""
    before: Shares = []
    after: Shares = []
    for o, count in shares:
        first = min(count, draws)
        draws -= first
        before += [(o, first)] if first else []
        after += [(o, count - first)] if count > first else []
    return before, after


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """The parts as one batch; a single part is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _winners(logits: Logits, margin: Margin) -> Tensor:
    """The winning class of each image, on the CPU; one past the last where no logit is clearly ahead or some fail."""
    best, second = logits.topk(2, dim=1).values.unbind(dim=1)
    clear = logits.isfinite().all(dim=1) & (best - second > margin.of(logits))
    return torch.where(clear, logits.argmax(dim=1), logits.shape[1]).cpu()
