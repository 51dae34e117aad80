"""Learning without a denoiser: what networks are told in each objective, and the default way to learn from noise."""

import json
from pathlib import Path
from typing import final

import pytest
import timm
import torch
from torch import Tensor, nn

from robustify import ImageClassifier, Preprocessing, SmoothedClassifier, robustify
from robustify.classifiers.noise_conditioned import NoiseConditionedViT, load, save_classifier
from robustify.finetune import Lora, Recipe, changed, find_recipe, load_tuned, tune
from robustify.finetune.objectives import Consistency, Gaussian, Objective, Stability
from robustify.finetune.objectives.base import classify
from robustify.smoothing.fingerprint import classifier_fingerprint
from tests.finetune.objectives.toys import ALL, PLAIN, SIGMA, scene
from tests.toys import Shrink, Stripes


@final
class Told(nn.Module):
    """A linear network whose logits grow with the noise level."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(36, 3)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        logits: Tensor = self.head(x.flatten(1)) * (1 + sigma.unsqueeze(1))
        return logits


def told() -> tuple[SmoothedClassifier, list[Tensor]]:
    """A model, and the levels that its network is told from now on."""
    torch.manual_seed(0)
    classifier = ImageClassifier(Told().eval(), PLAIN, noise_conditioned=True)
    seen: list[Tensor] = []
    classifier.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    return robustify(classifier, sigma=SIGMA), seen


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind is not Stability])
def test_objectives_tell_the_level_of_the_noise(kind: type[Objective]) -> None:
    """Attacked copies count as noise of the same level."""
    model, seen = told()
    outcome = kind()(model, scene(epoch=20.0))
    assert bool(outcome.loss.isfinite())
    assert seen
    assert all(torch.equal(level, torch.full_like(level, SIGMA)) for level in seen)


def test_stability_compares_with_clean_images_at_level_0() -> None:
    model, seen = told()
    Stability(draws=2)(model, scene(draws=2, images=5))
    assert seen[0].tolist() == [0.0] * 5 + [SIGMA] * 10


def test_versions_of_images_have_levels_of_their_own() -> None:
    model, _ = told()
    pixels = scene(images=5).pixels
    logits = classify(model, torch.stack([pixels, pixels]), torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(logits[0], model.classifier(pixels))
    torch.testing.assert_close(logits[1], model.classifier(pixels, 1.0))


def quick(name: str, model: SmoothedClassifier) -> Recipe:
    """The default recipe in more and larger steps, for so few images."""
    return changed(find_recipe(name, model, 44), {"batch": 11, "learning_rate": 5e-3, "epochs": 60})


def one_pass(size: int = 6) -> SmoothedClassifier:
    torch.manual_seed(0)
    network = NoiseConditionedViT(classes=3, size=(size, size), channels=1, patch=2, width=16, depth=2, heads=2)
    return robustify(network.eval(), sigma=SIGMA, classes=["top", "middle", "bottom"])


def test_a_noise_conditioned_vit_learns_certifies_and_is_saved(stripes: Stripes, tmp_path: Path) -> None:
    model = one_pass()
    tuned = tune(model, stripes, quick("consistency", model), out=tmp_path / "run", validation=stripes, quiet=True)
    config = json.loads((tmp_path / "run" / "tune.json").read_text())
    assert (config["adapts"], config["objective"]["name"]) == ("full fine-tuning", "Consistency")
    assert tuned.validation[-1]["noisy_accuracy"] > 0.8 > tuned.validation[0]["noisy_accuracy"]
    image, label = stripes[0][0], int(stripes[1][0])
    certificate = tuned.model.certify(image, n=200, n0=20)
    assert certificate.label == label  # type: ignore[union-attr]
    assert certificate.radius > 0  # type: ignore[union-attr]
    save_classifier(tuned.model.classifier, tmp_path / "saved")
    again = load(str(tmp_path / "saved"))
    assert classifier_fingerprint(again) == classifier_fingerprint(tuned.model.classifier)
    assert again.labels == ("top", "middle", "bottom")
    from_run = load_tuned(tmp_path / "run", model.classifier)
    assert classifier_fingerprint(from_run) == classifier_fingerprint(again)
    assert from_run.noise_conditioned


def tiny_timm() -> nn.Module:
    """A ViT of a few thousand weights, in which adapters would find their place."""
    torch.manual_seed(0)
    settings = {"img_size": 6, "patch_size": 2, "in_chans": 1, "embed_dim": 32, "depth": 2, "num_heads": 2}
    return timm.create_model("vit_tiny_patch16_224", num_classes=3, **settings).eval()


def test_without_a_denoiser_all_weights_learn() -> None:
    network = tiny_timm()
    behind = robustify(network, denoiser=Shrink(), sigma=SIGMA)
    alone = robustify(network, sigma=SIGMA)
    assert isinstance(find_recipe("gaussian", behind, 100).adapt, Lora)
    for name, kind in (("gaussian", Gaussian), ("consistency", Consistency)):
        recipe = find_recipe(name, alone, 100)
        assert (recipe.adapt, recipe.learning_rate, recipe.cache) == ("full", 2e-4, 0)
        assert type(recipe.objective) is kind


def test_one_line_teaches_any_timm_model_to_see_through_noise(stripes: Stripes, tmp_path: Path) -> None:
    recipe = quick("gaussian", robustify(tiny_timm(), sigma=SIGMA))
    model = robustify(tiny_timm(), sigma=SIGMA, tune=recipe, data=stripes, out=tmp_path / "run")
    assert model.classifier.name.endswith(f"at sigma = {SIGMA:g}")  # behind nothing
    images, labels = stripes
    logits = model.logits(images / 255 + SIGMA * torch.randn(44, 1, 6, 6))
    assert float((logits.argmax(dim=1) == labels).float().mean()) > 0.8


def test_preprocessing_of_a_vit_needs_no_words() -> None:
    assert one_pass(8).classifier.preprocessing == Preprocessing((0.5,), (0.5,), (8, 8))
