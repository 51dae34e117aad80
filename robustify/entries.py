"""Named things, found through entry points and imported only when asked for."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar, cast

from robustify.errors import (
    BrokenPluginError,
    InputError,
    MissingPluginError,
    PluginConflictError,
    UnknownPluginError,
)

S = TypeVar("S")


@dataclass
class Entries(Generic[S]):
    """One entry-point group.

    Arguments:
        kind: How error texts call what an entry is.
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
