"""Greedy cutout takes the masks that hurt most, one after the other, and makes more images certified."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from robustify import Preprocessing, SmoothedClassifier, robustify
from robustify.certificates.patch_cleanser import PatchCleanser
from robustify.data import Examples
from robustify.errors import InputError
from robustify.finetune import Recipe, tune
from robustify.finetune.objectives import GreedyCutout
from robustify.finetune.objectives.base import classify
from robustify.finetune.objectives.greedy_cutout import worst_masked
from tests.finetune.objectives.toys import ce, scene, smooth
from tests.toys import Stripes

COLOUR = torch.tensor([0.4]).view(-1, 1, 1)
PLACES = list(product((0, 2, 4), repeat=2))
"""Masks of 2×2 pixels: three an axis, for a patch of one pixel of 6×6."""


def hidden(copies: Tensor, places: list[tuple[int, int]]) -> Tensor:
    found = copies.clone()
    for top, left in places:
        found[..., top : top + 2, left : left + 2] = 0.4
    return found


def covers() -> Tensor:
    return torch.stack([hidden(torch.zeros(6, 6), [place]) > 0 for place in PLACES])


def test_the_worst_mask_is_that_of_the_largest_loss_of_each_copy() -> None:
    model, batch = smooth(), scene()
    assert batch.labels is not None
    copies = batch.pixels + batch.noise
    with torch.no_grad():
        under = [hidden(copies, [place]) for place in PLACES]
        losses = torch.stack([ce(classify(model, masked), batch.labels) for masked in under])
    chosen = losses.argmax(dim=0)
    found = worst_masked(model, copies, batch.labels, covers(), COLOUR)
    assert len(chosen.unique()) > 3
    for draw, image in product(range(4), range(12)):
        assert torch.equal(found[draw, image], under[int(chosen[draw, image])][draw, image])


def test_the_second_mask_is_the_worst_beside_the_first() -> None:
    """The loss is that of the copies, of one mask, and of both; the model is frozen while masks are chosen."""
    model, batch = smooth(), scene(draws=1)
    assert batch.labels is not None
    model.classifier.train()
    outcome = GreedyCutout()(model, batch)
    model = smooth()  # whose running statistics no training pass has moved
    copies = batch.pixels + batch.noise
    one = worst_masked(model, copies, batch.labels, covers(), COLOUR)
    two = worst_masked(model, one, batch.labels, covers(), COLOUR)
    assert not torch.equal(one, two)
    model.classifier.train()
    expected = ce(classify(model, torch.cat([copies, one, two])), batch.labels).mean()
    assert outcome.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert outcome.loss.requires_grad


def certified(model: SmoothedClassifier, stripes: Stripes) -> float:
    found = model.certify(list(stripes[0]), batch=64)
    return sum(c.label == label for c, label in zip(found, stripes[1].tolist(), strict=True)) / len(found)


def test_it_raises_the_share_of_images_certified_against_patches(stripes: Stripes, tmp_path: Path) -> None:
    """A classifier that learned without masks looks at few pixels; 40 epochs with them make it look at others too."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    preprocessing = Preprocessing(mean=(0.4,), std=(0.5,), size=(6, 6))
    model = robustify(network, preprocessing=preprocessing, certificate=PatchCleanser((2, 2), masks=3))
    before = certified(model, stripes)
    recipe = Recipe(
        GreedyCutout(patch=(2, 2)), adapt="full", epochs=40, batch=22, learning_rate=0.01, warmup=0.5, augment="none"
    )
    result = tune(model, Examples(model, *stripes), recipe, out=tmp_path / "run", quiet=True)
    assert before < 0.3
    assert certified(result.model, stripes) > 0.9
    assert isinstance(result.model.family, PatchCleanser)


def test_settings_that_make_no_sense_are_refused() -> None:
    for make in (lambda: GreedyCutout(patch=1.5), lambda: GreedyCutout(masks=0), lambda: GreedyCutout(draws=0)):
        with pytest.raises(InputError):
            make()
    with pytest.raises(InputError, match="inside the image of 6×6 pixels"):
        GreedyCutout(patch=(7, 2))(smooth(), scene())
    with pytest.raises(InputError, match="the data has none"):
        GreedyCutout()(smooth(), replace(scene(), labels=None))
