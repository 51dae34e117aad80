"""Every conformance check passes what is right and names what is wrong: each fault is injected once."""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import SimpleNamespace
from typing import Any, TypeAlias

import pytest
import torch
from PIL import Image as PILImage
from torch import Tensor, nn

from robustify.classifiers import ImageClassifier, Preprocessing, ResizeCrop
from robustify.classifiers.preprocessing import Geometry
from robustify.denoisers import Denoiser, Identity
from robustify.errors import InputError, ModelError
from robustify.registry import CLASSIFIERS, DENOISERS
from robustify.testing import check_classifier, check_denoiser, check_source

Function: TypeAlias = Callable[[Tensor], Tensor]
LISTED = ["ball", "boat[1]", "kite"]
CLASSES = 5
SIGMA = 0.25


def listing(pattern: str = "*", /) -> list[str]:
    return [name for name in LISTED if fnmatchcase(name, pattern)]


def source(**parts: object) -> object:
    return SimpleNamespace(**{"load": str.upper, "names": listing} | parts)


@pytest.mark.parametrize("listed", [listing, lambda pattern="*", /: []], ids=["some", "too many to list"])
def test_a_source_passes(listed: Callable[..., list[str]]) -> None:
    check_source(source(names=listed))


@pytest.mark.parametrize("name", ["timm", "open_clip", "hf", "zoo"])
def test_our_classifier_sources_pass(name: str) -> None:
    check_source(CLASSIFIERS.find(name))


@pytest.mark.parametrize("name", ["diffusers", "zoo"])
def test_our_denoiser_sources_pass(name: str) -> None:
    check_source(DENOISERS.find(name))


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ({"load": None}, "has no function 'load'"),
        ({"names": LISTED}, "has no function 'names'"),
        ({"load": lambda: None}, r"load\(\) .* cannot be called as load\('name'\)"),
        ({"load": lambda name, revision: None}, r"missing a required argument: 'revision'"),
        ({"names": lambda: LISTED}, r"names\(\) .* cannot be called as names\('pattern\*'\)"),
        ({"names": lambda pattern: LISTED}, r"cannot be called as names\(\)"),
        ({"names": lambda pattern="*": tuple(LISTED)}, "a list of str; got .'ball'"),
        ({"names": lambda pattern="*": [1, 2]}, r"a list of str; got \[1, 2\]"),
        ({"names": lambda pattern="*": LISTED[::-1]}, "sorted and each once"),
        ({"names": lambda pattern="*": ["ball", "ball"]}, "sorted and each once"),
        ({"names": lambda pattern="*": LISTED}, r"expected names\('b\*'\) to be \['ball', 'boat\[1\]'\]"),
        ({"names": lambda pattern="*": LISTED if pattern == "*" else []}, r"expected names\('b\*'\) to be .* got \[\]"),
    ],
)
def test_a_faulty_source_is_told_what_is_wrong(fault: dict[str, Any], text: str) -> None:
    with pytest.raises(ModelError, match=text):
        check_source(source(**fault))


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


class Mean(Denoiser):
    """The mean over a neighbourhood; `after` takes faults."""

    name = "mean"
    channels: int | None = None
    size: tuple[int, int] | None = None
    licence = None

    def __init__(self, after: Function | None = None, line: str = "mean over 3×3 pixels") -> None:
        super().__init__()
        self.after, self.line = after, line
        self.pool = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        self.eval()

    def forward(self, noisy: Tensor, sigma: float) -> Tensor:
        clean: Tensor = self.pool(noisy).clamp(0, 1)
        return self.after(clean) if self.after else clean

    def describe(self, sigma: float) -> str:
        return self.line


@pytest.fixture
def clean() -> Tensor:
    return torch.stack([ramp := torch.linspace(0, 1, 16).expand(3, 16, 16), ramp.mT]).clone()


@pytest.mark.parametrize("images", [1, 2])
def test_a_denoiser_passes(clean: Tensor, images: int) -> None:
    check_denoiser(Mean(), clean[:images], sigma=SIGMA)


def one_seed(x: Tensor) -> Tensor:
    torch.manual_seed(0)
    return (x + 0.01 * torch.randn_like(x)).clamp(0, 1)


@pytest.mark.parametrize(
    ("after", "text"),
    [
        (lambda x: x[..., 1:-1, 1:-1], r"the same shape and dtype, .*\(2, 3, 16, 16\).* gives .*\(2, 3, 14, 14\)"),
        (torch.Tensor.double, "the same shape and dtype, .* gives .*float64"),
        (lambda x: (x,), "the same shape and dtype, .* gives tuple"),
        (lambda x: 2 * x - 1, r"in \[0, 1\]; mean gives -"),
        (lambda x: x / 0 * 0, r"in \[0, 1\]; mean gives nan"),
        (lambda x: (x + 0.01 * torch.randn_like(x)).clamp(0, 1), "two answers for the same pixels"),
        (one_seed, "draws random numbers"),
        (lambda x: 0.9 * x + 0.1 * x.mean(), "differ by .* with other images beside them"),
        (lambda x: x if len(x) > 1 else x[0], r"gives shape \(3, 16, 16\) for one image"),
        (lambda x: 1 - x, "worse than leaving the noise in"),
    ],
)
def test_a_faulty_denoiser_is_told_what_is_wrong(clean: Tensor, after: Function, text: str) -> None:
    with pytest.raises(ModelError, match=text):
        check_denoiser(Mean(after), clean, sigma=SIGMA)


class InPlace(Mean):
    def forward(self, noisy: Tensor, sigma: float) -> Tensor:
        return super().forward(noisy.mul_(0.99), sigma)


def test_a_denoiser_that_changes_its_input_is_refused(clean: Tensor) -> None:
    with pytest.raises(ModelError, match="mean changes in place the pixels"):
        check_denoiser(InPlace(), clean, sigma=SIGMA)


def test_leaving_the_noise_in_is_refused() -> None:
    clean = torch.full((1, 1, 8, 8), 0.5)
    with pytest.raises(ModelError, match=r"none is worse than leaving the noise in: mean squared error .*sigma=0.01"):
        check_denoiser(Identity(), clean, sigma=0.01)
    with pytest.raises(ModelError, match=r"in \[0, 1\]; none gives -"):
        check_denoiser(Identity(), clean, sigma=1.0)


def test_a_denoiser_in_training_mode_is_refused(clean: Tensor) -> None:
    with pytest.raises(ModelError, match="training mode"):
        check_denoiser(Mean().train(), clean, sigma=SIGMA)


@pytest.mark.parametrize("line", ["", " ", "two\nlines"])
def test_a_denoiser_must_describe_itself_in_one_line(clean: Tensor, line: str) -> None:
    with pytest.raises(ModelError, match="one line for the input contract"):
        check_denoiser(Mean(line=line), clean, sigma=SIGMA)


def test_images_that_the_denoiser_cannot_take_are_the_callers_fault(clean: Tensor) -> None:
    gray = Mean()
    gray.channels, gray.size = 1, (16, 16)
    with pytest.raises(InputError, match=r"works on images of shape \(1, 16, 16\); got \(3, 16, 16\)"):
        check_denoiser(gray, clean, sigma=SIGMA)
    with pytest.raises(InputError, match=r"clean pixels in \[0, 1\]; got -1 to 1"):
        check_denoiser(Mean(), 2 * clean - 1, sigma=SIGMA)


def test_checks_leave_the_global_generator_alone(clean: Tensor) -> None:
    toy, before = classifier(), torch.get_rng_state()
    check_classifier(toy)
    check_denoiser(Mean(), clean, sigma=SIGMA)
    assert torch.equal(torch.get_rng_state(), before)
