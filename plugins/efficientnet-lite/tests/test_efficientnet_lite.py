"""The weights classify real photographs as they should; the source and the classifier conform."""

from importlib.util import find_spec
from pathlib import Path
from statistics import NormalDist

import pytest
import robustify_efficientnet_lite as plugin
import timm
import torch
from torch import nn

from robustify import CLASSIFIERS, SmoothedClassifier, robustify
from robustify.errors import InputError
from robustify.testing import check_classifier, check_source


@pytest.fixture(scope="module")
def model() -> SmoothedClassifier:
    return robustify("efficientnet-lite:0", sigma=0.25)


@pytest.fixture(scope="module")
def photographs() -> dict[Path, int]:
    """Twenty photographs from ImageNet's classes; a file's name ends in its label."""
    foolbox = find_spec("foolbox")  # not imported: only its data is of interest
    assert foolbox is not None
    assert foolbox.origin is not None
    files = sorted((Path(foolbox.origin).parent / "data").glob("imagenet_*.jpg"))
    assert len(files) == 20
    return {file: int(file.stem.split("_")[-1]) for file in files}


def test_the_entry_point_leads_here() -> None:
    assert CLASSIFIERS.find("efficientnet-lite") is plugin
    assert CLASSIFIERS.origin("efficientnet-lite").startswith("robustify-efficientnet-lite ")


def test_the_source_conforms() -> None:
    check_source(plugin)
    assert plugin.names() == ["0"]


def test_the_classifier_conforms(model: SmoothedClassifier) -> None:
    check_classifier(model.classifier)


def test_the_model_says_what_it_is(model: SmoothedClassifier) -> None:
    assert len(model.labels) == 1000
    assert model.labels[1] == "goldfish, Carassius auratus"
    assert model.contract.shape == (3, 224, 224)
    assert "efficientnet-lite:0" in repr(model)
    assert "classifier Apache-2.0" in repr(model)


def test_photographs_are_classified_rightly(model: SmoothedClassifier, photographs: dict[Path, int]) -> None:
    pixels = torch.stack([model.prepare(file) for file in photographs]) / 255
    with torch.no_grad():
        labels = model.classifier(pixels).argmax(dim=1)
    right = int((labels == torch.tensor(list(photographs.values()))).sum())
    assert right >= 16  # 18 on the machine where this was written


def test_the_architecture_agrees_with_timms(model: SmoothedClassifier) -> None:
    """timm keeps the same layers in the same order under other names."""
    oracle = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    ours = model.classifier.network.state_dict().values()
    oracle.load_state_dict(dict(zip(oracle.state_dict(), ours, strict=True)))
    normalised = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model.classifier.network(normalised), oracle(normalised), rtol=1e-4, atol=1e-4)


def test_a_photograph_is_certified(model: SmoothedClassifier, photographs: dict[Path, int]) -> None:
    label = 251  # dalmatian
    file = next(file for file, y in photographs.items() if y == label)
    certificate = robustify(model.classifier, sigma=0.05).certify(file, n=32, n0=16, batch=16, seed=0)
    assert not isinstance(certificate, list)
    assert certificate.label == label
    assert certificate.name == model.labels[label]
    assert sum(certificate.selection) == 16
    assert sum(certificate.votes) == 32
    # All 32 draws agree with chance p^32, so p is at least 0.001^(1/32) at this confidence; nothing can prove more.
    most = 0.05 * NormalDist().inv_cdf(0.001 ** (1 / 32))
    assert 0 < certificate.radius <= most
    assert certificate.holds(label, at=certificate.radius / 2)
    assert not certificate.holds(label, at=certificate.radius)


@pytest.mark.parametrize("name", ["4", "", "00", "lite0"])
def test_unknown_sizes_are_refused_with_what_exists(name: str) -> None:
    with pytest.raises(InputError, match=r"expected efficientnet-lite:0; got"):
        plugin.load(name)


def test_missing_or_extra_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = plugin._weights()
    bias = weights.pop("fc.bias")
    monkeypatch.setattr(plugin, "_weights", lambda: weights)
    with pytest.raises(RuntimeError, match=r"fc\.bias"):
        plugin.load("0")
    weights |= {"fc.bias": bias, "fc.extra": bias}
    with pytest.raises(RuntimeError, match=r"fc\.extra"):
        plugin.load("0")


def test_weights_are_read_without_unpickling_code(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    load = torch.load

    def spy(*args: object, **kwargs: object) -> object:
        seen.append(kwargs.get("weights_only"))
        return load(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(torch, "load", spy)
    state = plugin._weights()
    assert seen == [True]
    assert nn.Linear(1280, 1000).weight.shape == state["fc.weight"].shape
