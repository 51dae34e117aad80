"""Another weight, setting or precision is another classifier, and certificates say so."""

import pytest
import torch
from torch import nn

from robustify import ImageClassifier, Preprocessing, robustify
from robustify.errors import InputError
from robustify.smoothing.fingerprint import classifier_fingerprint
from tests.smoothing.half_space import IMAGE, PLAIN, SIZE, HalfSpace, smooth


def test_the_certificate_names_everything_it_depends_on() -> None:
    model = smooth(HalfSpace(0.3))
    provenance = model.certify(IMAGE, n=200, n0=20, alpha=0.01, batch=50, seed=3).provenance
    assert (provenance.plan.n, provenance.plan.n0, provenance.plan.alpha, provenance.plan.sigma) == (200, 20, 0.01, 0.5)
    assert 0 < provenance.plan.slack < 1e-9
    assert (provenance.batch, provenance.seed, str(provenance.numerics)) == (50, 3, "float32")
    assert provenance.contract.shape == (1, *SIZE)
    assert provenance.classifier == classifier_fingerprint(model.classifier)


def test_another_weight_is_another_classifier() -> None:
    model = smooth(HalfSpace(0.3))
    before = classifier_fingerprint(model.classifier)
    with torch.no_grad():
        model.classifier.network.weight[0] += 1e-6
    assert classifier_fingerprint(model.classifier) != before


def test_another_preprocessing_is_another_classifier() -> None:
    means = (0.4854, 0.4855)
    hashes = {
        classifier_fingerprint(ImageClassifier(HalfSpace(0.3).eval(), Preprocessing((mean,), (1.0,), SIZE)))
        for mean in means
    }
    assert len(hashes) == 2


def test_another_layer_setting_is_another_classifier() -> None:
    def network(eps: float) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.BatchNorm2d(1, eps=eps), nn.Flatten(), nn.Linear(16, 2)).eval()

    assert len({classifier_fingerprint(ImageClassifier(network(eps), PLAIN)) for eps in (1e-5, 1e-5, 1e-3)}) == 2


def test_another_precision_is_another_classifier_and_says_so() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 3)).eval()
    full, half = (robustify(network, preprocessing=PLAIN, precision=p) for p in ("float32", "bfloat16"))
    noisy = torch.rand(50, 1, *SIZE)
    gap = (full.logits(noisy) - half.logits(noisy)).abs().max()
    assert 0 < gap < 0.05
    assert half.logits(noisy).dtype == torch.float32
    assert str(half.certify(IMAGE, n=20, seed=1).provenance.numerics) == "float32, bfloat16 autocast"
    assert "bfloat16 autocast" in repr(half)
    with pytest.raises(InputError, match="expected precision float32, bfloat16, float16"):
        robustify(network, preprocessing=PLAIN, precision="int8")
