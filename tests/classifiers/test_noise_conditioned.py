"""The noise-conditioned ViT: its published parts against their formulas, and its folders."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustify import robustify
from robustify.classifiers import ImageClassifier, Preprocessing, wrap
from robustify.classifiers.noise_conditioned import NoiseConditionedViT, load, names, save_classifier
from robustify.errors import InputError, ModelError
from robustify.model_folders import reference_of
from robustify.registry import CLASSIFIERS
from robustify.smoothing.fingerprint import classifier_fingerprint
from robustify.testing import check_classifier

SMALL: dict[str, Any] = {"classes": 3, "size": (8, 12), "channels": 1, "width": 16, "depth": 2, "heads": 2}


def vit(**changes: Any) -> NoiseConditionedViT:  # noqa: ANN401
    torch.manual_seed(0)
    network = NoiseConditionedViT(**{**SMALL, **changes})
    nn.init.normal_(network.cls_token)
    nn.init.normal_(network.pos_embed)  # so that places matter, as they do once trained
    return network.eval()


def noisy(count: int = 2) -> Tensor:
    return torch.randn(count, 1, 8, 12, generator=torch.Generator().manual_seed(1))


def tokens_of(network: NoiseConditionedViT, images: Tensor, sigma: Tensor) -> Tensor:
    """What the first block is given, without the embedding of places."""
    seen: list[Tensor] = []
    handle = network.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(images, sigma)
    handle.remove()
    return seen[0] - network.pos_embed


class TestNetwork:
    def test_tokens_are_class_noise_level_and_scaled_patches(self) -> None:
        network, images = vit(), noisy()
        tokens = tokens_of(network, images, torch.tensor([0.25, 0.75]))
        assert tokens.shape == (2, 2 + 2 * 3, 16)
        for row, t in enumerate((0.5, 1.5)):  # twice sigma: the input is in [-1, 1]
            angles = [250 * math.log(t) * 10_000 ** (-i / 8) for i in range(8)]
            expected = torch.tensor([*map(math.cos, angles), *map(math.sin, angles)])
            torch.testing.assert_close(tokens[row, 1], expected, rtol=0, atol=1e-4)
            torch.testing.assert_close(tokens[row, 0], network.cls_token[0, 0])
            patches = network.patch_embed(images[row : row + 1] / math.sqrt(t**2 + 0.25))
            torch.testing.assert_close(tokens[row, 2:], patches[0], rtol=1e-4, atol=1e-5)

    def test_logits_are_those_of_the_normalised_class_token(self) -> None:
        network, images = vit(), noisy()
        outputs: list[Tensor] = []
        network.blocks.register_forward_hook(lambda _, inputs, output: outputs.append(output))
        logits = network(images, torch.full((2,), 0.25))
        torch.testing.assert_close(logits, network.head(network.norm(outputs[0])[:, 0]))

    def test_blocks_are_as_published(self) -> None:
        network = vit()
        assert not any("qkv.bias" in name for name in network.state_dict())
        assert network.blocks[0].mlp.fc1.out_features == 4 * 16
        assert network.pos_embed.shape == (1, 2 + 6, 16)

    def test_clean_images_are_those_of_the_smallest_published_level(self) -> None:
        network, images = vit(), noisy()
        clean = network(images, torch.zeros(2))
        assert torch.equal(clean, network(images, torch.full((2,), 0.001)))
        assert bool(clean.isfinite().all())
        assert not torch.allclose(clean, network(images, torch.full((2,), 0.002)), rtol=0, atol=1e-5)

    def test_each_image_has_a_level_of_its_own(self) -> None:
        network, images = vit(), noisy()
        both = network(images, torch.tensor([0.25, 1.0]))
        for i, sigma in enumerate((0.25, 1.0)):
            alone = network(images[i : i + 1], torch.tensor([sigma]))
            torch.testing.assert_close(both[i : i + 1], alone, rtol=1e-4, atol=1e-5)

    def test_lower_precision_is_taken(self) -> None:
        classifier = wrap(vit().to(torch.bfloat16))
        assert isinstance(classifier, ImageClassifier)
        assert classifier(torch.rand(2, 1, 8, 12), 0.25).dtype == torch.float32

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"depth": 0}, "expected positive whole numbers"),
            ({"patch": 5}, "whole patches of 5×5 pixels; got 8×12"),
            ({"width": 15, "heads": 3}, "an even width that 3 heads share equally; got 15"),
            ({"width": 16, "heads": 3}, "an even width that 3 heads share equally; got 16"),
        ],
    )
    def test_settings_that_do_not_fit_are_refused(self, wrong: dict[str, Any], said: str) -> None:
        with pytest.raises(InputError, match=said):
            vit(**wrong)


class TestClassifier:
    def test_it_needs_nothing_else(self) -> None:
        network = vit()
        classifier = wrap(network)
        assert isinstance(classifier, ImageClassifier)
        assert classifier.noise_conditioned
        assert classifier.preprocessing == Preprocessing((0.5,), (0.5,), (8, 12))
        pixels = torch.rand(2, 1, 8, 12)
        torch.testing.assert_close(classifier(pixels, 0.25), network(2 * pixels - 1, torch.full((2,), 0.25)))
        assert torch.equal(classifier(pixels), classifier(pixels, 0.0))

    def test_it_is_a_sound_classifier(self) -> None:
        classifier = wrap(vit())
        assert isinstance(classifier, ImageClassifier)
        check_classifier(classifier)

    def test_heads_are_part_of_what_it_is(self) -> None:
        """They change no weight's shape."""
        two, four = wrap(vit()), wrap(vit(heads=4))
        assert all(torch.equal(a, b) for a, b in zip(two.parameters(), four.parameters(), strict=True))
        assert classifier_fingerprint(two) != classifier_fingerprint(four)  # type: ignore[arg-type]

    def test_training_mode_is_refused(self) -> None:
        with pytest.raises(ModelError, match="training mode"):
            wrap(vit().train())


class TestFolder:
    def test_what_was_saved_is_loaded(self, tmp_path: Path) -> None:
        saved = wrap(vit())
        assert isinstance(saved, ImageClassifier)
        saved.set_labels(["cat", "dog", "fox"])
        saved.licence = "mit"
        save_classifier(saved, tmp_path / "new" / "model")
        found = load(str(tmp_path / "new" / "model"))
        assert classifier_fingerprint(found) == classifier_fingerprint(saved)
        assert (found.labels, found.licence, found.noise_conditioned) == (("cat", "dog", "fox"), "mit", True)
        assert found.name == f"noise-conditioned:{tmp_path / 'new' / 'model'}"

    def test_a_folder_is_a_reference(self, tmp_path: Path) -> None:
        save_classifier(wrap(vit()), tmp_path)  # type: ignore[arg-type]
        assert reference_of(tmp_path, "classifier") == f"noise-conditioned:{tmp_path}"
        if "noise-conditioned" in CLASSIFIERS.names():  # where the package was installed with its entry point
            assert robustify(tmp_path, sigma=0.5).classifier.noise_conditioned
        with pytest.raises(InputError, match="holds a noise-conditioned ViT, which is a classifier"):
            reference_of(tmp_path, "denoiser")
        assert names() == []

    @pytest.mark.parametrize("spoil", ["config", "weights", "setting", "labels", "shape"])
    def test_broken_folders_are_refused(self, spoil: str, tmp_path: Path) -> None:
        save_classifier(wrap(vit()), tmp_path)  # type: ignore[arg-type]
        file = tmp_path / "config.json"
        config = json.loads(file.read_text())
        if spoil == "config":
            file.write_text("{")
        elif spoil == "weights":
            (tmp_path / "model.safetensors").unlink()
        else:
            settings = config["noise_conditioned_vit"]
            config["labels"] = ["one"] if spoil == "labels" else config["labels"]
            settings.update({"setting": {"colour": 1}, "shape": {"depth": 3}}.get(spoil, {}))
            file.write_text(json.dumps(config))
        with pytest.raises(InputError, match=r"expected the folder of a noise-conditioned ViT|3 classes; got 1 labels"):
            load(str(tmp_path))

    def test_other_networks_are_not_saved(self, tmp_path: Path) -> None:
        linear = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
        other = ImageClassifier(linear, Preprocessing((0.5,), (0.5,), (4, 4)))
        with pytest.raises(InputError, match="expected a NoiseConditionedViT to save; got Sequential"):
            save_classifier(other, tmp_path)
