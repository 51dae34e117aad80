"""The margin follows from the probes, and what they cost."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from robustify import Preprocessing, robustify
from robustify.certificates.views import PIPELINE
from robustify.errors import ModelError
from robustify.smoothing.checks.fixed_function import LEAST, FixedFunction, Margin
from robustify.smoothing.checks.probes import Answer, Probes
from robustify.smoothing.checks.watch import Watch
from robustify.smoothing.numerics import rounding_of
from robustify.types import Levels, Logits, Pixels
from tests.smoothing.checks.faulty import SHAPE
from tests.smoothing.checks.test_fixed_function import tiny

BFLOAT16 = torch.finfo(torch.bfloat16).eps
FLOAT32 = 2.0**-23


def check(base: Answer, *, batch: int, rounding: float) -> FixedFunction:
    return FixedFunction(Probes.make(base, SHAPE, sigmas=(0.25,), batch=batch), rounding=rounding)


def logits_of(images: Pixels, sigma: Levels = 0.25) -> Logits:
    mean = images.mean(dim=(1, 2, 3))
    return torch.stack([mean, -mean], dim=1)


class TestMargin:
    def test_is_a_share_of_the_scale_or_of_larger_logits(self) -> None:
        logits = torch.tensor([[0.5, -1.0], [3.0, -8.0], [math.inf, 0.0]])
        assert Margin(0.25, 2.0).of(logits).tolist() == [0.5, 2.0, math.inf]

    def test_of_an_exact_function_is_the_least(self) -> None:
        found = check(logits_of, batch=64, rounding=BFLOAT16).margin
        assert found.share == LEAST
        assert math.log2(found.scale) == round(math.log2(found.scale))

    def test_scale_is_the_next_power_of_two_above_the_largest_logit(self) -> None:
        for factor in (1e-6, 1.0, 1e6):
            seen: list[float] = []

            def base(images: Pixels, sigma: Levels, factor: float = factor, seen: list[float] = seen) -> Logits:
                logits = factor * logits_of(images)
                seen.append(float(logits[:8].abs().max()))
                return logits

            scale = check(base, batch=64, rounding=BFLOAT16).margin.scale
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

        found = check(base, batch=64, rounding=BFLOAT16).margin
        assert 2 * error * (1 - 7 / 63) <= found.share * found.scale * (1 + 1e-6)
        assert found.share <= 8 * error / found.scale

    def test_beyond_four_roundings_is_refused(self) -> None:
        def base(images: Pixels, sigma: Levels) -> Logits:
            logits = logits_of(images)
            return logits + size * torch.arange(len(images)).remainder(2).unsqueeze(1)

        for rounding, least in ((2.0**-23, LEAST), (2.0**-10, 2.0**-8), (BFLOAT16, 2.0**-5)):
            size = 0.0
            scale = check(base, batch=64, rounding=rounding).margin.scale
            size = 0.45 * least * scale
            assert check(base, batch=64, rounding=rounding).margin.share == least
            size = 0.6 * least * scale
            with pytest.raises(ModelError, match=f"rounding explains {least / 2:.2g}"):
                check(base, batch=64, rounding=rounding)

    @pytest.mark.parametrize(("batch", "passes"), [(1, 24), (2, 24), (3, 12), (15, 3), (16, 3), (64, 3)])
    def test_costs_three_passes_but_one_of_large_batches_in_float32(self, batch: int, passes: int) -> None:
        for rounding, expected in ((BFLOAT16, passes), (FLOAT32, passes if passes > 3 else 1)):
            sizes: list[int] = []

            def base(images: Pixels, sigma: Levels, sizes: list[int] = sizes) -> Logits:
                sizes.append(len(images))
                return logits_of(images)

            check(base, batch=batch, rounding=rounding)
            assert sizes == [batch] * expected

    def test_draws_nothing_from_the_global_generator(self) -> None:
        torch.manual_seed(7)
        expected = torch.rand(3)
        torch.manual_seed(7)
        check(logits_of, batch=16, rounding=BFLOAT16)
        assert torch.equal(torch.rand(3), expected)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
    def test_rounding_is_that_of_the_coarsest_part(self, dtype: torch.dtype) -> None:
        assert rounding_of(nn.Linear(2, 2), nn.Linear(2, 2).to(dtype)) == max(2.0**-23, torch.finfo(dtype).eps)
        assert rounding_of(nn.Linear(2, 2), lower=dtype) == max(2.0**-23, torch.finfo(dtype).eps)
        assert rounding_of(nn.Flatten()) == 2.0**-23


def test_a_place_of_the_batch_that_answers_differently_is_found() -> None:
    """Any place, before the first answer: at first all hold one image, but for seven that hold other probes."""

    def at_place(place: int) -> Callable[[Pixels, Levels], Logits]:
        def base(images: Pixels, sigma: Levels) -> Logits:
            logits = logits_of(images)
            logits[place] += 0.01
            return logits

        return base

    for place in range(32):
        with pytest.raises(ModelError, match="with other images beside them"):
            Watch(check(at_place(place), batch=32, rounding=FLOAT32)).vouch()


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
            margin = model._channels._check(PIPELINE, (model.sigma,), 16).margin.of(by_shape[16])
        for logits in by_shape.values():
            assert bool(((logits - by_shape[16]).abs().amax(dim=1) <= margin / 2).all())
