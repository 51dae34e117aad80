"""A run.json that describes no possible run is refused in words, whatever is wrong with it."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from robustify.errors import RunError
from robustify.runs.folder import read_run
from robustify.runs.possible import needed_keys

FORMAT_2 = Path(__file__).parent / "format2"


def read(tmp_path: Path, **changed: Any) -> None:  # noqa: ANN401
    """Reads a run whose configuration has other values, and shows it."""
    config = json.loads((FORMAT_2 / "run.json").read_text())
    for name, value in changed.items():
        config[name] = {**config[name], **value} if isinstance(value, dict) and config.get(name) else value
    (tmp_path / "run.json").write_text(json.dumps(config))
    (tmp_path / "rows.parquet").write_bytes((FORMAT_2 / "rows.parquet").read_bytes())
    assert str(read_run(tmp_path))


def test_the_run_as_it_was_is_read(tmp_path: Path) -> None:
    read(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("samples", -5, "a whole number of at least 1"),
        ("samples", 0, "a whole number of at least 1"),
        ("samples", 2.5, "a whole number of at least 1"),
        ("samples", True, "a whole number of at least 1"),
        ("samples", "5", "a whole number of at least 1"),
        ("seed", 3, "a whole number from 0 to 2**128 - 1, as text"),
        ("seed", "-3", "a whole number from 0 to 2**128 - 1, as text"),
        ("seed", str(2**128), "a whole number from 0 to 2**128 - 1, as text"),
        ("fresh", "no", "true or false"),
        ("soundness", "rough", '"grid" or "float"'),
        ("labels", "cats and dogs", "two or more names of classes"),
        ("labels", ["cat"], "two or more names of classes"),
        ("labels", ["cat", 3], "two or more names of classes"),
        ("contract", [1, 4, 4], "channels, 1 or 3, and height and width of at least 1"),
        ("contract", {"height": -4}, "channels, 1 or 3, and height and width of at least 1"),
        ("contract", {"width": "4"}, "channels, 1 or 3, and height and width of at least 1"),
        ("contract", {"channels": 2}, "channels, 1 or 3, and height and width of at least 1"),
        ("numerics", {"compiled": "no"}, "how the networks compute, as an object"),
        ("numerics", None, "how the networks compute, as an object"),
        ("classifier", {"sha256": "0"}, "name and sha256, 64 hexadecimal digits"),
        ("classifier", {"name": 7}, "name and sha256, 64 hexadecimal digits"),
        ("denoiser", "none", "name, description and sha256, 64 hexadecimal digits"),
        ("family", None, "the name of a family of certificates"),
        ("plan", "fixed", "the question, as an object"),
        ("samples_sha256", "", "64 hexadecimal digits"),
        ("family_alpha", 2, "a number between 0 and 1, or null"),
        ("family_alpha", math.nan, "a number between 0 and 1, or null"),
        ("attempts_alpha", -0.1, "a number between 0 and 1, or null"),
        ("attempt", 0, "a whole number of at least 1, or null"),
        ("attempt", True, "a whole number of at least 1, or null"),
    ],
)
def test_an_impossible_value_is_refused_in_words(tmp_path: Path, name: str, value: Any, expected: str) -> None:  # noqa: ANN401
    with pytest.raises(RunError) as caught:
        read(tmp_path, **{name: value})
    assert f"run.json' describes no possible run: its {name} is " in str(caught.value)
    assert str(caught.value).endswith(f"; expected {expected}")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"alpha": 2}, "expected 0 < alpha < 1"),
        ({"alpha": math.nan}, "expected 0 < alpha < 1"),
        ({"alpha": "small"}, "could not convert"),
        ({"sigma": math.nan}, "sigma, the standard deviation of the noise, to be positive; got nan"),
        ({"sigma": -0.25}, "sigma, the standard deviation of the noise, to be positive"),
        ({"sigma": "0.25"}, "its plan is .*'sigma': '0.25'.*; expected .*'sigma': 0.25"),
        ({"sigma": None}, "the certificate family 'gaussian'"),
        ({"n": -1}, "expected n to be a whole number"),
        ({"n": 300.5}, "the certificate family 'gaussian'"),
        ({"n": "300"}, "the certificate family 'gaussian'"),
        ({"n0": -1}, "expected n0 to be a whole number"),
        ({"n0": None}, "the certificate family 'gaussian'"),
        ({"slack": -0.1}, "expected slack"),
        ({"slack": math.nan}, "expected slack"),
        ({"radii": [0.1, 0.05]}, "positive and increasing"),
        ({"radii": 0.1}, "not iterable"),
        ({"radii": []}, "one or more radii"),
        ({"radii": [math.inf]}, "positive and increasing"),
        ({"rule": "guess"}, "expected the rule"),
        ({"rule": ["fixed"]}, "unhashable|expected the rule"),
    ],
)
def test_an_impossible_plan_is_refused_in_words(tmp_path: Path, value: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError, match=f"run.json' describes no possible run: .*{message}"):
        read(tmp_path, plan=value)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"run"'])
def test_what_is_no_object_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunError, match="does not describe a certification run: it holds "):
        read_run(tmp_path)


@pytest.mark.parametrize("name", needed_keys(before=True))
def test_a_missing_key_is_named(tmp_path: Path, name: str) -> None:
    config = json.loads((FORMAT_2 / "run.json").read_text())
    del config[name]
    (tmp_path / "run.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match=f"it lacks (.*, )?{name}(, .*)?$"):
        read_run(tmp_path)
