r"""Certificates that survive a change of the model: another precision, compilation, quantisation, a merged adapter.

A run certified the smoothed classifier of a function :math:`f`. Its count :math:`n_A` of the label among `n` draws is
kept. If the changed function :math:`f'` is shown the same noise as :math:`f`, then for every class c

.. math:: P(f' = A) \ge P(f = A) - \zeta, \quad P(f' = c) \le P(f = c) + \zeta, \quad \zeta = P(f \ne f'),

and :math:`\zeta` is bounded from a few draws that both functions see. They are the first of the very draws that
:math:`n_A` counts: no bound below needs the two counts to be independent.

**Alpha.** With `L` and `U` the one-sided bounds of Clopper and Pearson, each at its share of alpha,

- *majority*: :math:`p_A' = L(n_A) - U(n_\Delta)`, and all other classes together have :math:`1 - p_A'`: two shares;
- *runner-up*: besides, :math:`p_B' = U(n_B) + U(n_\Delta)`, if that is less than :math:`1 - p_A'`: three shares;
- *fresh*: the changed function alone, on as many draws of its own as cost the same: the certificate of `FixedPlan`.

The draws that choose the label also choose among the three, with a guess of :math:`\zeta` that rests on such draws
too. Given these, the other draws are independent of the choice. So the claim is false with chance at most the sum of
the shares of the bounds it uses, by the union bound, which is alpha: that of the run before, no more. The claim about
:math:`f` and the one about :math:`f'` share draws and are not independent: that either of the two is false has a chance
of at most both alphas together.

A draw of which it is not clear, beyond rounding, that both functions agree counts as a disagreement.

References:
    Incremental Randomized Smoothing Certification, Ugare, Suresh, Banerjee, Singh, Misailovic, ICLR 2024,
    https://arxiv.org/abs/2305.19521 (there with alpha and alpha_zeta apart, and one two-sided bound)
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal, TypeAlias, final

from robustify.certificates.bounds import check_alpha, lower_bound, upper_bound
from robustify.certificates.family import Bound, Claim, Look, Plan, Tally, refuse_truth
from robustify.certificates.plans import NOTHING, FixedPlan, Proof
from robustify.certificates.queries import ESTIMATION, SELECTION, Ask
from robustify.certificates.radii import check_count, gaussian_radius, leading_class, strongest_rival
from robustify.certificates.views import Change, View
from robustify.errors import InputError

BEFORE, FRESH, SHARED = 0, 1, 2
"""Views of a plan: the function before the change, the changed one, and whether both agree on draws of the first."""

Way: TypeAlias = Literal["majority", "runner-up", "fresh"]
"""How an image is certified."""

CARRIED: tuple[Way, ...] = ("majority", "runner-up")
"""The ways that use the counts of the run before the change."""


def migrated_bounds(
    label: int, rival: int, differ: int, *, n: int, shared: int, alpha: float, runner_up: bool
) -> tuple[float, float]:
    """Bounds (p_lower, p_upper) on the changed function's probabilities, jointly at `alpha`.

    Arguments:
        label: Votes for the label among the `n` draws of the function before the change.
        rival: Votes for its strongest rival there, plus the draws that failed.
        differ: Number of shared draws on which the two functions do not clearly agree.
        n: Number of draws of the function before the change.
        shared: Number of draws that both functions saw.
        alpha: Allowed chance, in (0, 1), that a bound is wrong.
        runner_up: Whether to bound the rival by its own votes, for a third of alpha, or by what the label leaves.

    Raises:
        InputError: If counts or alpha are impossible.
    """
    share = alpha / (3 if runner_up else 2)
    zeta = upper_bound(differ, shared, alpha=share)
    p_lower = max(0.0, math.nextafter(lower_bound(label, n, alpha=share) - zeta, 0.0))
    p_upper = min(1.0, math.nextafter(1 - p_lower, 2.0))
    if runner_up:
        p_upper = min(p_upper, math.nextafter(upper_bound(rival, n, alpha=share) + zeta, 2.0))
    return p_lower, p_upper


@final
@dataclass(frozen=True)
class SameNoise(Change):
    """Gaussian noise with the very numbers of another view's draws.

    Arguments:
        view: Index of that view, which has the same sigma.
    """

    law = "robustify.smoothing.pairs:same_noise"

    view: int


@final
@dataclass(frozen=True)
class Origin:
    """The run that was migrated.

    Arguments:
        run: Digest of its configuration.
        classifier: SHA-256 of its classifier.
        denoiser: SHA-256 of its denoiser.
        numerics: How its networks computed.
    """

    run: str
    classifier: str
    denoiser: str
    numerics: str


@final
@dataclass(frozen=True)
class MigratedPlan(Plan):
    """A classical certificate of a function, carried over to a changed one.

    Arguments:
        sigma: Standard deviation of the noise, in [0, 1] pixels, positive.
        alpha: Allowed chance of a false claim about the changed function, in (0, 1).
        n0: Draws of the function before the change that chose the label.
        n: Draws of the function before the change that tested it.
        shared: Draws, the first of those `n`, that both functions see.
        fresh: Draws of the changed function alone, where that promises the larger radius.
        expected: Share of draws on which the functions were seen to differ among draws that choose labels, a guess.
        slack: Largest difference between the chance of a vote under the noise that is drawn and under ideal noise.
        origin: The run that was migrated.

    Raises:
        InputError: If a number is out of range, or more draws are to be shared than there are.
    """

    family: ClassVar[str] = "migrated"
    rule: ClassVar[str] = "shared or fresh"

    sigma: float
    alpha: float
    n0: int
    n: int
    shared: int
    fresh: int
    expected: float
    slack: float
    origin: Origin

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        check_count("shared", self.shared, most=self.n)
        FixedPlan(self.sigma, self.alpha, self.n0, self.n, self.slack)  # raises
        FixedPlan(self.sigma, self.alpha, self.n0, self.fresh)  # raises
        if not 0 <= self.expected <= 1:
            raise InputError(f"expected a share of draws that differ, from 0 to 1; got {self.expected}")

    @property
    def note(self) -> str:
        return "migrated"

    @property
    def remark(self) -> str:
        return (
            "Certificates of a changed model, carried over from an earlier run, whose counts they use again: that "
            "either of an image's two certificates is false has a chance of at most both alphas together."
        )

    @property
    def views(self) -> tuple[View, ...]:
        before = View(self.sigma, "robustify.smoothing.pairs:before")
        return before, View(self.sigma), View(self.sigma, "robustify.smoothing.pairs:agreement", SameNoise(BEFORE))

    @property
    def slacks(self) -> tuple[float, ...]:
        return (self.slack,) * 3

    @property
    def most_draws(self) -> int:
        return self.n0 + self.n + max(self.shared, self.fresh)

    @property
    def radii(self) -> tuple[float, ...]:
        return ()

    @property
    def ceiling(self) -> float:
        tested = Look(self.n, self.n, 0)
        return max(self._own.ceiling, *(self._carried(tested, 0, way).radius for way in CARRIED))

    def way(self, selection: Sequence[int]) -> Way:
        """How an image is certified, given the votes, one count per class, that chose its label.

        The way that would prove the largest radius if votes kept their shares and functions differed as expected;
        fresh draws where none is better.
        """
        label = leading_class(selection)
        chosen = Look(self.n0, selection[label], strongest_rival(selection, label, n=self.n0))
        differ = math.ceil(self.expected * self.shared)
        hopes: dict[Way, float] = {"fresh": self._own.prove((_scaled(chosen, self.fresh),)).radius}
        for way in CARRIED:
            hopes[way] = self._carried(_scaled(chosen, self.n), differ, way).radius
        return max(hopes, key=hopes.__getitem__)

    def query(self, classes: int, truth: int | None = None) -> "MigrationQuery":
        refuse_truth(self, truth)
        return MigrationQuery(self, classes)

    def certify_votes(self, tallies: Sequence[Tally]) -> Claim:
        proof, label = NOTHING, None
        if len(tallies) == 3:
            chosen, tested, last = tallies
            label = tested.label
            proof = self._proof(self.way(chosen.votes), tested.looks[0], last)
        return Claim(label if proof.radius > 0 else None, proof.radius, (Bound(proof.p_lower, proof.p_upper),))

    def stored(self) -> dict[str, Any]:
        return {"rule": self.rule, **asdict(self)}

    def __str__(self) -> str:
        return f"{self.shared:,} shared or {self.fresh:,} fresh draws after n = {self.n:,}"

    def _proof(self, way: Way, tested: Look, last: Tally) -> Proof:
        if way == "fresh":
            return self._own.prove(last.looks)
        return self._carried(tested, last.draws - sum(last.votes), way)

    def _carried(self, tested: Look, differ: int, way: Way) -> Proof:
        """What counts of the function before the change, and so many disagreements, prove of the changed one."""
        p_lower, p_upper = migrated_bounds(
            tested.label,
            tested.rival,
            differ,
            n=self.n,
            shared=self.shared,
            alpha=self.alpha,
            runner_up=way == "runner-up",
        )
        low, high = max(0.0, p_lower - self.slack), min(1.0, p_upper + self.slack)
        return Proof(gaussian_radius(low, high, sigma=self.sigma), low, high)

    @cached_property
    def _own(self) -> FixedPlan:
        """The certificate of the changed function from draws of its own."""
        return FixedPlan(self.sigma, self.alpha, self.n0, self.fresh, self.slack)


def _scaled(look: Look, n: int) -> Look:
    """The counts of `n` draws that split like those of a look."""
    return Look(n, round(look.label * n / look.n), round(look.rival * n / look.n))


@final
@dataclass
class MigrationQuery:
    """The draws of a run before a change, which are usually known, and then those that carry it over.

    Arguments:
        plan: What is asked.
        classes: Number of classes.
    """

    plan: MigratedPlan
    classes: int
    told: list[tuple[Ask, tuple[int, ...]]] = field(init=False, default_factory=list)

    def ask(self) -> Sequence[Ask]:
        """The draws before the change, then shared or fresh ones, all at once."""
        p = self.plan
        if not self.told:
            return Ask(BEFORE, SELECTION, p.n0), Ask(BEFORE, ESTIMATION, p.n)
        if len(self.told) > 2:
            return ()
        fresh = p.way(self.told[0][1]) == "fresh"
        return (Ask(FRESH, ESTIMATION, p.fresh) if fresh else Ask(SHARED, ESTIMATION, p.shared),)

    def tell(self, ask: Ask, votes: Sequence[int]) -> None:
        """Takes the votes, one count per class; of shared draws, those on which both functions agree."""
        self.told.append((ask, tuple(votes)))

    @property
    def tallies(self) -> tuple[Tally, ...]:
        """The votes that chose the label, those that tested it, and those that carry it over."""
        if not self.told:
            return ()
        (_, selection), *others = self.told
        label = leading_class(selection)
        return Tally(BEFORE, SELECTION, self.plan.n0, selection), *(_tested(ask, votes, label) for ask, votes in others)


def _tested(ask: Ask, votes: tuple[int, ...], label: int) -> Tally:
    looks = () if ask.view == SHARED else (Look(ask.draws, votes[label], strongest_rival(votes, label, n=ask.draws)),)
    return Tally(ask.view, ask.stage, ask.draws, votes, label, looks)
