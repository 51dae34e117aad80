"""A plugin that tests install: one module, one entry point."""

from collections.abc import Callable
from typing import TypeAlias

GROUP = "robustify_tests.toys"


SOURCE = """
def load(name, /):
    return f"toy {name}"

def names(pattern="*", /):
    return ["ball", "kite"]
"""


Install: TypeAlias = Callable[..., None]
