"""Certifying at 3×224×224 against adversarial-robustness-toolbox, at equal n: `python …/against_art_photographs.py`

Needs `pip install adversarial-robustness-toolbox statsmodels` and `./plugins/efficientnet-lite`; the project needs
neither. Both smooth the same classifier without a denoiser, in float32, batches of 32, alpha = .001, 100 draws that
choose the label, one image, taking turns; prints the median ratio of their time to ours, the check of our model
included. EfficientNet-Lite0 shows what a user gains: `as_it_is` gives the toolbox the network as somebody has it, in
contiguous memory; otherwise both compute in channels-last memory, which ours found to be faster. A classifier that
takes next to no time shows the rest alone.
Writes `against_art_photographs.json`.
"""

import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from against_art import N0, toolbox
from engine import certify, light, photos

from robustify import SmoothedClassifier, robustify

BATCH, REPEATS = 32, 3


def seconds(task: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    task()
    return time.perf_counter() - started


def compared(model: SmoothedClassifier, n: int, *, as_it_is: bool = False) -> dict[str, Any]:
    """The toolbox's time over ours."""
    theirs = copy.deepcopy(model)
    if as_it_is:
        theirs.classifier.memory_format = torch.contiguous_format
    images = photos(1)
    pixels, art = images.float().div(255).numpy(), toolbox(theirs)
    certify(model, images, n=BATCH, n0=N0, batch=BATCH)
    art.certify(pixels, n=BATCH, batch_size=BATCH)
    pairs = [
        (
            seconds(lambda: art.certify(pixels, n=n, batch_size=BATCH)),
            certify(model, images, n=n, n0=N0, batch=BATCH),
        )
        for _ in range(REPEATS)
    ]
    return {"n": n, "art_over_ours": round(float(statistics.median(a / b for a, b in pairs)), 2)}


def main() -> None:
    """Measures, prints and writes."""
    found = {"threads": torch.get_num_threads(), "a light classifier": compared(light(), 1_000)}
    print(found, flush=True)
    lite = robustify("efficientnet-lite:0", sigma=0.5)
    found["efficientnet-lite0"] = compared(lite, 400)
    found["efficientnet-lite0, as it is"] = compared(lite, 400, as_it_is=True)
    print(found)
    Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
