"""The check of a source passes what is right and names what is wrong: each fault is injected once."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from types import SimpleNamespace
from typing import Any

import pytest

from robustify.errors import ModelError
from robustify.registry import CLASSIFIERS, DENOISERS
from robustify.testing import check_source

LISTED = ["ball", "boat[1]", "kite"]


def listing(pattern: str = "*", /) -> list[str]:
    return [name for name in LISTED if fnmatchcase(name, pattern)]


def source(**parts: object) -> object:
    return SimpleNamespace(**{"load": str.upper, "names": listing} | parts)


@pytest.mark.parametrize("listed", [listing, lambda pattern="*", /: []], ids=["some", "too many to list"])
def test_a_source_passes(listed: Callable[..., list[str]]) -> None:
    check_source(source(names=listed))


@pytest.mark.parametrize("name", ["timm", "open_clip", "hf", "zoo"])
def test_our_classifier_sources_pass(name: str) -> None:
    check_source(CLASSIFIERS.find(name))


@pytest.mark.parametrize("name", ["diffusers", "zoo"])
def test_our_denoiser_sources_pass(name: str) -> None:
    check_source(DENOISERS.find(name))


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ({"load": None}, "has no function 'load'"),
        ({"names": LISTED}, "has no function 'names'"),
        ({"load": lambda: None}, r"load\(\) .* cannot be called as load\('name'\)"),
        ({"load": lambda name, revision: None}, r"missing a required argument: 'revision'"),
        ({"names": lambda: LISTED}, r"names\(\) .* cannot be called as names\('pattern\*'\)"),
        ({"names": lambda pattern: LISTED}, r"cannot be called as names\(\)"),
        ({"names": lambda pattern="*": tuple(LISTED)}, "a list of str; got .'ball'"),
        ({"names": lambda pattern="*": [1, 2]}, r"a list of str; got \[1, 2\]"),
        ({"names": lambda pattern="*": LISTED[::-1]}, "sorted and each once"),
        ({"names": lambda pattern="*": ["ball", "ball"]}, "sorted and each once"),
        ({"names": lambda pattern="*": LISTED}, r"expected names\('b\*'\) to be \['ball', 'boat\[1\]'\]"),
        ({"names": lambda pattern="*": LISTED if pattern == "*" else []}, r"expected names\('b\*'\) to be .* got \[\]"),
    ],
)
def test_a_faulty_source_is_told_what_is_wrong(fault: dict[str, Any], text: str) -> None:
    with pytest.raises(ModelError, match=text):
        check_source(source(**fault))
