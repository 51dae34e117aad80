"""What does an adaptive certificate save, and what does it cost? `python examples/benchmarks/budget.py`

Votes are imagined: each case gives the probabilities of label and rival, and what is left goes evenly to eight other
classes. Every certificate is replayed 400 times, with `n0 = 100` draws that choose the label and at most `n_max` that
test it, beside the classical one, which takes them all, after the same choice. A radius counts only where the label
was chosen. Images of which nothing can be proven are not among the cases; they are given up early. Writes
`budget.json` beside this file.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import typer

from robustify.certificates.plans import AdaptivePlan, FixedPlan, GaussianPlan

CASES = (
    *((1.0, 0.0), (0.9999, 0.00005), (0.999, 0.0005), (0.99, 0.005), (0.95, 0.025), (0.9, 0.05), (0.8, 0.1)),
    *((0.7, 0.15), (0.6, 0.2), (0.55, 0.4), (0.5, 0.2), (0.5, 0.4), (0.4, 0.2)),
)
OTHERS, N0, ALPHA, REPLAYS = 8, 100, 0.001, 400


class Outcome(NamedTuple):
    """One case: mean draws of the adaptive plan, those that choose among them; both mean radii, in sigmas; shares."""

    label: float
    rival: float
    draws: int
    radius: float
    radius_of_all: float
    share_of_draws: float
    share_of_radius: float


def replay(plan: GaussianPlan, shares: np.ndarray, rng: np.random.Generator) -> tuple[int, float]:
    """Draws taken and radius claimed for the first class in one imagined run."""
    query = plan.query(len(shares))
    while asks := query.ask():
        for ask in asks:
            query.tell(ask, rng.multinomial(ask.draws, shares).tolist())
    claim = plan.certify_votes(query.tallies)
    return plan.n0 + query.n, claim.radius if claim.label == 0 else 0.0


def compare(label: float, rival: float, n_max: int) -> Outcome:
    """Both plans on one case."""
    shares = np.array([label, rival, *[(1 - label - rival) / OTHERS] * OTHERS])
    shares /= shares.sum()  # 1 but for rounding
    plans = AdaptivePlan(1.0, ALPHA, N0, n_max), FixedPlan(1.0, ALPHA, N0, n_max)
    runs = [[replay(plan, shares, np.random.default_rng(seed)) for seed in range(REPLAYS)] for plan in plans]
    (draws, radius), (of_all, radius_of_all) = np.mean(runs, axis=1).tolist()
    figures = round(draws), round(radius, 4), round(radius_of_all, 4)
    return Outcome(label, rival, *figures, round(draws / of_all, 4), round(radius / radius_of_all, 4))


def summarise(n_max: int, cases: list[Outcome]) -> dict[str, object]:
    """Means over the cases; the mean radius, over the classical one's, weighs cases by what there is to prove."""
    radius, of_all = (sum(getattr(case, name) for case in cases) for name in ("radius", "radius_of_all"))
    return {
        "n_max": n_max,
        "share_of_draws": round(float(np.mean([case.share_of_draws for case in cases])), 4),
        "share_of_radius": round(float(np.mean([case.share_of_radius for case in cases])), 4),
        "share_of_mean_radius": round(radius / of_all, 4),
        "cases": [case._asdict() for case in cases],
    }


def main() -> None:
    """Replays, prints and writes the table."""
    table = []
    for n_max in (10_000, 100_000):
        table.append(summarise(n_max, [compare(label, rival, n_max) for label, rival in CASES]))
        print({name: value for name, value in table[-1].items() if name != "cases"})
    Path(__file__).with_suffix(".json").write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
