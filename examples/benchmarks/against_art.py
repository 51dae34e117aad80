"""Time and agreement against adversarial-robustness-toolbox's `PyTorchRandomizedSmoothing` on the same networks.

Run it by `python examples/benchmarks/against_art.py` after `pip install adversarial-robustness-toolbox statsmodels`;
the project needs neither otherwise.

Both smooth the zoo's timm classifier behind its denoiser, in float32, with batches of one size, alpha = .001 and 100
draws to choose the label, on one thread.

- *Equal n*: both certify the same images from as many draws, taking turns; medians of the ratios of time. Ours comes as
  it is, and compiled (after compiling), each with the three passes that check a model before its first run, which a
  later run would save. The toolbox gets the networks in the memory format in which their libraries load them.
- *Equal decision*: is the label certain at a radius? Ours stops early, theirs takes 10,000 draws; fewer images, once.
- *Agreement*: labels, and Fisher's exact test that both draw the votes for the label with one probability. Theirs are
  drawn in float64 and rounded to float32, ours to whole pixel steps, which shifts no probability noticeably.

Others may use the machine: CPU time of the process comes beside wall time. Writes `against_art.json`.
"""

import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from safetensors.torch import load_file
from scipy.stats import fisher_exact
from torch import Tensor, nn

from robustify import Certificate, SmoothedClassifier, robustify
from robustify.zoo import HELD_OUT

ALPHA, N0, BATCH = 0.001, 100, 64
VARIANTS = ("default", "compiled")


class Base(nn.Module):
    """Denoise and classify, as the toolbox wants it: one module."""

    def __init__(self, model: SmoothedClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, noisy: Tensor) -> Tensor:
        return self.model.logits(noisy)


def toolbox(model: SmoothedClassifier) -> Any:  # noqa: ANN401 - the toolbox is imported only here
    """The toolbox's smoothed classifier around the same base classifier."""
    from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing

    return PyTorchRandomizedSmoothing(
        model=Base(model).eval(),
        loss=nn.CrossEntropyLoss(),
        input_shape=model.contract.shape,
        nb_classes=len(model.labels),
        device_type="cpu",
        sample_size=N0,
        scale=model.sigma,
        alpha=ALPHA,
    )


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What comes out, wall time and CPU time in seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - wall, time.process_time() - cpu


def variants(sigma: float) -> dict[str, SmoothedClassifier]:
    """Ours, in the ways that `VARIANTS` names."""
    return {
        name: robustify("zoo:timm", denoiser="zoo:ddpm", sigma=sigma, compiled=name == "compiled") for name in VARIANTS
    }


def fresh(model: SmoothedClassifier, images: Tensor, n: int) -> Any:  # noqa: ANN401
    """Certificates of a model that has not been checked yet."""
    model.forget_checks()
    return model.certify(images, n=n, n0=N0, alpha=ALPHA, batch=BATCH)


def equal_n(
    models: dict[str, SmoothedClassifier],
    art: Any,  # noqa: ANN401
    images: Tensor,
    n: int,
    rounds: int,
) -> dict[str, Any]:
    """Times of certificates from n draws each, and whether both find the same."""
    pixels = images.float().div(255).numpy()
    ours: dict[str, list[Any]] = {name: [] for name in models}
    theirs = []
    for _ in range(rounds):
        for name, model in models.items():
            ours[name].append(timed(partial(fresh, model, images, n)))
        theirs.append(timed(lambda: art.certify(pixels, n=n, batch_size=BATCH)))
    certificates: list[Certificate] = ours["default"][-1][0]
    labels = [-1 if c.label is None else c.label for c in certificates]
    counts = [art._prediction_counts(x, n=n, batch_size=BATCH) for x in pixels]
    return {
        "sigma": models["default"].sigma,
        "images": len(images),
        "n": n,
        "rounds": rounds,
        "wall_seconds": {k: round(statistics.median(wall for _, wall, _ in times), 2) for k, times in ours.items()},
        "art_wall_seconds": round(statistics.median(wall for _, wall, _ in theirs), 2),
        "art_over_ours_wall": {name: ratio(times, theirs, 1) for name, times in ours.items()},
        "art_over_ours_cpu": {name: ratio(times, theirs, 2) for name, times in ours.items()},
        "labels": labels,
        "art_labels": theirs[-1][0][0].tolist(),
        "radii": [round(c.radius, 4) for c in certificates],
        "art_radii": [round(float(radius), 4) for radius in theirs[-1][0][1]],
        "least_p_value_of_counts": round(min(map(p_value, certificates, counts)), 4),
    }


def ratio(ours: list[Any], theirs: list[Any], clock: int) -> float:
    """The median over rounds of their time to ours."""
    return round(float(statistics.median(b[clock] / a[clock] for a, b in zip(ours, theirs, strict=True))), 3)


def p_value(certificate: Certificate, counts: np.ndarray) -> float:
    """The p-value of the hypothesis that the class with most votes has the same probability in both."""
    label, n = int(np.argmax(certificate.votes)), certificate.n
    ours, theirs = certificate.votes[label], int(counts[label])
    return float(fisher_exact([[ours, n - ours], [theirs, n - theirs]]).pvalue)


def equal_decision(model: SmoothedClassifier, art: Any, images: Tensor, radius: float, n: int) -> dict[str, Any]:  # noqa: ANN401
    """Times of the answers to one question, "is the label certain at the radius?", from at most n draws each."""
    pixels = images.float().div(255).numpy()
    ours, wall, cpu = timed(lambda: model.certify(images, radius=radius, n_max=n, n0=N0, alpha=ALPHA, batch=BATCH))
    theirs, art_wall, art_cpu = timed(lambda: art.certify(pixels, n=n, batch_size=BATCH))
    return {
        "sigma": model.sigma,
        "radius": radius,
        "images": len(images),
        "draws": [c.n + N0 for c in ours],
        "art_draws": n + N0,
        "wall_seconds": round(wall, 2),
        "art_wall_seconds": round(art_wall, 2),
        "art_over_ours_wall": round(art_wall / wall, 1),
        "art_over_ours_cpu": round(art_cpu / cpu, 1),
        "certified": [c.radius > radius for c in ours],
        "art_certified": [bool(r > radius) for r in theirs[1]],
    }


def main(
    images: Annotated[int, typer.Option(help="Held-out images at equal n.")] = 5,
    n: Annotated[int, typer.Option(help="Draws an image at equal n.")] = 1_000,
    rounds: Annotated[int, typer.Option(help="Times that both take turns.")] = 3,
    decisions: Annotated[int, typer.Option(help="Held-out images to decide.")] = 2,
    n_max: Annotated[int, typer.Option(help="Draws that a decision may take.")] = 10_000,
    sigmas: Annotated[list[float], typer.Option("--sigma", help="May be given more than once.")] = [0.25, 0.5],  # noqa: B006
) -> None:
    """Measures, prints and writes."""
    torch.set_num_threads(1)
    held_out = load_file(HELD_OUT)["images"]
    result: dict[str, Any] = {"batch": BATCH, "alpha": ALPHA, "n0": N0, "equal_n": [], "equal_decision": []}
    for sigma in sigmas:
        models = variants(sigma)
        art = toolbox(robustify("zoo:timm", denoiser="zoo:ddpm", sigma=sigma).to(memory_format=torch.contiguous_format))
        equal_n(models, art, held_out[:1], N0, 1)  # warms up
        result["equal_n"].append(equal_n(models, art, held_out[:images], n, rounds))
        print(result["equal_n"][-1], flush=True)
        result["equal_decision"].append(equal_decision(models["default"], art, held_out[:decisions], sigma, n_max))
        print(result["equal_decision"][-1], flush=True)
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
