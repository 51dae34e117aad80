"""Published recipes: number for number as they were before they became a table."""

import json
from pathlib import Path

import pytest

from robustify.finetune import PRESETS

GOLDEN = json.loads((Path(__file__).parent / "golden" / "presets.json").read_text())
"""`described()` of each recipe at each published sigma, written before the recipes moved to TOML."""


@pytest.mark.parametrize("name", [*GOLDEN])
@pytest.mark.parametrize("sigma", ["0.25", "0.5", "1.0"])
def test_published_recipes_stay_as_they_are(name: str, sigma: str) -> None:
    described = PRESETS[name].recipe(float(sigma)).described()
    assert json.dumps(described, sort_keys=True) == json.dumps(GOLDEN[name][sigma], sort_keys=True)  # 1 is not 1.0


def test_no_published_recipe_is_lost_or_unknown() -> None:
    assert list(PRESETS) == list(GOLDEN)
    assert all(preset.source for preset in PRESETS.values())
