"""What is left of certificates after a change of the model? `python examples/benchmarks/migrate.py`

First votes are imagined, as in `budget.py`: a run of n = 100,000 or 10,000, a tenth as many shared draws, a label of
chance p, and a share of all draws whose class changes. Then it is measured: 20 held-out images by the shipped
classifier alone, whose weights are rounded to another precision and kept in float32.
Shares are of the mean radius of the run before the change. Writes `migrate.json` beside this file.
"""

import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import typer

from robustify import Settings, SmoothedClassifier, certify_dataset, robustify
from robustify.certificates.migration import BEFORE, FRESH, SHARED, MigratedPlan, Origin
from robustify.certificates.plans import FixedPlan
from robustify.data import open_samples
from robustify.runs.folder import Run
from robustify.runs.migrate import migrate
from robustify.zoo import HELD_OUT

CHANCES, RATES, REPLAYS, ALPHA, N0 = (0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0), (0.0, 1e-4, 1e-3), 200, 0.001, 100


class Case(NamedTuple):
    """One measured change.

    Arguments:
        denoiser: Name of the denoiser; empty without.
        images: Number of images.
        n: Draws of the run before.
        draws: Draws that both functions see.
        kind: What weights are rounded to.
    """

    denoiser: str
    images: int
    n: int
    draws: int
    kind: str


CASES = (Case("", 20, 2_000, 500, "float16"), Case("", 20, 2_000, 500, "bfloat16"))


def imagined(n: int, p: float, rate: float) -> dict[str, Any]:
    """Mean radii, in sigmas, before and after a change that gives this share of draws to the other of two classes."""
    plan = MigratedPlan(1.0, ALPHA, N0, n, n // 10, n // 5, rate, 0.0, Origin("", "", "", ""))
    before, rng = FixedPlan(1.0, ALPHA, N0, n), np.random.default_rng(0)
    changed = p * (1 - rate) + (1 - p) * rate
    chances = {
        BEFORE: [p, 1 - p, 0.0],
        FRESH: [changed, 1 - changed, 0.0],
        SHARED: [p * (1 - rate), (1 - p) * (1 - rate), rate],
    }
    radii = np.zeros((REPLAYS, 2))
    for i in range(REPLAYS):
        query = plan.query(2)
        while asks := query.ask():
            for ask in asks:
                query.tell(ask, rng.multinomial(ask.draws, chances[ask.view])[:2].tolist())
        claim, (_, tested, _) = plan.certify_votes(query.tallies), query.tallies
        radii[i] = [before.prove(tested.looks).radius, claim.radius] if tested.label == 0 else 0.0
    old, new = radii.mean(axis=0).tolist()
    share = round(new / old, 4) if old else None
    return {"n": n, "p": p, "rate": rate, "before": round(old, 4), "after": round(new, 4), "share": share}


def model(denoiser: str, kind: str = "") -> SmoothedClassifier:
    """The shipped classifier, its weights rounded to a kind of number."""
    found = robustify("zoo:timm", denoiser=denoiser or None, sigma=0.25)
    if kind:
        with torch.no_grad():
            for parameter in found.classifier.parameters():
                parameter.copy_(parameter.to(getattr(torch, kind)).float())
    return found


def measured(case: Case, folder: Path) -> dict[str, Any]:
    """Radii before and after a change of the shipped classifier."""
    old, new = model(case.denoiser), model(case.denoiser, case.kind)
    samples = open_samples(HELD_OUT, old.labels)
    samples = samples[:: len(samples) // case.images][: case.images]
    before = certify_dataset(old, samples, folder / f"{case.denoiser}{case.n}", Settings(n=case.n, n0=N0, seed=0))
    after = migrate(before, old, new, samples, folder / "-".join(map(str, case)), draws=case.draws)
    return case._asdict() | compared(before, after)


def compared(before: Run, after: Run) -> dict[str, Any]:
    """Mean radii, and how the images were certified."""
    plan = after.plan
    assert isinstance(plan, MigratedPlan)
    old, new = (sum(row.radius for row in run.rows) / len(run.rows) for run in (before, after))
    carried = [row.tallies[-1] for row in after.rows if row.tallies[-1].view == SHARED]
    differ = sum(tally.draws - sum(tally.votes) for tally in carried)
    return {
        "expected": round(plan.expected, 6),
        "carried": len(carried),
        "differ": round(differ / sum(tally.draws for tally in carried), 6) if carried else None,
        "certified": [sum(row.radius > 0 for row in run.rows) for run in (before, after)],
        "before": round(old, 4),
        "after": round(new, 4),
        "share": round(new / old, 4),
    }


def main() -> None:
    """Imagines, measures, prints and writes."""
    table: dict[str, Any] = {"imagined": [imagined(n, p, r) for n in (100_000, 10_000) for r in RATES for p in CHANCES]}
    for line in table["imagined"]:
        print(line)
    with tempfile.TemporaryDirectory() as folder:
        table["measured"] = []
        for case in CASES:
            table["measured"].append(measured(case, Path(folder)))
            print(table["measured"][-1], flush=True)
    Path(__file__).with_suffix(".json").write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
