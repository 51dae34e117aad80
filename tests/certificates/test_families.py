"""The table of families in the documentation says what is there, and what goes with a denoiser."""

from pathlib import Path

import pytest

from robustify import SmoothedClassifier
from robustify.certificates import (
    BandSmoothing,
    Brightness,
    Cascade,
    Contrast,
    Gaussian,
    Grid,
    Mixed,
    Partition,
    PatchCleanser,
    Translation,
)
from robustify.certificates.family import CERTIFICATES, Family
from robustify.errors import InputError
from tests import toys

TABLE = Path(__file__).parents[2] / "docs" / "certificates.md"
FAMILIES: list[Family] = [
    BandSmoothing(patch=(1, 1), band=2),
    Brightness(0.1),
    Cascade((0.25, 0.5)),
    Contrast(0.3),
    Gaussian(0.25),
    Grid(),
    Mixed(0.25),
    Partition(0.25),
    PatchCleanser((1, 1)),
    Translation(),
]


def rows() -> dict[str, list[str]]:
    """The cells of each row by the family's name."""
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {first.strip("` "): others for first, *others in cells}


def test_every_family_of_the_package_has_a_row() -> None:
    ours = {name for name in CERTIFICATES.names() if CERTIFICATES.origin(name).startswith("robustify-vision ")}
    assert ours == set(rows()) == {family.name for family in FAMILIES} | {"migrated"}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_denoiser_is_taken_or_refused_as_the_table_says(family: Family) -> None:
    classifier, denoiser = toys.linear_model().classifier, toys.Shrink()
    if rows()[family.name][4] == "yes":
        assert SmoothedClassifier(classifier, denoiser, family=family).family == family
    else:
        with pytest.raises(InputError, match="Leave out the denoiser"):
            SmoothedClassifier(classifier, denoiser, family=family)
