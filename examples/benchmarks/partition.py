"""Partitions against plain smoothing at equal cost. `python examples/benchmarks/partition.py`

The zoo's timm classifier behind the zoo's denoiser on held-out images: 100 draws of each half, 20 more of each choose
the label; against 200 and 32 of whole images under 1.41 times the noise, for which equal chances would give equal
radii. These votes are read from `mixed_votes.npz` beside this file (`mixed.py`). Both models were trained on whole
images. Continues where it stopped. Writes `partition.json` beside this file.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from robustify import Settings, certify_dataset, robustify
from robustify.certificates.family import Look
from robustify.certificates.partition import Partition
from robustify.certificates.plans import FixedPlan
from robustify.certificates.radii import leading_class, strongest_rival
from robustify.data import open_samples
from robustify.zoo import HELD_OUT

COUNTS = Path(__file__).with_name("mixed_votes.npz")
PAIRS = ((0.18, 0.25), (0.36, 0.5))
RADII = (0.0, 0.25, 0.5, 0.75)


def summary(certificate: str, radii: Iterable[float]) -> dict[str, object]:
    """Certified accuracy and average certified radius, from radii that are 0 where the label is wrong."""
    right = np.array([*radii])
    return {
        "certificate": certificate,
        "images": len(right),
        "certified": {str(r): round(float(np.mean(right > r)), 4) for r in RADII},
        "average_certified_radius": round(float(right.mean()), 4),
    }


def whole(sigma: float, kept: dict[str, np.ndarray], every: int) -> Iterable[float]:
    """Radii of plain smoothing from votes that were drawn."""
    plan = FixedPlan(sigma, 0.001, int(kept["n0"]), int(kept["n"]))
    counts = (kept[f"selection_{sigma}"], kept[f"votes_{sigma}"], kept["truth"])
    for selection, votes, truth in zip(*(part[::every].tolist() for part in counts), strict=True):
        label = leading_class(selection)
        look = Look(plan.n, votes[label], strongest_rival(votes, label, n=plan.n))
        yield plan.prove([look]).radius * (label == truth)


def halved(sigma: float, images: Iterable[int], out: Path) -> Iterable[float]:
    """Radii of a partition, drawn here."""
    model = robustify("zoo:timm", denoiser="zoo:ddpm", certificate=Partition(sigma))
    samples = open_samples(HELD_OUT, model.labels)
    chosen = [samples[i] for i in images]
    run = certify_dataset(model, chosen, out, Settings(n=100, n0=20), title=f"halves, sigma {sigma}")
    return [row.radius * row.correct for row in run.rows]


def main(
    every: Annotated[int, typer.Option(help="Take every k-th of the images whose votes are kept.")] = 3,
    out: Annotated[Path, typer.Option(help="Folder of the runs; continues.")] = Path("run-partition"),
) -> None:
    """Certifies both ways, prints and writes the table."""
    kept, table = dict(np.load(COUNTS)), []
    for half, plain in PAIRS:
        table.append(summary(f"Gaussian({plain})", whole(plain, kept, every)))
        images = kept["index"][::every].tolist()
        table.append(summary(f"Partition({half})", halved(half, images, out / f"{half}")))
        print(*table[-2:], sep="\n", flush=True)
    Path(__file__).with_suffix(".json").write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
