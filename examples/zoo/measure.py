"""Measures the zoo on its held-out images and writes the figures into `record.json`.

`python examples/zoo/measure.py` finds the accuracy of each shipped classifier at four noise levels, on images that the
shipped denoiser cleaned in one step and on noisy images.
"""

import json

import torch
import typer
from safetensors.torch import load_file
from tqdm import tqdm

from robustify.classifiers import ImageClassifier, ZeroShotModel
from robustify.denoisers import Denoiser, Identity
from robustify.zoo import FOLDER, HELD_OUT, classifiers, denoisers
from robustify.zoo.fashion_mnist import CLASSES

SIGMAS = (0.12, 0.25, 0.5, 1.0)
DRAWS = 4
"""Noise draws per image: 2,000 votes a figure, a standard error of at most .011."""
BATCH = 125


@torch.inference_mode()
def noisy_accuracy(classifier: ImageClassifier, denoiser: Denoiser, sigma: float, *, draws: int = DRAWS) -> float:
    """Share of noisy, denoised draws that are classified correctly, over all held-out images."""
    arrays = load_file(HELD_OUT)
    images, labels = arrays["images"].float() / 255, arrays["labels"]
    generator = torch.Generator().manual_seed(0)
    right = 0
    for _ in range(draws):
        for x, y in zip(images.split(BATCH), labels.split(BATCH), strict=True):
            noisy = x + sigma * torch.randn(x.shape, generator=generator)
            right += int((classifier(denoiser(noisy, sigma)).argmax(1) == y).sum())
    return right / (draws * len(images))


def measure() -> dict[str, dict[str, dict[str, float]]]:
    """Accuracy by classifier, by with or without denoiser, by sigma; also written into the zoo's record."""
    ddpm = denoisers.load("ddpm")
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in tqdm(classifiers.names(), desc="measure"):
        model = classifiers.load(name)
        classifier = model.classifier(CLASSES, "openai") if isinstance(model, ZeroShotModel) else model
        found[name] = {
            kind: {str(sigma): round(noisy_accuracy(classifier, denoiser, sigma), 4) for sigma in SIGMAS}
            for kind, denoiser in (("denoised", ddpm), ("noisy", Identity(channels=1)))
        }
    file = FOLDER / "record.json"
    record = json.loads(file.read_text())
    record["models"]["ddpm"]["denoised_accuracy"] = found["timm"]["denoised"]
    record["models"]["ddpm"]["noisy_accuracy"] = found["timm"]["noisy"]
    record["models"]["ddpm"]["by_classifier"] = found
    file.write_text(json.dumps(record, indent=2) + "\n")
    return found


if __name__ == "__main__":
    typer.run(lambda: print(json.dumps(measure(), indent=2)))
