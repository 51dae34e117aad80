"""A cascade on the command line: several levels of noise, or the family by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PILImage
from safetensors.torch import load_file

from robustify.zoo import HELD_OUT
from robustify.zoo.fashion_mnist import CLASSES
from tests.toys_cascade import SIGMAS

Command = Callable[..., Any]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Class folders with three pictures."""
    arrays = load_file(HELD_OUT)
    for i in range(3):
        place = tmp_path / "photos" / CLASSES[arrays["labels"][i]].replace(" ", "_")
        place.mkdir(parents=True, exist_ok=True)
        PILImage.fromarray(arrays["images"][i, 0].numpy()).save(place / f"{i}.png")
    return tmp_path / "photos"


def test_several_sigmas_make_a_cascade_that_is_verified(photos: Path, robustify: Command) -> None:
    levels = ",".join(map(str, SIGMAS[:2]))
    found = robustify("certify", "zoo:timm", photos, "--n", 40, "--n0", 10, "--sigma", levels, "--out", "run")
    assert found.status == 0, found.stderr
    plain = robustify("verify", "run", "--model", "zoo:timm", "--data", photos)
    assert (plain.status, plain.stdout.splitlines()[0]) == (
        0,
        "3 rows: unchanged; arithmetic verified; 3 recomputed from their seeds: all match",
    )
    refused = robustify("certify", "zoo:timm", photos, "--radius", 0.5, "--sigma", levels, "--out", "other")
    assert refused.status == 2
    assert "a cascade finds the largest radius" in refused.stderr


def test_the_family_has_a_name_and_settings(photos: Path, robustify: Command) -> None:
    text = "cascade:sigmas=0.25+0.5,p0=0.6,otherwise=clean"
    found = robustify("certify", "zoo:timm", photos, "--n", 40, "--n0", 10, "--certificate", text, "--out", "run")
    assert found.status == 0, found.stderr
    wrong = robustify("certify", "zoo:timm", photos, "--certificate", "cascade:sigmas=0.25+0.25", "--out", "other")
    assert (wrong.status, "two or more different sigmas" in wrong.stderr) == (2, True)
