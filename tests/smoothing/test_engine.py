from collections.abc import Callable, Iterable, Iterator

import pytest
import torch
from torch import Tensor

from robustify.certificates.queries import PREDICTION, Poll
from robustify.smoothing.checks.fixed_function import Margin
from robustify.smoothing.checks.independence import VoteCheck
from robustify.smoothing.engine import Job, run
from robustify.smoothing.noise import NoiseAddress, NoiseStream, Soundness
from robustify.types import Logits, Pixels

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


def vote(
    base: Callable[[Pixels], Logits],
    asked: Iterable[Job[Poll]],
    batch: int,
    *,
    margin: Margin | None = None,
    watch: Callable[[Tensor], object] = ignore,
    check: VoteCheck | None = None,
) -> Iterator[Job[Poll]]:
    margin, check = margin or Margin(2**-14, 1.0), check or VoteCheck()
    return run(base, asked, sigma=0.5, soundness=Soundness.GRID, batch=batch, margin=margin, watch=watch, check=check)


def jobs(counts: list[int]) -> Iterator[Job[Poll]]:
    for i, n in enumerate(counts):
        yield Job(torch.full(SHAPE, i / 255), 3, f"{i}", Poll(2, n))


def answer(counts: list[int], batch: int, base: Base | None = None) -> dict[str, list[int]]:
    return {job.sample: job.questions.votes for job in vote(base or Base(), jobs(counts), batch)}


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

    next(vote(Base(), counting(), 64))
    assert entered <= 3


def test_filling_draws_are_never_counted() -> None:
    """The gray that fills the last batch sits at .5 and would tie or vote."""
    assert sum(answer([5], 64)["0"]) == 5


def test_no_jobs_need_no_forward_pass() -> None:
    base = Base()
    assert list(vote(base, [], 8)) == []
    assert base.sizes == []


def test_who_watches_sees_the_noise_that_was_fed() -> None:
    seen: list[Tensor] = []
    assert len(list(vote(Base(), jobs([40, 30]), 32, watch=seen.append))) == 2
    noise = torch.cat(seen)
    expected = [NoiseStream(NoiseAddress(3, f"{i}", PREDICTION), SHAPE).take(n) for i, n in enumerate((40, 30))]
    assert torch.allclose(noise, (255 * 0.5 * torch.cat(expected)).round().float() / 255, atol=1e-6)


@pytest.mark.parametrize(("ahead", "counts"), [(1.01, True), (0.99, False), (0.0, False)])
@pytest.mark.parametrize("winner", [0, 1])
def test_a_vote_counts_only_if_it_is_ahead_by_more_than_the_margin(ahead: float, counts: bool, winner: int) -> None:
    margin = Margin(2**-6, 4.0)
    gap = ahead * 2**-6 * 4.0

    def base(noisy: Pixels) -> Logits:
        logits = torch.zeros(len(noisy), 2)
        logits[:, winner] = gap
        return logits

    (job,) = vote(base, jobs([40]), 32, margin=margin)
    assert job.questions.votes == [40 * counts * (winner == c) for c in (0, 1)]


def test_logits_beyond_the_scale_have_a_larger_margin() -> None:
    def base(noisy: Pixels) -> Logits:
        return torch.tensor([[1_000.0, 1_001.0]]).expand(len(noisy), 2)

    for share, votes in ((2**-9, [0, 0]), (2**-11, [0, 40])):
        (job,) = vote(base, jobs([40]), 32, margin=Margin(share, 1.0))
        assert job.questions.votes == votes


@pytest.mark.parametrize("failure", [float("nan"), float("inf"), -float("inf")])
def test_one_logit_that_is_not_finite_fails_the_draw(failure: float) -> None:
    def base(noisy: Pixels) -> Logits:
        return torch.tensor([[failure, 1.0, 0.0]]).expand(len(noisy), 3)

    asked = Job(torch.zeros(SHAPE), 3, "0", Poll(3, 40))
    (job,) = vote(base, [asked], 32)
    assert job.questions.votes == [0, 0, 0]


class ByBatch:
    """All images of a batch vote alike: for class 1 in every second batch."""

    def __init__(self) -> None:
        self.passes = 0

    def __call__(self, noisy: Pixels) -> Tensor:
        self.passes += 1
        return torch.eye(2)[self.passes % 2].expand(len(noisy), 2)


def test_the_check_is_told_of_every_request_once_it_is_complete() -> None:
    check = VoteCheck()
    told = [check.requests for _ in vote(Base(), jobs([70, 1, 200, 33, 96]), 32, check=check)]
    assert told == sorted(told)
    assert check.requests == 5
    assert not check.refused


def test_batches_that_vote_as_one_are_found() -> None:
    check = VoteCheck()
    list(vote(ByBatch(), jobs([20]), 32, check=check))
    assert check.log_most == 0  # one batch tells nothing
    list(vote(ByBatch(), jobs([64]), 32, check=check))
    assert check.refused


def test_failures_that_share_a_batch_are_found() -> None:
    def base(noisy: Pixels) -> Logits:
        failing = base.fail = not base.fail  # type: ignore[attr-defined]
        return torch.full((len(noisy), 2), float("nan")) if failing else torch.eye(2)[:1].expand(len(noisy), 2)

    base.fail = False  # type: ignore[attr-defined]
    check = VoteCheck()
    list(vote(base, jobs([64]), 32, check=check))
    assert check.refused
