"""Certificates against parameter transforms on the command line: certified, reported, told, verified, drawn again."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image as PILImage

from robustify.zoo.fashion_mnist import CLASSES
from tests.cli.conftest import Outcome
from tests.toys_transforms import Linear

Command = Callable[..., Outcome]
NAMED = {
    "brightness:sigma=0.1": ("--n", 40, "--n0", 10),
    "contrast:sigma=0.2": ("--n", 40, "--n0", 10, "--soundness", "float"),
    "translation:shift=1,fill=cyclic": (),
    "grid:shift=1,brightness=4,step=4": (),
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three even pictures in folders named by class."""
    for i, level in enumerate((40, 128, 220)):
        place = tmp_path / "photos" / CLASSES[i].replace(" ", "_")
        place.mkdir(parents=True)
        PILImage.new("L", (28, 28), level).save(place / f"{i}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize("named", NAMED)
def test_a_family_lives_through_the_command_line(named: str, photos: Path, robustify: Command, tmp_path: Path) -> None:
    assert Linear  # registers the families where they are not installed
    found = robustify("certify", "zoo:timm", photos, "--certificate", named, "--out", "run", *NAMED[named])
    assert found.status == 0, found.stderr
    assert (tmp_path / "run" / "report.html").read_text().count("</html>") == 1
    told = robustify("status", "run")
    assert (told.status, "3 of 3 images" in told.stdout) == (0, True)
    again = robustify("verify", "run", "--model", "zoo:timm", "--data", photos, "--sample", 3)
    assert again.stdout == "3 rows: unchanged; arithmetic verified; 3 recomputed from their seeds: all match\n"


def test_contrast_says_what_it_needs(photos: Path, robustify: Command) -> None:
    found = robustify("certify", "zoo:timm", photos, "--certificate", "contrast:sigma=0.2", "--out", "run")
    assert found.status == 2
    assert "soundness float" in found.stderr
