"""The check of a classifier passes what is right and names what is wrong: each fault is injected once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest
import torch
from PIL import Image as PILImage
from torch import Tensor, nn

from robustify.classifiers import ImageClassifier, Preprocessing, ResizeCrop
from robustify.classifiers.preprocessing import Geometry
from robustify.errors import ModelError
from robustify.testing import check_classifier

Function: TypeAlias = Callable[[Tensor], Tensor]
CLASSES = 5


class Network(nn.Module):
    """Flattens and weighs; `before` and `after` take faults."""

    before: Function | None = None
    after: Function | None = None

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.fc = nn.Linear(channels * 8 * 6, CLASSES)
        weights = torch.randn(self.fc.weight.shape, generator=torch.Generator().manual_seed(0))
        self.fc.weight = nn.Parameter(weights / 10)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x) if self.before else x
        logits: Tensor = self.fc(x.flatten(1))
        return self.after(logits) if self.after else logits


def network_of(model: ImageClassifier) -> Network:
    assert isinstance(model.network, Network)
    return model.network


def classifier(channels: int = 3, geometry: Geometry | None = None) -> ImageClassifier:
    preprocessing = Preprocessing((0.5,) * channels, (0.5,) * channels, (8, 6), geometry or ResizeCrop())
    return ImageClassifier(Network(channels), preprocessing, name="toy")


@dataclass(frozen=True)
class Squash(Geometry):
    """Resizes by PIL alone; the faults are a wrong type and a wrong order of the sizes."""

    interpolation: str = "bicubic"
    dtype: torch.dtype = torch.uint8
    swapped: bool = False

    def __call__(self, picture: PILImage.Image, height: int, width: int) -> Tensor:
        picture = picture.resize((height, width) if self.swapped else (width, height))
        channels = len(picture.getbands())
        pixels = torch.tensor(bytearray(picture.tobytes()), dtype=torch.uint8)
        return pixels.view(picture.height, picture.width, channels).permute(2, 0, 1).to(self.dtype)

    def __str__(self) -> str:
        return "squash"


@pytest.mark.parametrize("channels", [1, 3])
def test_a_classifier_passes(channels: int) -> None:
    check_classifier(classifier(channels=channels))
    check_classifier(classifier(channels=channels, geometry=Squash()))


def test_a_classifier_in_half_precision_passes() -> None:
    check_classifier(ImageClassifier(Network().bfloat16(), classifier().preprocessing))


def unit_deviation(x: Tensor) -> Tensor:
    """Divides each image by its own standard deviation: 0 / 0 for black and for white."""
    return x / x.flatten(1).std(dim=1).view(-1, 1, 1, 1)


@pytest.mark.parametrize(
    ("before", "text"),
    [
        (unit_deviation, "NaN or infinite logits"),
        (torch.Tensor.detach, "no gradient reaches the pixels"),
        (torch.Tensor.round, "no gradient reaches the pixels"),
        (lambda x: x + 1e-6 * torch.randn(x.shape), "two answers for the same pixels"),
        (lambda x: x if torch.rand(1) >= 0 else -x, "draws random numbers"),
        (lambda x: x / x.abs().amax().clamp(min=1), "differ by .* with other images beside them"),
    ],
)
def test_a_faulty_network_is_told_what_is_wrong(before: Function, text: str) -> None:
    faulty = classifier()
    network_of(faulty).before = before  # past the constructor, which refuses some of these already
    with pytest.raises(ModelError, match=text):
        check_classifier(faulty)


@pytest.mark.parametrize(
    ("after", "text"),
    [
        (lambda logits: logits[:, :-1], r"expected logits of shape \(batch, classes\) = \(4, 5\).* gives .*\(4, 4\)"),
        (torch.zeros_like, "no gradient reaches the pixels"),
    ],
)
def test_a_faulty_head_is_told_what_is_wrong(after: Function, text: str) -> None:
    faulty = classifier()
    network_of(faulty).after = after
    with pytest.raises(ModelError, match=text):
        check_classifier(faulty)


def sees(condition: Callable[[Tensor], bool], fault: Function) -> Callable[[ImageClassifier], Function]:
    """A `forward` that goes wrong only for some pixels."""

    def wrap(honest: ImageClassifier) -> Function:
        forward = honest.forward
        return lambda pixels: fault(forward(pixels)) if condition(pixels) else forward(pixels)

    return wrap


def takes_the_first_channel(honest: ImageClassifier) -> Function:
    forward = honest.forward
    return lambda pixels: forward(pixels[:, :1])


def shifts_its_input(honest: ImageClassifier) -> Function:
    forward = honest.forward
    return lambda pixels: forward(pixels.sub_(0.1) if not pixels.requires_grad else pixels)


@pytest.mark.parametrize(
    ("channels", "forward", "text"),
    [
        (3, shifts_its_input, "changes in place the pixels"),
        (3, sees(lambda x: True, torch.Tensor.double), "in torch.float32 .* gives .*float64"),
        (3, sees(lambda x: x.shape[-1] != 6, lambda y: y[:1]), r"for pixels of shape \(2, 3, 4, 3\)"),
        (3, sees(lambda x: len(x) == 1, torch.Tensor.squeeze), r"shape \(5,\) for one image, \(2, 5\) for 2"),
        (3, sees(lambda x: x.shape[1] == 1, lambda y: 2 * y), "gray pixels and the same pixels repeated"),
        (1, takes_the_first_channel, r"expects 1 channel \(gray\) but takes 3"),
    ],
)
def test_a_faulty_forward_is_told_what_is_wrong(
    channels: int, forward: Callable[[ImageClassifier], Function], text: str
) -> None:
    faulty = classifier(channels=channels)
    faulty.forward = forward(faulty)  # type: ignore[method-assign,assignment]
    with pytest.raises(ModelError, match=text):
        check_classifier(faulty)


def test_training_mode_is_refused() -> None:
    faulty = classifier()
    faulty.network.train()
    with pytest.raises(ModelError, match="training mode"):
        check_classifier(faulty)


def test_labels_that_name_two_classes_are_refused() -> None:
    faulty = classifier()
    faulty.labels = ("heron", "crane", "digger", "crane", "owl")
    with pytest.raises(ModelError, match="toy names more than one class 'crane'"):
        check_classifier(faulty)


@pytest.mark.parametrize("fault", [{"swapped": True}, {"dtype": torch.float32}])
def test_a_geometry_that_breaks_its_contract_is_refused(fault: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"mode '(L|RGB)' into bytes \(torch.uint8\) of shape"):
        check_classifier(classifier(geometry=Squash(**fault)))


def test_the_check_leaves_the_global_generator_alone() -> None:
    toy, before = classifier(), torch.get_rng_state()
    check_classifier(toy)
    assert torch.equal(torch.get_rng_state(), before)
