"""Cascades that several test files share, and votes for them."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import ndtr

from robustify.certificates.cascade import Cascade
from robustify.certificates.cascade_plans import CascadePlan, CascadeQuery
from robustify.certificates.family import CERTIFICATES, Claim, Subject, Tally
from robustify.certificates.queries import Ask
from robustify.certificates.question import Question
from robustify.testing import Scenario
from robustify.testing.certificates import CONTRACT

SIGMAS = (0.25, 0.5, 1.0)

if Cascade.name not in CERTIFICATES.names():
    CERTIFICATES.register(Cascade.name, Cascade)

TRUE = [float(ndtr(0.3 / sigma)) for sigma in sorted(SIGMAS, reverse=True)]
SCENARIOS = [
    Scenario([*[(p, 1 - p, 0.0) for p in TRUE], (1.0, 0.0, 0.0)], {0: 0.3}),  # all chains bind at once
    Scenario([(0.2, 0.5, 0.3), (0.9, 0.1, 0.0), (0.95, 0.05, 0.0), (1.0, 0.0, 0.0)], {}),  # a rival is at p0
    Scenario([(0.45, float(ndtr(-0.1)), 0.05), (0.9, 0.05, 0.05), (0.95, 0.05, 0.0), (1.0, 0.0, 0.0)], {0: 0.1}),
]
"""Hard cases of three levels, and what is true of them."""


def subject(classes: int = 3, slack: float = 0.0) -> Subject:
    return Subject(CONTRACT, classes, lambda _: slack)


def fixed(n: int = 10_000, *, n0: int = 100, alpha: float = 0.001, **settings: object) -> CascadePlan:
    """The plan of exactly `n` draws at each of three levels."""
    family = Cascade(SIGMAS, **settings)  # type: ignore[arg-type]
    return family.plan(Question(n=n, n0=n0, alpha=alpha), subject())


def adaptive(n_max: int = 10_000, *, n0: int = 100, alpha: float = 0.001, **settings: object) -> CascadePlan:
    """The plan of at most `n_max` draws at each of three levels."""
    family = Cascade(SIGMAS, **settings)  # type: ignore[arg-type]
    return family.plan(Question(n_max=n_max, n0=n0, alpha=alpha), subject())


def finished(plan: CascadePlan, votes: Callable[[Ask], Sequence[int]], classes: int = 3) -> CascadeQuery:
    """A query that was told votes until it asked for nothing."""
    query = plan.query(classes)
    while asks := query.ask():
        for ask in asks:
            query.tell(ask, votes(ask))
    return query


def drawn(chances: Sequence[Sequence[float]], seed: int) -> Callable[[Ask], list[int]]:
    """Votes at random, with these chances of the classes of each view; what is missing to 1 are draws that fail."""

    def votes(ask: Ask) -> list[int]:
        p = [*chances[ask.view], max(0.0, 1 - sum(chances[ask.view]))]
        key = (seed, ask.view, len(ask.stage))
        found: list[int] = np.random.default_rng(key).multinomial(ask.draws, np.array(p) / sum(p))[:-1].tolist()
        return found

    return votes


def tallied(plan: CascadePlan, levels: Sequence[tuple[Sequence[int], int]]) -> list[Tally]:
    """Tallies of levels, from the highest on, each with votes, one count per class, and the label that was chosen."""
    tallies = []
    for view, (votes, label) in enumerate(levels):
        chosen = tuple(plan.n0 if c == label else 0 for c in range(len(votes)))
        tallies += [Tally(view, "selection", plan.n0, chosen), Tally(view, "estimation", plan.n, tuple(votes), label)]
    return tallies


def claim_of(plan: CascadePlan, levels: Sequence[tuple[Sequence[int], int]]) -> Claim:
    """What the votes of levels prove."""
    return plan.certify_votes(tallied(plan, levels))
