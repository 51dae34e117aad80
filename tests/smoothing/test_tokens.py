"""Vision transformers that leave out tokens, against timm's own attention masks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustify import Preprocessing, Settings, certify_dataset, robustify
from robustify.certificates.band_smoothing import BandPlan, BandSmoothing
from robustify.certificates.bands import Bands
from robustify.certificates.views import View
from robustify.classifiers import ImageClassifier
from robustify.data import Sample
from robustify.denoisers import Identity
from robustify.errors import InputError, ModelError
from robustify.report.pictures import picture
from robustify.runs.folder import read_run
from robustify.smoothing.laws import law_of
from robustify.smoothing.noise import NoiseAddress, NoiseStream
from robustify.smoothing.pipeline import Pipeline
from robustify.smoothing.tokens import DroppedTokens, _cells, dropping
from robustify.verify.claims import verify_run
from robustify.verify.replay import replay
from tests.toys import Awaken, Shrink
from tests.toys_bands import kept

SIZE, CELL = 16, 4
PLAIN = Preprocessing(mean=(0.4,), std=(0.3,), size=(SIZE, SIZE))


def transformer(awaken: Awaken, **settings: Any) -> Any:  # noqa: ANN401 - timm has no types
    from timm.models import VisionTransformer

    size = {"img_size": SIZE, "patch_size": CELL, "in_chans": 1, "num_classes": 5}
    return awaken(VisionTransformer(**{**size, "embed_dim": 12, "depth": 2, "num_heads": 2, **settings}))


def copies(bands: Bands, image: Tensor) -> Tensor:
    stream = NoiseStream(law_of(View(0.0, change=bands), "grid"), image, NoiseAddress(0, "a", 0, "estimation"))
    return stream.take(bands.draws)


def seen(bands: Bands, index: int, tokens: int) -> list[int]:
    """Tokens that a copy keeps: those of its pixels, then the first others."""
    cells = sorted({row // CELL * (SIZE // CELL) + column // CELL for row, column in kept(bands, index)})
    others = [cell for cell in range((SIZE // CELL) ** 2) if cell not in cells]
    return [*cells, *others[: tokens - len(cells)]]


@pytest.mark.parametrize("settings", [{}, {"reg_tokens": 2}, {"no_embed_class": True, "pre_norm": True}], ids=str)
@pytest.mark.parametrize(("keep", "tokens"), [("columns", 8), ("rows", 8), ("blocks", 4)])
def test_the_rest_of_the_transformer_sees_only_what_is_kept(
    settings: dict[str, Any], keep: str, tokens: int, awaken: Awaken
) -> None:
    """Timm's own transformer, told by a mask to attend to the tokens that are kept and to no others."""
    vit = transformer(awaken, **settings)
    bands = Bands(SIZE, SIZE, keep, 3, 1, (0.4,), drop_tokens=True)
    image = torch.randint(0, 256, (1, SIZE, SIZE), dtype=torch.uint8)
    base = dropping(Pipeline(ImageClassifier(vit, PLAIN), Identity()), keep, "3", "1")
    found = base(copies(bands, image), 0.0)
    filled = copies(Bands(SIZE, SIZE, keep, 3, 1, (0.4,)), image)
    for index, copy in enumerate(filled):
        mask = torch.zeros(1, vit.num_prefix_tokens + (SIZE // CELL) ** 2, dtype=torch.bool)
        mask[0, : vit.num_prefix_tokens] = True
        mask[0, [cell + vit.num_prefix_tokens for cell in seen(bands, index, tokens)]] = True
        whole = vit.forward_features(PLAIN.network_input(copy[None]), attn_mask=mask.expand(mask.shape[1], -1))
        torch.testing.assert_close(found[index : index + 1], vit.forward_head(whole), atol=1e-5, rtol=1e-4)


def test_every_copy_has_as_many_tokens(awaken: Awaken) -> None:
    vit = transformer(awaken)
    lengths = set()
    vit.blocks[0].register_forward_hook(lambda _, args, __: lengths.add(args[0].shape[1]))
    model = robustify(vit, preprocessing=PLAIN, certificate=BandSmoothing((1, 1), 3, drop_tokens=True))
    lengths.clear()
    model.certify(torch.randint(0, 256, (3, 1, SIZE, SIZE), dtype=torch.uint8))
    assert lengths == {1 + 8}


def test_published_numbers_of_tokens() -> None:
    """Bands of 19 columns at 224 pixels touch two or three columns of cells; specs/methods.md, section 1.2."""
    bands = Bands(224, 224, "columns", 19, 1, (0.0,))
    each = [len({(start + i) % 224 // 16 for i in range(19)}) for start in range(224)]
    assert (each.count(2), each.count(3)) == (196, 28)
    assert _cells(224, 16, bands) == 3
    assert _cells(224, 16, Bands(224, 224, "columns", 16, 16, (0.0,))) == 1


def test_tokens_are_kept_by_place_whatever_they_show(awaken: Awaken) -> None:
    """A picture of the mean colour, of which every token is kept where its band is."""
    model = robustify(
        transformer(awaken),
        preprocessing=Preprocessing((0.0,), (0.3,), (SIZE, SIZE)),
        certificate=f"band-smoothing:patch=1+1,band={CELL},stride={CELL},drop_tokens=true",
    )
    plan = model.plan(Settings())
    assert isinstance(plan, BandPlan)
    base = dropping(model.pipeline, "columns", str(CELL), str(CELL))
    logits = base(copies(plan.bands, torch.zeros(1, SIZE, SIZE, dtype=torch.uint8)), 0.0)
    assert len({tuple(row.tolist()) for row in logits}) == plan.bands.draws


def test_certificates_are_of_the_votes_of_fewer_tokens(awaken: Awaken) -> None:
    vit = transformer(awaken)
    model = robustify(vit, preprocessing=PLAIN, certificate=BandSmoothing((1, 1), 3, drop_tokens=True))
    plan = model.plan(Settings())
    assert isinstance(plan, BandPlan)
    images = torch.randint(0, 256, (6, 1, SIZE, SIZE), dtype=torch.uint8)
    network = DroppedTokens(vit, 8)
    certificates, predictions = model.certify(images, batch=9), model.predict(images, batch=64)
    for image, c, p in zip(images, certificates, predictions, strict=True):
        classes = network(PLAIN.network_input(copies(plan.bands, image))).argmax(dim=1)
        assert c.votes == p.votes == tuple(torch.bincount(classes, minlength=5).tolist())
        assert c.answer == p.label
    plain = robustify(vit, preprocessing=PLAIN, certificate=BandSmoothing((1, 1), 3))
    assert plain.plan(Settings()) != plan
    assert [c.votes for c in plain.certify(images)] != [c.votes for c in certificates]
    assert "stride = 1, tokens dropped" in str(model)


def test_runs_are_verified_repeated_and_shown(awaken: Awaken, out: Path) -> None:
    model = robustify(transformer(awaken), preprocessing=PLAIN, certificate=BandSmoothing((1, 1), 3, drop_tokens=True))
    images = torch.randint(0, 256, (3, SIZE, SIZE), dtype=torch.uint8).numpy()
    samples = [Sample(str(i), image, 0) for i, image in enumerate(images)]
    certify_dataset(model, samples, out, Settings())
    run = read_run(out)
    assert run.plan == model.plan(Settings())
    assert verify_run(run) == []
    assert replay(model, samples, run, 3) == []
    shown = picture(model, samples[0], run.rows[0], run)
    assert shown.noisy[:, 3:].max() == 0  # what is missing is black


class Doubled(nn.Module):
    """Twice its input."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def test_models_that_cannot_leave_out_tokens_are_refused(awaken: Awaken) -> None:
    family = BandSmoothing((1, 1), 3, drop_tokens=True)
    network = nn.Sequential(nn.Flatten(), nn.Linear(SIZE**2, 5)).eval()
    with pytest.raises(ModelError, match=r"got a Sequential, which cannot leave out tokens.\n  Use drop_tokens=False"):
        robustify(network, preprocessing=PLAIN, certificate=family)
    with pytest.raises(ModelError, match="cannot leave out tokens"):
        robustify(transformer(awaken, dynamic_img_size=True), preprocessing=PLAIN, certificate=family)
    changed = transformer(awaken)
    changed.patch_drop = Doubled().eval()
    with pytest.raises(ModelError, match="does more than the vision transformers that this is made for"):
        robustify(changed, preprocessing=PLAIN, certificate=family)
    with pytest.raises(InputError, match="Leave out the denoiser"):
        robustify(transformer(awaken), preprocessing=PLAIN, denoiser=Shrink(), certificate=family)
    with pytest.raises(InputError, match="from 1 to 16; got 17"):
        robustify(transformer(awaken), preprocessing=PLAIN, certificate=BandSmoothing((1, 1), 17, drop_tokens=True))


@pytest.mark.parametrize(("keep", "precision"), [("blocks", "float32"), ("rows", "bfloat16")])
def test_other_settings_are_certified_too(keep: str, precision: str, awaken: Awaken) -> None:
    family = BandSmoothing((1, 1), 3, keep=keep, drop_tokens=True)
    model = robustify(transformer(awaken), preprocessing=PLAIN, certificate=family, precision=precision)
    image = torch.randint(0, 256, (1, SIZE, SIZE), dtype=torch.uint8)
    c = model.certify(image)
    assert c.draws == model.plan(Settings()).most_draws  # type: ignore[union-attr]  # one image
