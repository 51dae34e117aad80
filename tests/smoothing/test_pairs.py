"""Whether two functions agree, as logits."""

import pytest
import torch
from torch import Tensor

from robustify import Preprocessing, robustify
from robustify.certificates.migration import SameNoise
from robustify.certificates.views import View
from robustify.errors import InputError
from robustify.smoothing.laws import law_of
from robustify.smoothing.noise import NoiseAddress
from robustify.smoothing.pairs import agreement, before
from robustify.smoothing.pipeline import Pipeline


class _Answers(torch.nn.Module):
    """Logits that are the first pixels of each image, times a sign."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.sign = torch.nn.Parameter(torch.tensor(sign))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.sign * pixels.flatten(1)[:, :3]


def pair(sign: float) -> Pipeline:
    plain = Preprocessing((0.0,), (1.0,), (2, 2))
    old, new = (robustify(_Answers(s).eval(), preprocessing=plain, sigma=0.25) for s in (1.0, sign))
    return Pipeline(new.classifier, new.denoiser, before=old.pipeline)


def images() -> Tensor:
    return torch.tensor([[0.9, 0.1, 0.4, 0.0], [0.2, 0.3, 0.8, 0.0], [0.5, 0.5, 0.1, 0.0]]).view(3, 1, 2, 2)


def test_where_both_agree_the_class_leads_by_the_smaller_lead() -> None:
    logits = agreement(pair(0.5))(images(), 0.25)
    assert logits.argmax(dim=1).tolist()[:2] == [0, 2]
    first, second = logits.topk(2, dim=1).values.unbind(dim=1)
    assert (first - second).tolist() == pytest.approx([0.25, 0.25, 0.0], abs=1e-6)
    assert bool((logits >= images().flatten(1).amax(dim=1, keepdim=True) - 1e-6).all())  # so margins are no smaller


def test_where_they_differ_all_classes_tie() -> None:
    logits = agreement(pair(-1.0))(images(), 0.25)
    assert bool((logits == logits[:, :1]).all())


def test_a_pipeline_without_one_before_is_refused() -> None:
    alone = pair(1.0).before
    assert alone is not None
    for base in (before, agreement):
        with pytest.raises(InputError, match="need the model before the change too"):
            base(alone)
    assert before(pair(1.0)) is not None


@pytest.mark.parametrize("soundness", ["grid", "float"])
def test_noise_is_that_of_the_other_view(soundness: str) -> None:
    own, same = law_of(View(0.25), soundness), law_of(View(0.25, change=SameNoise(0)), soundness)
    here, there = (NoiseAddress(7, "a", view, "estimation") for view in (0, 2))
    assert (own.block(here, 3, (1, 4, 4)) == same.block(there, 3, (1, 4, 4))).all()
    assert not (own.block(there, 3, (1, 4, 4)) == same.block(there, 3, (1, 4, 4))).all()
    assert same.sigma == own.sigma
