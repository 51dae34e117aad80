"""Whatever makes another function of every batch is refused, or its votes count as failures; healthy models pass."""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import TypeAlias, final

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from robustify import Certificate, ImageClassifier, Preprocessing, SmoothedClassifier, robustify
from robustify.denoisers import Denoiser
from robustify.errors import ModelError
from robustify.smoothing.checks.fixed_function import LEAST, Margin, probe, rounding_of, state
from robustify.smoothing.noise import NoiseStream
from robustify.types import Levels, Logits, Pixels
from robustify.zoo import HELD_OUT

Fault: TypeAlias = Callable[[Tensor], Tensor]

SHAPE = (1, 4, 4)
PLAIN = Preprocessing(mean=(0.0,), std=(1.0,), size=(4, 4))
IMAGE = torch.full(SHAPE, 128 / 255)
BFLOAT16 = torch.finfo(torch.bfloat16).eps


def healthy(x: Tensor) -> Tensor:
    return x


@final
class Classifier(nn.Module):
    """Linear, with room for a fault before it that comes after the model was built."""

    def __init__(self) -> None:
        super().__init__()
        self.fault: Fault = healthy
        self.extra = nn.Sequential()
        self.linear = nn.Linear(16, 3)
        weight = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
        self.linear.weight.data, self.linear.bias.data = weight, torch.tensor([1.0, 0.0, 0.0])

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.extra(self.fault(x)).flatten(1))
        return logits


@final
class Blur(Denoiser):
    """A little local averaging, with room for the same faults."""

    name = "blur"
    channels = size = licence = None

    def __init__(self) -> None:
        super().__init__()
        self.fault: Fault = healthy
        self.extra = nn.Sequential()
        self.eval()

    def forward(self, noisy: Pixels, sigma: float) -> Pixels:
        del sigma
        blurred: Tensor = self.extra(self.fault(F.avg_pool2d(noisy, 3, stride=1, padding=1)))
        return blurred

    def describe(self, sigma: float) -> str:
        return f"blur at {sigma}"


def build(precision: str = "float32") -> tuple[SmoothedClassifier, Classifier, Blur]:
    network, denoiser = Classifier().eval(), Blur()
    model = SmoothedClassifier(ImageClassifier(network, PLAIN), denoiser, sigma=0.25, precision=precision)
    return model, network, denoiser


def certify(model: SmoothedClassifier, n: int = 500, batch: int = 64) -> Certificate:
    certificate = model.certify(IMAGE, n=n, batch=batch, seed=3)
    assert isinstance(certificate, Certificate)
    return certificate


def counting(sizes: list[int]) -> Fault:
    """Notes the size of every batch that passes."""

    def note(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return x

    return note


def shared_vector(x: Tensor) -> Tensor:
    return x + 0.3 * torch.randn_like(x[:1])


def seeded_by_the_batch(x: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(int(1000 * x.abs().sum()))
    return x + 0.3 * torch.randn(x[:1].shape, generator=generator)


def per_tensor_quantisation(x: Tensor) -> Tensor:
    scale = x.abs().max() / 127
    return (x / scale).round() * scale


def crowded_experts(x: Tensor) -> Tensor:
    """Bright and dark images go to two experts, each with room for a quarter of the batch."""
    bright = x.mean(dim=(1, 2, 3)) > 0.5
    place = torch.where(bright, bright.cumsum(0), (~bright).cumsum(0))
    served: Tensor = (place <= max(1, len(x) // 4)).view(-1, 1, 1, 1)
    return x * served


def only_the_last_differs(x: Tensor) -> Tensor:
    return torch.cat([x[:-1], 1.01 * x[-1:]])


def only_the_middle_differs(x: Tensor) -> Tensor:
    middle = len(x) // 2
    return torch.cat([x[: middle - 8], 1.01 * x[middle - 8 : middle + 8], x[middle + 8 :]])


def nan_beside_bright(x: Tensor) -> Tensor:
    return x if float(x.max()) < 1.3 else x * math.nan


DEPENDENT: dict[str, Fault] = {
    "batch mean": lambda x: x - x.mean(dim=0),
    "batch statistics": lambda x: F.batch_norm(x, None, None, training=True),
    "a neighbour": lambda x: x + 0.1 * x.roll(1, dims=0),
    "batch maximum": lambda x: x / x.abs().max(),
    "place": lambda x: x + 0.01 * torch.arange(len(x)).view(-1, 1, 1, 1),
    "the last place": only_the_last_differs,
    "the middle": only_the_middle_differs,
    "randomness seeded by the batch": seeded_by_the_batch,
    "per-tensor quantisation": per_tensor_quantisation,
    "crowded experts": crowded_experts,
}

RANDOM: dict[str, Fault] = {
    "shared vector": shared_vector,
    "dropout": lambda x: F.dropout(x, 0.1),
    "shared dropout": lambda x: x * F.dropout(torch.ones_like(x[:1]), 0.1),
}

WHERE = ["classifier", "denoiser"]


def broken(fault: Fault, where: str, precision: str = "float32") -> SmoothedClassifier:
    model, network, denoiser = build(precision)
    part = network if where == "classifier" else denoiser
    part.fault = fault
    return model


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
        assert model._channels._probed is not None
        assert model._channels._probed[1].share > LEAST

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
        take = NoiseStream.take
        monkeypatch.setattr(NoiseStream, "take", lambda self, n: take(self, n)[:1].expand(n, *SHAPE))
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
            certify(broken(nan_beside_bright, "classifier"))

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
    def test_a_fault_that_begins_after_the_probe_is_found_by_the_votes(self, where: str) -> None:
        passes = 0

        def late(x: Tensor) -> Tensor:
            nonlocal passes
            passes += 1
            return (
                x if passes <= 3 else x + 2 * torch.randn(x[:1].shape, generator=torch.Generator().manual_seed(passes))
            )

        with pytest.raises(ModelError, match=r"votes of one batch agree(?s:.*)dropout mask"):
            certify(broken(late, where), n=1_000)


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
        assert model._channels._probed is not None
        assert model._channels._probed[1].share == LEAST

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
        assert len({model._channels._margin((model.sigma,), batch) for batch in (1, 2, 5, 16, 33, 64)}) == 1


def logits_of(images: Pixels, sigma: Levels = 0.25) -> Logits:
    mean = images.mean(dim=(1, 2, 3))
    return torch.stack([mean, -mean], dim=1)


class TestMargin:
    def test_is_a_share_of_the_scale_or_of_larger_logits(self) -> None:
        logits = torch.tensor([[0.5, -1.0], [3.0, -8.0], [math.inf, 0.0]])
        assert Margin(0.25, 2.0).of(logits).tolist() == [0.5, 2.0, math.inf]

    def test_of_an_exact_function_is_the_least(self) -> None:
        found = probe(logits_of, SHAPE, sigmas=(0.25,), batch=64, rounding=BFLOAT16)
        assert found.share == LEAST
        assert math.log2(found.scale) == round(math.log2(found.scale))

    def test_scale_is_the_next_power_of_two_above_the_largest_logit(self) -> None:
        for factor in (1e-6, 1.0, 1e6):
            seen: list[float] = []

            def base(images: Pixels, sigma: Levels, factor: float = factor, seen: list[float] = seen) -> Logits:
                logits = factor * logits_of(images)
                seen.append(float(logits[:8].abs().max()))
                return logits

            scale = probe(base, SHAPE, sigmas=(0.25,), batch=64, rounding=BFLOAT16).scale
            assert seen[0] <= scale < 2 * seen[0]

    @pytest.mark.parametrize("error", [1e-4, 1e-3, 5e-3])
    def test_is_at_least_twice_the_largest_difference_in_lower_precision(self, error: float) -> None:
        """The image's place moves its logits by so much; the last place most."""
        differences: list[float] = []

        def base(images: Pixels, sigma: Levels) -> Logits:
            exact = logits_of(images)
            moved = error * torch.linspace(0, 1, len(images))
            differences.append(float(moved.max()))
            return exact + torch.stack([moved, -moved], dim=1)

        found = probe(base, SHAPE, sigmas=(0.25,), batch=64, rounding=BFLOAT16)
        assert 2 * error * (1 - 7 / 63) <= found.share * found.scale * (1 + 1e-6)
        assert found.share <= 8 * error / found.scale

    def test_beyond_four_roundings_is_refused(self) -> None:
        def base(images: Pixels, sigma: Levels) -> Logits:
            logits = logits_of(images)
            return logits + size * torch.arange(len(images)).remainder(2).unsqueeze(1)

        for rounding, least in ((2.0**-23, LEAST), (2.0**-10, 2.0**-8), (BFLOAT16, 2.0**-5)):
            size = 0.0
            scale = probe(base, SHAPE, sigmas=(0.25,), batch=64, rounding=rounding).scale
            size = 0.45 * least * scale
            assert probe(base, SHAPE, sigmas=(0.25,), batch=64, rounding=rounding).share == least
            size = 0.6 * least * scale
            with pytest.raises(ModelError, match=f"rounding explains {least / 2:.2g}"):
                probe(base, SHAPE, sigmas=(0.25,), batch=64, rounding=rounding)

    @pytest.mark.parametrize(("batch", "passes"), [(1, 24), (2, 24), (3, 12), (15, 3), (16, 3), (64, 3)])
    def test_costs_three_passes_of_large_batches(self, batch: int, passes: int) -> None:
        sizes: list[int] = []

        def base(images: Pixels, sigma: Levels) -> Logits:
            sizes.append(len(images))
            return logits_of(images)

        probe(base, SHAPE, sigmas=(0.25,), batch=batch, rounding=BFLOAT16)
        assert sizes == [batch] * passes

    def test_draws_nothing_from_the_global_generator(self) -> None:
        torch.manual_seed(7)
        expected = torch.rand(3)
        torch.manual_seed(7)
        probe(logits_of, SHAPE, sigmas=(0.25,), batch=16, rounding=BFLOAT16)
        assert torch.equal(torch.rand(3), expected)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
    def test_rounding_is_that_of_the_coarsest_part(self, dtype: torch.dtype) -> None:
        assert rounding_of(nn.Linear(2, 2), nn.Linear(2, 2).to(dtype)) == max(2.0**-23, torch.finfo(dtype).eps)
        assert rounding_of(nn.Linear(2, 2), lower=dtype) == max(2.0**-23, torch.finfo(dtype).eps)
        assert rounding_of(nn.Flatten()) == 2.0**-23


class TestForwardShapes:
    @pytest.mark.parametrize("name", ["test_resnet", "test_convnext"])
    def test_another_shape_moves_no_vote_to_another_class(
        self, name: str, awaken: Callable[[nn.Module], nn.Module]
    ) -> None:
        """Bit for bit the same at one shape; at another, only draws within the margin may fail or count."""
        network = awaken(tiny(name))
        model = robustify(network, preprocessing=Preprocessing((0.5,) * 3, (0.5,) * 3, (32, 32)), sigma=0.5)
        noisy = 0.5 + 0.5 * torch.randn(48, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            by_shape = {size: torch.cat([model.logits(part) for part in noisy.split(size)]) for size in (1, 6, 16, 48)}
            assert torch.equal(by_shape[16], torch.cat([model.logits(part) for part in noisy.split(16)]))
            margin = model._channels._margin((model.sigma,), 16).of(by_shape[16])
        for logits in by_shape.values():
            assert bool(((logits - by_shape[16]).abs().amax(dim=1) <= margin / 2).all())


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
    def test_the_probe_runs_once_for_an_unchanged_model(self) -> None:
        model, network, _ = build()
        network.fault = counting(sizes := [])
        for expected in (3 + 11, 11, 11):
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


def test_a_place_of_the_batch_that_answers_differently_is_found() -> None:
    """Any place: all of them hold one image in one of the passes."""

    def at_place(place: int) -> Callable[[Pixels, Levels], Logits]:
        def base(images: Pixels, sigma: Levels) -> Logits:
            logits = logits_of(images)
            logits[place] += 0.01
            return logits

        return base

    for place in range(32):
        with pytest.raises(ModelError, match="with other images beside them"):
            probe(at_place(place), SHAPE, sigmas=(0.25,), batch=32, rounding=2.0**-23)
