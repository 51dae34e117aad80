"""The denoiser source `zoo`: `zoo:ddpm`."""

from fnmatch import fnmatchcase

from robustify.denoisers import Denoiser, diffusion
from robustify.errors import InputError
from robustify.zoo import FOLDER


def load(name: str, /) -> Denoiser:
    """Loads the shipped denoiser.

    Raises:
        InputError: If the zoo has no such denoiser.
    """
    if name != "ddpm":
        raise InputError(f"the zoo has no denoiser {name!r}; it has ddpm")
    denoiser = diffusion.load(str(FOLDER / name))
    denoiser.name = f"zoo:{name}"
    return denoiser


def names(pattern: str = "*", /) -> list[str]:
    """Names of the zoo's denoisers that match a shell-style pattern."""
    return [name for name in ("ddpm",) if fnmatchcase(name, pattern)]
