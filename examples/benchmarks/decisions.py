"""How many draws does "certified at r?" take, against the classical 100,000? `python examples/benchmarks/decisions.py`

Votes of the zoo's timm classifier behind the zoo's denoiser, in bfloat16, are drawn for real (`--votes` for each of the
500 held-out images and sigma, and 100 that choose the label; the run folder keeps them). Drawing 100,000 each would
take days on two cores, so both methods are then replayed from each image's observed vote shares: 20 times per image
for decisions, once for the classical certificate.
Writes `decisions.json` beside this file.
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from robustify import Settings, certify_dataset, robustify
from robustify.certificates.decisions import DecisionPlan
from robustify.certificates.family import Look
from robustify.certificates.plans import FixedPlan, GaussianPlan
from robustify.data import open_samples
from robustify.runs.rows import Row
from robustify.zoo import HELD_OUT

RADII = (0.25, 0.5, 1.0)
N = 100_000
REPLAYS = 20


def replay(plan: GaussianPlan, shares: np.ndarray, label: int, rng: np.random.Generator) -> tuple[int, float]:
    """Draws taken and radius claimed in one imagined run; the last share is that of failed draws."""
    votes, looks = np.zeros(len(shares), dtype=np.int64), []
    for before, n in zip((0, *plan.schedule), plan.schedule, strict=False):
        votes += rng.multinomial(n - before, shares)
        looks.append(Look(n, int(votes[label]), int(np.delete(votes, label).max())))
        if plan.decided(looks):
            break
    return looks[-1].n, plan.prove(looks).radius


def compare(rows: list[Row], sigma: float, radius: float) -> dict[str, float]:
    """Mean draws and certified accuracy of both methods over these images."""
    rng = np.random.default_rng(0)
    plans = DecisionPlan(sigma, 0.001, 100, N, radii=(radius,)), FixedPlan(sigma, 0.001, 100, N)
    draws, adaptive, classical = [], [], []
    for row in rows:
        drawn = np.add(row.votes, row.selection)
        votes = np.array([*drawn, row.draws - drawn.sum()])
        label, right = int(np.argmax(row.selection)), int(np.argmax(row.selection)) == row.truth
        runs = [replay(plans[0], votes / votes.sum(), label, rng) for _ in range(REPLAYS)]
        draws += [n + plans[0].n0 for n, _ in runs]
        adaptive.append(right * float(np.mean([r > radius for _, r in runs])))
        classical.append(right * (replay(plans[1], votes / votes.sum(), label, rng)[1] > radius))
    return {
        "sigma": sigma,
        "radius": radius,
        "images": len(rows),
        "mean_draws": round(float(np.mean(draws)), 1),
        "median_draws": float(np.median(draws)),
        "fewer_than_classical": round((N + 100) / float(np.mean(draws)), 1),
        "certified_accuracy": round(float(np.mean(adaptive)), 4),
        "certified_accuracy_classical": round(float(np.mean(classical)), 4),
    }


def main(
    every: Annotated[int, typer.Option(help="Take every k-th of the 500 held-out images.")] = 1,
    votes: Annotated[int, typer.Option(help="Real draws for each image and sigma.")] = 200,
    out: Annotated[Path, typer.Option(help="Folder of the runs; continues.")] = Path("run-decisions"),
) -> None:
    """Draws the votes, replays both methods, prints and writes the table."""
    table = []
    for sigma in (0.25, 0.5, 1.0):
        model = robustify("zoo:timm", denoiser="zoo:ddpm", sigma=sigma, precision="bfloat16")
        samples = open_samples(HELD_OUT, model.labels)[::every]
        run = certify_dataset(model, samples, out / f"{sigma}", Settings(n=votes), title=f"sigma {sigma}")
        table += [compare(run.rows, sigma, radius) for radius in RADII if radius <= 3 * sigma]
    for line in table:
        print(line)
    Path(__file__).with_suffix(".json").write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
