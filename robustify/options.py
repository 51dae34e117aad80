"""Options declared once: the fields of a dataclass become the keyword arguments of a function.

`robustify(model, sigma=0.5, …)` and `model.certify(image, n=1000, …)` take their keywords from a dataclass, whose
docstring documents each field; the command line makes its options from the same dataclasses. Type checkers see the
keywords too: they are those of the dataclass's constructor.
"""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar, cast

from robustify.errors import InputError

P = ParamSpec("P")
Options = TypeVar("Options")
Self = TypeVar("Self")
First = TypeVar("First")
Result = TypeVar("Result")


def takes(
    options: Callable[P, Options],
) -> Callable[[Callable[[First, Options], Result]], Callable[Concatenate[First, P], Result]]:
    """A decorator for functions of one argument and options: the options' fields become keyword arguments.

    Arguments:
        options: A dataclass whose fields are all keyword-only.
    """

    def decorate(function: Callable[[First, Options], Result]) -> Callable[Concatenate[First, P], Result]:
        @wraps(function)
        def call(first: First, /, *args: P.args, **kwargs: P.kwargs) -> Result:
            _check_known(function, options, kwargs)
            return function(first, options(*args, **kwargs))

        return _signed(call, function, options)

    return decorate


def method_takes(
    options: Callable[P, Options],
) -> Callable[[Callable[[Self, First, Options], Result]], Callable[Concatenate[Self, First, P], Result]]:
    """A decorator like `takes`, for methods."""

    def decorate(method: Callable[[Self, First, Options], Result]) -> Callable[Concatenate[Self, First, P], Result]:
        @wraps(method)
        def call(self: Self, first: First, /, *args: P.args, **kwargs: P.kwargs) -> Result:
            _check_known(method, options, kwargs)
            return method(self, first, options(*args, **kwargs))

        return _signed(call, method, options)

    return decorate


def check_flags(**flags: object) -> None:
    """Raises `InputError` at the first that is neither True nor False: 'no' would count as yes."""
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise InputError(f"expected {name} to be True or False; got {value!r}")


C = TypeVar("C", bound=Callable[..., object])


def checked(elsewhere: Mapping[str, str]) -> Callable[[C], C]:
    """A decorator for functions with keywords of their own: at an unknown one they name the nearest.

    Arguments:
        elsewhere: What to say of keywords that belong somewhere else, such as "a field of Recipe: …".
    """

    def decorate(function: C) -> C:
        @wraps(function)
        def call(*args: object, **kwargs: object) -> object:
            _check_known(function, function, kwargs, elsewhere)
            return function(*args, **kwargs)

        return cast(C, call)

    return decorate


def _check_known(
    function: Callable[..., object],
    options: Callable[..., object],
    given: Mapping[str, object],
    elsewhere: Mapping[str, str] | None = None,
) -> None:
    """Raises `TypeError`, as Python does, at a keyword that no option has; with the nearest that there is."""
    known = list(inspect.signature(options).parameters)
    for name in given:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
            if elsewhere and name in elsewhere:
                hint = f"it is {elsewhere[name]}"
            raise TypeError(f"{function.__name__}() got an unexpected keyword argument {name!r}; {hint}")


def _signed(call: C, function: Callable[..., object], options: Callable[..., object]) -> C:
    """The function with the signature that help and editors show."""
    own = inspect.signature(function)
    *before, _ = own.parameters.values()
    call.__signature__ = own.replace(parameters=[*before, *inspect.signature(options).parameters.values()])  # type: ignore[attr-defined]
    del call.__wrapped__  # type: ignore[attr-defined]
    return call
