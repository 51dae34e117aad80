"""The classifier alone as a base function, silent where it is not confident."""

import pytest
import torch

from robustify import SmoothedClassifier
from robustify.certificates.mixed import Mixed
from robustify.smoothing import alone
from tests.toys import Shrink, linear_model


@pytest.fixture
def mixed() -> SmoothedClassifier:
    """A mixture whose classifier alone votes where it is more than half sure, behind a denoiser that shows."""
    return SmoothedClassifier(linear_model().classifier, Shrink(), family=Mixed(0.25, 0.9, 0.4))


def test_the_classifier_alone_is_not_denoised(mixed: SmoothedClassifier) -> None:
    pixels = torch.rand(20, 1, 4, 4)
    expected = mixed.classifier(pixels)
    assert torch.equal(alone.confident(mixed.pipeline, "0")(pixels, 0.0), expected)
    assert not torch.allclose(mixed.logits(pixels), expected)


def test_below_the_confidence_all_logits_tie(mixed: SmoothedClassifier) -> None:
    pixels = torch.rand(200, 1, 4, 4)
    expected = mixed.classifier(pixels)
    sure = expected.softmax(dim=1).amax(dim=1) > 0.4
    assert 0 < int(sure.sum()) < 200
    found = alone.confident(mixed.pipeline, "0.4")(pixels, 0.0)
    assert torch.equal(found[sure], expected[sure])
    assert torch.equal(found[~sure], torch.zeros_like(found[~sure]))


def test_certificates_hold_the_vote_of_the_classifier_alone(mixed: SmoothedClassifier) -> None:
    votes = []
    for image in torch.randint(0, 256, (12, 1, 4, 4), dtype=torch.uint8):
        certificate = mixed.certify(image, n=100, n0=20, seed=1)
        alone = certificate.tallies[1]
        logits = mixed.classifier(image[None].float() / 255)[0].detach()
        sure = float(logits.softmax(0).max()) > 0.4
        assert alone.votes == tuple(int(sure and c == int(logits.argmax())) for c in range(3))
        assert (alone.view, alone.draws) == (1, 1)
        assert certificate.answer is not None
        votes.append(sum(alone.votes))
    assert set(votes) == {0, 1}
