"""Packages whose names load on first use: what they offer is written once, as imports in a stub beside them."""

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path


def lazy_names(package: str, file: str) -> tuple[Callable[[str], object], list[str]]:
    """The `__getattr__` of a package, and the names that it offers.

    Type checkers read `__init__.pyi`, where each name is imported from its home; this reads the same.

    Arguments:
        package: Name of the package.
        file: Its `__file__`.
    """
    stub = ast.parse(Path(file).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom) and node.module]
    homes = {alias.name: str(node.module) for node in imports for alias in node.names}

    def find(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    return find, list(homes)
