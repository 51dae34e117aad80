"""A classifier that denoises by itself is told exactly the noise level, image by image; others are told nothing."""

from typing import final

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustify import Identity, ImageClassifier, Preprocessing, Settings, SmoothedClassifier, robustify
from robustify.data import Sample
from robustify.errors import InputError, ModelError
from robustify.report.clean import clean_accuracy
from robustify.smoothing.fingerprint import classifier_fingerprint
from robustify.smoothing.pipeline import Pipeline
from robustify.testing import check_classifier
from tests.toys import Shrink
from tests.toys_family import TwoLevels

PLAIN = Preprocessing(mean=(0.5,), std=(0.5,), size=(4, 4))
IMAGE = torch.full((1, 4, 4), 128, dtype=torch.uint8)


@final
class Told(nn.Module):
    """Logits are the noise level, and what is left to 1; 1/8 where it is told nothing."""

    def forward(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        level = torch.full((len(x),), 0.125) if sigma is None else sigma
        return torch.stack([level, 1 - level], dim=1) + 0 * x.flatten(1).sum(dim=1, keepdim=True)


@final
class TellsTheFirst(nn.Module):
    """A network that uses the level of the first image for the whole batch."""

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma[:1].expand(len(x))
        return torch.stack([level, 1 - level], dim=1) * (1 + x.flatten(1)[:, :1])


def told() -> ImageClassifier:
    return ImageClassifier(Told().eval(), PLAIN, noise_conditioned=True)


def recorded(classifier: ImageClassifier) -> list[Tensor]:
    """The levels that its network is told from now on."""
    seen: list[Tensor] = []
    classifier.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    return seen


@pytest.mark.parametrize("sigma", [0.25, torch.tensor([0.25, 0.25, 0.25], dtype=torch.float64)])
def test_the_pipeline_hands_on_the_level(sigma: float | Tensor) -> None:
    classifier = told()
    levels = recorded(classifier)
    logits = Pipeline(classifier, Identity())(torch.rand(3, 1, 4, 4), sigma)
    assert torch.equal(logits, torch.tensor([[0.25, 0.75]]).expand(3, 2))
    assert (levels[0].shape, levels[0].dtype, levels[0].stride()) == ((3,), torch.float32, (1,))


def test_each_image_is_told_its_own_level() -> None:
    levels = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    logits = Pipeline(told(), Identity())(torch.rand(3, 1, 4, 4), levels)
    assert torch.equal(logits[:, 0], levels.float())


def test_other_classifiers_are_told_nothing() -> None:
    plain = ImageClassifier(Told().eval(), PLAIN)
    logits = Pipeline(plain, Shrink())(torch.rand(3, 1, 4, 4), 0.25)
    assert torch.equal(logits[:, 0], torch.full((3,), 0.125))
    assert torch.equal(plain(torch.rand(3, 1, 4, 4), 0.5)[:, 0], torch.full((3,), 0.125))


def test_a_denoiser_before_it_is_refused() -> None:
    with pytest.raises(InputError, match=r"denoises by itself, .* got shrink.\n  Leave out denoiser="):
        robustify(told(), denoiser=Shrink(), sigma=0.25)
    assert robustify(told(), denoiser=Identity(channels=1), sigma=0.25).denoiser.channels == 1


def test_certificates_draw_at_their_sigma() -> None:
    """Class 1 leads below a level of 1/2 alone, whatever the pixels."""
    for sigma, label in ((0.25, 1), (0.75, 0)):
        classifier = told()
        levels = recorded(classifier)
        certificate = robustify(classifier, sigma=sigma).certify(IMAGE, n=100, n0=20)
        assert (certificate.label, certificate.votes[label]) == (label, 100)  # type: ignore[union-attr]
        assert all(torch.equal(level, torch.full_like(level, sigma)) for level in levels)


def test_views_of_several_levels_share_batches() -> None:
    model = SmoothedClassifier(told(), Identity(), family=TwoLevels((0.25, 0.75)))
    certificate = model.certify(IMAGE, n=100, n0=20, seed=1)
    votes = {(t.view, t.stage): t.votes for t in certificate.tallies}  # type: ignore[union-attr]
    assert votes == {(0, "selection"): (0, 20), (0, "estimation"): (0, 100), (1, "estimation"): (100, 0)}


def test_a_network_that_mixes_the_levels_of_a_batch_is_refused() -> None:
    classifier = ImageClassifier(TellsTheFirst().eval(), PLAIN, noise_conditioned=True)
    model = SmoothedClassifier(classifier, Identity(), family=TwoLevels((0.25, 0.75)))
    with pytest.raises(ModelError, match="no fixed function of one image"):
        model.certify(IMAGE, n=100, n0=20)
    with pytest.raises(ModelError, match="answers an image otherwise beside one of another noise level"):
        check_classifier(classifier)


def test_without_noise_the_level_is_0() -> None:
    model = robustify(told(), sigma=0.75)
    images = [Sample(str(i), np.full((4, 4), 10 * i, dtype=np.uint8), 1) for i in range(3)]
    assert clean_accuracy(model, images) == 1.0  # at sigma class 0 would lead


def test_being_told_is_part_of_what_a_classifier_is() -> None:
    assert classifier_fingerprint(told()) == classifier_fingerprint(told())
    assert classifier_fingerprint(told()) != classifier_fingerprint(ImageClassifier(Told().eval(), PLAIN))


def test_it_is_described_as_denoising_by_itself() -> None:
    assert "none: the classifier denoises by itself, told the noise level" in repr(robustify(told(), sigma=0.25))
    assert "none: plain smoothing" in repr(robustify(ImageClassifier(Told().eval(), PLAIN), sigma=0.25))


def test_one_line_makes_one_of_any_module() -> None:
    model = robustify(Told().eval(), preprocessing=PLAIN, noise_conditioned=True, sigma=0.5, classes=["far", "near"])
    assert model.logits(torch.rand(1, 1, 4, 4))[0].tolist() == [0.5, 0.5]
    assert model.provenance(Settings(n=100)).classifier == classifier_fingerprint(told())
    with pytest.raises(InputError, match="noise_conditioned are for models of this process"):
        robustify(told(), noise_conditioned=True)
    with pytest.raises(InputError, match=r"noise_conditioned=True with preprocessing= alone; got nothing else"):
        robustify(Told().eval(), noise_conditioned=True)


def test_an_exported_graph_is_told_too() -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            return x.flatten(1)[:, :2] * sigma.unsqueeze(1)

    batch = torch.export.Dim.DYNAMIC
    example = torch.rand(4, 1, 4, 4), torch.rand(4)
    graph = torch.export.export(Scaled().eval(), example, dynamic_shapes=({0: batch}, {0: batch})).module()
    classifier = ImageClassifier(graph, PLAIN, noise_conditioned=True)
    pixels = torch.rand(3, 1, 4, 4)
    torch.testing.assert_close(classifier(pixels, 0.25), 0.25 * (2 * pixels - 1).flatten(1)[:, :2])
