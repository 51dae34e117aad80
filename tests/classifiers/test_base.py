"""A base classifier is one fixed function of one image; whatever is not is refused with the reason."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import config
from torch import Tensor, nn

from robustify import Identity, SmoothedClassifier
from robustify.classifiers import ImageClassifier, Preprocessing, ResizeCrop
from robustify.errors import InputError, ModelError

MEAN, STD, SIZE = (0.1, 0.4, 0.8), (0.5, 0.25, 0.2), (6, 8)


PREPROCESSING = Preprocessing(MEAN, STD, SIZE)


class Logits(nn.Module):
    """A linear classifier followed by any function of its logits."""

    def __init__(self, after: Callable[[Tensor], object], classes: int = 5) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 6 * 8, classes)
        self.after = after

    def forward(self, normalised: Tensor) -> object:
        return self.after(self.linear(normalised.flatten(1)))


@contextmanager
def unchecked_types() -> Iterator[None]:
    """As users run the package: the types of tensors are checked in tests alone."""
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", False)


def identity(logits: Tensor) -> Tensor:
    return logits


def linear(after: Callable[[Tensor], object] = identity, classes: int = 5) -> nn.Module:
    """A network in evaluation mode, the same each time."""
    torch.manual_seed(0)
    return Logits(after, classes).eval()


class TestFunction:
    def test_subtracts_the_mean_then_divides_by_std(self) -> None:
        network = linear()
        pixels = torch.rand(2, 3, *SIZE)
        channels = [(pixels[:, i] - MEAN[i]) / STD[i] for i in range(3)]
        expected = network(torch.stack(channels, dim=1))
        torch.testing.assert_close(ImageClassifier(network, PREPROCESSING)(pixels), expected)

    def test_pixels_outside_zero_to_one_are_not_clipped(self) -> None:
        """Noise is measured unclipped, so the classifier must see it so."""
        network = linear()
        pixels = torch.full((1, 3, *SIZE), 3.0)
        normalised = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        torch.testing.assert_close(ImageClassifier(network, PREPROCESSING)(pixels), network(normalised))

    @pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
    @pytest.mark.parametrize("size", [(12, 16), (5, 5)], ids=["down", "up"])
    def test_another_size_is_resized_before_the_mean(self, size: tuple[int, int], interpolation: str) -> None:
        """As when a denoiser works at its own resolution; torch has no lanczos, and nearest would alias."""
        network = linear()
        preprocessing = Preprocessing(MEAN, STD, SIZE, ResizeCrop(interpolation))
        classifier = ImageClassifier(network, preprocessing)
        pixels = torch.rand(2, 3, *size)
        mode = "bilinear" if interpolation == "bilinear" else "bicubic"
        resized = F.interpolate(pixels, SIZE, mode=mode, antialias=True)
        torch.testing.assert_close(classifier(pixels), classifier(resized))
        assert not torch.allclose(classifier(pixels), classifier(F.interpolate(pixels, SIZE)))

    def test_gray_pixels_become_three_equal_channels(self) -> None:
        classifier = ImageClassifier(linear(), PREPROCESSING)
        gray = torch.rand(2, 1, *SIZE)
        torch.testing.assert_close(classifier(gray), classifier(gray.expand(-1, 3, -1, -1)))

    @pytest.mark.parametrize("channels", [2, 4])
    def test_other_channels_are_refused(self, channels: int) -> None:
        with pytest.raises(InputError, match=f"expected 3 channels; got {channels}"):
            ImageClassifier(linear(), PREPROCESSING)(torch.rand(1, channels, *SIZE))

    def test_bytes_are_refused(self) -> None:
        """They would be taken for pixels of up to 255 times white."""
        pixels = torch.zeros(1, 3, *SIZE, dtype=torch.uint8)
        classifier = ImageClassifier(linear(), PREPROCESSING)
        with unchecked_types(), pytest.raises(InputError, match=r"numbers; got torch\.uint8.*\n.*/ 255"):
            classifier(pixels)

    def test_colour_is_refused_by_a_gray_network(self) -> None:
        gray = ImageClassifier(
            nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).eval(), Preprocessing((0.5,), (0.5,), SIZE)
        )
        assert gray(torch.rand(1, 1, *SIZE)).shape == (1, 2)
        with pytest.raises(InputError, match="expected 1 channels; got 3"):
            gray(torch.rand(1, 3, *SIZE))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
    def test_networks_keep_their_precision_and_logits_are_float32(self, dtype: torch.dtype) -> None:
        network = linear().to(dtype)
        classifier = ImageClassifier(network, PREPROCESSING)
        pixels = torch.rand(2, 3, *SIZE)
        assert classifier.dtype is dtype
        assert classifier(pixels).dtype is torch.float32
        expected = network(PREPROCESSING.network_input(pixels).to(dtype)).float()
        torch.testing.assert_close(classifier(pixels), expected, rtol=0, atol=0)

    def test_network_without_parameters(self) -> None:
        classifier = ImageClassifier(nn.Flatten().eval(), PREPROCESSING)
        assert classifier.dtype is torch.float32
        assert classifier.device == torch.device("cpu")

    def test_gradients_reach_the_pixels(self) -> None:
        pixels = torch.rand(1, 3, *SIZE, requires_grad=True)
        ImageClassifier(linear(), PREPROCESSING)(pixels).sum().backward()
        assert pixels.grad is not None
        assert bool((pixels.grad != 0).all())

    def test_finding_the_classes_leaves_the_global_generator_alone(self) -> None:
        network = linear()
        torch.manual_seed(7)
        expected = torch.rand(3)
        torch.manual_seed(7)
        ImageClassifier(network, PREPROCESSING)
        torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


class TestLabels:
    def test_are_numbers_by_default(self) -> None:
        assert ImageClassifier(linear(), PREPROCESSING).labels == tuple("01234")

    def test_are_kept_as_strings(self) -> None:
        assert ImageClassifier(linear(classes=2), PREPROCESSING, labels=["cat", "dog"]).labels == ("cat", "dog")

    @pytest.mark.parametrize("labels", [[], list("abcd"), list("abcdef")], ids=len)
    def test_of_another_number_are_refused(self, labels: Sequence[str]) -> None:
        with pytest.raises(InputError, match=f"mine has 5 classes; got {len(labels)} labels"):
            ImageClassifier(linear(), PREPROCESSING, labels=labels, name="mine")

    def test_that_several_classes_share_are_numbered_and_the_user_is_told(self) -> None:
        labels = ["crane", "crane (2)", "crane", "fox", "crane"]
        with pytest.warns(UserWarning, match=r"2 classes of mine have the name of another.*'crane \(3\)' first"):
            found = ImageClassifier(linear(), PREPROCESSING, labels=labels, name="mine").labels
        assert found == ("crane", "crane (2)", "crane (3)", "fox", "crane (4)")

    def test_name_and_licence(self) -> None:
        classifier = ImageClassifier(linear(), PREPROCESSING, name="mine", licence="mit")
        assert (classifier.name, classifier.licence) == ("mine", "mit")
        unnamed = ImageClassifier(linear(), PREPROCESSING)
        assert (unnamed.name, unnamed.licence) == ("classifier", None)


def smoothed(network: nn.Module) -> SmoothedClassifier:
    return SmoothedClassifier(ImageClassifier(network, PREPROCESSING), Identity(), sigma=0.25)


def certify(network: nn.Module) -> None:
    """Asks for a certificate, before which the network is probed."""
    smoothed(network).certify(torch.zeros(3, *SIZE), n=20, n0=5, batch=16)


class TestNotAFixedFunction:
    """A model that depends on its batch, on training mode or on chance is refused, at the latest when it certifies."""

    def test_training_mode(self) -> None:
        with pytest.raises(ModelError, match=r"training mode \(2 modules, first 'Logits'\).*\n.*model\.eval\(\)"):
            ImageClassifier(linear().train(), PREPROCESSING)

    def test_one_layer_in_training_mode(self) -> None:
        network = linear()
        network.linear.train()
        with pytest.raises(ModelError, match=r"training mode \(1 modules, first 'linear'\)"):
            ImageClassifier(network, PREPROCESSING)
        assert network.linear.training

    @pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.SyncBatchNorm], ids=lambda norm: norm.__name__)
    def test_batch_normalisation_without_running_statistics(self, norm: type[nn.Module]) -> None:
        network = nn.Sequential(norm(3, track_running_stats=False), linear()).eval()
        with pytest.raises(
            ModelError, match=r"layer '0' \(.*BatchNorm.*\) has no running statistics.*\n.*track_running"
        ):
            ImageClassifier(network, PREPROCESSING)

    def test_batch_normalisation_with_running_statistics_is_fine(self) -> None:
        assert ImageClassifier(nn.Sequential(nn.BatchNorm2d(3), linear()).eval(), PREPROCESSING).labels

    def test_normalisation_per_image_is_fine(self) -> None:
        assert ImageClassifier(nn.Sequential(nn.InstanceNorm2d(3), linear()).eval(), PREPROCESSING).labels

    @pytest.mark.parametrize(
        "after",
        [
            lambda logits: logits - logits.mean(dim=0),
            lambda logits: 1e-5 * (logits - logits.mean(dim=0)),
            lambda logits: logits / logits.abs().max(),
            lambda logits: logits + 0.01 * logits.roll(1, dims=0),
            lambda logits: (logits / logits.abs().max() * 7).round(),
        ],
        ids=["batch mean", "batch mean, small", "batch maximum", "a neighbour", "per-tensor quantisation"],
    )
    def test_batch_mates_that_matter(self, after: Callable[[Tensor], Tensor]) -> None:
        with pytest.raises(ModelError, match="with other images beside them"):
            certify(linear(after))

    def test_batch_mates_that_matter_to_a_prediction(self) -> None:
        with pytest.raises(ModelError, match="with other images beside them"):
            smoothed(linear(lambda logits: logits - logits.mean(dim=0))).predict(torch.zeros(3, *SIZE), n=20, batch=16)

    def test_place_in_the_batch_that_matters(self) -> None:
        def ranked(logits: Tensor) -> Tensor:
            return logits + torch.arange(len(logits)).unsqueeze(1)

        with pytest.raises(ModelError, match="with other images beside them"):
            certify(linear(ranked))

    def test_dropout_that_ignores_evaluation_mode(self) -> None:
        with pytest.raises(ModelError, match=r"two passes over the same.*\n.*dropout that ignores eval"):
            certify(linear(lambda logits: F.dropout(logits, p=0.2)))

    def test_random_logits(self) -> None:
        with pytest.raises(ModelError, match="two passes over the same"):
            certify(linear(lambda logits: logits + 0.1 * torch.randn_like(logits)))

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_logits_that_are_not_finite(self, value: float) -> None:
        with pytest.raises(ModelError, match="logits that are not finite"):
            ImageClassifier(linear(lambda logits: logits * value), PREPROCESSING)

    def test_large_and_small_logits_are_fine(self) -> None:
        for scale in (1e-4, 1e4):
            assert ImageClassifier(linear(lambda logits, scale=scale: scale * logits), PREPROCESSING).labels


class TestNotAClassifier:
    @pytest.mark.parametrize(
        ("after", "found"),
        [
            (lambda logits: logits[:, :, None, None], r"\(4, 5, 1, 1\)"),
            (lambda logits: logits.flatten(), r"\(20,\)"),
            (lambda logits: logits[:1], r"\(1, 5\)"),
            (lambda logits: (logits, logits), "tuple"),
            (lambda logits: {"logits": logits}, "dict"),
        ],
        ids=["features", "vector", "other batch", "tuple", "dictionary"],
    )
    def test_output_is_no_matrix_of_logits(self, after: Callable[[Tensor], object], found: str) -> None:
        with pytest.raises(ModelError, match=rf"\(4, \.\.\.\); mine returns {found}\.\n.*feature extractor"):
            ImageClassifier(linear(after), PREPROCESSING, name="mine")

    def test_one_output(self) -> None:
        with pytest.raises(ModelError, match="at least 2 classes; mine has 1 output"):
            ImageClassifier(linear(classes=1), PREPROCESSING, name="mine")

    @pytest.mark.parametrize(
        "preprocessing",
        [Preprocessing(MEAN, STD, (5, 5)), Preprocessing((0.5,), (0.5,), SIZE)],
        ids=["size", "channels"],
    )
    def test_input_that_the_network_cannot_take(self, preprocessing: Preprocessing) -> None:
        with pytest.raises(ModelError, match=r"mine cannot classify input of shape \(4, .*\n.*size"):
            ImageClassifier(linear(), preprocessing, name="mine")

    @pytest.mark.parametrize("error", [KeyError("x"), IndexError("x"), AttributeError("x"), NotImplementedError("x")])
    def test_network_that_fails(self, error: Exception) -> None:
        def fail(logits: Tensor) -> Tensor:
            raise error

        with pytest.raises(ModelError, match=rf"mine cannot classify input .*{type(error).__name__}: '?x"):
            ImageClassifier(linear(fail), PREPROCESSING, name="mine")


class Viewing(nn.Module):
    """A convolution whose output is viewed, as code that knows only contiguous memory does."""

    def __init__(self, how: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.how = how
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4 * 36, 3)
        self.seen: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.is_contiguous(memory_format=torch.channels_last))
        logits: Tensor = self.head(self.how(self.conv(x)))
        return logits


@pytest.mark.parametrize(
    ("how", "channels_last"),
    [
        (lambda x: x.flatten(1), True),
        (lambda x: x.view(len(x), -1), False),
        (lambda x: x.as_strided((len(x), 144), (144, 1)), False),
    ],
    ids=["flatten", "view", "strides"],
)
def test_convolutions_get_channels_last_where_the_network_bears_it(
    how: Callable[[Tensor], Tensor], channels_last: bool
) -> None:
    network = Viewing(how).eval()
    classifier = ImageClassifier(network, Preprocessing((0.5,) * 3, (0.5,) * 3, (8, 8)))
    pixels = torch.rand(5, 3, 8, 8)
    logits = classifier(pixels)
    assert network.seen[-1] == channels_last
    torch.testing.assert_close(logits, network(classifier.preprocessing.network_input(pixels).contiguous()))
