"""Band certificates as a user types them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage

from tests.toys_bands import BandSmoothing


def test_the_command_line_certifies_predicts_and_verifies(tmp_path: Path, robustify: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    for name in ("bag", "coat"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        PILImage.fromarray(rng.integers(0, 256, (32, 32), np.uint8)).save(tmp_path / "photos" / name / "a.png")
    bands = ("--certificate", f"{BandSmoothing.name}:patch=0.024,band=4,stride=2")
    done = robustify("certify", "zoo:timm", "photos", *bands)
    assert done.status == 0, done.stderr
    assert "certified accuracy at radius 1: " in done.stdout
    assert "band-smoothing certificates, patch = 0.024, band = 4, keep = columns, stride = 2" in done.stdout
    again = robustify("verify", "run", "--model", "zoo:timm", "--data", "photos")
    assert again.status == 0, again.stderr
    assert again.stdout == "2 rows: unchanged; arithmetic verified; 2 recomputed from their seeds: all match\n"
    assert robustify("status", "run").status == 0
    told = robustify("predict", "zoo:timm", "photos/bag/a.png", "--certificate", "band-smoothing:patch=5+5,band=4")
    assert told.status == 0, told.stderr
    assert "(without chance" in told.stdout
    cost = robustify("estimate", "zoo:timm", "photos", *bands)
    assert "draws: 32, in batches of 17" in cost.stdout
    for wrong, said in (
        ("patch=0.02", "missing: band"),
        ("patch=0.02,band=4,keep=all", "expected keep columns, rows, blocks; got 'all'"),
        ("patch=0.02,band=28", "nothing could be certified"),
        ("patch=0.02,band=4,drop_tokens=true", "cannot leave out tokens"),
    ):
        refused = robustify("certify", "zoo:timm", "photos", "--certificate", f"band-smoothing:{wrong}", "--out", "no")
        assert refused.status == 2, refused.stderr
        assert said in refused.stderr
