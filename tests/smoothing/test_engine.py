from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from robustify.certificates.transcript import PREDICTION, Poll
from robustify.smoothing.engine import Job, run
from robustify.smoothing.noise import NoiseAddress, NoiseStream, Soundness
from robustify.types import Pixels

SHAPE = (1, 2, 2)


class Base:
    """Votes for class 1 where the first pixel is above gray, and remembers what it was given."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, noisy: Pixels) -> Tensor:
        self.sizes.append(len(noisy))
        margin = noisy[:, 0, 0, 0] - 0.5
        return torch.stack([-margin, margin], dim=1)


def ignore(noise: Tensor) -> None:
    """Nobody watches."""


def jobs(counts: list[int]) -> Iterator[Job[Poll]]:
    for i, n in enumerate(counts):
        yield Job(torch.full(SHAPE, i / 255), 3, f"{i}", Poll(2, n))


def answer(counts: list[int], batch: int, base: Base | None = None) -> dict[str, list[int]]:
    finished = run(base or Base(), jobs(counts), sigma=0.5, soundness=Soundness.GRID, batch=batch, watch=ignore)
    return {job.sample: job.questions.votes for job in finished}


@pytest.mark.parametrize("batch", [1, 32, 50, 1_000])
def test_every_forward_pass_is_one_full_batch(batch: int) -> None:
    counts = [70, 1, 200, 33, 96]
    base = Base()
    found = answer(counts, batch, base)
    assert [sum(votes) for votes in found.values()] == [counts[int(name)] for name in found]
    assert set(base.sizes) == {batch}
    assert len(base.sizes) == -(-sum(counts) // batch)


def test_votes_do_not_depend_on_the_batch() -> None:
    counts = [70, 1, 200, 33, 96]
    assert answer(counts, 32) == answer(counts, 45) == answer(counts, 400)


def test_images_enter_only_when_a_batch_has_room() -> None:
    entered = 0

    def counting() -> Iterator[Job[Poll]]:
        nonlocal entered
        for job in jobs([100] * 50):
            entered += 1
            yield job

    finished = run(Base(), counting(), sigma=0.5, soundness=Soundness.GRID, batch=64, watch=ignore)
    next(finished)
    assert entered <= 3


def test_filling_draws_are_never_counted() -> None:
    """The gray that fills the last batch sits at .5 and would tie or vote."""
    assert sum(answer([5], 64)["0"]) == 5


def test_no_jobs_need_no_forward_pass() -> None:
    base = Base()
    assert list(run(base, [], sigma=0.5, soundness=Soundness.GRID, batch=8, watch=ignore)) == []
    assert base.sizes == []


def test_who_watches_sees_the_noise_that_was_fed() -> None:
    seen: list[Tensor] = []
    finished = run(Base(), jobs([40, 30]), sigma=0.5, soundness=Soundness.GRID, batch=32, watch=seen.append)
    assert len(list(finished)) == 2
    noise = torch.cat(seen)
    expected = [NoiseStream(NoiseAddress(3, f"{i}", PREDICTION), SHAPE).take(n) for i, n in enumerate((40, 30))]
    assert torch.allclose(noise, (255 * 0.5 * torch.cat(expected)).round().float() / 255, atol=1e-6)
