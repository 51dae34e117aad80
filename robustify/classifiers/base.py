"""The classifier that is certified: one fixed function of pixels in [0, 1] to logits."""

import warnings
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from robustify.classifiers.graphs import BATCH_HINT, Exported, as_layer, in_training_mode, is_batch_norm
from robustify.classifiers.preprocessing import Preprocessing
from robustify.classifiers.weights import check_loaded
from robustify.errors import InputError, ModelError
from robustify.types import Levels, Logits, NetworkInput, Pixels


@final
class ImageClassifier(nn.Module):
    """A network with its preprocessing: maps pixels in [0, 1] to logits.

    Arguments:
        network: Maps normalised input of shape (B, C, H, W) to logits of shape (B, classes), in evaluation mode.
        preprocessing: The network's own mean, std, size and geometry.
        labels: One name for each class; the class indices if None. Names that several classes share are numbered.
        name: Name of the model in certificates and reports.
        licence: Licence of the weights, where it is known.
        noise_conditioned: Whether the network denoises by itself, told how much noise there is: it is called with the
            standard deviation of each image's noise too, in [0, 1] pixels, as a float32 tensor of shape (B) on its
            device; 0 for clean images. No denoiser goes before it.

    Raises:
        ModelError: If the network has no weights yet, is in training mode, normalises by its batch, or is no
            classifier.
        InputError: If there are more or fewer labels than classes.

    Warns:
        UserWarning: If several classes have the same name.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        *,
        labels: Sequence[str] | None = None,
        name: str = "classifier",
        licence: str | None = None,
        noise_conditioned: bool = False,
    ) -> None:
        super().__init__()
        check_loaded(network)
        check_evaluation_mode(network)
        self.network = as_layer(network)
        self.preprocessing = preprocessing
        self.name = name
        self.licence = licence
        self.noise_conditioned = noise_conditioned
        self.eval()
        self.memory_format = torch.contiguous_format
        classes = _count_classes(self)
        self.memory_format = _fast_format(self)
        self.labels = tuple(map(str, range(classes)))
        if labels is not None:
            self.set_labels(labels)

    def set_labels(self, labels: Sequence[str]) -> None:
        """Names the classes; names that several classes share are numbered: "crane", "crane (2)".

        Raises:
            InputError: If there are more or fewer labels than classes.

        Warns:
            UserWarning: If several classes have the same name.
        """
        if len(labels) != len(self.labels):
            raise InputError(f"{self.name} has {len(self.labels)} classes; got {len(labels)} labels")
        self.labels = _numbered(list(map(str, labels)), self.name)

    def forward(self, pixels: Pixels, sigma: Levels = 0.0) -> Logits:
        """Logits in float32, shape (B, classes).

        Arguments:
            pixels: Images of shape (B, C, H, W).
            sigma: Standard deviation of the noise that is in them, in [0, 1] pixels: one number for all images, or one
                for each. Only noise-conditioned networks are told.

        Raises:
            InputError: If the pixels are no floating-point numbers, or have other channels than the network.
        """
        network_input = self.preprocessing.network_input(pixels).to(self.dtype)
        shown = network_input.contiguous(memory_format=self.memory_format)
        logits: Tensor = self.network(shown, *self._told(shown, sigma))
        return logits.float()

    def _told(self, network_input: NetworkInput, sigma: Levels = 0.0) -> list[Tensor]:
        """What the network is told beside its input: the noise level of each image, or nothing."""
        if not self.noise_conditioned:
            return []
        level = torch.as_tensor(sigma, dtype=torch.float32, device=network_input.device)
        return [level + torch.zeros(len(network_input), device=level.device)]

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the network's parameters; float32 where it has none."""
        return next((p.dtype for p in self.network.parameters() if p.is_floating_point()), torch.float32)

    @property
    def device(self) -> torch.device:
        """Device of the network's parameters; the CPU where it has none."""
        return next((p.device for p in self.network.parameters()), torch.device("cpu"))


def _numbered(labels: Sequence[str], name: str) -> tuple[str, ...]:
    """Distinct labels: a name that an earlier class has gets the next number that makes it new."""
    taken, distinct, changed = set(labels), dict[str, None](), list[str]()
    for label in labels:
        new = label
        if label in distinct:
            new = next(n for n in (f"{label} ({i})" for i in range(2, len(labels) + 2)) if n not in taken)
            changed.append(new)
        taken.add(new)
        distinct[new] = None
    if changed:
        warnings.warn(
            f"{len(changed)} classes of {name} have the name of another class: they are numbered, {changed[0]!r} "
            "first.\n  Give names that tell them apart, such as with classes=.",
            stacklevel=4,
        )
    return tuple(distinct)


def check_evaluation_mode(network: nn.Module) -> None:
    """Refuses networks in training mode, and layers that normalise by the statistics of a batch.

    Raises:
        ModelError: If any submodule is in training mode, or is a batch normalisation without running statistics.
    """
    training = in_training_mode(network)
    if training:
        raise ModelError(
            f"the model is in training mode ({len(training)} modules, first {training[0]!r}): dropout and batch "
            "statistics would make its votes depend on each other.\n"
            "  Call model.eval() first; a graph of torch.export must be exported again after it."
        )
    for name, module in network.named_modules():
        if is_batch_norm(module) and getattr(module, "running_mean", None) is None:
            raise ModelError(
                f"the layer {name!r} ({type(module).__name__}) has no running statistics: its output depends on "
                "the other images in the batch, so draws are not independent and no certificate would hold.\n"
                "  Use track_running_stats=True, or a normalisation per image."
            )


@torch.no_grad()
def _count_classes(classifier: ImageClassifier) -> int:
    """Number of logits for each image, found by classifying four images of uniform noise.

    Raises:
        ModelError: If the network fails, or returns no matrix of finite logits.
    """
    probe = _uniform_noise(classifier)
    try:
        network_input = classifier.preprocessing.network_input(probe).to(classifier.dtype)
        network_output = classifier.network(network_input, *classifier._told(network_input))
    except Exception as error:  # networks are anybody's code
        hint = BATCH_HINT if isinstance(classifier.network, Exported) else ""
        raise ModelError(
            f"{classifier.name} cannot classify input of shape {tuple(probe.shape)}, which its preprocessing "
            f"promises: {type(error).__name__}: {error}\n"
            f"  Check size and the number of channels in mean and std. {hint}".rstrip()
        ) from error
    if not isinstance(network_output, Tensor) or network_output.ndim != 2 or network_output.shape[0] != len(probe):
        found = tuple(network_output.shape) if isinstance(network_output, Tensor) else type(network_output).__name__
        raise ModelError(
            f"expected logits of shape (batch, classes) = ({len(probe)}, ...); {classifier.name} returns {found}.\n"
            "  Is it a feature extractor? Give it a classification head, or wrap it to return logits."
        )
    if network_output.shape[1] < 2:
        raise ModelError(
            f"expected at least 2 classes; {classifier.name} has {network_output.shape[1]} output per image"
        )
    if not bool(network_output.isfinite().all()):
        raise ModelError(f"{classifier.name} returns logits that are not finite for images of uniform noise in [0, 1]")
    return int(network_output.shape[1])


def _uniform_noise(classifier: ImageClassifier) -> Pixels:
    """Four images, the same each time."""
    p = classifier.preprocessing
    generator = torch.Generator().manual_seed(0)
    return torch.rand(4, p.channels, *p.size, generator=generator, dtype=torch.float32).to(classifier.device)


@torch.no_grad()
def _fast_format(classifier: ImageClassifier) -> torch.memory_format:
    """Channels last for convolutions, which a CPU computes up to 1.6 times as fast so, where the network bears it.

    Code that views its input by strides of its own raises, or answers something else: such a network gets its input as
    it always did.
    """
    if not any(isinstance(module, nn.Conv2d) for module in classifier.network.modules()):
        return torch.contiguous_format
    probe = _uniform_noise(classifier)
    network_input = classifier.preprocessing.network_input(probe).to(classifier.dtype)
    told = classifier._told(network_input)
    expected: Tensor = classifier.network(network_input, *told)
    try:
        logits: Tensor = classifier.network(network_input.contiguous(memory_format=torch.channels_last), *told)
    except Exception:  # networks are anybody's code
        return torch.contiguous_format
    # Rounding moves logits by less than a hundredth even in bfloat16; other answers differ by their own size.
    alike = float((logits - expected).abs().max()) <= 0.01 * float(expected.abs().max())
    return torch.channels_last if alike else torch.contiguous_format
