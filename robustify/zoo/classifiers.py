"""The classifier source `zoo`: `zoo:timm`, `zoo:transformers`, `zoo:open_clip`."""

from fnmatch import fnmatchcase

from robustify.classifiers import ImageClassifier, ZeroShotModel
from robustify.errors import InputError
from robustify.zoo import FOLDER

_NAMES = ("open_clip", "timm", "transformers")


def load(name: str, /) -> ImageClassifier | ZeroShotModel:
    """Loads a shipped model through the source of its own library.

    Raises:
        InputError: If the zoo has no such classifier.
    """
    if name not in _NAMES:
        raise InputError(f"the zoo has no classifier {name!r}; it has {', '.join(_NAMES)}")
    model = _load(name)
    model.name = f"zoo:{name}"
    return model


def names(pattern: str = "*", /) -> list[str]:
    """Names of the zoo's classifiers that match a shell-style pattern."""
    return [name for name in _NAMES if fnmatchcase(name, pattern)]


def _load(name: str) -> ImageClassifier | ZeroShotModel:
    if name == "timm":
        from robustify.classifiers import timm

        return timm.load(f"local-dir:{FOLDER / name}")
    if name == "transformers":
        from robustify.classifiers import transformers

        return transformers.load(str(FOLDER / name))
    from robustify.classifiers import open_clip

    return open_clip.load(f"local-dir:{FOLDER / name}")
