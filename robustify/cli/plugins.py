"""`robustify plugins [SOURCE]`: what is installed, and what a source offers."""

import sys
from typing import Annotated

import typer


def plugins(
    source: Annotated[str | None, typer.Argument(help="List what this source offers.")] = None,
    pattern: Annotated[str, typer.Option(help="Shell-style pattern for names.")] = "*",
) -> None:
    """List the sources of classifiers and denoisers, certificates and objectives, or the names that one source offers.

    Example: robustify plugins timm --pattern "resnet50.*"
    """
    from robustify.certificates.family import CERTIFICATES
    from robustify.finetune.objectives.registered import OBJECTIVES
    from robustify.registry import CLASSIFIERS, DENOISERS

    if source is None:
        for entries in (CLASSIFIERS, DENOISERS, CERTIFICATES, OBJECTIVES):
            for name in entries.names():
                print(f"{entries.kind:<18} {name:<18} {entries.origin(name)}")
        return
    registries = [r for r in (CLASSIFIERS, DENOISERS) if source in r.names()] or [CLASSIFIERS]
    names = [name for found in registries for name in found.find(source).names(pattern)]
    for name in names:
        print(f"{source}:{name}")
    if not names:
        print(f"{source} lists no name that fits {pattern!r}; it may know more than it lists", file=sys.stderr)
