"""Masked copies as the engine draws them, and patch certificates of a real network."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from robustify import Preprocessing, Settings, robustify
from robustify.certificates.family import Tally
from robustify.certificates.masks import Masking
from robustify.certificates.patch_cleanser import PatchCleanser
from robustify.certificates.views import View
from robustify.classifiers import ImageClassifier
from robustify.denoisers import Identity
from robustify.errors import InputError
from robustify.smoothing.laws import law_of
from robustify.smoothing.noise import NoiseAddress, NoiseStream
from tests.toys import Shrink, Stripes
from tests.toys_patches import bright

COLOURS = Preprocessing(mean=(0.2, 0.45, 0.7), std=(0.15, 0.25, 0.4), size=(8, 8))


def copies(masking: Masking, image: Tensor, soundness: str, first: int, draws: int) -> Tensor:
    """Masked copies as a stream gives them, some left out first."""
    stream = NoiseStream(law_of(View(0.0, change=masking), soundness), image, NoiseAddress(0, "a", 0, "estimation"))
    stream.skip(first)
    return stream.take(draws)


@pytest.mark.parametrize(("soundness", "patches"), [("grid", 1), ("float", 1), ("grid", 2)])
def test_the_ith_draw_hides_the_ith_union_and_nothing_else(soundness: str, patches: int) -> None:
    masking = Masking(8, 8, ((2, 3),), 2, None, patches, COLOURS.mean)
    image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    pixels = image.float() / 255
    drawn = copies(masking, image if soundness == "grid" else pixels, soundness, 3, masking.draws - 3)
    for found, together in zip(drawn, masking.sets[3:], strict=True):
        expected = pixels.clone()
        for top, left, height, width in (masking.rectangles[i] for i in together):
            for channel, colour in enumerate(COLOURS.mean):
                expected[channel, top : top + height, left : left + width] = colour
        assert torch.equal(found, expected)


def test_masks_have_the_colour_that_normalisation_makes_zero() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).eval()
    model = robustify(network, preprocessing=COLOURS, certificate=PatchCleanser((2, 2), masks=3))
    masking = model.plan(Settings()).views[0].change
    assert isinstance(masking, Masking)
    (drawn,) = copies(masking, torch.full((3, 8, 8), 200, dtype=torch.uint8), "grid", 0, 1)
    normalised = model.classifier.preprocessing.network_input(drawn[None])[0]
    assert masking.rectangles[0] == (0, 0, 4, 4)
    assert bool((normalised[:, :4, :4] == 0).all())
    assert bool((normalised[:, 4:] != 0).all())
    gray = robustify(network, preprocessing=COLOURS, denoiser=Identity(1), certificate=PatchCleanser((2, 2)))
    change = gray.plan(Settings()).views[0].change
    assert isinstance(change, Masking)
    assert change.fill == pytest.approx((0.45,))


def test_masks_are_float32_whatever_the_default() -> None:
    image = torch.rand(3, 8, 8)
    torch.set_default_dtype(torch.float64)
    try:
        drawn = copies(Masking(8, 8, ((2, 3),), 2, None, 1, COLOURS.mean), image, "float", 0, 2)
    finally:
        torch.set_default_dtype(torch.float32)
    assert drawn.dtype == torch.float32


def test_masks_are_in_the_space_that_the_network_sees() -> None:
    """Without a denoiser images have the network's size; with one, there are no such certificates."""
    model = bright()
    assert model.contract.shape[1:] == model.classifier.preprocessing.size
    with pytest.raises(InputError, match=r"no noise to pixels that shrink could remove.*\n  Leave out the denoiser"):
        robustify(model.classifier, denoiser=Shrink(), certificate=PatchCleanser(0.02))


def classes_of(classifier: ImageClassifier, masking: Masking, images: Tensor) -> Tensor:
    """Class of every masked copy of every image, shape (images, draws), by plain torch."""
    found = []
    for together in masking.sets:
        masked = images.clone()
        for top, left, height, width in (masking.rectangles[i] for i in together):
            masked[..., top : top + height, left : left + width] = torch.tensor(masking.fill).view(-1, 1, 1)
        found.append(classifier(masked).argmax(dim=1))
    return torch.stack(found, dim=1)


def test_certificates_and_predictions_are_those_of_all_masked_copies(stripes: Stripes) -> None:
    images = stripes[0] // 2 + torch.randint(0, 128, (44, 1, 6, 6)).byte()  # some clear, some not
    model = bright((2, 2), masks=3)
    masking = Masking(6, 6, ((2, 2),), 3, None, 1, (0.4,))
    classes = classes_of(model.classifier, masking, images.float() / 255)
    agreed = [row.unique().numel() == 1 for row in classes]
    assert 5 < sum(agreed) < 40
    certificates = model.certify(list(images), batch=32)
    predictions = model.predict(list(images), batch=32)
    for row, sure, c, p in zip(classes, agreed, certificates, predictions, strict=True):
        assert (c.label is not None) == sure
        assert p.label is not None
        assert c.label in (None, p.label)
        assert c.uncertified in (None, p.label)
        assert c.draws == (45 if row[:9].unique().numel() == 1 else 9)
        assert p.votes == tuple(int((row[:9] == k).sum()) for k in range(3))
        if sure:
            assert c.tallies[0].votes == tuple(45 * (k == c.label) for k in range(3))
            assert c.holds(p.label, at=1.0)


def test_no_patch_changes_what_the_network_says_of_a_certified_image(stripes: Stripes) -> None:
    """All places of a pixel and 9 of its contents, on images that are certified; predictions by the engine itself."""
    model = bright(masks=2)
    found = model.certify(list(stripes[0][:20]))
    image, label = next((x, c.label) for x, c in zip(stripes[0], found, strict=False) if c.label is not None)
    attacked = []
    for row, column, value in product(range(6), range(6), range(0, 256, 31)):
        other = image.clone()
        other[0, row, column] = value
        attacked.append(other)
    assert {p.label for p in model.predict(attacked)} == {label}


def test_certificates_do_not_depend_on_batches_and_tell_what_they_claim(stripes: Stripes) -> None:
    model = bright((2, 2), masks=3)
    images = list(stripes[0][:12])
    tallies: list[list[tuple[Tally, ...]]] = [
        [c.tallies for c in model.certify(images, batch=batch)] for batch in (5, 32)
    ]
    assert tallies[0] == tallies[1]
    sure = next(c for c in model.certify(images) if c.label is not None)
    said = "no patch within 2×2 pixels of its 1×6×6 pixels in [0, 1] after resize and crop changes the prediction"
    assert str(sure) == f"{sure.name}: {said} (without chance, n = 45)"
    assert sure.radius > 1
    with pytest.raises(InputError, match="expected a certificate of an ℓ2 radius"):
        sure.radius_lp(1.0)
    assert "(without chance)" in str(model.predict(images[0]))
    assert "p-value" not in repr(model.predict(images[:2]))
    printed = str(model)
    assert "noise      none" in printed
    assert "proof      patch-cleanser certificates, patch = (2, 2), masks = 3, patches = 1" in printed
    assert "denoiser   none\n" in printed


def test_a_network_that_is_never_sure_certifies_nothing(stripes: Stripes) -> None:
    """Every draw of equal logits fails: no label, and no answer either."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).eval()
    nn.init.zeros_(network[1].weight)
    nn.init.zeros_(network[1].bias)
    family = PatchCleanser((1, 1), masks=2)
    model = robustify(network, preprocessing=Preprocessing((0.4,), (0.5,), (6, 6)), certificate=family)
    image = stripes[0][0]
    c, p = model.certify(image), model.predict(image)
    assert (c.label, c.uncertified, c.radius, c.draws) == (None, None, 0.0, 4)
    assert p.label is None
    assert "abstains" in str(p)


def test_two_patches_and_several_shapes_are_certified_too(stripes: Stripes) -> None:
    images = list(stripes[0][:12])
    one = bright([(1, 2), (2, 1)], masks=3).certify(images)
    two = bright((1, 1), masks=3, patches=2).certify(images)
    assert sum(c.label is not None for c in one) > 0
    assert all(c.radius > 2 for c in two if c.label is not None)
    assert {c.draws for c in two} <= {45, 255}
    assert any(c.draws == 255 for c in two)
