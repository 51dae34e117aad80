"""The only Monte Carlo: noise in, votes out. Every forward pass is one full batch over many images.

Each image has questions that ask for draws. The engine fills every batch with draws of whichever images are
still undecided; decided images leave, new ones enter. Memory depends on the batch alone: not on the number of
draws, nor on the number of images.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar, final

import numpy as np
import torch
from torch import Tensor

from robustify.certificates.queries import Questions, Request
from robustify.smoothing.checks.fixed_function import Margin
from robustify.smoothing.checks.independence import VoteCheck, Wager
from robustify.smoothing.noise import NoiseAddress, NoiseStream, Soundness
from robustify.types import Image, Logits, Pixels

Progress = Callable[[int], object]
"""Called with the number of draws just finished."""


Q = TypeVar("Q", bound=Questions)


@final
@dataclass
class Job(Generic[Q]):
    """One image on its way to an answer.

    Arguments:
        image: Clean, shape (C, H, W), on the device of the model.
        seed: Of the noise.
        sample: Names the image within the seed.
        questions: What is asked of it; they hold the answers at the end.
    """

    image: Image
    seed: int
    sample: str
    questions: Q


@final
@dataclass
class _Open(Generic[Q]):
    """A job's current request: how many of its draws still need a batch, and the votes of the others, failures last."""

    job: Job[Q]
    request: Request
    streams: dict[int, NoiseStream]
    waiting: int = field(init=False)
    unanswered: int = field(init=False)
    wager: Wager = field(init=False)

    def __post_init__(self) -> None:
        self.waiting = self.unanswered = self.request.draws
        self.wager = Wager(np.zeros(self.job.questions.classes + 1, np.int64))

    def noise(self, draws: int) -> Tensor:
        """The next draws of this request's stage."""
        stage, job = self.request.stage, self.job
        if stage not in self.streams:
            self.streams[stage] = NoiseStream(NoiseAddress(job.seed, job.sample, stage), tuple(job.image.shape))
        self.waiting -= draws
        return self.streams[stage].take(draws)

    def count(self, winners: Tensor) -> None:
        """Adds the votes of one batch."""
        classes = self.job.questions.classes
        self.wager.add(torch.bincount(winners, minlength=classes + 1).numpy())
        self.unanswered -= len(winners)


@torch.inference_mode()
def run(
    base: Callable[[Pixels], Logits],
    jobs: Iterable[Job[Q]],
    *,
    sigma: float,
    soundness: Soundness,
    batch: int,
    margin: Margin,
    watch: Callable[[Pixels], object],
    check: VoteCheck,
    progress: Progress | None = None,
) -> Iterator[Job[Q]]:
    """Answers every job's questions; yields each job as soon as nothing more is asked of it.

    Every batch has exactly `batch` images, the last too (it is filled up with gray): another shape may round
    differently and would be another classifier. Which images share a batch never changes a draw.

    Arguments:
        base: The fixed function that is smoothed: noisy pixels to logits of shape (B, classes).
        jobs: Taken one by one, when the batch has room.
        sigma: Of the noise, in [0, 1] pixels.
        soundness: How noise is added to pixels.
        batch: Images per forward pass.
        margin: By how much a vote must be ahead to count.
        watch: Is shown the noise of each batch, in fed pixels minus clean pixels.
        check: Is told of each request how its votes spread over batches.
        progress: Called with the number of draws just finished.
    """
    source = iter(jobs)
    active: deque[_Open[Q]] = deque()
    while True:
        while sum(o.waiting for o in active) < batch and (job := next(source, None)) is not None:
            if (request := job.questions.request) is not None:
                active.append(_Open(job, request, {}))
        shares = list(_shares(active, batch))
        if not shares:
            return
        noisy = torch.cat([soundness.add(o.job.image, o.noise(draws), sigma) for o, draws in shares])
        watch(noisy - torch.cat([o.job.image.expand(draws, *o.job.image.shape) for o, draws in shares]))
        counted = len(noisy)
        winners = _winners(base(_filled(noisy, batch))[:counted], margin)
        for (o, _), won in zip(shares, torch.split(winners, [draws for _, draws in shares]), strict=True):
            o.count(won)
        if progress is not None:
            progress(counted)
        yield from _answered(active, check)


def _shares(active: Iterable[_Open[Q]], batch: int) -> Iterator[tuple[_Open[Q], int]]:
    """Whose draws the next batch holds, oldest first."""
    room = batch
    for o in active:
        if draws := min(room, o.waiting):
            room -= draws
            yield o, draws


def _filled(noisy: Pixels, batch: int) -> Tensor:
    """The batch with gray images after the last draw."""
    if len(noisy) == batch:
        return noisy
    return torch.cat([noisy, noisy.new_full((batch - len(noisy), *noisy.shape[1:]), 0.5)])


def _winners(logits: Logits, margin: Margin) -> Tensor:
    """The winning class of each image, on the CPU; one past the last where no logit is clearly ahead or some fail."""
    best, second = logits.topk(2, dim=1).values.unbind(dim=1)
    clear = logits.isfinite().all(dim=1) & (best - second > margin.of(logits))
    return torch.where(clear, logits.argmax(dim=1), logits.shape[1]).cpu()


def _answered(active: deque[_Open[Q]], check: VoteCheck) -> Iterator[Job[Q]]:
    """Hands complete votes to who asked, opens the next requests, lets decided jobs go."""
    for _ in range(len(active)):
        o = active.popleft()
        if o.unanswered:
            active.append(o)
            continue
        check.add(o.wager.log)
        o.job.questions.answer(o.request, o.wager.votes[:-1].tolist())
        if (request := o.job.questions.request) is None:
            yield o.job
        else:
            active.append(_Open(o.job, request, o.streams))
