"""Which family users mean, and what contradicts itself."""

from typing import Any

import numpy as np
import pytest

from robustify import Settings, SmoothedClassifier
from robustify.certificates import Brightness, Cascade, Gaussian, Mixed, Partition, PatchCleanser, Translation
from robustify.certificates.choice import family_of
from robustify.certificates.family import Subject
from robustify.certificates.lattice import total_variation
from robustify.certificates.question import Question
from robustify.contract import InputContract
from robustify.denoisers import Identity
from robustify.errors import InputError
from robustify.runs.preparation import model_key
from tests import toys


@pytest.mark.parametrize(
    ("given", "family"),
    [
        ({}, Gaussian(0.25)),
        ({"sigma": 0.5}, Gaussian(0.5)),
        ({"sigma": (0.25, 0.5)}, Cascade((0.25, 0.5))),
        ({"sigma": 0.5, "mix": 0.8}, Mixed(0.5, 0.8)),
        ({"mix": 0.8}, Mixed(0.25, 0.8)),
        ({"certificate": Gaussian(0.5)}, Gaussian(0.5)),
        ({"sigma": 0.5, "certificate": "gaussian"}, Gaussian(0.5)),
        ({"certificate": "cascade:sigmas=0.25+0.5,p0=0.6"}, Cascade((0.25, 0.5), 0.6)),
        ({"certificate": "gaussian:sigma=1e+0"}, Gaussian(1.0)),
        ({"certificate": "translation:shift=2,fill=cyclic"}, Translation(2, "cyclic")),
        ({"certificate": "patch-cleanser:patch=3+4"}, PatchCleanser((3, 4))),
    ],
)
def test_families_by_what_is_given(given: dict[str, Any], family: object) -> None:
    assert family_of(**given) == family


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"sigma": 0.25, "certificate": Gaussian(0.5)}, "has its own settings; leave out sigma=0.25"),
        ({"sigma": 0.25, "certificate": "gaussian:sigma=0.5"}, "give sigma=0.25 or sigma in certificate="),
        ({"certificate": "mixed:sigma=0.5,sigma=0.25"}, "once; got sigma twice"),
        ({"sigma": 0.5, "mix": 0.8, "certificate": "mixed"}, "give certificate='mixed' or mix=0.8, not both"),
        ({"sigma": (0.25, 0.5), "mix": 0.8}, "mix= is for one noise level"),
        ({"sigma": 0.25, "certificate": "translation"}, "adds no noise; leave out sigma="),
        ({"certificate": "gaussian:0.5"}, "expected settings of a certificate as 'name:setting=value"),
        ({"certificate": "gaussian:sgma=0.5"}, "has the settings sigma; got sgma"),
        ({"certificate": "gaussian"}, "missing: sigma"),
    ],
)
def test_contradictions_are_named(given: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        family_of(**given)


def test_numbers_of_numpy_become_plain_ones() -> None:
    """A stored plan holds what JSON can."""
    subject = Subject(InputContract(1, 8, 8), 3, lambda view: 0.0)
    for family in (
        Gaussian(np.float64(0.5)),
        Mixed(np.float64(0.5)),
        Partition(np.float64(0.5)),
        Brightness(np.float64(0.5)),
    ):
        assert type(family.plan(Question(n=100), subject).stored()["sigma"]) is float
    assert Mixed(0.5, confidence=np.float64(0.5)).bases[1].endswith(":0.5")


def test_a_mixture_with_nothing_has_no_confidence() -> None:
    """It is the smoothed classifier alone, under as many names as there are confidences."""
    with pytest.raises(InputError, match="with weight = 1 the classifier alone takes no part"):
        Mixed(0.5, 1.0, 0.5)


@pytest.mark.parametrize("sigma", [1e20, 1e308, 1e-320])
def test_sigmas_without_a_table_are_refused_at_once(sigma: float) -> None:
    with pytest.raises(InputError, match="expected a positive, finite sigma"):
        total_variation(sigma, 10)


def test_families_that_begin_alike_share_their_attempts() -> None:
    """Other weights, confidences and lower levels would otherwise be free attempts at nearly one claim."""
    classifier, settings = toys.linear_model().classifier, Settings(n=100, n0=20, seed=1)
    families = [Gaussian(0.5), Mixed(0.5, 0.9), Mixed(0.5, 0.8, 0.4), Cascade((0.5, 0.25)), Cascade((0.5, 0.2))]
    models = [SmoothedClassifier(classifier, Identity(), family=family) for family in families]
    assert len({model_key(model, model.provenance(settings)) for model in models}) == 1
    other = SmoothedClassifier(classifier, Identity(), sigma=0.25)
    assert model_key(other, other.provenance(settings)) != model_key(models[0], models[0].provenance(settings))
