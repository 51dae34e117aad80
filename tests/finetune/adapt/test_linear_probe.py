"""A head fitted to noisy features: the optimum it claims, no peeking, and a classifier that works."""

from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from robustify.classifiers import Preprocessing
from robustify.denoisers import Denoiser, Identity
from robustify.errors import InputError, ModelError
from robustify.finetune.adapt.linear_probe import STRENGTHS, ProbedNetwork, fit, linear_probe, regress, unit_features
from robustify.finetune.adapt.lora_layers import find_head
from robustify.testing import check_classifier
from robustify.types import Pixels

HALF = (0.5, 0.5, 0.5)
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
PREPROCESSING = Preprocessing(HALF, HALF, (8, 8))


class Flat(nn.Module):
    """Pixels as features."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class Blur(Denoiser):
    """The mean of every channel, and a record of what came in."""

    name = "blur"
    channels = None
    size = None
    licence = None

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, float]] = []
        self.eval()

    def forward(self, noisy: Pixels, sigma: float) -> Pixels:
        self.seen.append((noisy.clone(), sigma))
        return noisy.mean((2, 3), keepdim=True).expand_as(noisy).clamp(0, 1)

    def describe(self, sigma: float) -> str:
        return "the mean"


def coloured(per_class: int = 20, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Textures in which class i is brightest in channel i."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat(per_class)
    images = 0.4 * torch.rand(len(labels), 3, 8, 8, generator=generator)
    images[torch.arange(len(labels)), labels] += 0.3
    return images, labels


def gaussian(rows: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(rows, 6, generator=generator, dtype=torch.float64)
    targets = torch.randint(classes, (rows,), generator=generator)
    features[torch.arange(rows), targets] += 1
    return F.normalize(features, dim=1), targets


class TestRegression:
    @pytest.mark.parametrize("strength", [0.01, 1.0, 100.0])
    def test_is_at_the_optimum_of_the_sum(self, strength: float) -> None:
        """scikit-learn's convention: C times the sum of losses plus half the squared weights, biases free."""
        features, targets = gaussian(60, 4)
        found = regress(features, targets, 4, strength).requires_grad_()
        logits = features @ found[:, :-1].T + found[:, -1]
        loss = strength * F.cross_entropy(logits, targets, reduction="sum") + found[:, :-1].square().sum() / 2
        (gradient,) = torch.autograd.grad(loss, found)
        assert float(gradient.abs().max()) < 1e-4 * strength * 60

    def test_two_classes_agree_with_the_scalar_logistic(self) -> None:
        """One feature of ±1, shares p and 1 - p: without penalty the log odds are log p / (1 - p)."""
        features = torch.tensor([[1.0]] * 10 + [[-1.0]] * 10, dtype=torch.float64)
        targets = torch.tensor([1] * 8 + [0] * 2 + [0] * 9 + [1])
        found = regress(features, targets, 2, 1e6)
        logits = features @ found[:, :-1].T + found[:, -1]
        odds = torch.softmax(logits, 1)[[0, -1], 1]
        torch.testing.assert_close(odds, torch.tensor([0.8, 0.1], dtype=torch.float64), atol=1e-4, rtol=0)

    def test_strength_is_the_best_on_validation_rows(self) -> None:
        features, targets = gaussian(80, 3)
        targets[1::4] = targets[1::4].roll(1)  # some are wrong
        validation = torch.arange(80) % 5 == 0
        accuracies = {}
        for strength in STRENGTHS:
            found = regress(features[~validation], targets[~validation], 3, strength)
            logits = features[validation] @ found[:, :-1].T + found[:, -1]
            right = float((logits.argmax(1) == targets[validation]).double().mean())
            accuracies[strength] = right, -float(F.cross_entropy(logits, targets[validation]))
        best = max(STRENGTHS, key=accuracies.__getitem__)
        assert best not in (STRENGTHS[0], STRENGTHS[-1])
        expected = regress(features, targets, 3, best).float()
        head = fit(features, targets, validation, classes=3)
        torch.testing.assert_close(head.weight.detach(), expected[:, :-1], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(head.bias.detach(), expected[:, -1], atol=1e-4, rtol=1e-3)

    def test_validation_rows_are_not_learned_from(self) -> None:
        """Labels by chance: learned by heart, those for validation would ask for the largest C."""
        generator = torch.Generator().manual_seed(1)
        features = F.normalize(torch.randn(60, 60, generator=generator, dtype=torch.float64), dim=1)
        targets = torch.randint(3, (60,), generator=generator)
        head = fit(features, targets, torch.arange(60) % 5 == 0, classes=3)
        by_heart = regress(features, targets, 3, STRENGTHS[-1])
        assert float(head.weight.detach().norm()) < 0.1 * float(by_heart[:, :-1].norm())


class TestProbe:
    def test_classifies_what_it_has_not_seen(self) -> None:
        classifier = linear_probe(
            Flat().eval(), PREPROCESSING, *coloured(), sigma=0.2, classes=["red", "green", "blue"]
        )
        images, labels = coloured(seed=1)
        noise = 0.2 * torch.randn(images.shape, generator=torch.Generator().manual_seed(5))
        assert float((classifier(images + noise).argmax(1) == labels).float().mean()) > 0.9
        assert classifier.labels == ("red", "green", "blue")
        assert classifier.name == "Flat with a linear probe"
        assert not any(m.training for m in classifier.modules())
        assert find_head(classifier) == ("head",)
        check_classifier(classifier)

    def test_sees_denoised_noise_of_exactly_sigma(self) -> None:
        """Every image in every copy, with noise of its own; the head is fitted to what the denoiser makes of it."""
        images, labels = coloured(per_class=100)
        blur = Blur()
        classifier = linear_probe(Flat().eval(), PREPROCESSING, images, labels, sigma=0.5, denoiser=blur, copies=8)
        assert {sigma for _, sigma in blur.seen} == {0.5}
        seen = torch.cat([noisy for noisy, _ in blur.seen]).view(8, 300, 3, 8, 8)
        order = [int((image - images).square().mean((1, 2, 3)).argmin()) for image in seen.mean(0)]
        noise = seen - images[order]
        assert sorted(order) == list(range(300))
        assert float(noise.std()) == pytest.approx(0.5, rel=0.01)
        assert abs(float((noise[0] * noise[1]).mean())) < 0.005
        assert float((classifier(blur(images, 0.5)).argmax(1) == labels).float().mean()) > 0.95

    def test_is_deterministic_and_depends_on_the_seed(self) -> None:
        def weight(**options: int) -> Tensor:
            state = torch.get_rng_state()
            network = linear_probe(Flat().eval(), PREPROCESSING, *coloured(), sigma=0.5, copies=1, **options).network
            del state
            return network.head.weight.detach()

        assert torch.equal(weight(seed=1), weight(seed=1))
        assert not torch.allclose(weight(seed=1), weight(seed=2))

    def test_copies_of_one_image_stay_on_one_side(self, monkeypatch: pytest.MonkeyPatch) -> None:
        given: dict[str, Tensor] = {}

        def spy(features: Tensor, targets: Tensor, validation: Tensor, *, classes: int) -> nn.Linear:
            given.update(features=features, targets=targets, validation=validation)
            return fit(features, targets, validation, classes=classes)

        monkeypatch.setattr("robustify.finetune.adapt.linear_probe.fit", spy)
        images, labels = coloured(per_class=10)
        linear_probe(Flat().eval(), PREPROCESSING, images, labels, sigma=0.0, copies=2, per_class=5)
        features, targets, validation = (given[key].view(2, 15, -1) for key in ("features", "targets", "validation"))
        assert torch.equal(features[0], features[1])
        assert torch.equal(validation[0], validation[1])
        assert torch.equal(targets[0], targets[1])
        assert torch.bincount(targets[0].flatten()).tolist() == [5, 5, 5]
        assert torch.bincount(targets[0][validation[0]].flatten()).tolist() == [1, 1, 1]
        unit = F.normalize(PREPROCESSING.network_input(images).flatten(1), dim=1).double()
        rows = [int((row - unit).norm(dim=1).argmin()) for row in features[0]]
        assert labels[rows].tolist() == targets[0].flatten().tolist()
        assert len(set(rows)) == 15

    def test_logits_are_the_head_on_unit_features(self) -> None:
        classifier = linear_probe(Flat().eval(), PREPROCESSING, *coloured(), sigma=0.1)
        images, _ = coloured(seed=3)
        normalised = PREPROCESSING.network_input(images)
        unit = normalised.flatten(1) / normalised.flatten(1).norm(dim=1, keepdim=True)
        torch.testing.assert_close(classifier(images), classifier.network.head(unit))

    def test_timm_without_a_head(self, awaken: Callable[[nn.Module], nn.Module]) -> None:
        backbone = awaken(timm.create_model("test_vit", num_classes=0, img_size=32))
        images, labels = coloured(per_class=4)
        classifier = linear_probe(backbone, Preprocessing(HALF, HALF, (32, 32)), images, labels, sigma=0.1, copies=2)
        assert float((classifier(images).argmax(1) == labels).float().mean()) > 0.5


class TestFeatures:
    @pytest.mark.parametrize("kind", ["ViT", "Dinov2"])
    def test_transformers_give_their_first_token(self, kind: str, awaken: Callable[[nn.Module], nn.Module]) -> None:
        """ViT's pooler has weights that a checkpoint may lack."""
        backbone = awaken(getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**SMALL)))
        images = torch.rand(2, 3, 16, 16)
        token = backbone(images).last_hidden_state[:, 0]
        torch.testing.assert_close(unit_features(backbone, images), F.normalize(token, dim=-1))

    def test_transformers_convolutions_give_their_pooled_features(
        self, awaken: Callable[[nn.Module], nn.Module]
    ) -> None:
        config = transformers.ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic")
        backbone = awaken(transformers.ResNetModel(config))
        images = torch.rand(2, 3, 32, 32)
        pooled = backbone(images).last_hidden_state.mean((2, 3))
        torch.testing.assert_close(unit_features(backbone, images), F.normalize(pooled, dim=-1))

    def test_open_clips_tower(self, clip_model: nn.Module) -> None:
        images = torch.rand(2, 3, 32, 32)
        embedding = clip_model.encode_image(images, normalize=True)
        torch.testing.assert_close(unit_features(clip_model.visual, images), embedding)
        clip_model.visual.output_tokens = True
        torch.testing.assert_close(unit_features(clip_model.visual, images), embedding)

    def test_feature_maps_are_refused(self) -> None:
        with pytest.raises(ModelError, match=r"(?s)expected features.*Identity gives \(2, 3, 8, 8\).*num_classes=0"):
            unit_features(nn.Identity(), torch.rand(2, 3, 8, 8))


class TestRefusal:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"sigma": -0.1}, "sigma >= 0"),
            ({"sigma": float("nan")}, "sigma >= 0"),
            ({"copies": 0}, "copies >= 1"),
            ({"batch": 0}, "batch >= 1"),
            ({"per_class": 1}, "per_class >= 2"),
            ({"labels": torch.zeros(59, dtype=torch.int64)}, "one label per image; got 59 labels for 60 images"),
            ({"labels": torch.zeros(60, dtype=torch.int64)}, "at least 2 classes"),
            ({"labels": torch.arange(60) % 3 - 1}, r"labels in 0 … 1; got -1 … 1"),
            ({"classes": ["a", "b"]}, r"labels in 0 … 1; got 0 … 2"),
            ({"classes": ["a", "b", "c", "d"]}, r"of class 3 there are 0"),
            ({"labels": torch.arange(60).clamp(max=1)}, r"of class 0 there are 1"),
            ({"images": torch.full((60, 3, 8, 8), 2.0)}, r"pixels in \[0, 1\]"),
            ({"images": torch.full((60, 3, 8, 8), torch.nan)}, r"pixels in \[0, 1\]"),
            ({"images": torch.zeros(0, 3, 8, 8), "labels": torch.zeros(0, dtype=torch.int64)}, "at least one image"),
            ({"denoiser": Identity(channels=1)}, "none works on images of 1 channels"),
        ],
    )
    def test_of_what_does_not_fit(self, options: dict[str, object], message: str) -> None:
        images, labels = coloured()
        given = {"images": images, "labels": labels, "sigma": 0.1, **options}
        with pytest.raises(InputError, match=message):
            linear_probe(Flat().eval(), PREPROCESSING, **given)

    def test_of_training_mode(self) -> None:
        with pytest.raises(ModelError, match="training mode"):
            linear_probe(Flat().train(), PREPROCESSING, *coloured(), sigma=0.1)

    def test_network_keeps_its_parts(self) -> None:
        network = ProbedNetwork(Flat(), nn.Linear(192, 3))
        assert set(network.state_dict()) == {"head.weight", "head.bias"}
