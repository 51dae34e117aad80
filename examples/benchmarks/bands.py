"""What a vote of bands certifies against a patch, and what dropped tokens save: `python examples/benchmarks/bands.py`

The zoo's timm classifier, which was never trained on bands, on every fifth of the 500 held-out Fashion-MNIST images at
1×32×32, against a patch of 5×5 pixels (2.4 % of the image). Then one image and a vision transformer with random weights
at 3×224×224, with all tokens and with those of a band alone, three times in turn.
Writes `bands.json` beside this file.
"""

import json
import time
from pathlib import Path
from statistics import median

import timm
import torch

from robustify import SmoothedClassifier, robustify
from robustify.certificates.band_smoothing import BandPlan, BandSmoothing
from robustify.data import open_samples
from robustify.zoo import HELD_OUT

PATCH = (5, 5)
FAMILIES = (
    BandSmoothing(PATCH, 4),
    BandSmoothing(PATCH, 4, keep="rows"),
    BandSmoothing(PATCH, 10),
    BandSmoothing(PATCH, 10, keep="rows"),
    BandSmoothing(PATCH, 12, keep="blocks", stride=2),
)
EVERY = 5
NETWORK = "vit_tiny_patch16_224"
ROUNDS = 3


def certified(family: BandSmoothing) -> dict[str, object]:
    """Shares of images whose vote is right, and certified as well, with the processor time of a draw."""
    model = robustify("zoo:timm", certificate=family)
    samples = open_samples(HELD_OUT, model.labels)[::EVERY]
    begun = time.process_time()
    found = model.certify([sample.image for sample in samples])
    seconds = time.process_time() - begun
    assert isinstance(found, list)
    pairs = [(c, sample.label) for c, sample in zip(found, samples, strict=True)]
    plan = found[0].provenance.plan
    assert isinstance(plan, BandPlan)
    return {
        "family": str(family),
        "images": len(pairs),
        "draws": plan.most_draws,
        "touched": plan.touched,
        "accuracy": sum(c.answer == truth for c, truth in pairs) / len(pairs),
        "certified_accuracy": sum(c.label == truth for c, truth in pairs) / len(pairs),
        "certified": sum(c.label is not None for c, _ in pairs) / len(pairs),
        "ms_a_draw": round(1000 * seconds / len(pairs) / plan.most_draws, 2),
    }


def dropped() -> dict[str, object]:
    """The processor time that a vision transformer takes for an image, over that with dropped tokens."""
    torch.manual_seed(0)
    network = timm.create_model(NETWORK).eval()
    image = torch.randint(0, 256, (3, 224, 224), dtype=torch.uint8)
    models = [
        robustify(network, certificate=BandSmoothing(0.02, 19, stride=7, drop_tokens=drop)) for drop in (False, True)
    ]
    for model in models:
        model.certify(image)  # checks the model
    ratios = []
    for _ in range(ROUNDS):
        whole, fewer = (_seconds(model, image) for model in models)
        ratios.append(whole / fewer)
    found: dict[str, object] = {"network": NETWORK, "tokens": 196, "tokens_left": 42, "ratios": ratios}
    return {**found, "ratio": round(median(ratios), 2)}


def _seconds(model: SmoothedClassifier, image: torch.Tensor) -> float:
    begun = time.process_time()
    model.certify(image)
    return time.process_time() - begun


def main() -> None:
    rows = []
    for family in FAMILIES:
        rows.append(certified(family))
        print(rows[-1], flush=True)
    saved = dropped()
    print(saved)
    text = json.dumps({"certified": rows, "dropped_tokens": saved}, indent=2)
    Path(__file__).with_suffix(".json").write_text(f"{text}\n")


if __name__ == "__main__":
    main()
