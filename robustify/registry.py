"""Registries of entry points, whose entries are imported only on request; the sources of classifiers and denoisers."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, Union, cast, final, runtime_checkable

from robustify.errors import (
    BrokenPluginError,
    InputError,
    MissingPluginError,
    PluginConflictError,
    PluginError,
    UnknownPluginError,
    UnreachableError,
    did_you_mean,
)
from robustify.model_folders import reference_of

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
        """Loads a model by its reference, `"source:name"`, or from the folder in which it is saved.

        What follows the first colon is left to the source.

        Raises:
            InputError: If the reference is of neither form, or its source has no such model.
            PluginError: If the source is unknown, not installed, broken or provided twice.
        """
        name, _, model = self._resolve(reference).partition(":")
        source = self.find(name)
        try:
            return source.load(model)
        except UnreachableError:
            raise
        except InputError as error:
            listed = [] if ":" in model else source.names()
            near = "" if model in listed else did_you_mean(model, listed, lambda other: f"{name}:{other}")
            if not near:
                raise
            raise InputError(f"{error}{near}") from error

    def _resolve(self, reference: str) -> str:
        """The reference, `"source:name"`; of a folder that which its files tell."""
        source, _, name = reference.partition(":")
        if name and source in self.names():
            return reference
        folder = Path(reference).expanduser()
        if reference and folder.is_dir():
            return reference_of(folder, self.gives)
        if reference and folder.is_file():
            raise InputError(f"expected the folder of a saved {self.gives}; {reference!r} is a file")
        if reference.startswith(("/", ".", "~")):
            raise InputError(f"there is no folder {reference!r}")
        if not source or not name:
            expected = f"expected 'source:name', such as {self._example()!r}, or a folder"
            raise InputError(f"{expected}; got {reference!r}{self._hint(reference)}")
        return reference

    def _hint(self, bare: str) -> str:
        """What may be meant by a name without its source; nothing where no source lists one like it."""
        references: dict[str, str] = {}
        for source in self.names():
            with suppress(PluginError):
                references |= {name: f"{source}:{name}" for name in self.find(source).names()}
        return did_you_mean(bare, references, references.__getitem__)

    def _example(self) -> str:
        return "timm:resnet50.a1_in1k" if self.gives == "classifier" else "diffusers:google/ddpm-cifar10-32"


def _problem(source: object) -> str | None:
    missing = [f for f in ("load", "names") if not callable(getattr(source, f, None))]
    return f"{source!r} has no {' and no '.join(missing)}" if missing else None


CLASSIFIERS: Sources[Union["ImageClassifier", "ZeroShotModel"]] = Sources(
    "classifier", "robustify.classifiers", {"efficientnet-lite": "robustify-efficientnet-lite"}
)
DENOISERS: Sources["Denoiser"] = Sources("denoiser", "robustify.denoisers")
