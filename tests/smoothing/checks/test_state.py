"""What counts as a change of the model, after which it is checked anew."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from robustify.errors import ModelError
from robustify.smoothing.checks.state import state
from tests.smoothing.checks.faulty import DEPENDENT, Classifier, build, certify, counting, healthy, shared_vector

CHANGES: dict[str, Callable[[Classifier], object]] = {
    "data": lambda network: setattr(network.linear.weight, "data", torch.ones(3, 16)),
    "weights": lambda network: network.linear.load_state_dict({"weight": torch.ones(3, 16), "bias": torch.ones(3)}),
    "layer": lambda network: setattr(network, "linear", nn.Linear(16, 3).eval()),
    "function": lambda network: setattr(network, "fault", lambda x: 2 * x),
    "setting": lambda network: setattr(network.linear, "setting", 3),
    "hook": lambda network: network.linear.register_forward_hook(lambda module, args, output: 2 * output),
    "hook before": lambda network: network.linear.register_forward_pre_hook(lambda module, args: None),
    "one more layer": lambda network: network.extra.append(nn.Hardtanh().eval()),
    "dtype": lambda network: network.double(),
}


class TestMemory:
    def test_an_unchanged_model_is_checked_once_before_its_runs(self) -> None:
        model, network, _ = build()
        network.fault = counting(sizes := [])
        for expected in (1 + 11, 11, 11):  # 56 draws and 8 probes, then 63 and one
            sizes.clear()
            certify(model, n=540)  # and 100 draws that choose the label
            assert len(sizes) == expected

    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    def test_a_changed_network_is_another_state(self, change: Callable[[Classifier], object]) -> None:
        network = Classifier().eval()
        before = state(network)
        assert state(network) == before
        change(network)
        assert state(network) != before

    def test_an_optimiser_step_is_another_state(self) -> None:
        network = Classifier().eval()
        before = state(network)
        network.linear(torch.ones(1, 16)).sum().backward()
        torch.optim.SGD(network.parameters(), lr=0.1).step()
        assert state(network) != before

    def test_another_fault_batch_or_precision_is_probed_again(self) -> None:
        model, network, denoiser = build()
        certify(model)
        for part, fault in ((network, shared_vector), (denoiser, DEPENDENT["batch mean"])):
            part.fault = fault
            with pytest.raises(ModelError, match="no fixed function"):
                certify(model)
            part.fault = healthy
        certify(model)
        network.fault = lambda x: x if len(x) != 32 else x - x.mean(dim=0)
        certify(model)
        with pytest.raises(ModelError, match="no fixed function"):
            certify(model, batch=32)
        network.fault = lambda x: x + 0.1 * torch.is_autocast_enabled("cpu") * x.mean(dim=0)
        certify(model)
        model.pipeline.precision = "float16"
        with pytest.raises(ModelError, match="no fixed function"):
            certify(model)

    def test_other_products_of_the_process_are_checked_again_and_are_part_of_the_numerics(self) -> None:
        model, network, _ = build()
        network.fault = counting(sizes := [])
        certify(model)
        assert str(model.numerics) == "float32"
        passes = len(sizes)
        torch.set_float32_matmul_precision("medium")
        try:
            sizes.clear()
            assert str(certify(model).provenance.numerics) == "float32, bf16 products"
            assert len(sizes) == passes + 2  # in lower precision a check takes three passes
        finally:
            torch.set_float32_matmul_precision("highest")
