"""Fine-tuned and certified on Fashion-MNIST, one cell after the other: a pipeline at a sigma.

    python examples/benchmarks/fashion_mnist.py run ft-cadis-lora 0.5     # trains, then certifies; continues
    python examples/benchmarks/fashion_mnist.py table                     # of all cells so far
    python examples/benchmarks/fashion_mnist.py gain RUN RUN              # over the same images

Pipelines on the zoo's timm classifier behind the zoo's denoiser: `untuned`, `ft-cadis-lora`, `ft-cadis-full`, and
`denoised-gaussian`, which learns from all denoised copies alike. The same classifier without a denoiser: `gaussian`,
and `consistency`, `smoothmix`, `cat-rs` continuing from it. The published LeNet: `lenet-gaussian`, from scratch with
the published recipe; `lenet-short`, the same objective in 10 epochs of AdamW with a cosine; `lenet-smoothadv` and
`lenet-cat-rs` continuing from that. CAT-RS learns from votes of what `gaussian` (for LeNet, `lenet-short`) made at
0.25, from 64 draws (published: 10,000); `cat-rs-self` from the mean of an image's own copies instead.
The `lenet-gaussian` cells were certified in float32, those of the other pipelines in bfloat16.

`BUDGETS` is what two CPU cores can do in minutes. Behind the denoiser, cells of 24,000 passes are those of `--images
6000 --epochs 4 --cache 8`; the training seconds of the others leave out the 4 minutes of denoising the copies that they
shared. `--decide` asks for accuracy certified up to 2 sigma only, which on the same images takes about a fifth of the
draws; `--epochs`, `--images`, `--every` and `--n-max` go further. Needs Debian's package `dataset-fashion-mnist`.
"""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from robustify import Preprocessing, Settings, SmoothedClassifier, certify_dataset, robustify
from robustify.data import Examples
from robustify.data.sources import Sample
from robustify.finetune import PRESETS, Lora, Recipe, changed, find_recipe, tune
from robustify.runs.folder import read_run
from robustify.runs.metrics import abstention_rate, average_certified_radius, certified_accuracy
from robustify.runs.rows import Row
from robustify.zoo import fashion_mnist

RESULT = Path(__file__).with_suffix(".json")
RADII = tuple(r / 4 for r in range(11))
ZERO = 1e-3
"""What is decided in place of 0."""

PUBLISHED = {
    "lenet-gaussian": {0.25: 0.670, 0.5: 1.056, 1.0: 1.316},
    "lenet-short": {0.25: 0.670, 0.5: 1.056, 1.0: 1.316},
    "lenet-smoothadv": {0.25: 0.756, 0.5: 1.255, 1.0: 1.538},
    "lenet-cat-rs": {0.25: 0.757, 0.5: 1.274, 1.0: 1.607},
}
"""ACR of Jeong, Kim, Shin, 2023: LeNet, all test images, n = 100,000."""

DENOISED = {"learning_rate": 1e-3, "batch": 64, "warmup": 0.5, "clip": 1.0, "precision": "bfloat16"}
PLAIN = {"learning_rate": 1e-3, "batch": 128, "warmup": 0.2, "clip": 1.0, "precision": "bfloat16", "augment": "mirror"}
LENET = {
    **{"images": 60000, "adapt": "full", "optimizer": "adamw", "learning_rate": 1e-3, "final_learning_rate": 1e-6},
    **{"batch": 128, "warmup": 0.3, "drop_every": None, "clip": 1.0, "precision": "bfloat16"},
}
BUDGETS: dict[str, dict[str, Any]] = {
    "untuned": {"images": 0},
    "denoised-gaussian": {
        **DENOISED,
        "images": 20000,
        "epochs": 4,
        "cache": 4,
        "adapt": "full",
        "learning_rate": 5e-4,
        "warmup": 0.3,
    },
    "ft-cadis-lora": {**DENOISED, "images": 20000, "epochs": 3, "cache": 4, "adapt": Lora(rank=8, alpha=8.0)},
    "ft-cadis-full": {**DENOISED, "images": 20000, "epochs": 3, "cache": 4, "adapt": "full", "learning_rate": 5e-4},
    "gaussian": {**PLAIN, "images": 60000, "epochs": 8, "adapt": "full"},
    "consistency": {**PLAIN, "images": 60000, "epochs": 3, "adapt": "full", "learning_rate": 5e-4},
    "smoothmix": {**PLAIN, "images": 30000, "epochs": 2, "adapt": "full", "learning_rate": 5e-4, "warmup": 0.1},
    "cat-rs": {**PLAIN, "images": 60000, "epochs": 2, "adapt": "full", "learning_rate": 5e-4, "teacher": 64},
    "cat-rs-self": {**PLAIN, "images": 30000, "epochs": 1, "adapt": "full", "learning_rate": 5e-4},
    "lenet-gaussian": {"images": 60000},
    "lenet-short": {**LENET, "epochs": 10},
    "lenet-smoothadv": {**LENET, "epochs": 12, "draws": 2, "steps": 2},
    "lenet-cat-rs": {**LENET, "epochs": 3, "teacher": 64},
}
app = typer.Typer(add_completion=False, help=__doc__)


class LeNet(nn.Module):
    """The published network, on the 28×28 pixels inside the zoo's 32×32; noise outside them is not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of (B, 1, 32, 32)."""
        logits: Tensor = self.head(self.features(x[..., 2:-2, 2:-2]))
        return logits


def base(pipeline: str, sigma: float, out: Path) -> SmoothedClassifier:
    """The model that the pipeline starts from."""
    if pipeline.startswith("lenet"):
        model = lenet(sigma)
        if pipeline in ("lenet-smoothadv", "lenet-cat-rs"):
            first = trained("lenet-short", sigma, out, {})
            model.classifier.network.load_state_dict(first.classifier.network.state_dict())
    elif pipeline.startswith(("untuned", "denoised", "ft-cadis")):
        model = robustify("zoo:timm", denoiser="zoo:ddpm", sigma=sigma, precision="bfloat16")
    elif pipeline == "gaussian":
        model = robustify("zoo:timm", sigma=sigma, precision="bfloat16")
    else:
        first = trained("gaussian", sigma, out, {})
        model = SmoothedClassifier(first.classifier, first.denoiser, sigma=sigma, precision="bfloat16")
    return model.to(memory_format=torch.channels_last)


def lenet(sigma: float) -> SmoothedClassifier:
    """Untrained, the same each time."""
    torch.manual_seed(0)
    identity = Preprocessing(mean=(0.0,), std=(1.0,), size=(32, 32))
    classes = fashion_mnist.CLASSES
    return robustify(LeNet().eval(), preprocessing=identity, sigma=sigma, classes=classes, precision="bfloat16")


def taught(teacher: str, draws: int, out: Path) -> Tensor:
    """Shares of the votes of a cell at sigma = 0.25 for every training image, shape (60,000, 10); they are kept."""
    file = out / f"{teacher}-0.25" / f"votes-{draws}.safetensors"
    if not file.exists():
        model = trained(teacher, 0.25, out, {})
        chunks = torch.split(fashion_mnist.read("train")[0], 2000)
        votes = []
        for chunk in chunks:
            predictions = model.predict(list(chunk), n=draws, batch=512)
            assert isinstance(predictions, list)
            votes += [prediction.votes for prediction in predictions]
        save_file({"votes": torch.tensor(votes)}, file)
    shares: Tensor = load_file(file)["votes"].float()
    return shares / shares.sum(dim=1, keepdim=True)


def recipe_of(pipeline: str, model: SmoothedClassifier, budget: dict[str, Any], targets: Tensor | None) -> Recipe:
    """The published recipe for LeNet, the published objective within the budget for the others."""
    settings = {key: value for key, value in budget.items() if key not in ("images", "teacher")}
    if targets is not None:
        settings["targets"] = targets
    if pipeline.startswith("lenet"):
        name = pipeline.removeprefix("lenet-").replace("short", "gaussian")
        return changed(PRESETS[f"{name}/mnist"].recipe(model.sigma), settings)
    name = pipeline.removeprefix("denoised-").removesuffix("-lora").removesuffix("-full").removesuffix("-self")
    recipe = find_recipe(name, model, budget["images"])
    return changed(recipe, {"warmup": 0.2, "cache": 0, **settings})


def trained(pipeline: str, sigma: float, out: Path, more: dict[str, Any]) -> SmoothedClassifier:
    """Trains the cell, or continues; writes how long it took beside it."""
    model = base(pipeline, sigma, out)
    budget = {**BUDGETS[pipeline], **more}
    if not budget["images"]:
        return model
    images, labels = fashion_mnist.read("train")
    step = len(images) // budget["images"]
    teacher = "lenet-short" if pipeline.startswith("lenet") else "gaussian"
    targets = taught(teacher, budget["teacher"], out)[::step] if "teacher" in budget else None
    recipe = recipe_of(pipeline, model, budget, targets)
    folder = out / f"{pipeline}-{sigma:g}"
    started = time.monotonic()
    result = tune(model, Examples(model, images[::step], labels[::step]), recipe, out=folder / "tune")
    seconds = folder / "seconds.json"
    spent = time.monotonic() - started
    if not seconds.exists():
        told = {"seconds": round(spent), "image_passes": budget["images"] * recipe.epochs, "recipe": recipe.described()}
        seconds.write_text(json.dumps(told))
    return result.model.to(memory_format=torch.channels_last)


def summary(rows: Sequence[Row], pipeline: str, sigma: float, n: int, every: int, folder: Path) -> dict[str, Any]:
    """What a cell came to, with normal 95 % intervals over its images; a pass is one image seen once in training."""
    radii = np.array([row.radius if row.correct else 0.0 for row in rows])
    spent = json.loads((folder / "seconds.json").read_text()) if (folder / "seconds.json").exists() else {}
    return {
        "pipeline": pipeline,
        "weight": (spent.get("recipe") or {"objective": {}})["objective"].get("weight"),
        "sigma": sigma,
        "images": len(rows),
        "every": every,
        "n_max": n,
        "mean_draws": round(float(np.mean([row.n for row in rows]))),
        "acr": round(average_certified_radius(rows), 4),
        "acr_95": round(1.96 * float(radii.std(ddof=1)) / math.sqrt(len(rows)), 4),
        "published_acr": PUBLISHED.get(pipeline, PUBLISHED["lenet-cat-rs"])[sigma],
        "certified_accuracy": {f"{r:g}": round(certified_accuracy(rows, r), 4) for r in RADII if r < 3.8 * sigma},
        "abstained": round(abstention_rate(rows), 4),
        "image_passes": spent.get("image_passes", 0),
        "training_seconds": spent.get("seconds", 0),
        "recipe": spent.get("recipe"),
    }


def decisions_only(found: dict[str, Any], sigma: float) -> dict[str, Any]:
    """Without an average radius: decisions end at 2 sigma."""
    accuracy = {r: share for r, share in found["certified_accuracy"].items() if float(r) <= 2 * sigma}
    return {**found, "acr": None, "acr_95": None, "certified_accuracy": accuracy}


@app.command()
def run(
    pipeline: str,
    sigma: float,
    every: Annotated[int, typer.Option(help="Certify every k-th of the 10,000 test images.")] = 100,
    n_max: Annotated[int, typer.Option(help="Draws per image, at most.")] = 10_000,
    epochs: Annotated[int | None, typer.Option(help="Instead of the budget's.")] = None,
    images: Annotated[int | None, typer.Option(help="Training images, instead of the budget's.")] = None,
    cache: Annotated[int | None, typer.Option(help="Denoised copies of each image, instead of the budget's.")] = None,
    weight: Annotated[
        float | None, typer.Option(help="Of the robust term, instead of the default; use a new --out.")
    ] = None,
    decide: Annotated[
        bool, typer.Option("--decide", help="Decide at radii up to 2 sigma, which takes far fewer draws.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder of all cells.")] = Path("run-fashion-mnist"),
) -> None:
    """Trains and certifies one cell and adds it to the table; continues where it was."""
    if pipeline not in BUDGETS:
        raise typer.BadParameter(f"expected one of {', '.join(BUDGETS)}; got {pipeline!r}")
    given = {"epochs": epochs, "images": images, "cache": cache, "weight": weight}
    more = {key: value for key, value in given.items() if value is not None}
    model = trained(pipeline, sigma, out, more)
    pixels, labels = fashion_mnist.read("test")
    samples = [Sample(str(i), pixels[i].numpy(), int(labels[i])) for i in range(0, len(pixels), every)]
    folder = out / f"{pipeline}-{sigma:g}"
    settings, done = Settings(n_max=n_max, batch=128), folder / f"certify-{every}-{n_max}"
    if decide:
        radii = (ZERO, *(r for r in RADII if 0 < r <= 2 * sigma))
        settings, done = replace(settings, radius=radii, known_label=True), folder / f"decide-{every}-{n_max}"
    rows = certify_dataset(model, samples, done, settings).rows
    found = summary(rows, pipeline, sigma, n_max, every, folder)
    if decide:
        found = decisions_only(found, sigma)
    print(json.dumps({k: v for k, v in found.items() if k != "recipe"}, indent=2))
    cells = json.loads(RESULT.read_text()) if RESULT.exists() else []
    names = ("pipeline", "weight", "sigma", "every", "n_max", "image_passes")
    cells = [c for c in cells if any(c[k] != found[k] for k in names) or (c["acr"] is None) != decide]
    RESULT.write_text(json.dumps([*cells, found], indent=2) + "\n")


@app.command()
def table() -> None:
    """Prints the cells measured so far."""
    cells = sorted(json.loads(RESULT.read_text()), key=lambda c: (c["sigma"], list(BUDGETS).index(c["pipeline"])))
    print(f"{'pipeline':<17} weight sigma images   n_max    ACR        clean  r=.5  r=1.0   passes  training s")
    for c in cells:
        at = c["certified_accuracy"]
        acr = f"{c['acr']:.3f}±{c['acr_95']:.3f}" if c["acr"] is not None else "decided    "
        shown = "  ".join(f"{at[r]:.3f}" if r in at else "     " for r in ("0", "0.5", "1"))
        print(
            f"{c['pipeline']:<17} {c['weight'] or '':<6} "
            f"{c['sigma']:<5g} {c['images']:>6} {c['n_max']:>7} {acr}  "
            f"{shown}  {c['image_passes']:>7}  {c['training_seconds']:>6}"
        )


@app.command()
def gain(
    before: Annotated[Path, typer.Argument(help="Folder of rows: CELL/certify-EVERY-N.")],
    after: Annotated[Path, typer.Argument(help="The same, of another cell over the same images.")],
) -> None:
    """Prints mean gains over the same images with normal 95 % intervals: in radius, in accuracy at each radius."""
    runs = [{row.sample: row.radius if row.correct else 0.0 for row in read_run(run).rows} for run in (before, after)]
    radii = np.array([[run[sample] for run in runs] for sample in runs[0]])
    print(f"certified radius: {with_interval(np.diff(radii))}")
    for r in RADII:
        if (right := radii > r).any():
            old, new = right.mean(axis=0)
            print(f"accuracy at {r:g}: {old:.3f} to {new:.3f}, {with_interval(np.diff(right.astype(float)))}")


def with_interval(values: np.ndarray) -> str:
    """The mean and its normal 95 % interval."""
    return f"{values.mean():+.3f} ± {1.96 * values.std(ddof=1) / math.sqrt(len(values)):.3f}"


if __name__ == "__main__":
    app()
