"""The sources of classifiers and denoisers."""

from typing import Generic, Protocol, TypeVar, final, runtime_checkable

from robustify.classifiers import ImageClassifier, ZeroShotModel
from robustify.denoisers import Denoiser
from robustify.entries import Entries
from robustify.errors import InputError

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
class Registry(Entries[Source[T]], Generic[T]):
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


CLASSIFIERS: Registry[ImageClassifier | ZeroShotModel] = Registry(
    "classifier", "robustify.classifiers", {"efficientnet-lite": "robustify-efficientnet-lite"}
)
DENOISERS: Registry[Denoiser] = Registry("denoiser", "robustify.denoisers")
