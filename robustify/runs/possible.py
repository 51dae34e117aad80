"""What the configuration of a run may say: every value has its type and range, or the run is refused in words."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from robustify.contract import InputContract, Numerics
from robustify.runs.parse import parsed


class _Key(NamedTuple):
    """What a key of `run.json` holds.

    Arguments:
        possible: Whether a value is possible; may raise ValueError where it is not.
        expected: What a value is, in words.
        always: Whether runs of formats before the present one have it too.
    """

    possible: Callable[[Any], bool]
    expected: str
    always: bool = True


@dataclass(frozen=True)
class _Network:
    """A classifier or denoiser, as a configuration describes it."""

    name: str
    sha256: str
    description: str = ""


def _hash(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _count(value: object) -> bool:
    return type(value) is int and value >= 1


def _chance(value: object) -> bool:
    return type(value) in (int, float) and 0 < value < 1  # type: ignore[operator]


def _network(value: object) -> bool:
    return _hash(parsed(_Network, value).sha256)


def _contract(value: object) -> bool:
    found = parsed(InputContract, value)
    return found.channels in (1, 3) and min(found.shape) >= 1


def _seed(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9]{1,39}", value) is not None and int(value) < 2**128


def _labels(value: object) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(isinstance(name, str) for name in value)


def _text(value: object) -> bool:
    return isinstance(value, str)


def _optional(possible: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or possible(value)


_KEYS = {
    "family": _Key(_text, "the name of a family of certificates"),
    "plan": _Key(lambda value: isinstance(value, dict), "the question, as an object"),
    "classifier": _Key(_network, "name and sha256, 64 hexadecimal digits"),
    "denoiser": _Key(_network, "name, description and sha256, 64 hexadecimal digits"),
    "numerics": _Key(lambda value: bool(parsed(Numerics, value)), "how the networks compute, as an object"),
    "contract": _Key(_contract, "channels, 1 or 3, and height and width of at least 1"),
    "labels": _Key(_labels, "two or more names of classes"),
    "soundness": _Key(lambda value: value in ("grid", "float"), '"grid" or "float"'),
    "samples": _Key(_count, "a whole number of at least 1"),
    "seed": _Key(_seed, "a whole number from 0 to 2**128 - 1, as text"),
    "fresh": _Key(lambda value: isinstance(value, bool), "true or false"),
    "samples_sha256": _Key(_hash, "64 hexadecimal digits", always=False),
    "robustify": _Key(_text, "the version that made it", always=False),
    "family_alpha": _Key(_optional(_chance), "a number between 0 and 1, or null", always=False),
    "attempt": _Key(_optional(_count), "a whole number of at least 1, or null", always=False),
    "attempts_alpha": _Key(_optional(_chance), "a number between 0 and 1, or null", always=False),
    "digest": _Key(_hash, "64 hexadecimal digits", always=False),
}


def needed_keys(*, before: bool) -> list[str]:
    """Keys that a configuration has, of the present format or of the one before."""
    return ["format", *(name for name, key in _KEYS.items() if key.always or not before)]


def check_possible(config: Mapping[str, Any]) -> None:
    """Refuses values that no run could have; the plan's own are checked when the plan is read.

    Raises:
        ValueError: With the first such value, and what was expected.
    """
    for name, key in _KEYS.items():
        if name in config and not _is_possible(key, config[name]):
            raise ValueError(f"its {name} is {config[name]!r}; expected {key.expected}")


def _is_possible(key: _Key, value: object) -> bool:
    try:
        return key.possible(value)
    except ValueError:  # a part is missing, unknown or of another type
        return False
