"""Bands as the engine draws them, and certificates of a real network."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from robustify import Preprocessing, Settings, robustify
from robustify.certificates.band_smoothing import BandPlan, BandSmoothing
from robustify.certificates.bands import KEPT, Bands
from robustify.certificates.views import View
from robustify.errors import InputError
from robustify.smoothing.bands import MISSING
from robustify.smoothing.laws import law_of
from robustify.smoothing.noise import NoiseAddress, NoiseStream
from tests.toys import Shrink, Stripes
from tests.toys_bands import bright, kept

COLOURS = (0.2, 0.45, 0.7)


def copies(bands: Bands, image: Tensor, soundness: str, first: int) -> Tensor:
    """Copies as a stream gives them, the first left out."""
    stream = NoiseStream(law_of(View(0.0, change=bands), soundness), image, NoiseAddress(0, "a", 0, "estimation"))
    stream.skip(first)
    return stream.take(bands.draws - first)


@pytest.mark.parametrize("keep", KEPT)
@pytest.mark.parametrize("soundness", ["grid", "float"])
@pytest.mark.parametrize("dropped", [False, True])
def test_the_ith_draw_keeps_the_ith_band_and_nothing_else(keep: str, soundness: str, dropped: bool) -> None:
    bands = Bands(6, 9, keep, 3, 2, COLOURS, dropped)
    image = torch.randint(0, 256, (3, 6, 9), dtype=torch.uint8)
    pixels = image.float() / 255
    drawn = copies(bands, image if soundness == "grid" else pixels, soundness, 1)
    for index, found in enumerate(drawn, start=1):
        expected = torch.tensor(COLOURS).view(3, 1, 1).expand(3, 6, 9).clone()
        if dropped:
            expected.fill_(MISSING)
        for row, column in kept(bands, index):
            expected[:, row, column] = pixels[:, row, column]
        assert torch.equal(found, expected)


def test_the_rest_has_the_colour_that_normalisation_makes_zero() -> None:
    preprocessing = Preprocessing(mean=COLOURS, std=(0.15, 0.25, 0.4), size=(8, 8))
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).eval()
    model = robustify(network, preprocessing=preprocessing, certificate=BandSmoothing((2, 2), 2))
    bands = model.plan(Settings()).views[0].change
    assert isinstance(bands, Bands)
    drawn = copies(bands, torch.full((3, 8, 8), 200, dtype=torch.uint8), "grid", 0)
    normalised = preprocessing.network_input(drawn)
    assert bool((normalised[0, :, :, 2:] == 0).all())
    assert bool((normalised[0, :, :, :2] != 0).all())


def test_there_is_no_denoiser() -> None:
    model = bright()
    with pytest.raises(InputError, match=r"no noise to pixels that shrink could remove.*\n  Leave out the denoiser"):
        robustify(model.classifier, denoiser=Shrink(), certificate=BandSmoothing(0.02, 4))
    with pytest.raises(InputError, match="expected a view of bands"):
        law_of(View(0.0, change=_Other()), "grid")


class _Other(Bands.__base__):  # type: ignore[misc,name-defined]
    law = Bands.law


def noisy(stripes: Stripes) -> list[Tensor]:
    """Images of which some are clear, some not."""
    return list(stripes[0] // 2 + torch.randint(0, 128, (44, 1, 6, 6)).byte())


def test_certificates_and_predictions_are_those_of_a_vote_by_plain_torch(stripes: Stripes) -> None:
    images = noisy(stripes)
    model = bright((1, 1), 2, keep="blocks")
    plan = model.plan(Settings())
    assert isinstance(plan, BandPlan)
    shown = torch.full((36, 44, 1, 6, 6), 0.4)
    pixels = torch.stack(images).float() / 255
    for index, (row, column) in ((i, place) for i in range(36) for place in kept(plan.bands, i)):
        shown[index, :, :, row, column] = pixels[:, :, row, column]
    classes = model.classifier(shown.flatten(0, 1)).argmax(dim=1).view(36, 44)
    certificates, predictions = model.certify(images, batch=32), model.predict(images, batch=7)
    sure = 0
    for votes, c, p in zip(classes.T, certificates, predictions, strict=True):
        counts = torch.bincount(votes, minlength=3).tolist()
        label = max(range(3), key=counts.__getitem__)
        assert c.votes == p.votes == tuple(counts)
        assert c.answer == p.label == label
        least = max(n + 8 + (k < label) for k, n in enumerate(counts) if k != label)
        assert (c.label is not None) == (counts[label] >= least)
        sure += c.label is not None
    assert 3 <= sure <= 41


def test_no_patch_changes_what_the_network_says_of_a_certified_image(stripes: Stripes) -> None:
    """All places of a pixel, and 9 of its contents; predictions by the engine itself."""
    model = bright((1, 1), 1)
    found = model.certify(list(stripes[0][:20]))
    image, label = next((x, c.label) for x, c in zip(stripes[0], found, strict=False) if c.label is not None)
    attacked = []
    for row, column, value in product(range(6), range(6), range(0, 256, 31)):
        other = image.clone()
        other[0, row, column] = value
        attacked.append(other)
    assert {p.label for p in model.predict(attacked)} == {label}


def test_certificates_do_not_depend_on_batches_and_tell_what_they_claim(stripes: Stripes) -> None:
    model = bright((2, 1), 1)
    images = list(stripes[0][:12])
    assert [c.tallies for c in model.certify(images, batch=5)] == [c.tallies for c in model.certify(images, batch=32)]
    sure = next(c for c in model.certify(images) if c.label is not None)
    said = "no single patch within 2×1 pixels of its 1×6×6 pixels in [0, 1] after resize and crop changes the vote"
    assert str(sure) == f"{sure.name}: {said} of its bands (without chance, n = 6)"
    assert sure.holds(sure.label, at=1.0)  # type: ignore[arg-type]  # it is one
    with pytest.raises(InputError, match="expected a certificate of an ℓ2 radius"):
        sure.radius_lp(1.0)
    assert "(without chance)" in str(model.predict(images[0]))
    assert "band-smoothing certificates, patch = (2, 1), band = 1, keep = columns, stride = 1\n" in str(model)


def test_a_network_that_is_never_sure_certifies_and_answers_nothing(stripes: Stripes) -> None:
    model = bright()
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter.zero_()
    c, p = model.certify(stripes[0][0]), model.predict(stripes[0][0])
    assert (c.label, c.uncertified, c.radius, c.draws, c.votes) == (None, None, 0.0, 6, (0, 0, 0))
    assert p.label is None
