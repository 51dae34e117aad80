"""Partitions against plain smoothing at equal cost. `python examples/benchmarks/partition.py`

On every tenth held-out image, the zoo's timm classifier behind the zoo's denoiser: `--n` draws of each half, against
twice as many of whole images under 1.41 times the noise, for which equal chances would give equal radii. Both models
were trained on whole images. Continues where it stopped. Writes `partition.json` beside this file.
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from robustify import Settings, certify_dataset, robustify
from robustify.certificates import Gaussian
from robustify.certificates.family import Family
from robustify.certificates.partition import Partition
from robustify.data import open_samples
from robustify.zoo import HELD_OUT

PAIRS = ((Partition(0.18), Gaussian(0.25)), (Partition(0.36), Gaussian(0.5)))
RADII = (0.0, 0.25, 0.5, 0.75)


def measure(family: Family, every: int, n: int, n0: int, out: Path) -> dict[str, object]:
    """Certified accuracy at several radii, and average certified radius."""
    model = robustify("zoo:timm", denoiser="zoo:ddpm", certificate=family)
    samples = open_samples(HELD_OUT, model.labels)[::every]
    run = certify_dataset(model, samples, out, Settings(n=n, n0=n0), title=str(family))
    certified = {str(r): np.mean([row.correct and row.radius > r for row in run.rows]) for r in RADII}
    return {
        "certificate": repr(family),
        "images": len(run.rows),
        "draws": run.rows[0].draws,
        "certified": {radius: round(float(share), 4) for radius, share in certified.items()},
        "average_certified_radius": round(float(np.mean([row.radius * row.correct for row in run.rows])), 4),
    }


def main(
    every: Annotated[int, typer.Option(help="Take every k-th of the 500 held-out images.")] = 10,
    n: Annotated[int, typer.Option(help="Draws of each half that test the label; 20 choose it.")] = 100,
    out: Annotated[Path, typer.Option(help="Folder of the runs; continues.")] = Path("run-partition"),
) -> None:
    """Certifies both ways, prints and writes the table."""
    table = []
    for halved, plain in PAIRS:
        for family, times in ((halved, 1), (plain, 2)):
            table.append(measure(family, every, times * n, times * 20, out / f"{family.name}-{family.levels[0]}"))
            print(table[-1], flush=True)
    Path(__file__).with_suffix(".json").write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
