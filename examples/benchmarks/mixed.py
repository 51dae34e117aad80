"""What a mixture regains in accuracy, and pays in radius. `python examples/benchmarks/mixed.py`

Votes of the zoo's timm classifier behind the zoo's denoiser on held-out images are read from `mixed_votes.npz` beside
this file; they are drawn where it is missing, which takes hours on two cores, and continues where it stopped. The vote
of the classifier alone is one pass over these images. `right_leaders` is how often the leading class of the votes is
right, certain or not. Each claim is the one that these very votes prove at alpha = .001; nothing is replayed.
Writes `mixed.json` beside this file.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from robustify import Settings, certify_dataset, robustify
from robustify.certificates.family import Claim, Look, Tally
from robustify.certificates.mixed import MixedPlan
from robustify.certificates.plans import FixedPlan
from robustify.certificates.queries import ESTIMATION, SELECTION
from robustify.certificates.radii import leading_class, strongest_rival
from robustify.data import open_samples
from robustify.zoo import HELD_OUT

SIGMAS, WEIGHTS, RADII = (0.25, 0.5, 1.0), (0.8, 0.9, 0.95), (0.0, 0.25, 0.5, 0.75, 1.0)
COUNTS = Path(__file__).with_name("mixed_votes.npz")
ALPHA = 0.001


def draw(out: Path, counts: Path, n: int, n0: int) -> None:
    """Draws the votes, one run folder a sigma, and keeps their counts."""
    kept: dict[str, Any] = {}
    for sigma in SIGMAS:
        model = robustify("zoo:timm", denoiser="zoo:ddpm", sigma=sigma)
        samples = open_samples(HELD_OUT, model.labels)
        run = certify_dataset(model, samples, out / f"{sigma}", Settings(n=n, n0=n0), title=f"sigma {sigma}")
        rows = {row.sample: row for row in run.rows}
        found = [rows[sample.id] for sample in samples]
        kept |= {f"votes_{sigma}": [r.votes for r in found], f"selection_{sigma}": [r.selection for r in found]}
        kept |= {"truth": [r.truth for r in found], "index": range(len(found)), "n": n, "n0": n0}
    np.savez_compressed(counts, **kept)


def clean_predictions() -> list[int]:
    """What the classifier alone says of the held-out images."""
    model = robustify("zoo:timm", sigma=0.25)
    images = torch.stack([model.prepare(s.image, "float") for s in open_samples(HELD_OUT, model.labels)])
    with torch.inference_mode():
        return [int(c) for i in range(0, len(images), 50) for c in model.classifier(images[i : i + 50]).argmax(dim=1)]


def claim(plan: MixedPlan | FixedPlan, selection: list[int], votes: list[int], alone: int) -> Claim:
    """What a plan proves from these votes."""
    label = leading_class(selection)
    look = Look(plan.n, votes[label], strongest_rival(votes, label, n=plan.n))
    tallies = [Tally(0, SELECTION, plan.n0, tuple(selection))]
    if isinstance(plan, MixedPlan):
        tallies.append(Tally(1, SELECTION, 1, tuple(int(c == alone) for c in range(len(votes)))))
    return plan.certify_votes([*tallies, Tally(0, ESTIMATION, plan.n, tuple(votes), label, (look,))])


def row(plan: MixedPlan | FixedPlan, counts: Mapping[str, Any], sigma: float, clean: list[int]) -> dict[str, Any]:
    """Accuracy of answers, certified accuracy, and average certified radius of one plan."""
    drawn = [counts[f"selection_{sigma}"].tolist(), counts[f"votes_{sigma}"].tolist()]
    alone, truths = [clean[i] for i in counts["index"]], counts["truth"].tolist()
    claims = [claim(plan, *told) for told in zip(*drawn, alone, strict=True)]
    pairs = list(zip(claims, truths, strict=True))
    return {
        "sigma": sigma,
        "weight": plan.weight if isinstance(plan, MixedPlan) else None,
        "images": len(pairs),
        "n": plan.n,
        "right_alone": round(float(np.mean([own == truth for own, truth in zip(alone, truths, strict=True)])), 4),
        "right_leaders": round(float(np.mean(counts[f"votes_{sigma}"].argmax(axis=1) == counts["truth"])), 4),
        "right_answers": round(float(np.mean([truth in {c.label, c.uncertified} for c, truth in pairs])), 4),
        "certified": {
            str(r): round(float(np.mean([c.label == truth and c.radius > r for c, truth in pairs])), 4) for r in RADII
        },
        "average_certified_radius": round(float(np.mean([c.radius * (c.label == t) for c, t in pairs])), 4),
    }


def main(
    out: Annotated[Path, typer.Option(help="Folder of the runs, where votes have to be drawn; continues.")] = Path(
        "run-mixed"
    ),
    counts: Annotated[Path, typer.Option(help="Votes that were drawn.")] = COUNTS,
    n: Annotated[int, typer.Option(help="Draws for each image and sigma, where they have to be drawn.")] = 200,
    n0: Annotated[int, typer.Option(help="Draws that choose the label.")] = 32,
) -> None:
    """Reads or draws the votes, prints and writes the table."""
    if not counts.exists():
        draw(out, counts, n, n0)
    kept, clean, table = dict(np.load(counts)), clean_predictions(), []
    n, n0 = int(kept["n"]), int(kept["n0"])
    for sigma in (sigma for sigma in SIGMAS if f"votes_{sigma}" in kept):
        table.append(row(FixedPlan(sigma, ALPHA, n0, n), kept, sigma, clean))
        for weight in WEIGHTS:
            plan = MixedPlan(sigma, ALPHA, n0, n, adaptive=False, slack=0.0, weight=weight)
            table.append(row(plan, kept, sigma, clean))
    for line in table:
        print(line)
    Path(__file__).with_suffix(".json").write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
