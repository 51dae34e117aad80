from typing import Any

import pytest

from robustify.certificates.question import Question
from robustify.errors import InputError


def test_radii_are_sorted_and_doubles_removed() -> None:
    assert Question(radius=[0.5, 0.25, 0.5, 1.0]).radii == (0.25, 0.5, 1.0)
    assert Question(radius=0.25).radii == (0.25,)
    assert Question().radii == ()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"radius": 0.5, "n": 1_000}, "not both"),
        ({"known_label": True}, "give the radius"),
        ({"n0": 0}, "n0 to be a whole number of at least 1"),
        ({"radius": 0.5, "n0": -1}, "n0 to be a whole number of at least 0"),
        ({"n": 10}, "Use n >= 11"),
        ({"n_max": 10}, "Use n >= 11"),
        ({"alpha": 0.0}, "0 < alpha < 1"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        Question(**options)


def test_n_max_does_not_matter_where_n_is_given() -> None:
    assert Question(n=1_000, n_max=1).n == 1_000
    assert Question(radius=0.5, n0=0).n0 == 0
