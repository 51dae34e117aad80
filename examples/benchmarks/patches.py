"""What certificates against patches cost, and how many images get one: `python examples/benchmarks/patches.py`

- 100 held-out Fashion-MNIST images of 1×32×32 pixels and the zoo's timm classifier, which was trained without masks; a
  patch of 2.4 % (5×5 pixels), with 2, 3, 4 and 6 masks an axis.
- foolbox's 20 photographs from ImageNet's classes and EfficientNet-Lite0 at 3×224×224 (`pip install foolbox
  ./plugins/efficientnet-lite`), a patch of 2 % (32×32 pixels), with 3 and 4 masks an axis; left out where they are not
  installed.

For each: accuracy of the classifier alone, of PatchCleanser's prediction, of its certificates; masked copies and
seconds an image. The zoo's classifier is then fine-tuned by `greedy-cutout` on 2,000 other images
(`--train`; Debian's `dataset-fashion-mnist`), and measured again. Writes `patches.json`.
"""

import json
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from robustify import Certificate, ImageClassifier, SmoothedClassifier, robustify
from robustify.certificates import PatchCleanser, Prediction
from robustify.data import Sample, open_samples
from robustify.finetune import Recipe, tune
from robustify.finetune.objectives import GreedyCutout
from robustify.report.clean import clean_accuracy
from robustify.zoo import HELD_OUT, fashion_mnist

PATCH = 0.024
"""Share of the pixels of a small image."""


def timed(task: Callable[[], Any]) -> tuple[Any, float]:
    """What it gives, and how long it takes."""
    started = time.perf_counter()
    found = task()
    return found, time.perf_counter() - started


def measured(model: SmoothedClassifier, samples: list[Sample]) -> dict[str, Any]:
    """Accuracies, masked copies and time of one model with its certificates."""
    images, truths = [sample.image for sample in samples], [sample.label for sample in samples]
    predictions: list[Prediction]
    certificates: list[Certificate]
    predictions, predicting = timed(lambda: model.predict(images))
    certificates, certifying = timed(lambda: model.certify(images))
    count = len(images)
    return {
        "proof": str(model.family),
        "images": count,
        "classifier_alone": clean_accuracy(model, samples),
        "predicted": sum(p.label == truth for p, truth in zip(predictions, truths, strict=True)) / count,
        "certified": sum(c.label == truth for c, truth in zip(certificates, truths, strict=True)) / count,
        "copies_an_image": sum(c.draws for c in certificates) / count,
        "most_copies": max(c.draws for c in certificates),
        "seconds_to_predict_an_image": round(predicting / count, 3),
        "seconds_to_certify_an_image": round(certifying / count, 3),
    }


def photographs() -> list[Sample]:
    """Twenty photographs, the names of whose files end in the label; none where they are not installed."""
    foolbox = find_spec("foolbox")  # not imported: only its data is of interest
    if foolbox is None or foolbox.origin is None or find_spec("robustify_efficientnet_lite") is None:
        return []
    files = sorted((Path(foolbox.origin).parent / "data").glob("imagenet_*.jpg"))
    return [Sample(file.name, file, int(file.stem.split("_")[-1])) for file in files]


def tuned(images: int, epochs: int) -> SmoothedClassifier:
    """The zoo's classifier, trained further under the masks that hurt most."""
    pixels, labels = fashion_mnist.read("train")
    step = len(pixels) // images
    base = robustify("zoo:timm", certificate=PatchCleanser(PATCH))
    recipe = Recipe(
        GreedyCutout(patch=PATCH, masks=3), adapt="full", epochs=epochs, batch=64, learning_rate=5e-4, warmup=0.3
    )
    with tempfile.TemporaryDirectory() as folder:
        return tune(base, (pixels[::step], labels[::step]), recipe, out=Path(folder) / "run").model


def main(
    images: Annotated[int, typer.Option(help="Fashion-MNIST images.")] = 100,
    train: Annotated[int, typer.Option(help="Images that greedy cutout learns from; 0 leaves it out.")] = 2_000,
    epochs: Annotated[int, typer.Option(help="Passes over them.")] = 3,
) -> None:
    """Measures, prints and writes, line by line."""
    found: dict[str, Any] = {"threads": torch.get_num_threads()}

    def measure(title: str, model: SmoothedClassifier, samples: list[Sample]) -> None:
        found.setdefault(title, []).append(measured(model, samples))
        print(title, found[title][-1], flush=True)
        Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n")

    def small(title: str, classifier: ImageClassifier) -> None:
        for masks in (2, 3, 4, 6):
            model = robustify(classifier, certificate=PatchCleanser(PATCH, masks=masks))
            held_out = open_samples(HELD_OUT, model.labels)
            measure(title, model, held_out[:: max(1, len(held_out) // images)][:images])

    small("zoo:timm", robustify("zoo:timm").classifier)
    if train:
        model, seconds = timed(lambda: tuned(train, epochs))
        found["greedy-cutout"] = {"images": train, "epochs": epochs, "seconds": round(seconds)}
        small("zoo:timm after greedy-cutout", model.classifier)
    for masks in (3, 4) if (photos := photographs()) else ():
        measure(
            "efficientnet-lite:0",
            robustify("efficientnet-lite:0", certificate=PatchCleanser(0.02, masks=masks)),
            photos,
        )


if __name__ == "__main__":
    typer.run(main)
