import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from robustify import CLASSIFIERS, ImageClassifier, Preprocessing, ZeroShotModel, robustify
from robustify.denoisers import Identity
from robustify.errors import InputError, UnknownPluginError

PLAIN = Preprocessing((0.5,), (0.5,), (4, 4))


def network(classes: int = 3) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, classes)).eval()


class TwoTowers(ZeroShotModel):
    """Remembers what it was asked for."""

    name = "two towers"

    def classifier(self, classes: object, templates: object) -> ImageClassifier:
        self.asked = (classes, templates)
        return ImageClassifier(network(len(classes)), PLAIN, labels=classes)  # type: ignore[arg-type]


def test_a_zero_shot_model_needs_classes() -> None:
    with pytest.raises(InputError, match="two towers is a zero-shot model: say which classes"):
        robustify(TwoTowers())
    model = robustify(TwoTowers(), classes=["cat", "dog"], templates=["a {}"])
    assert model.labels == ("cat", "dog")


def test_classes_name_what_has_no_name() -> None:
    classifier = ImageClassifier(network(), PLAIN)
    assert robustify(classifier, classes=["cat", "dog", "fox"]).labels == ("cat", "dog", "fox")
    assert classifier.labels == ("0", "1", "2")
    with pytest.raises(InputError, match=r"its own 3 classes, such as '0'; got 2 names"):
        robustify(classifier, classes=["cat", "dog"])
    named = ImageClassifier(network(), PLAIN, labels=["cat", "dog", "fox"])
    with pytest.raises(InputError, match=r"its own 3 classes, such as 'cat'; got 3 names"):
        robustify(named, classes=["a", "b", "c"])


def test_a_text_is_no_list_of_classes() -> None:
    with pytest.raises(
        InputError, match=r"classes= to be a list of names; got the text 'abc'.\n  Did you mean \['abc'\]"
    ):
        robustify(TwoTowers(), classes="abc")


def test_options_without_effect_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"templates= are prompts .* for zero-shot models; Sequential is none"):
        robustify(network(), preprocessing=PLAIN, templates="simple")
    with pytest.raises(InputError, match="out= is the folder of the training run; say how to learn with tune="):
        robustify(network(), preprocessing=PLAIN, out=tmp_path)


def test_a_plain_module_takes_the_names_of_its_classes() -> None:
    model = robustify(network(), preprocessing=PLAIN, classes=["cat", "dog", "fox"])
    assert model.labels == ("cat", "dog", "fox")


def test_a_model_that_brings_its_own_preprocessing_takes_no_other() -> None:
    with pytest.raises(InputError, match="this one has its own"):
        robustify("timm:resnet18.a1_in1k", preprocessing=PLAIN)


def test_a_reference_goes_to_its_source() -> None:
    with pytest.raises(UnknownPluginError, match="Did you mean 'timm'"):
        robustify("tim:resnet18")
    with pytest.raises(InputError, match="expected 'source:name', such as 'timm"):
        robustify("resnet18")
    with pytest.raises(InputError, match="expected 'source:name', such as 'diffusers"):
        robustify(network(), preprocessing=PLAIN, denoiser="ddpm")


def test_what_is_no_denoiser_is_refused() -> None:
    with pytest.raises(InputError, match="got dict"):
        robustify(network(), preprocessing=PLAIN, denoiser={"unet": 1})


def test_a_registered_source_is_found() -> None:
    class Source:
        def load(self, name: str, /) -> ImageClassifier:
            return ImageClassifier(network(int(name)), PLAIN, name=f"mine:{name}")

        def names(self, pattern: str = "*", /) -> list[str]:
            return ["3"]

    CLASSIFIERS.register("mine-for-test-api", Source())
    model = robustify("mine-for-test-api:5", denoiser=Identity(), sigma=0.5)
    assert (model.classifier.name, len(model.labels), model.sigma) == ("mine:5", 5, 0.5)


class Loud(nn.Module):
    """A plain module."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3]


def test_a_plain_module_must_say_how_it_wants_its_pixels() -> None:
    with pytest.raises(InputError, match=r"Pass preprocessing=Preprocessing"):
        robustify(Loud().eval())


def test_where_it_computes_is_said_and_tried_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = list[object]()
    monkeypatch.setattr(ImageClassifier, "to", lambda self, device: moved.append(device))
    model = robustify(network(), preprocessing=PLAIN, device="cpu")
    assert "float32; on cpu" in repr(model)
    assert moved == [torch.device("cpu")]
    for wrong in ("cuda:99", "gpu", "meta"):
        with pytest.raises(InputError, match=rf"cannot compute on '{wrong}': .*\n  Try 'cpu', or leave it out"):
            robustify(network(), preprocessing=PLAIN, device=wrong)


def test_tuning_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = torch.randint(0, 256, (12, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = (images, torch.arange(12) % 3)
    torch.manual_seed(0)
    base = network()
    model = robustify(base, preprocessing=PLAIN, tune="gaussian", data=data, out=tmp_path / "run")
    said = capsys.readouterr().out
    assert re.search(r"copies not classified as their label, last epoch: .*%  \d\n", said)
    assert said.endswith(f"are in {str(tmp_path / 'run')!r}\n")
    assert "tuned with Gaussian at sigma = 0.25" in model.classifier.name
    again = robustify(base, preprocessing=PLAIN, tuned=tmp_path / "run")
    assert torch.equal(model.classifier(images / 255), again.classifier(images / 255))
    with pytest.warns(UserWarning, match=r"was tuned at sigma = 0.25 behind none: .*; this model has sigma = 0.5"):
        robustify(base, preprocessing=PLAIN, tuned=tmp_path / "run", sigma=0.5)
    assert not torch.equal(model.classifier(images / 255), base((images / 255 - 0.5) / 0.5))


def test_how_and_from_what_belong_together() -> None:
    with pytest.raises(InputError, match="give both or neither"):
        robustify(network(), preprocessing=PLAIN, tune="gaussian")
    with pytest.raises(InputError, match="give both or neither"):
        robustify(network(), preprocessing=PLAIN, data=([], []))
    with pytest.raises(InputError, match="give one of them"):
        robustify(network(), preprocessing=PLAIN, tune="gaussian", data=([], []), tuned="before")


def test_what_is_smoothed_already_is_no_classifier() -> None:
    with pytest.raises(InputError, match=r"smoothed already.\n  Give its `classifier`"):
        robustify(robustify(network(), preprocessing=PLAIN))
