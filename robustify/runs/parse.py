"""Content of JSON files as frozen dataclasses, with every type checked."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def parsed(kind: type[T], content: object) -> T:
    """An instance of a dataclass from a JSON object of its fields.

    Fields may be strings, booleans, numbers, None, tuples of one kind of items, or dataclasses of such fields. Those
    with a default may be missing.

    Raises:
        ValueError: In words, if a field is missing, unknown or of another type.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"expected an object; got {content!r}")
    hints, known = get_type_hints(kind), {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    needed = {name for name, field in known.items() if field.default is MISSING}
    if not needed <= content.keys() <= known.keys():
        raise ValueError(f"expected {', '.join(known)}; got {', '.join(map(str, content)) or 'nothing'}")
    return kind(**{name: _value(name, hints[name], value) for name, value in content.items()})


def _value(name: str, hint: Any, value: object) -> Any:  # noqa: ANN401 - types have no better type
    """The value of a field, as its type asks."""
    if is_dataclass(hint):
        return parsed(hint, value)  # type: ignore[arg-type]
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_value(name, get_args(hint)[0], item) for item in value)
    allowed = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if type(value) not in allowed:  # exactly: True is no number here
        raise ValueError(f"expected {name} to be {' or '.join(_named(kind) for kind in allowed)}; got {value!r}")
    return value


def _named(kind: Any) -> str:  # noqa: ANN401
    words = {int: "a whole number", str: "text", bool: "true or false", type(None): "null"}
    return words.get(kind, "a list")
