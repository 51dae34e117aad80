"""Patch certificates as a user types them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage

from tests.toys_patches import PatchCleanser


def test_the_command_line_certifies_predicts_and_verifies(tmp_path: Path, robustify: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    for name in ("bag", "coat"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        PILImage.fromarray(rng.integers(0, 256, (32, 32), np.uint8)).save(tmp_path / "photos" / name / "a.png")
    patches = ("--certificate", f"{PatchCleanser.name}:patch=0.024,masks=2")
    done = robustify("certify", "zoo:timm", "photos", *patches)
    assert done.status == 0, done.stderr
    assert "certified accuracy at radius 1: " in done.stdout
    assert "patch-cleanser certificates, patch = 0.024, masks = 2, patches = 1" in done.stdout
    again = robustify("verify", "run", "--model", "zoo:timm", "--data", "photos")
    assert again.status == 0, again.stderr
    assert again.stdout == "2 rows: unchanged; arithmetic verified; 2 recomputed from their seeds: all match\n"
    assert robustify("status", "run").status == 0
    told = robustify("predict", "zoo:timm", "photos/bag/a.png", "--certificate", "patch-cleanser:patch=5+5")
    assert told.status == 0, told.stderr
    assert "(without chance)" in told.stdout
    cost = robustify("estimate", "zoo:timm", "photos", *patches)
    assert "draws: at most 20, in batches of 11" in cost.stdout
    for wrong, said in (
        ("patch=1.5", "share of the image's area"),
        ("masks=3", "missing: patch"),
        ("patch=40+5", "40"),
    ):
        refused = robustify("certify", "zoo:timm", "photos", "--certificate", f"patch-cleanser:{wrong}", "--out", "no")
        assert refused.status == 2
        assert said in refused.stderr
