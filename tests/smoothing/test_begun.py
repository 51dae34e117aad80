"""Draws of an image that is not decided yet are kept, and a later run goes on where they end, to the same answer."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustify import Certificate, Settings, SmoothedClassifier
from robustify.errors import InputError, ModelError
from robustify.smoothing import engine
from robustify.smoothing.noise import NoiseAddress, NoiseStream, noise_law
from robustify.smoothing.rounds import Begun
from tests import toys
from tests.smoothing.checks.faulty import build, counting

IMAGES = {name: torch.full((1, 4, 4), level, dtype=torch.uint8) for name, level in (("a", 128), ("b", 70), ("c", 200))}


@pytest.fixture(autouse=True)
def keep_after_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "KEEP_AFTER", 0.0)


def certificates(
    model: SmoothedClassifier, settings: Settings, begun: Mapping[str, Begun] | None = None
) -> tuple[dict[str, Certificate], list[Mapping[str, Begun]]]:
    kept: list[Mapping[str, Begun]] = []
    provenance = model.provenance(settings)
    found = model.certificates(IMAGES.items(), provenance, begun=begun, keep=kept.append)
    return {certificate.sample: certificate for certificate in found}, kept


@pytest.mark.parametrize(
    "options", [{"n": 700}, {"n_max": 3_000}, {"radius": [0.1, 0.3], "n_max": 4_000}, {"radius": 0.2, "n0": 0}], ids=str
)
@pytest.mark.parametrize("batch", [48, 1_000])
def test_a_run_that_goes_on_from_any_moment_ends_with_the_same_certificates(
    options: dict[str, float], batch: int
) -> None:
    settings = Settings(**options, batch=batch, seed=5)
    whole, kept = certificates(toys.linear_model(), settings)
    assert kept
    for moment in (*kept[:6], kept[len(kept) // 2], kept[-1]):
        again, _ = certificates(toys.linear_model(), settings, moment)
        assert {name: c.tallies for name, c in again.items()} == {name: c.tallies for name, c in whole.items()}


def test_what_was_drawn_is_not_drawn_again() -> None:
    sizes: list[int] = []
    model, network, _ = build()
    network.fault = counting(sizes)
    settings = Settings(n=1_000, batch=64, seed=5)
    _, kept = certificates(model, settings)
    all_passes = len(sizes)
    late = kept[-3]
    left = sum(1_100 - sum(map(sum, (*b.told, *b.counted))) for b in late.values())
    sizes.clear()
    undecided = ((name, image) for name, image in IMAGES.items() if name in late)
    assert len(list(model.certificates(undecided, model.provenance(settings), begun=late))) == len(late)
    assert 0 < left < 300
    assert len(sizes) <= -(-left // 62) + 1
    assert all_passes > 50


def test_draws_are_kept_only_once_they_were_checked() -> None:
    """A fault that began in the last small batch, which had no probe, is found before its draws are kept."""
    model, network, _ = build()
    passes = 0

    def late(x: torch.Tensor) -> torch.Tensor:
        nonlocal passes
        passes += 1
        return x if passes <= 6 else x + 0.01

    network.fault = late
    kept: list[int] = []
    provenance = model.provenance(Settings(n=500, batch=16, seed=5))
    with pytest.raises(ModelError, match="no fixed function"):
        list(model.certificates(IMAGES.items(), provenance, keep=lambda _: kept.append(passes)))
    assert max(kept) <= 6


@pytest.mark.parametrize(
    "wrong", [Begun(((100, 0, 0),), ((200, 500, 0, 0),)), Begun((), ((1, 0, 0, 0),)), Begun(((50, 50, 0),), ())]
)
def test_draws_that_do_not_fit_the_question_are_refused(wrong: Begun) -> None:
    with pytest.raises(InputError, match=r"still to come|votes of whole rounds"):
        certificates(toys.linear_model(), Settings(n=700, seed=5), {"a": wrong})


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=8))
def test_skipping_is_taking_without_a_look(steps: list[tuple[bool, int]]) -> None:
    law, image = noise_law("grid", 0.5), torch.zeros(1, 60, 60, dtype=torch.uint8)
    address = NoiseAddress(3, "a", 0, "estimation")
    whole, stream, at = NoiseStream(law, image, address).take(400), NoiseStream(law, image, address), 0
    for skipped, count in steps:
        if skipped:
            stream.skip(count)
        elif count:
            assert np.array_equal(stream.take(count), whole[at : at + count])
        at += count
