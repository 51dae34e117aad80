"""Mixtures and partitions on the command line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PILImage
from safetensors.torch import load_file

from robustify.certificates.mixed import Mixed
from robustify.certificates.partition import Partition
from robustify.zoo import HELD_OUT
from tests.toys_family import known

Command = Callable[..., Any]
"""Runs a command line; answers with status, stdout and stderr."""

known(Mixed)
known(Partition)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with four pictures."""
    place = tmp_path / "photos"
    place.mkdir()
    for i, image in enumerate(load_file(HELD_OUT)["images"][:4]):
        PILImage.fromarray(image[0].numpy()).save(place / f"{i}.png")
    return place


@pytest.mark.parametrize(
    "options", [("--sigma", 0.1, "--mix", 0.8), ("--certificate", "mixed:sigma=0.1,weight=0.8,confidence=0.3")]
)
def test_a_mixture_is_certified_and_verified(options: tuple[object, ...], photos: Path, robustify: Command) -> None:
    found = robustify("certify", "zoo:timm", photos, "--n", 60, "--n0", 20, *options, "--out", "run")
    assert found.status == 0, found.stderr
    assert "4 of 4 images" in robustify("status", "run").stdout
    again = robustify("verify", "run", "--model", "zoo:timm", "--data", photos, "--sample", 2)
    assert again.stdout == "4 rows: unchanged; arithmetic verified; 2 recomputed from their seeds: all match\n"


def test_a_partition_is_certified_and_verified(photos: Path, robustify: Command) -> None:
    partition = "--certificate", "partition:sigma=0.1"
    found = robustify("certify", "zoo:timm", photos, "--n", 30, "--n0", 10, *partition, "--out", "run")
    assert found.status == 0, found.stderr
    again = robustify("verify", "run", "--model", "zoo:timm", "--data", photos, "--sample", 2)
    assert again.stdout == "4 rows: unchanged; arithmetic verified; 2 recomputed from their seeds: all match\n"


def test_weights_are_refused_before_any_work(photos: Path, robustify: Command) -> None:
    found = robustify("certify", "zoo:timm", photos, "--mix", 0.5, "--out", "run")
    assert found.status == 2
    assert "above 1/2 and at most 1; got 0.5" in found.stderr
