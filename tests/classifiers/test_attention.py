"""Attention at another temperature, against a softmax by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustify import Preprocessing, SmoothedClassifier
from robustify.classifiers import ImageClassifier
from robustify.classifiers.attention import with_attention_temperature
from robustify.denoisers import Identity
from robustify.errors import InputError, ModelError
from robustify.smoothing.fingerprint import classifier_fingerprint
from tests.toys import Awaken

PLAIN = Preprocessing(mean=(0.4,), std=(0.3,), size=(16, 16))


def transformer(awaken: Awaken, **settings: Any) -> ImageClassifier:  # noqa: ANN401
    from timm.models import VisionTransformer

    size = {"img_size": 16, "patch_size": 4, "in_chans": 1, "num_classes": 5, "embed_dim": 12, "num_heads": 2}
    vit = awaken(VisionTransformer(**{**size, "depth": 2, **settings}))
    return ImageClassifier(vit, PLAIN, labels=["a", "b", "c", "d", "e"], name="vit", licence="mit")


def by_hand(attention: Any, x: Tensor, temperature: float) -> Tensor:  # noqa: ANN401
    """Attention of each head, one after another."""
    width, size = attention.attn_dim, attention.head_dim
    qkv = attention.qkv(x)
    found = []
    for head in range(attention.num_heads):
        part = slice(head * size, (head + 1) * size)
        q, k, v = (qkv[..., i * width : (i + 1) * width][..., part] for i in range(3))
        q, k = attention.q_norm(q), attention.k_norm(k)
        logits = q @ k.transpose(-1, -2) / (temperature * size**0.5)
        found.append(logits.softmax(dim=-1) @ v)
    return attention.proj(torch.cat(found, dim=-1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("settings", [{}, {"qkv_bias": False}, {"qk_norm": True}], ids=str)
@pytest.mark.parametrize("temperature", [1.0, 1.25, 2.0, 0.5])
def test_logits_of_attention_are_divided(
    settings: dict[str, Any], temperature: float, fused: bool, awaken: Awaken
) -> None:
    own = transformer(awaken, **settings)
    other = with_attention_temperature(own, temperature)
    x = torch.randn(3, 17, 12)
    for before, after in zip(own.network.blocks, other.network.blocks, strict=True):  # type: ignore[arg-type,union-attr]
        after.attn.fused_attn = fused
        torch.testing.assert_close(after.attn(x), by_hand(before.attn, x, temperature), atol=1e-5, rtol=1e-4)


def test_a_temperature_of_one_changes_no_bit_and_others_change_the_model(awaken: Awaken) -> None:
    own = transformer(awaken)
    before = classifier_fingerprint(own)
    pixels = torch.rand(4, 1, 16, 16)
    same, warm, hot = (with_attention_temperature(own, t) for t in (1.0, 1.5, 3.0))
    assert torch.equal(same(pixels), own(pixels))
    prints = [classifier_fingerprint(c) for c in (same, warm, hot)]
    assert prints[0] == before == classifier_fingerprint(own)
    assert len({*prints}) == 3
    assert not torch.allclose(warm(pixels), own(pixels), atol=1e-3)
    twice = with_attention_temperature(warm, 2.0)
    torch.testing.assert_close(twice(pixels), hot(pixels))
    assert (warm.labels, warm.licence, warm.preprocessing) == (own.labels, "mit", PLAIN)
    assert warm.name == "vit, attention at temperature 1.5"


def test_it_is_certified_as_any_classifier(awaken: Awaken) -> None:
    warm = with_attention_temperature(transformer(awaken), 1.5)
    model = SmoothedClassifier(warm, Identity(), sigma=0.25)
    c = model.certify(torch.randint(0, 256, (1, 16, 16), dtype=torch.uint8), n=200, n0=20)
    assert c.provenance.classifier == classifier_fingerprint(warm)  # type: ignore[union-attr]  # one image


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_what_is_no_temperature_is_refused(temperature: float, awaken: Awaken) -> None:
    with pytest.raises(InputError, match="expected a temperature of attention, a finite number above 0; got"):
        with_attention_temperature(transformer(awaken), temperature)


def test_models_without_such_attention_are_refused(awaken: Awaken) -> None:
    from timm.layers import DiffAttention

    network = nn.Sequential(nn.Flatten(), nn.Linear(256, 5)).eval()
    with pytest.raises(ModelError, match="got a Sequential in which 0 do"):
        with_attention_temperature(ImageClassifier(network, PLAIN), 1.5)
    with pytest.raises(ModelError, match="got a VisionTransformer in which 0 do"):
        with_attention_temperature(transformer(awaken, attn_layer=DiffAttention), 1.5)
    bare = transformer(awaken, qk_norm=True)
    for block in bare.network.blocks:  # type: ignore[union-attr]
        block.attn.q_norm = nn.LayerNorm(6, elementwise_affine=False)  # type: ignore[union-attr]
    with pytest.raises(ModelError, match="normalises queries and has no weights"):
        with_attention_temperature(bare, 1.5)
