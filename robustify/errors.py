"""The exceptions of robustify. Their texts say what was given, what was expected and what to do next."""

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str], written: Callable[[str], str] = str) -> str:
    """A line for the end of an error text, with the known name that is nearest; nothing where none is near.

    Arguments:
        name: The name that is not known.
        known: Those that are.
        written: Function of a known name that gives what the user should write.
    """
    close = get_close_matches(name, list(known), n=1)
    return f"\n  Did you mean {written(close[0])!r}?" if close else ""


class RobustifyError(Exception):
    """Base class of all exceptions of this package."""


class InputError(RobustifyError, ValueError):
    """An argument, file or image that cannot be used."""


class UnreachableError(InputError):
    """A model whose files are neither on this machine nor can be fetched now."""


class ModelError(RobustifyError, ValueError):
    """A classifier or denoiser for which no certificate would hold."""


class RunError(RobustifyError, RuntimeError):
    """A certification run that cannot start or continue in its folder."""


class PluginError(RobustifyError):
    """A plugin that cannot be used."""


class UnknownPluginError(PluginError, LookupError):
    """A name that is neither installed nor known."""

    def __init__(self, kind: str, name: str, installed: Sequence[str], known: Sequence[str], group: str) -> None:
        lines = [f"no {kind} named {name!r}.{did_you_mean(name, [*installed, *known])}"]
        lines.append(f"Installed: {', '.join(sorted(installed)) or 'none'}.")
        article = "An" if kind[0] in "aeiou" else "A"
        lines.append(f"{article} {kind} is an entry point in the group {group!r}; see plugins/README.md.")
        super().__init__("\n  ".join(lines))


class MissingPluginError(PluginError, ImportError):
    """A plugin that is known, but whose distribution is not installed."""

    def __init__(self, kind: str, name: str, distribution: str) -> None:
        super().__init__(
            f"the {kind} {name!r} is provided by {distribution!r}, which is not installed.\n"
            f"  pip install {distribution}"
        )


class BrokenPluginError(PluginError, ImportError):
    """A plugin that fails to import, or is not what its entry-point group expects."""

    def __init__(self, kind: str, name: str, origin: str, reason: str) -> None:
        super().__init__(f"the {kind} {name!r} from {origin} cannot be used: {reason}")


class PluginConflictError(PluginError):
    """A name that two distributions provide."""

    def __init__(self, kind: str, name: str, origins: Sequence[str]) -> None:
        super().__init__(
            f"{len(origins)} packages provide the {kind} {name!r}: {', '.join(origins)}.\n  Uninstall all but one."
        )
