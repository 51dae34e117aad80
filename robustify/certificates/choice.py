"""Which family of certificates users mean: by noise levels, by a mixing weight, by an object, or by a name."""

from collections.abc import Collection
from dataclasses import MISSING, fields
from typing import Any, TypeAlias

from robustify.certificates.family import CERTIFICATES, Family
from robustify.certificates.gaussian import Gaussian
from robustify.errors import InputError

Sigma: TypeAlias = float | Collection[float] | None
"""Noise of one standard deviation, or of several."""

DEFAULT_SIGMA = 0.25
"""Standard deviation of the noise, in [0, 1] pixels, where nothing says otherwise."""


def family_of(sigma: Sigma = None, certificate: Family | str | None = None, mix: float | None = None) -> Family:
    """The family that a user means.

    Arguments:
        sigma: One standard deviation of the noise, in [0, 1] pixels, or several, for a cascade.
        certificate: The family itself; or its name, with settings after it where they differ from the defaults, such
            as "patch-cleanser:patch=0.02".
        mix: Weight of the smoothed classifier in a mixture with the classifier alone.

    Raises:
        InputError: If the arguments do not fit each other, or a setting is out of range.
        PluginError: If there is no family of that name.
    """
    if certificate is None:
        return _of_noise(sigma, mix)
    if mix is not None:
        raise InputError(f"give certificate={certificate!r} or mix={mix!r}, not both")
    if isinstance(certificate, str):
        return _named(certificate, sigma)
    if not isinstance(certificate, Family):
        raise InputError(f"expected certificate to be a family such as Gaussian(0.25), or a name; got {certificate!r}")
    if sigma is not None:
        raise InputError(f"the certificate {certificate!r} has its own settings; leave out sigma={sigma!r}")
    return certificate


def _of_noise(sigma: Sigma, mix: float | None) -> Family:
    """The family of noise levels: of one, of one in a mixture, or a cascade of several."""
    several = isinstance(sigma, Collection) and not isinstance(sigma, str)
    if several and mix is not None:
        raise InputError(f"mix= is for one noise level; got sigma={sigma!r}")
    if several:
        return _made("cascade", {"sigmas": sigma})
    level = DEFAULT_SIGMA if sigma is None else sigma
    return Gaussian(level) if mix is None else _made("mixed", {"sigma": level, "weight": mix})  # type: ignore[arg-type]


def _named(text: str, sigma: Sigma) -> Family:
    """The family of a name and settings: "name" or "name:setting=value,setting=value"."""
    name, _, listed = text.partition(":")
    settings: dict[str, Any] = {}
    for part in filter(None, listed.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise InputError(
                f"expected settings of a certificate as 'name:setting=value,…'; got {text!r}.\n"
                "  Several numbers have + between them: patch=8+16"
            )
        if key.strip() in settings:
            raise InputError(f"expected each setting of a certificate once; got {key.strip()} twice in {text!r}")
        settings[key.strip()] = _value(value.strip())
    if sigma is not None:
        if (noise := _sigma_of(name)) in settings:
            raise InputError(f"give sigma={sigma!r} or {noise} in certificate={text!r}, not both")
        settings[noise] = sigma
    return _made(name, settings)


def _sigma_of(name: str) -> str:
    """Name of the setting for noise levels."""
    known = [field.name for field in fields(CERTIFICATES.find(name))]  # type: ignore[arg-type]  # families are dataclasses
    if found := next((key for key in ("sigma", "sigmas") if key in known), None):
        return found
    raise InputError(f"the certificate {name!r} adds no noise; leave out sigma=")


def _made(name: str, settings: dict[str, Any]) -> Family:
    kind: Any = CERTIFICATES.find(name)
    known = {field.name: field for field in fields(kind) if field.init}
    needed = [key for key, field in known.items() if field.default is field.default_factory is MISSING]
    unknown, missing = settings.keys() - known.keys(), [key for key in needed if key not in settings]
    if unknown or missing:
        raise InputError(
            f"the certificate {name!r} has the settings {', '.join(known) or 'none'}; "
            + (f"got {', '.join(sorted(unknown))}" if unknown else f"missing: {', '.join(missing)}")
        )
    made: Family = kind(**settings)
    return made


def _value(text: str) -> Any:  # noqa: ANN401 - a number, several with "+" between, or a word
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    if "+" in text:
        return tuple(map(_value, text.split("+")))
    return {"true": True, "false": False}.get(text.lower(), text)
