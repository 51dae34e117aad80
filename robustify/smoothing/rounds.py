"""Images on their way to an answer: what was told of their draws, and what is asked for now."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar, final

import numpy as np
import torch
from torch import Tensor

from robustify.certificates.queries import Ask, Query
from robustify.errors import InputError
from robustify.smoothing.bases import Channel
from robustify.smoothing.checks.votes import Wager
from robustify.smoothing.noise import NoiseAddress, NoiseStream
from robustify.types import Bytes, Image

Q = TypeVar("Q", bound=Query)


class Begun(NamedTuple):
    """The draws so far of an image that is not decided yet; with the seed, enough to go on where they end.

    Arguments:
        told: Votes of each complete ask, one count per class, in the order in which the query was told.
        counted: Votes so far of each ask that is open, one count per class, then failures.
    """

    told: tuple[tuple[int, ...], ...] = ()
    counted: tuple[tuple[int, ...], ...] = ()


NONE_YET = Begun()
"""No draws."""


@final
@dataclass
class Job(Generic[Q]):
    """One image on its way to an answer.

    Arguments:
        image: Clean, shape (C, H, W), on the device of the model, as `accepted` gives it.
        sample: Name of the image within the seed.
        query: What is asked of it; it holds the answers at the end.
        begun: Its draws in an earlier run of the same seed and base functions.
    """

    image: Image | Bytes
    sample: str
    query: Q
    begun: Begun = NONE_YET


@final
@dataclass
class Open:
    """An ask on its way to an answer: how many of its draws still need a batch, and the votes of the others.

    Arguments:
        ask: What a query asked for.
        channel: The view of the ask.
        stream: The noisy copies of the image for the ask's view and stage.
        counted: Votes so far, one count per class, then failures.
    """

    ask: Ask
    channel: Channel
    stream: NoiseStream
    counted: Sequence[int]
    waiting: int = field(init=False)
    unanswered: int = field(init=False)
    wager: Wager = field(init=False)

    def __post_init__(self) -> None:
        self.wager = Wager(np.array(self.counted, np.int64))
        self.waiting = self.unanswered = self.ask.draws - sum(self.counted)

    def count(self, winners: Tensor) -> None:
        """Adds the votes of one batch."""
        self.wager.add(torch.bincount(winners, minlength=len(self.counted)).numpy())
        self.unanswered -= len(winners)


@final
@dataclass
class Round(Generic[Q]):
    """A job, and what it asks for at once.

    Arguments:
        job: The image and its query.
        channels: One for each view.
        seed: Seed of the noise.
        opened: The asks, in the order in which their votes will be told.
    """

    job: Job[Q]
    channels: Sequence[Channel]
    seed: int
    opened: list[Open] = field(init=False, default_factory=list)
    _told: list[tuple[int, ...]] = field(init=False, default_factory=list)
    _streams: dict[tuple[int, str, int | None], NoiseStream] = field(init=False, default_factory=dict)

    def begin(self) -> bool:
        """Opens the first asks, after what was told before; False where nothing is asked."""
        before = list(self.job.begun.told)
        while before:
            for ask in self.job.query.ask():
                if not before:
                    raise InputError(f"expected the votes of whole rounds; got too few for {self.job.sample!r}")
                self._stream(ask).skip(ask.draws)
                self._tell(ask, before.pop(0))
        return self.open(self.job.begun.counted)

    def open(self, counted: Sequence[Sequence[int]] = ()) -> bool:
        """Takes in what the job asks for next; False where nothing more is asked.

        Arguments:
            counted: Votes of draws of these asks that were made before, as in `Begun`.
        """
        asks = self.job.query.ask()
        left = [ask.draws - sum(votes) for ask, votes in zip(asks, counted, strict=False)]
        if counted and (len(counted) != len(asks) or max(left) <= 0):
            raise InputError(f"expected draws of {self.job.sample!r} that are still to come; got {counted} for {asks}")
        if wrong := next((ask for ask in asks if ask.draws < 1), None):
            raise InputError(f"expected a query to ask for at least 1 draw; got {wrong}")
        none = [0] * (self.job.query.classes + 1)
        self.opened = []
        for ask, votes in zip(asks, counted or [none] * len(asks), strict=True):
            self._stream(ask).skip(sum(votes))
            self.opened.append(Open(ask, self.channels[ask.view], self._stream(ask), votes))
        return bool(self.opened)

    @property
    def answered(self) -> bool:
        """Whether all votes are there."""
        return not any(o.unanswered for o in self.opened)

    def tell(self) -> None:
        """Hands the votes, which must all be there, to who asked."""
        for o in self.opened:
            self._tell(o.ask, tuple(o.wager.votes[:-1].tolist()))

    @property
    def begun(self) -> Begun:
        """All draws so far."""
        return Begun(tuple(self._told), tuple(tuple(o.wager.votes.tolist()) for o in self.opened))

    def _tell(self, ask: Ask, votes: tuple[int, ...]) -> None:
        self.job.query.tell(ask, votes)
        self._told.append(votes)

    def _stream(self, ask: Ask) -> NoiseStream:
        key = ask.view, ask.stage, ask.first
        if key not in self._streams:
            address = NoiseAddress(self.seed, self.job.sample, ask.view, ask.stage)
            self._streams[key] = NoiseStream(self.channels[ask.view].law, self.job.image, address)
            self._streams[key].skip(ask.first or 0)
        return self._streams[key]
