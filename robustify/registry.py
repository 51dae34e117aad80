"""Named things, found through entry points and imported only when asked for; the sources of models."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, Union, cast, final, runtime_checkable

from robustify.errors import (
    BrokenPluginError,
    InputError,
    MissingPluginError,
    PluginConflictError,
    UnknownPluginError,
)

if TYPE_CHECKING:
    from robustify.classifiers import ImageClassifier, ZeroShotModel
    from robustify.denoisers import Denoiser

S = TypeVar("S")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass
class Registry(Generic[S]):
    """One entry-point group.

    Arguments:
        kind: What an entry is, for error texts.
        group: The entry-point group.
        problem: Says what is wrong with an entry; None if nothing is.
        known: Names whose distribution we know, for install hints.
    """

    kind: str
    group: str
    problem: Callable[[object], str | None]
    known: dict[str, str] = field(default_factory=dict)
    _ready: dict[str, S] = field(default_factory=dict)

    def register(self, name: str, entry: S) -> None:
        """Adds an entry to this process, for notebooks and tests; never overrides one.

        Raises:
            InputError: If the name is taken or the entry is not what it should be.
        """
        if name in self.names():
            raise InputError(f"the {self.kind} {name!r} exists already; choose another name")
        if problem := self.problem(entry):
            raise InputError(f"cannot register {name!r}: {problem}")
        self._ready[name] = entry

    def names(self) -> list[str]:
        """Everything that can be asked for; nothing is imported."""
        return sorted({*self._ready, *(e.name for e in entry_points(group=self.group))})

    def origin(self, name: str) -> str:
        """Distributions and versions that provide a name; `this process` where it was registered here."""
        found = sorted(map(_origin, entry_points(group=self.group, name=name)))
        return " and ".join(found) or "this process"

    def find(self, name: str) -> S:
        """The entry of that name.

        Raises:
            PluginError: If it is unknown, not installed, broken or provided twice.
        """
        if name in self._ready:
            return self._ready[name]
        found = list(entry_points(group=self.group, name=name))
        if len(found) > 1:
            raise PluginConflictError(self.kind, name, sorted(map(_origin, found)))
        if found:
            self._ready[name] = self._import(found[0])
            return self._ready[name]
        if name in self.known:
            raise MissingPluginError(self.kind, name, self.known[name])
        raise UnknownPluginError(self.kind, name, self.names(), sorted(self.known), self.group)

    def _import(self, entry: EntryPoint) -> S:
        try:
            found = entry.load()
        except Exception as error:  # whatever a stranger's module raises at import, the user should read whose it is
            reason = f"{type(error).__name__}: {error}"
            raise BrokenPluginError(self.kind, entry.name, _origin(entry), reason) from error
        if problem := self.problem(found):
            raise BrokenPluginError(self.kind, entry.name, _origin(entry), problem)
        return cast(S, found)


def _origin(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


@runtime_checkable
class Source(Protocol[T_co]):
    """What an entry point must resolve to: a module or object with these two functions."""

    def load(self, name: str, /) -> T_co:
        """Whatever goes by this name in the source, ready to use."""

    def names(self, pattern: str = "*", /) -> list[str]:
        """What the source can list; shell-style pattern."""


@final
class Sources(Registry[Source[T]], Generic[T]):
    """One group of sources.

    Arguments:
        kind: What a source gives, for error texts.
        group: The entry-point group.
        known: Names whose distribution we know, for install hints.
    """

    def __init__(self, kind: str, group: str, known: dict[str, str] | None = None) -> None:
        super().__init__(f"{kind} source", group, _problem, known or {})
        self.gives = kind

    def load(self, reference: str) -> T:
        """Loads `"source:name"`; only the source reads what follows the first colon.

        Raises:
            InputError: If there is no colon.
            PluginError: If the source cannot be used.
        """
        source, colon, name = reference.partition(":")
        if not colon or not source or not name:
            raise InputError(f"expected 'source:name', such as {self._example()!r}; got {reference!r}")
        return self.find(source).load(name)

    def _example(self) -> str:
        return "timm:resnet50.a1_in1k" if self.gives == "classifier" else "diffusers:google/ddpm-cifar10-32"


def _problem(source: object) -> str | None:
    missing = [f for f in ("load", "names") if not callable(getattr(source, f, None))]
    return f"{source!r} has no {' and no '.join(missing)}" if missing else None


CLASSIFIERS: Sources[Union["ImageClassifier", "ZeroShotModel"]] = Sources(
    "classifier", "robustify.classifiers", {"efficientnet-lite": "robustify-efficientnet-lite"}
)
DENOISERS: Sources["Denoiser"] = Sources("denoiser", "robustify.denoisers")
