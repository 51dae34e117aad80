"""Networks whose mode is no setting: exported graphs, quantised layers, TorchScript."""

import copy

import pytest
import torch
from torch import nn
from torch.export import Dim

from robustify import SmoothedClassifier, robustify
from robustify.certificates.family import Bound
from robustify.classifiers import ImageClassifier, Preprocessing
from robustify.classifiers.base import check_evaluation_mode
from robustify.errors import ModelError
from robustify.smoothing.fingerprint import classifier_fingerprint
from robustify.testing import check_classifier

PREPROCESSING = Preprocessing((0.1, 0.4, 0.8), (0.5, 0.25, 0.2), (8, 8))
quantised = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
scripted = pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated")


class Network(nn.Module):
    """Every kind of layer that a mode or a conversion changes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.1)
        self.fc = nn.Linear(4 * 64, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(self.drop(torch.relu(self.norm(self.conv(x)))).flatten(1))
        return logits


def exported(network: nn.Module, *, batch: object = Dim.DYNAMIC) -> nn.Module:
    shapes = None if batch is None else ({0: batch},)
    return torch.export.export(network, (torch.rand(2, 3, 8, 8),), dynamic_shapes=shapes).module()


def smoothed(network: nn.Module) -> SmoothedClassifier:
    return robustify(network, preprocessing=PREPROCESSING, sigma=0.25)


def bounds(network: nn.Module) -> tuple[Bound, ...]:
    """What a certificate of the smoothed network says, for the same draws each time."""
    return smoothed(network).certify(torch.zeros(3, 8, 8), n=200, n0=20, batch=16, seed=3).bounds


class TestExported:
    def test_logits_are_those_of_the_network(self) -> None:
        pixels = torch.rand(3, 3, 8, 8)
        expected = ImageClassifier(Network().eval(), PREPROCESSING)(pixels)
        classifier = ImageClassifier(exported(Network().eval()), PREPROCESSING)
        torch.testing.assert_close(classifier(pixels), expected)

    def test_keeps_its_mode_whatever_the_layers_above_it_do(self) -> None:
        classifier = ImageClassifier(exported(Network().eval()), PREPROCESSING)
        check_evaluation_mode(classifier.train().eval())

    def test_is_a_classifier_like_others(self) -> None:
        check_classifier(ImageClassifier(exported(Network().eval()), PREPROCESSING))

    def test_certifies(self) -> None:
        assert bounds(exported(Network().eval())) == bounds(Network().eval())

    def test_in_training_mode_is_refused(self) -> None:
        """Its operations tell, as `training` is True for every exported graph."""
        with pytest.raises(ModelError, match=r"training mode \(2 modules, first 'batch_norm'\).*\n.*exported again"):
            ImageClassifier(exported(Network().train()), PREPROCESSING)

    def test_for_one_batch_size_is_refused_with_the_remedy(self) -> None:
        with pytest.raises(ModelError, match=r"(?s)cannot classify input.*dynamic_shapes=\(\{0"):
            ImageClassifier(exported(Network().eval(), batch=None), PREPROCESSING)

    def test_inside_another_module_is_refused(self) -> None:
        network = nn.Sequential(exported(Network().eval()), nn.Identity())
        network[1].eval()
        network.training = False
        with pytest.raises(ModelError, match=r"layer '0' is a graph of torch\.export.*\n.*Export the whole"):
            ImageClassifier(network, PREPROCESSING)

    def test_layers_beside_one_must_be_in_evaluation_mode(self) -> None:
        network = nn.ModuleDict({"graph": exported(Network().eval()), "graphic": nn.Dropout(0.5)})
        network.training = False
        with pytest.raises(ModelError, match=r"1 modules, first 'graphic'"):
            check_evaluation_mode(network)


@quantised
class TestQuantised:
    def converted(self) -> nn.Module:
        """The network in 8 bits with fixed scales; `convert` leaves the new layers in training mode."""
        torch.backends.quantized.engine = torch.backends.quantized.supported_engines[-1]
        from torch.ao.quantization import DeQuantStub, QuantStub, convert, get_default_qconfig, prepare

        network = nn.Sequential(QuantStub(), Network(), DeQuantStub()).eval()
        network.qconfig = get_default_qconfig(torch.backends.quantized.engine)
        prepared = prepare(network)
        prepared(torch.randn(64, 3, 8, 8))
        return convert(prepared)

    def test_layers_are_not_told_to_leave_training_mode(self) -> None:
        network = self.converted()
        assert any(module.training for module in network.modules())
        classifier = ImageClassifier(copy.deepcopy(network), PREPROCESSING)
        pixels = torch.rand(3, 3, 8, 8)
        torch.testing.assert_close(classifier(pixels), network(PREPROCESSING.network_input(pixels)))

    def test_other_layers_are(self) -> None:
        network = self.converted()
        network.train()
        with pytest.raises(ModelError, match="training mode"):
            ImageClassifier(network, PREPROCESSING)

    def test_fingerprint_tells_weights_apart(self) -> None:
        one, other = smoothed(self.converted()), smoothed(self.converted())
        assert classifier_fingerprint(one.classifier) == classifier_fingerprint(other.classifier)
        state = other.classifier.network.state_dict()
        weight, bias = state["1.fc._packed_params._packed_params"]
        state["1.fc._packed_params._packed_params"] = weight, bias + 1
        other.classifier.network.load_state_dict(state)
        assert classifier_fingerprint(one.classifier) != classifier_fingerprint(other.classifier)

    def test_certifies(self) -> None:
        """Eight bits change few votes, and the same ones each time."""
        found, expected = bounds(self.converted()), bounds(Network().eval())
        assert found == bounds(self.converted())
        assert found[0].p_lower == pytest.approx(expected[0].p_lower, abs=0.1)


@scripted
class TestTorchScript:
    def test_certifies(self) -> None:
        for network in (torch.jit.script(Network().eval()), self.frozen()):
            assert bounds(network) == bounds(Network().eval())

    def frozen(self) -> nn.Module:
        """It has no `training` any more."""
        return torch.jit.freeze(torch.jit.script(Network().eval()))

    @pytest.mark.parametrize("kind", ["scripted", "traced", "frozen"])
    def test_logits_are_those_of_the_network(self, kind: str) -> None:
        network = Network().eval()
        made = {
            "scripted": lambda: torch.jit.script(network),
            "traced": lambda: torch.jit.trace(network, torch.rand(2, 3, 8, 8)),
            "frozen": self.frozen,
        }[kind]()
        pixels = torch.rand(3, 3, 8, 8)
        expected = ImageClassifier(network, PREPROCESSING)(pixels)
        torch.testing.assert_close(ImageClassifier(made, PREPROCESSING)(pixels), expected)

    def test_in_training_mode_is_refused(self) -> None:
        with pytest.raises(ModelError, match="training mode"):
            ImageClassifier(torch.jit.script(Network()), PREPROCESSING)

    def test_batch_normalisation_without_running_statistics_is_refused(self) -> None:
        network = Network()
        network.norm = nn.BatchNorm2d(4, track_running_stats=False)
        with pytest.raises(ModelError, match=r"layer 'norm' .* has no running statistics"):
            ImageClassifier(torch.jit.script(network.eval()), PREPROCESSING)
