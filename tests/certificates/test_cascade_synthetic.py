"""Cascades against the published procedure on synthetic points, as in specs/certification.md, section 3.3.

The specification does not say how its points were made. These have a distance to the nearest border, as seen without
noise, and lose more of it the stronger the noise: the true class has the chance Φ(distance / sigma - loss).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from robustify.certificates.cascade_level import CascadeLevel, Counts
from robustify.certificates.family import Bound
from tests.toys_cascade import claim_of, fixed

N, ALPHA, POINTS = 10_000, 0.001, 300
LEVELS = (1.0, 0.5, 0.25)


def points(seed: int = 0) -> list[NDArray[np.float64]]:
    """Chances of ten classes at three levels, shape (3, 10), for each point; the true class is the first."""
    generator, found = np.random.default_rng(seed), []
    for _ in range(POINTS):
        distance, loss = generator.gamma(2, 0.5), generator.uniform(0, 0.5)
        own = ndtr(distance / np.array(LEVELS) - loss)
        others = generator.dirichlet(np.ones(9))
        found.append(np.column_stack([own, np.outer(1 - own, others)]))
    return found


def level(k: int, alpha: float = ALPHA) -> CascadeLevel:
    return CascadeLevel(LEVELS[k], 0.5, alpha, 0.0)


def published(pairs: Sequence[tuple[Sequence[int], int]]) -> tuple[int | None, float]:
    """Label and radius of the published procedure, but with exact bounds instead of its approximate ones.

    The first level that fires is certified, at alpha over its number; a level before it that may fire means abstention.
    """
    for k, (votes, label) in enumerate(pairs):
        share = ALPHA / (k + 1)
        links = [level(j, share).harmless(_bound(j, share, v, label)) for j, (v, _) in enumerate(pairs[:k])]
        answering = level(k, share).answering(_bound(k, share, votes, label))
        if answering > 0:
            return label, min([answering, *links])
        if level(k).silence(votes, N) > share:
            break
    return None, 0.0


def _bound(k: int, share: float, votes: Sequence[int], label: int) -> Bound:
    return level(k, share).bound(Counts.of(votes, label, N))


def true_radius(chances: NDArray[np.float64]) -> float:
    """The radius of the cascade where all chances are known."""
    bounds = [Bound(min(p[0], 1 - 1e-12), max(1e-12, p[1:].max())) for p in chances]
    links = [level(k).harmless(bound) for k, bound in enumerate(bounds)]
    return max(min([level(k).answering(bound), *links[:k]]) for k, bound in enumerate(bounds))


def test_cascades_prove_more_than_the_published_procedure() -> None:
    generator, plan = np.random.default_rng(1), fixed(N, alpha=ALPHA)
    ours, theirs, false = [], [], 0
    for chances in points():
        pairs = [(generator.multinomial(N, p).tolist(), int(generator.multinomial(100, p).argmax())) for p in chances]
        claim, (label, radius) = claim_of(plan, pairs), published(pairs)
        ours.append(claim.radius * (claim.label == 0))
        theirs.append(radius * (label == 0))
        false += claim.radius > true_radius(chances)
    assert np.mean(ours) > 1.08 * np.mean(theirs)
    assert np.mean(np.greater(ours, 0)) > np.mean(np.greater(theirs, 0))
    assert false <= 3  # 0.3 expected at most, and three standard errors above
