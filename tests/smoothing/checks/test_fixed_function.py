"""Whatever makes another function of every batch is refused, or its votes count as failures; healthy models pass."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import NormalDist

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from robustify import Certificate, Preprocessing, robustify
from robustify.certificates.views import PIPELINE
from robustify.errors import ModelError
from robustify.smoothing.checks.fixed_function import LEAST
from robustify.smoothing.noise import NoiseStream
from robustify.zoo import HELD_OUT
from tests.smoothing.checks.faulty import (
    ALIKE,
    DEPENDENT,
    IMAGE,
    RANDOM,
    SHAPE,
    WHERE,
    Fault,
    broken,
    build,
    certify,
    checked,
    counting,
    healthy,
    nan_beside_bright,
    shared_vector,
)


class TestInjectedFaults:
    @pytest.mark.parametrize("where", WHERE)
    @pytest.mark.parametrize("fault", DEPENDENT.values(), ids=DEPENDENT)
    def test_batch_mates_that_matter_are_refused(self, fault: Fault, where: str) -> None:
        with pytest.raises(ModelError, match=r"no fixed function of one image.*other images beside(?s:.*)quantisation"):
            certify(broken(fault, where))

    @pytest.mark.parametrize("where", WHERE)
    @pytest.mark.parametrize("fault", RANDOM.values(), ids=RANDOM)
    def test_randomness_is_refused(self, fault: Fault, where: str) -> None:
        with pytest.raises(ModelError, match=r"two passes over the same 64 noisy images differ(?s:.*)dropout"):
            certify(broken(fault, where))

    @pytest.mark.parametrize("fault", {**DEPENDENT, **RANDOM}.values(), ids={**DEPENDENT, **RANDOM})
    @pytest.mark.parametrize("precision", ["bfloat16"])
    def test_lower_precision_is_no_way_round(self, fault: Fault, precision: str) -> None:
        """Refused, or the margin is at least twice what two compositions made of the difference."""
        model = broken(fault, "classifier", precision)
        try:
            certify(model)
        except ModelError:
            return
        assert checked(model).margin.share > LEAST

    @pytest.mark.parametrize("where", WHERE)
    @pytest.mark.parametrize("layer", [nn.BatchNorm2d(1), nn.Dropout(0.1)], ids=["batch norm", "dropout"])
    def test_a_layer_in_training_mode_is_refused_before_each_run(self, layer: nn.Module, where: str) -> None:
        model, network, denoiser = build()
        part = network if where == "classifier" else denoiser
        part.extra.append(layer.eval())
        assert certify(model).n == 500
        layer.train()
        for ask in (model.certify, model.predict):
            with pytest.raises(ModelError, match=r"training mode \(1 modules.*extra.0"):
                ask(IMAGE, n=100)

    @pytest.mark.parametrize("where", WHERE)
    @pytest.mark.parametrize("layer", [nn.BatchNorm2d(1), nn.Dropout(0.1)], ids=["batch norm", "dropout"])
    def test_a_layer_in_training_mode_that_is_no_submodule_is_found_by_what_it_does(
        self, layer: nn.Module, where: str
    ) -> None:
        layer.train()
        with pytest.raises(ModelError, match="no fixed function"):
            certify(broken(layer.forward, where))

    def test_noise_that_is_expanded_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fill = NoiseStream.fill

        def expanded(stream: NoiseStream, out: Tensor) -> None:
            fill(stream, out)
            out.copy_(out[:1].clone().expand_as(out))

        monkeypatch.setattr(NoiseStream, "fill", expanded)
        with pytest.raises(ModelError, match=r"was not fed independent(?s:.*)draws that repeat"):
            certify(build()[0])

    @pytest.mark.parametrize("where", WHERE)
    def test_nan_everywhere_is_refused(self, where: str) -> None:
        with pytest.raises(ModelError, match=r"all logits are NaN or infinite(?s:.*)bfloat16 or float32"):
            certify(broken(lambda x: x * math.nan, where))

    def test_nan_sometimes_counts_as_failure(self) -> None:
        spoiled = 0.5 + 0.3
        model = broken(lambda x: x.where(x[:, :, :1, :1] < spoiled, math.nan), "classifier")
        model.denoiser.fault = healthy
        whole, partly = certify(build()[0], 2_000), certify(model, 2_000)
        assert sum(whole.votes) > 1_990
        share = 1 - NormalDist().cdf((spoiled - 4 / 9 * 128 / 255) / (0.25 * math.sqrt(4 / 81)))  # of 9 pixels, 5 pad
        assert 2_000 - sum(partly.votes) == pytest.approx(2_000 * share, abs=5 * math.sqrt(2_000 * share) + 5)
        assert partly.radius <= whole.radius

    def test_nan_that_spreads_from_other_images_is_refused(self) -> None:
        with pytest.raises(ModelError, match="differ by inf of the largest with other images"):
            certify(broken(nan_beside_bright, "classifier"), image=torch.ones(SHAPE))

    def test_prediction_is_guarded_too(self) -> None:
        with pytest.raises(ModelError, match="no fixed function"):
            broken(shared_vector, "denoiser").predict(IMAGE, n=100)

    @pytest.mark.parametrize("batch", [1, 2, 3, 15, 16, 17])
    def test_in_batches_of_any_size(self, batch: int) -> None:
        with pytest.raises(ModelError, match="no fixed function"):
            certify(broken(shared_vector, "classifier"), batch=batch)
        if batch > 1:
            with pytest.raises(ModelError, match="no fixed function"):
                certify(broken(DEPENDENT["batch mean"], "classifier"), batch=batch)

    def test_without_mates_nothing_can_depend_on_them(self) -> None:
        assert certify(broken(DEPENDENT["a neighbour"], "classifier"), n=50, batch=1).n == 50

    @pytest.mark.parametrize("where", WHERE)
    @pytest.mark.parametrize("passes_before", range(1, 12))
    def test_a_fault_that_begins_later_is_found_by_the_probes_among_the_draws(
        self, where: str, passes_before: int
    ) -> None:
        """Whenever it begins, the last of the 12 passes included: no answer is given after it."""
        passes = 0

        def late(x: Tensor) -> Tensor:
            nonlocal passes
            passes += 1
            return x if passes <= passes_before else x + 0.01

        with pytest.raises(ModelError, match=r"two passes over the same 64 noisy images(?s:.*)settings that changed"):
            certify(broken(late, where), n=540)
        assert passes == passes_before + 2  # the pass that shows it, and the repetition that names it

    @pytest.mark.parametrize("batch", [1, 2, 7, 31])
    def test_in_small_batches_the_last_draws_are_vouched_for_too(self, batch: int) -> None:
        """Where not every batch has a probe, a fault of the last few is still found before the answer."""
        model, network, _ = build()
        network.fault = counting(sizes := [])
        certify(model, n=100, batch=batch)
        total = len(sizes)
        for healthy_passes in range(max(1, total - 20), total):
            model, network, _ = build()
            sizes = []

            def late(x: Tensor, sizes: list[int] = sizes, most: int = healthy_passes) -> Tensor:
                sizes.append(len(x))
                return x if len(sizes) <= most else x + 0.01

            network.fault = late
            with pytest.raises(ModelError, match="no fixed function"):
                certify(model, n=100, batch=batch)

    def test_a_coin_tossed_at_every_call_is_found_in_each_request_of_one_batch(self) -> None:
        """Three comparisons miss a fair coin once in eight times; which draws it moved, the probe beside them shows."""
        missed = 0
        for seed in range(64):
            coin = torch.Generator().manual_seed(seed)
            model = broken(lambda x, coin=coin: x + 0.1 * torch.randint(2, (), generator=coin), "classifier")
            try:
                certify(model, n=100, batch=256)
            except ModelError:
                continue
            missed += 1
        assert missed <= 18  # 8 are expected, and 18 are exceeded once in 4,000 times

    @pytest.mark.parametrize("batch", [8, 33, 64])
    @pytest.mark.parametrize("fault", ALIKE.values(), ids=ALIKE)
    def test_images_that_are_alike_must_not_answer_together(self, fault: Fault, batch: int) -> None:
        """Draws are noisy copies of one picture, and so are probes."""
        model, network, _ = build()
        network.register_forward_hook(lambda module, inputs, logits: fault(logits))
        with pytest.raises(ModelError, match="no fixed function"):
            certify(model, n=1_000, batch=batch)

    @pytest.mark.parametrize("batch", [33, 48, 64, 128])
    @pytest.mark.parametrize("half", ["front", "back"])
    def test_every_part_of_later_batches_is_looked_at(self, half: str, batch: int) -> None:
        """A replica that serves a half of each batch goes wrong after the model was checked."""
        model, network, _ = build()
        wrong: list[bool] = []

        def halves(x: Tensor) -> Tensor:
            if not wrong:
                return x
            middle = len(x) // 2
            parts = (x[:middle] + 0.1, x[middle:]) if half == "front" else (x[:middle], x[middle:] + 0.1)
            return torch.cat(parts)

        network.fault = halves
        certify(model, batch=batch)
        wrong.append(True)
        with pytest.raises(ModelError, match="no fixed function"):
            certify(model, n=1_000, batch=batch)

    def test_after_a_refusal_a_mended_model_is_checked_anew(self) -> None:
        model, network, _ = build()
        certify(model)
        network.linear.weight.data.mul_(2)
        with pytest.raises(ModelError, match="settings that changed since"):
            certify(model)
        assert certify(model).n == 500

    def test_several_threads_may_ask_one_model(self) -> None:
        model, *_ = build()
        expected = model.predict(IMAGE, n=200, seed=1)
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: model.predict(IMAGE, n=200, seed=1), range(40)))
        assert all(prediction == expected for prediction in found)

    @pytest.mark.parametrize("mask", [-1e4, -1e9, torch.finfo(torch.float32).min])
    def test_masks_beside_which_no_lead_counts_are_refused_with_a_remedy(self, mask: float) -> None:
        model, network, _ = build()

        def masked(module: nn.Module, inputs: object, logits: Tensor) -> Tensor:
            return torch.cat([logits[:, :2] / 100, torch.full((len(logits), 1), mask)], dim=1)

        network.register_forward_hook(masked)
        with pytest.raises(ModelError, match=r"(?s)no vote could count.*such as -100"):
            certify(model)

    @pytest.mark.parametrize("batch", [2, 3, 4, 5, 8, 15, 16, 33, 64])
    def test_two_networks_that_take_turns_are_found(self, batch: int) -> None:
        for n0, n in ((10, 40), (37, 137), (64, 500), (100, 100)):
            model, network, _ = build()
            calls: list[int] = []

            def in_turn(x: Tensor, calls: list[int] = calls) -> Tensor:
                calls.append(len(x))
                return x + 0.05 * (len(calls) % 2)

            network.fault = in_turn
            with pytest.raises(ModelError, match="no fixed function"):
                model.certify(IMAGE, n=n, n0=n0, batch=batch, seed=1)

    def test_settings_that_change_inside_an_object_are_found_in_the_next_request(self) -> None:
        model, network, _ = build()
        settings = {"centre": False}
        network.fault = lambda x: x - x.mean(dim=0) if settings["centre"] else x
        certify(model)
        settings["centre"] = True
        with pytest.raises(ModelError, match="settings that changed since"):
            certify(model)
        with pytest.raises(ModelError, match="no fixed function"):
            model.predict(IMAGE, n=20)


def tiny(name: str) -> nn.Module:
    import timm

    network: nn.Module = timm.create_model(name, num_classes=10)
    return network


class TestHealthyModels:
    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    @pytest.mark.parametrize("name", ["timm", "transformers", "open_clip"])
    def test_the_zoo_behind_its_denoiser(self, name: str, precision: str) -> None:
        classes = ["coat", "bag", "boot"] if name == "open_clip" else None
        model = robustify(f"zoo:{name}", denoiser="zoo:ddpm", sigma=0.25, precision=precision, classes=classes)
        certificate = model.certify(load_file(HELD_OUT)["images"][0], n=20, n0=1, batch=16, seed=1)
        assert isinstance(certificate, Certificate)
        assert sum(certificate.votes) >= 19
        assert checked(model).margin.share == LEAST

    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    @pytest.mark.parametrize(
        "name", ["test_vit", "test_resnet", "test_efficientnet", "test_convnext", "test_nfnet", "test_byobnet"]
    )
    def test_small_architectures(self, name: str, precision: str, awaken: Callable[[nn.Module], nn.Module]) -> None:
        size = (160, 160) if name == "test_vit" else (64, 64)
        preprocessing = Preprocessing((0.5,) * 3, (0.5,) * 3, size)
        model = robustify(awaken(tiny(name)), preprocessing=preprocessing, sigma=0.5, precision=precision)
        certificate = model.certify(torch.full((3, *size), 128 / 255), n=16, n0=1, batch=8, seed=1)
        assert isinstance(certificate, Certificate)
        assert certificate.n == 16

    def test_at_any_batch_size_the_margin_is_the_same(self) -> None:
        model, *_ = build()
        assert (
            len({model._channels._check(PIPELINE, (model.sigma,), batch).margin for batch in (1, 2, 5, 16, 33, 64)})
            == 1
        )
