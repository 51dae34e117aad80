"""A vision transformer that denoises by itself, against a classifier behind a denoiser: accuracy and draws a second.

    python examples/benchmarks/one_pass.py train       # Fashion-MNIST, sigma = 0.25, one thread; continues
    python examples/benchmarks/one_pass.py measure     # both at equal n, and their draws a second in turns
    python examples/benchmarks/one_pass.py adapt       # zoo:timm learns from noise: adapters, or all weights

The transformer, 0.35 million parameters, starts from random weights and learns with `tune(…, "consistency")` alone: the
contrastive pre-training of its authors is left out. The other is `zoo:timm` behind `zoo:ddpm`, untuned. Both certify
every 100th test image. Needs Debian's package `dataset-fashion-mnist`.
"""

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from robustify import Settings, SmoothedClassifier, certify_dataset, robustify
from robustify.certificates.views import View
from robustify.classifiers.noise_conditioned import NoiseConditionedViT, load, save_classifier
from robustify.data.sources import Sample
from robustify.finetune import Lora, Recipe, changed, find_recipe, tune
from robustify.finetune.objectives import Consistency
from robustify.report.clean import clean_accuracy
from robustify.runs.metrics import abstention_rate, average_certified_radius, certified_accuracy
from robustify.smoothing.speed import seconds_a_batch
from robustify.zoo import fashion_mnist

RESULT = Path(__file__).with_suffix(".json")
SIGMA = 0.25
RADII = (0.0, 0.125, 0.25, 0.375)
BATCH = 64
TURNS = 7
"""Times that each model is timed, one after the other; the fastest counts."""

RECIPE = Recipe(
    Consistency(draws=2, weight=2.0, entropy=0.5),
    epochs=1,
    batch=32,
    learning_rate=1e-3,
    warmup=0.1,
    weight_decay=(0.01, 0.01),
)

app = typer.Typer(add_completion=False)
Out = Annotated[Path, typer.Option(help="Folder of training, model and runs.")]


def untrained() -> SmoothedClassifier:
    """The same each time."""
    torch.manual_seed(0)
    network = NoiseConditionedViT(
        classes=len(fashion_mnist.CLASSES), size=(32, 32), channels=1, patch=8, width=96, depth=3, heads=4
    )
    return robustify(network.eval(), sigma=SIGMA, classes=fashion_mnist.CLASSES)


@app.command()
def train(out: Out = Path("run-one-pass")) -> None:
    """Trains on the training split and saves the classifier as a folder."""
    images, labels = fashion_mnist.read("train")
    result = tune(untrained(), (images, labels), RECIPE, out=out / "tune")
    save_classifier(result.model.classifier, out / "classifier")


def certified(model: SmoothedClassifier, samples: list[Sample], out: Path, n: int) -> dict[str, Any]:
    """What certificates of these images come to."""
    rows = certify_dataset(model, samples, out, Settings(n=n, n0=20, batch=BATCH)).rows
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "clean_accuracy": round(clean_accuracy(model, samples), 4),
        "certified_accuracy": {f"{r:g}": round(certified_accuracy(rows, r), 4) for r in RADII},
        "acr": round(average_certified_radius(rows), 4),
        "abstained": round(abstention_rate(rows), 4),
    }


def draws_a_second(models: list[SmoothedClassifier], image: torch.Tensor) -> list[float]:
    """Draws in a second of processor time of each model, noise and votes included, measured in turns."""
    seconds = [[_seconds(model, image) for model in models] for _ in range(TURNS)]
    return [BATCH / min(turns) for turns in zip(*seconds, strict=True)]


def _seconds(model: SmoothedClassifier, image: torch.Tensor) -> float:
    """Processor time of a batch, which other jobs on the machine change less than the clock."""
    started = time.process_time()
    seconds_a_batch(model.pipeline, View(SIGMA), model.prepare(image), soundness="grid", batch=BATCH)
    return (time.process_time() - started) / 4  # it draws four batches


@app.command()
def measure(
    n: Annotated[int, typer.Option(help="Draws per image.")] = 200,
    every: Annotated[int, typer.Option(help="Certify every k-th of the 10,000 test images.")] = 100,
    out: Out = Path("run-one-pass"),
) -> None:
    """Certifies the same images by both, and times both in turns."""
    models = {
        "one pass": robustify(load(str(out / "classifier")), sigma=SIGMA),
        "zoo:timm behind zoo:ddpm": robustify("zoo:timm", denoiser="zoo:ddpm", sigma=SIGMA),
    }
    pixels, labels = fashion_mnist.read("test")
    samples = [Sample(str(i), pixels[i].numpy(), int(labels[i])) for i in range(0, len(pixels), every)]
    found = {
        name: certified(model, samples, out / f"certify-{i}-{n}", n) for i, (name, model) in enumerate(models.items())
    }
    one, two = draws_a_second(list(models.values()), pixels[0])
    result = {
        **{"sigma": SIGMA, "images": len(samples), "n": n, "batch": BATCH, "models": found},
        **{"draws_a_second": [round(one), round(two)], "ratio": round(one / two, 2)},
        **{"threads": torch.get_num_threads(), "cpus": os.cpu_count(), "torch": torch.__version__},
        "recipe": RECIPE.described(),
    }
    _keep({"measure": result})
    print(json.dumps({k: v for k, v in result.items() if k != "recipe"}, indent=2))


@app.command()
def adapt(out: Out = Path("run-one-pass")) -> None:
    """Fine-tunes zoo:timm directly on noise, with the default recipe but 3 epochs of 6,000 images, in two ways."""
    model = robustify("zoo:timm", sigma=SIGMA)
    images, labels = (part[::10] for part in fashion_mnist.read("train"))
    others = tuple(part[::20] for part in fashion_mnist.read("test"))
    recipe = changed(find_recipe("gaussian", model, len(images)), {"epochs": 3})
    ways = {"all weights": recipe, "adapters": replace(recipe, adapt=Lora(), learning_rate=1e-3)}
    found = {
        name: tune(model, (images, labels), way, out=out / f"adapt-{i}", validation=others).validation
        for i, (name, way) in enumerate(ways.items())
    }
    _keep({"adapt": found})


def _keep(found: dict[str, Any]) -> None:
    """Adds to what was measured."""
    before = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    RESULT.write_text(json.dumps({**before, **found}, indent=2) + "\n")


if __name__ == "__main__":
    app()
