"""Named sources, found through entry points and imported only when asked for."""

from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, Protocol, TypeVar, final, runtime_checkable

from robustify.classifiers import ImageClassifier, ZeroShotModel
from robustify.denoisers import Denoiser
from robustify.errors import (
    BrokenPluginError,
    InputError,
    MissingPluginError,
    PluginConflictError,
    UnknownPluginError,
)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@runtime_checkable
class Source(Protocol[T_co]):
    """What an entry point must resolve to: a module or object with these two functions."""

    def load(self, name: str, /) -> T_co:
        """Whatever goes by this name in the source, ready to use."""

    def names(self, pattern: str = "*", /) -> list[str]:
        """What the source can list; shell-style pattern."""


@final
@dataclass
class Registry(Generic[T]):
    """One group of sources.

    Arguments:
        kind: How error texts call what a source gives.
        group: The entry-point group.
        known: Names whose distribution we know, for install hints.
    """

    kind: str
    group: str
    known: dict[str, str] = field(default_factory=dict)
    _ready: dict[str, Source[T]] = field(default_factory=dict)

    def register(self, name: str, source: Source[T]) -> None:
        """Adds a source to this process, for notebooks and tests; never overrides one.

        Raises:
            InputError: If the name is taken or the source lacks `load` or `names`.
        """
        if name in self.names():
            raise InputError(f"the {self.kind} source {name!r} exists already; choose another name")
        if problem := _problem(source):
            raise InputError(f"cannot register {name!r}: {problem}")
        self._ready[name] = source

    def names(self) -> list[str]:
        """Every source that can be asked for; nothing is imported."""
        return sorted({*self._ready, *(e.name for e in entry_points(group=self.group))})

    def origin(self, name: str) -> str:
        """Distributions and versions that provide a name; `this process` where it was registered here."""
        found = sorted(map(_origin, entry_points(group=self.group, name=name)))
        return " and ".join(found) or "this process"

    def source(self, name: str) -> Source[T]:
        """The source of that name.

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

    def load(self, reference: str) -> T:
        """Loads `"source:name"`; only the source reads what follows the first colon.

        Raises:
            InputError: If there is no colon.
            PluginError: If the source cannot be used.
        """
        source, colon, name = reference.partition(":")
        if not colon or not source or not name:
            raise InputError(f"expected 'source:name', such as {self._example()!r}; got {reference!r}")
        return self.source(source).load(name)

    def _example(self) -> str:
        return "timm:resnet50.a1_in1k" if self.kind == "classifier" else "diffusers:google/ddpm-cifar10-32"

    def _import(self, entry: EntryPoint) -> Source[T]:
        try:
            source = entry.load()
        except Exception as error:  # whatever a stranger's module raises at import, the user should read whose it is
            reason = f"{type(error).__name__}: {error}"
            raise BrokenPluginError(self.kind, entry.name, _origin(entry), reason) from error
        if problem := _problem(source):
            raise BrokenPluginError(self.kind, entry.name, _origin(entry), problem)
        return source  # type: ignore[no-any-return]  # checked against the protocol just above


def _problem(source: object) -> str | None:
    missing = [f for f in ("load", "names") if not callable(getattr(source, f, None))]
    return f"{source!r} has no {' and no '.join(missing)}" if missing else None


def _origin(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


CLASSIFIERS: Registry[ImageClassifier | ZeroShotModel] = Registry(
    "classifier", "robustify.classifiers", {"efficientnet-lite": "robustify-efficientnet-lite"}
)
DENOISERS: Registry[Denoiser] = Registry("denoiser", "robustify.denoisers")
