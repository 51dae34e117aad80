"""What torch makes new tensors of changes no model, vote or pixel, and stops nothing."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import ViTImageProcessor

from robustify import Settings, SmoothedClassifier, robustify
from robustify.classifiers.processors import preprocessing_of
from robustify.data import Examples
from robustify.finetune import tune
from robustify.finetune.adapt.lora import Lora
from robustify.finetune.objectives import EarlyLearning, Gaussian, Objective
from robustify.smoothing.fingerprint import classifier_fingerprint, denoiser_fingerprint
from tests.finetune.train.toys import RECIPE
from tests.toys import MakeModel, Stripes


@pytest.fixture(params=[torch.float16, torch.bfloat16, torch.float64], ids=str)
def other(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    """Another data type than float32; what is set in a test is reset after it."""
    yield request.param
    torch.set_default_dtype(torch.float32)


def test_answers_stay(other: torch.dtype, make_model: MakeModel, stripes: Stripes) -> None:
    """The batch is so large that bfloat16 cannot tell its places apart."""

    def answers(model: SmoothedClassifier) -> tuple[object, ...]:
        certificate = model.certify(stripes[0][0], n=500, batch=1000, seed=1)
        return certificate.votes, certificate.radius, model.predict(stripes[0][0], n=100, seed=1).votes

    model = make_model()
    expected = answers(model)
    torch.set_default_dtype(other)
    model.forget_checks()
    assert answers(model) == expected
    assert model(stripes[0][:2].float() / 255).dtype == torch.float32


@pytest.mark.parametrize(
    ("adapt", "objective"),
    [(Lora(layers=("0",)), Gaussian()), ("full", EarlyLearning(Gaussian(), images=44))],
    ids=["lora", "full"],
)
def test_training_stays(
    other: torch.dtype, adapt: str | Lora, objective: Objective, make_model: MakeModel, stripes: Stripes, out: Path
) -> None:
    model = make_model()
    examples = Examples(model, *stripes)

    def trained(name: str) -> str:
        recipe = replace(RECIPE, epochs=1, adapt=adapt, objective=deepcopy(objective))
        tuned = tune(model, examples, recipe, out=out / name, validation=examples, quiet=True)
        return classifier_fingerprint(tuned.model.classifier)

    expected = trained("float32")
    torch.set_default_dtype(other)
    assert trained("other") == expected


def test_a_reference_names_one_model(other: torch.dtype) -> None:
    def named() -> tuple[str, str, str]:
        model = robustify("zoo:transformers", denoiser="zoo:ddpm")
        denoiser = denoiser_fingerprint(model.denoiser, [0.25])
        return classifier_fingerprint(model.classifier), denoiser, str(model.provenance(Settings(n=100)).numerics)

    expected = named()
    torch.set_default_dtype(other)
    assert named() == expected
    assert torch.get_default_dtype() == other


def test_an_image_processor_is_read_as_ever(other: torch.dtype) -> None:
    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    expected = preprocessing_of(processor, channels=3)
    torch.set_default_dtype(other)
    assert preprocessing_of(processor, channels=3) == expected
