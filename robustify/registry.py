"""Registries of entry points, whose entries are imported only on request; the sources of classifiers and denoisers."""

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
    """The entries of one entry-point group, by name; each is imported when it is first asked for.

    Arguments:
        kind: Word for an entry in error texts, such as "classifier source".
        group: Name of the entry-point group.
        problem: Function of an entry that says what is wrong with it, or returns None.
        known: Distributions that provide a name, for names that may not be installed; error texts say how to install.
    """

    kind: str
    group: str
    problem: Callable[[object], str | None]
    known: dict[str, str] = field(default_factory=dict)
    _ready: dict[str, S] = field(default_factory=dict)

    def register(self, name: str, entry: S) -> None:
        """Adds an entry to this process, for notebooks and tests; never overrides one.

        Raises:
            InputError: If the name is taken, or something is wrong with the entry.
        """
        if name in self.names():
            raise InputError(f"the {self.kind} {name!r} exists already; choose another name")
        if problem := self.problem(entry):
            raise InputError(f"cannot register {name!r}: {problem}")
        self._ready[name] = entry

    def names(self) -> list[str]:
        """Names of all entries, sorted; nothing is imported."""
        return sorted({*self._ready, *(e.name for e in entry_points(group=self.group))})

    def origin(self, name: str) -> str:
        """Distributions and versions that provide a name; `this process` if it was registered by `register`."""
        found = sorted(map(_origin, entry_points(group=self.group, name=name)))
        return " and ".join(found) or "this process"

    def find(self, name: str) -> S:
        """The entry of this name, imported if it was not asked for before.

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
    """A source of models: a module or object with these two functions, to which an entry point resolves."""

    def load(self, name: str, /) -> T_co:
        """The model that the source has under this name, ready to use."""

    def names(self, pattern: str = "*", /) -> list[str]:
        """Names that match a shell-style pattern, sorted; none where there are too many to list."""


@final
class Sources(Registry[Source[T]], Generic[T]):
    """The sources of one kind of model, which load it by a reference such as `"timm:resnet50.a1_in1k"`.

    Arguments:
        kind: Word for a model in error texts: "classifier" or "denoiser".
        group: Name of the entry-point group.
        known: Distributions that provide a source, for sources that may not be installed.
    """

    def __init__(self, kind: str, group: str, known: dict[str, str] | None = None) -> None:
        super().__init__(f"{kind} source", group, _problem, known or {})
        self.gives = kind

    def load(self, reference: str) -> T:
        """Loads a model by its reference, `"source:name"`; what follows the first colon is left to the source.

        Raises:
            InputError: If the reference is not of this form.
            PluginError: If the source is unknown, not installed, broken or provided twice.
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
