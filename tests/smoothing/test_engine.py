from collections.abc import Callable, Iterable, Iterator, Sequence

import pytest
import torch
from torch import Tensor

from robustify.certificates.queries import PREDICTION, Ask, PredictQuery
from robustify.errors import InputError
from robustify.smoothing.bases import Base, Channel
from robustify.smoothing.checks import Checks
from robustify.smoothing.checks.fixed_function import Margin
from robustify.smoothing.checks.noise_law import NoiseCheck
from robustify.smoothing.engine import Engine
from robustify.smoothing.noise import NoiseAddress, NoiseStream, noise_law
from robustify.smoothing.rounds import Job
from robustify.types import Levels, Logits, Pixels

SHAPE = (1, 2, 2)
SEED = 3
GRID = noise_law("grid", 0.5)
MARGIN = Margin(2**-14, 1.0)


class FirstPixel:
    """Votes for class 1 where the first pixel is above gray, and remembers what it was given."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.levels: list[Levels] = []

    def __call__(self, noisy: Pixels, sigma: Levels) -> Tensor:
        self.sizes.append(len(noisy))
        self.levels.append(sigma)
        margin = noisy[:, 0, 0, 0] - 0.5
        return torch.stack([-margin, margin], dim=1)


def checks(views: int = 1) -> Checks:
    return Checks([NoiseCheck(0.5, grid=True) for _ in range(views)])


def vote(
    function: Callable[[Pixels, Levels], Logits],
    asked: Iterable[Job[PredictQuery]],
    batch: int,
    *,
    margin: Margin = MARGIN,
    watched: Checks | None = None,
) -> Iterator[Job[PredictQuery]]:
    engine: Engine[PredictQuery] = Engine(
        [Channel(GRID, Base(function, margin))], seed=SEED, batch=batch, checks=watched or checks()
    )
    return engine.run(asked)


def image(value: int) -> Tensor:
    return torch.full(SHAPE, value, dtype=torch.uint8)


def jobs(counts: list[int]) -> Iterator[Job[PredictQuery]]:
    for i, n in enumerate(counts):
        yield Job(image(i), f"{i}", PredictQuery(2, n))


def answer(counts: list[int], batch: int, base: FirstPixel | None = None) -> dict[str, list[int]]:
    return {job.sample: job.query.votes for job in vote(base or FirstPixel(), jobs(counts), batch)}


@pytest.mark.parametrize("batch", [1, 32, 50, 1_000])
def test_every_forward_pass_is_one_full_batch(batch: int) -> None:
    counts = [70, 1, 200, 33, 96]
    base = FirstPixel()
    found = answer(counts, batch, base)
    assert [sum(votes) for votes in found.values()] == [counts[int(name)] for name in found]
    assert set(base.sizes) == {batch}
    assert len(base.sizes) == -(-sum(counts) // batch)


def test_votes_do_not_depend_on_the_batch() -> None:
    counts = [70, 1, 200, 33, 96]
    assert answer(counts, 32) == answer(counts, 45) == answer(counts, 400)


def test_images_enter_only_when_a_batch_has_room() -> None:
    entered = 0

    def counting() -> Iterator[Job[PredictQuery]]:
        nonlocal entered
        for job in jobs([100] * 50):
            entered += 1
            yield job

    next(vote(FirstPixel(), counting(), 64))
    assert entered <= 3


def test_filling_draws_are_never_counted() -> None:
    """The gray that fills the last batch sits at .5 and would tie or vote."""
    assert sum(answer([5], 64)["0"]) == 5


def test_no_jobs_need_no_forward_pass() -> None:
    base = FirstPixel()
    assert list(vote(base, [], 8)) == []
    assert base.sizes == []


def test_the_checks_see_the_noise_that_was_fed(monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[Tensor] = []
    watched = checks()
    monkeypatch.setattr(watched.noise[0], "add", lambda noisy, clean: fed.append(noisy - clean.float() / 255))
    monkeypatch.setattr(watched.noise[0], "verify", lambda: None)
    assert len(list(vote(FirstPixel(), jobs([40, 30]), 32, watched=watched))) == 2
    streams = [NoiseStream(GRID, image(i), NoiseAddress(SEED, f"{i}", 0, PREDICTION)) for i in range(2)]
    expected = [stream.take(n) - stream.image.float() / 255 for stream, n in zip(streams, (40, 30), strict=True)]
    assert torch.equal(torch.cat(fed), torch.cat(expected))


@pytest.mark.parametrize(("ahead", "counts"), [(1.01, True), (0.99, False), (0.0, False)])
@pytest.mark.parametrize("winner", [0, 1])
def test_a_vote_counts_only_if_it_is_ahead_by_more_than_the_margin(ahead: float, counts: bool, winner: int) -> None:
    margin = Margin(2**-6, 4.0)
    gap = ahead * 2**-6 * 4.0

    def base(noisy: Pixels, sigma: Levels) -> Logits:
        logits = torch.zeros(len(noisy), 2)
        logits[:, winner] = gap
        return logits

    (job,) = vote(base, jobs([40]), 32, margin=margin)
    assert job.query.votes == [40 * counts * (winner == c) for c in (0, 1)]


def test_logits_beyond_the_scale_have_a_larger_margin() -> None:
    def base(noisy: Pixels, sigma: Levels) -> Logits:
        return torch.tensor([[1_000.0, 1_001.0]]).expand(len(noisy), 2)

    for share, votes in ((2**-9, [0, 0]), (2**-11, [0, 40])):
        (job,) = vote(base, jobs([40]), 32, margin=Margin(share, 1.0))
        assert job.query.votes == votes


@pytest.mark.parametrize("failure", [float("nan"), float("inf"), -float("inf")])
def test_one_logit_that_is_not_finite_fails_the_draw(failure: float) -> None:
    def base(noisy: Pixels, sigma: Levels) -> Logits:
        return torch.tensor([[failure, 1.0, 0.0]]).expand(len(noisy), 3)

    asked = Job(image(0), "0", PredictQuery(3, 40))
    (job,) = vote(base, [asked], 32)
    assert job.query.votes == [0, 0, 0]


class ByBatch:
    """All images of a batch vote alike: for class 1 in every second batch."""

    def __init__(self) -> None:
        self.passes = 0

    def __call__(self, noisy: Pixels, sigma: Levels) -> Tensor:
        self.passes += 1
        return torch.eye(2)[self.passes % 2].expand(len(noisy), 2)


def test_the_check_is_told_of_every_request_once_it_is_complete() -> None:
    watched = checks()
    told = [watched.votes.requests for _ in vote(FirstPixel(), jobs([70, 1, 200, 33, 96]), 32, watched=watched)]
    assert told == sorted(told)
    assert watched.votes.requests == 5
    assert not watched.votes.refused


def test_batches_that_vote_as_one_are_found() -> None:
    watched = checks()
    list(vote(ByBatch(), jobs([20]), 32, watched=watched))
    assert watched.votes.log_most == 0  # one batch tells nothing
    list(vote(ByBatch(), jobs([64]), 32, watched=watched))
    assert watched.votes.refused


def test_failures_that_share_a_batch_are_found() -> None:
    def base(noisy: Pixels, sigma: Levels) -> Logits:
        failing = base.fail = not base.fail  # type: ignore[attr-defined]
        return torch.full((len(noisy), 2), float("nan")) if failing else torch.eye(2)[:1].expand(len(noisy), 2)

    base.fail = False  # type: ignore[attr-defined]
    watched = checks()
    list(vote(base, jobs([64]), 32, watched=watched))
    assert watched.votes.refused


class TwoViews:
    """Asks for some draws of one view, then for some of another, and keeps the votes of each."""

    classes = 2

    def __init__(self, draws: Sequence[int]) -> None:
        self.draws = draws
        self.told: list[list[int]] = []

    def ask(self) -> Sequence[Ask]:
        view = len(self.told)
        return [Ask(view, PREDICTION, self.draws[view])] if view < len(self.draws) else []

    def tell(self, ask: Ask, votes: Sequence[int]) -> None:
        assert ask.view == len(self.told)
        self.told.append(list(votes))


def two_views(channels: Sequence[Channel], batch: int, images: int = 5) -> list[list[list[int]]]:
    """The votes of each image in each of two views."""
    engine: Engine[TwoViews] = Engine(channels, seed=SEED, batch=batch, checks=checks(2))
    asked = [Job(image(10 * i), f"{i}", TwoViews((40 + i, 25))) for i in range(images)]
    list(engine.run(asked))
    return [job.query.told for job in asked]


def test_views_of_several_levels_share_batches_with_a_level_for_each_image() -> None:
    base = FirstPixel()
    shared = Base(base, MARGIN, mixes=True)
    low, high = noise_law("grid", 0.25), noise_law("grid", 0.5)
    found = two_views([Channel(low, shared), Channel(high, shared)], 32)
    assert set(base.sizes) == {32}
    assert len(base.sizes) <= -(-sum(65 + i for i in range(5)) // 32) + 1
    levels = torch.cat([level for level in base.levels if isinstance(level, Tensor)])
    assert len(levels) == 32 * len(base.sizes)
    assert {round(level, 6) for level in levels.tolist()} == {0.25, 0.5}
    # Each view alone votes the same: what else is in a batch changes no draw.
    separate = [Base(FirstPixel(), MARGIN), Base(FirstPixel(), MARGIN)]
    assert found == two_views([Channel(low, separate[0]), Channel(high, separate[1])], 45)


def test_a_batch_holds_draws_of_one_base_function() -> None:
    def never(noisy: Pixels, sigma: Levels) -> Logits:
        return torch.eye(2)[:1].expand(len(noisy), 2)

    def always(noisy: Pixels, sigma: Levels) -> Logits:
        return torch.eye(2)[1:].expand(len(noisy), 2)

    channels = [Channel(GRID, Base(never, MARGIN)), Channel(GRID, Base(always, MARGIN))]
    assert two_views(channels, 16) == [[[40 + i, 0], [0, 25]] for i in range(5)]


def test_views_draw_other_noise() -> None:
    base = Base(FirstPixel(), MARGIN)
    engine: Engine[TwoViews] = Engine([Channel(GRID, base)] * 2, seed=SEED, batch=64, checks=checks(2))
    job = Job(image(128), "0", TwoViews((200, 200)))
    list(engine.run([job]))
    assert job.query.told[0] != job.query.told[1]


def test_each_image_of_a_mixed_batch_comes_with_its_own_level() -> None:
    def by_level(noisy: Pixels, sigma: Levels) -> Logits:
        assert isinstance(sigma, Tensor)
        return torch.eye(2)[(sigma > 0.3).long()]

    shared = Base(by_level, MARGIN, mixes=True)
    channels = [Channel(noise_law("grid", sigma), shared) for sigma in (0.25, 0.5)]
    assert two_views(channels, 32) == [[[40 + i, 0], [0, 25]] for i in range(5)]


def test_the_noise_of_each_view_is_shown_to_its_own_check(monkeypatch: pytest.MonkeyPatch) -> None:
    watched, fed = checks(2), [0, 0]

    def counter(view: int) -> Callable[[Tensor, Tensor], None]:
        def count(noisy: Tensor, clean: Tensor) -> None:
            fed[view] += len(noisy)

        return count

    for view in (0, 1):
        monkeypatch.setattr(watched.noise[view], "add", counter(view))
    shared = Base(FirstPixel(), MARGIN, mixes=True)
    channels = [Channel(noise_law("grid", sigma), shared) for sigma in (0.25, 0.5)]
    engine: Engine[TwoViews] = Engine(channels, seed=SEED, batch=32, checks=watched)
    list(engine.run([Job(image(10 * i), f"{i}", TwoViews((40, 25))) for i in range(3)]))
    assert fed == [120, 75]


class Nothing:
    """A query that is answered before it asks."""

    classes = 2

    def __init__(self, draws: int | None = None) -> None:
        self.draws = draws

    def ask(self) -> Sequence[Ask]:
        return [] if self.draws is None else [Ask(0, PREDICTION, self.draws)]

    def tell(self, ask: Ask, votes: Sequence[int]) -> None:
        raise AssertionError


def test_a_job_that_asks_for_nothing_is_given_back() -> None:
    engine: Engine[Nothing] = Engine([Channel(GRID, Base(FirstPixel(), MARGIN))], seed=SEED, batch=8, checks=checks())
    assert [job.sample for job in engine.run(Job(image(0), f"{i}", Nothing()) for i in range(3))] == ["0", "1", "2"]


def test_an_ask_for_no_draws_is_refused() -> None:
    engine: Engine[Nothing] = Engine([Channel(GRID, Base(FirstPixel(), MARGIN))], seed=SEED, batch=8, checks=checks())
    with pytest.raises(InputError, match="at least 1 draw"):
        list(engine.run([Job(image(0), "0", Nothing(0))]))
