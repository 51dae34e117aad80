"""Sources are found by the real mechanism: throwaway distributions on `sys.path`, no mocks."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from robustify.errors import (
    BrokenPluginError,
    InputError,
    MissingPluginError,
    PluginConflictError,
    UnknownPluginError,
)
from robustify.registry import CLASSIFIERS, DENOISERS, Sources
from tests.toys_plugins import GROUP, Install

PLUGINS = Path(__file__).parents[1] / "plugins"


@pytest.fixture
def toys() -> Sources[str]:
    return Sources("toy", GROUP, {"train": "robustify-train"})


def test_an_installed_source_is_listed_and_loads(toys: Sources[str], install: Install) -> None:
    assert toys.names() == []
    install("toy-good", "good", "toy_good")
    assert toys.names() == ["good"]
    assert toys.load("good:ball") == "toy ball"
    assert toys.find("good").names() == ["ball", "kite"]
    assert toys.find("good") is sys.modules["toy_good"]
    assert toys.origin("good") == "toy-good 1.0"


def test_listing_imports_no_source_and_asking_imports_that_one_only(toys: Sources[str], install: Install) -> None:
    install("toy-good", "good", "toy_good")
    install("toy-other", "other", "toy_other")
    assert toys.names() == ["good", "other"]
    assert not {"toy_good", "toy_other"} & sys.modules.keys()
    toys.load("good:ball")
    assert "toy_good" in sys.modules
    assert "toy_other" not in sys.modules


def test_only_the_source_reads_what_follows_the_first_colon(toys: Sources[str], install: Install) -> None:
    install("toy-good", "good", "toy_good")
    assert toys.load("good:local-dir:/a/b:c") == "toy local-dir:/a/b:c"


def test_an_object_in_a_module_can_be_a_source(toys: Sources[str], install: Install) -> None:
    code = "class Box:\n def load(self, name, /): return name\n def names(self, pattern='*', /): return []\nbox = Box()"
    install("toy-box", "box", "toy_box", code, attribute=":box")
    assert toys.load("box:kite") == "kite"


def test_an_unknown_name_gets_the_nearest_one_and_where_sources_come_from(toys: Sources[str], install: Install) -> None:
    install("toy-good", "good", "toy_good")
    with pytest.raises(UnknownPluginError) as caught:
        toys.load("goood:ball")
    text = str(caught.value)
    assert "no toy source named 'goood'" in text
    assert "Did you mean 'good'?" in text
    assert "Installed: good." in text
    assert GROUP in text
    assert isinstance(caught.value, LookupError)


def test_an_unknown_name_unlike_any_other_gets_no_guess(toys: Sources[str]) -> None:
    with pytest.raises(UnknownPluginError, match=r"Installed: none\.") as caught:
        toys.load("zebra:ball")
    assert "Did you mean" not in str(caught.value)


def test_a_known_name_that_is_not_installed_gets_the_command_to_install_it(toys: Sources[str]) -> None:
    with pytest.raises(MissingPluginError, match="pip install robustify-train") as caught:
        toys.load("train:ball")
    assert isinstance(caught.value, ImportError)
    assert "train" not in toys.names()


def test_a_known_name_that_is_installed_loads(toys: Sources[str], install: Install) -> None:
    install("robustify-train", "train", "toy_train")
    assert toys.load("train:ball") == "toy ball"


def test_a_source_that_fails_to_import_says_whose_it_is_and_why(toys: Sources[str], install: Install) -> None:
    install("toy-bad", "bad", "toy_bad", "raise RuntimeError('operator toy::roll does not exist')")
    with pytest.raises(BrokenPluginError, match=r"'bad' from toy-bad 1\.0 cannot be used: RuntimeError: op") as caught:
        toys.load("bad:ball")
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert isinstance(caught.value, ImportError)


def test_a_source_that_fails_to_import_hurts_only_those_who_ask_for_it(toys: Sources[str], install: Install) -> None:
    install("toy-bad", "bad", "toy_bad", "import a_library_that_nobody_has")
    install("toy-good", "good", "toy_good")
    assert toys.names() == ["bad", "good"]
    assert "toy_bad" not in sys.modules
    assert toys.load("good:ball") == "toy ball"
    with pytest.raises(BrokenPluginError, match="ModuleNotFoundError: No module named 'a_library_that_nobody_has'"):
        toys.load("bad:ball")


def test_an_entry_point_to_nothing_is_a_broken_source(toys: Sources[str], install: Install) -> None:
    install("toy-void", "void", "toy_void", attribute=":nothing")
    with pytest.raises(BrokenPluginError, match=r"toy-void 1\.0 .*nothing"):
        toys.load("void:ball")


@pytest.mark.parametrize(
    ("code", "missing"),
    [
        ("def load(name, /): return name", "has no names"),
        ("def names(pattern='*', /): return []", "has no load"),
        ("load = names = 'not functions'", "has no load and no names"),
    ],
)
def test_a_source_without_load_or_names_is_refused(
    toys: Sources[str], install: Install, code: str, missing: str
) -> None:
    install("toy-half", "half", "toy_half", code)
    with pytest.raises(BrokenPluginError, match=rf"'half' from toy-half 1\.0 .*{missing}$"):
        toys.load("half:ball")


def test_two_providers_of_one_name_are_both_named_and_neither_is_imported(toys: Sources[str], install: Install) -> None:
    install("toy-one", "same", "toy_one")
    install("toy-two", "same", "toy_two")
    with pytest.raises(PluginConflictError, match=r"2 packages .* 'same': toy-one 1\.0, toy-two 1\.0"):
        toys.load("same:ball")
    assert toys.names() == ["same"]
    assert not {"toy_one", "toy_two"} & sys.modules.keys()


@pytest.mark.parametrize("reference", ["good", "", ":", ":ball", "good:"])
def test_a_reference_needs_a_source_a_colon_and_a_name(toys: Sources[str], install: Install, reference: str) -> None:
    install("toy-good", "good", "toy_good")
    with pytest.raises(InputError, match=r"expected 'source:name', such as .*; got"):
        toys.load(reference)


def test_a_registered_source_is_listed_and_used(toys: Sources[str]) -> None:
    toys.register("mine", SimpleNamespace(load=str.upper, names=lambda pattern="*": []))
    assert toys.names() == ["mine"]
    assert toys.load("mine:ball") == "BALL"
    assert toys.origin("mine") == "this process"


def test_registering_never_overrides(toys: Sources[str], install: Install) -> None:
    install("toy-good", "good", "toy_good")
    mine = SimpleNamespace(load=str.upper, names=lambda pattern="*": [])
    with pytest.raises(InputError, match="'good' exists already"):
        toys.register("good", mine)
    toys.register("mine", mine)
    with pytest.raises(InputError, match="'mine' exists already"):
        toys.register("mine", SimpleNamespace(load=str.lower, names=lambda pattern="*": []))
    assert toys.load("good:ball") == "toy ball"
    assert toys.load("mine:ball") == "BALL"


def test_registering_something_else_is_refused(toys: Sources[str]) -> None:
    with pytest.raises(InputError, match=r"cannot register 'mine': .* has no names"):
        toys.register("mine", SimpleNamespace(load=str.upper, names=["ball"]))
    assert toys.names() == []


def test_our_own_sources_come_through_the_same_door() -> None:
    assert {"timm", "open_clip", "hf", "zoo"} <= set(CLASSIFIERS.names())
    assert {"diffusers", "zoo"} <= set(DENOISERS.names())
    assert CLASSIFIERS.origin("timm").startswith("robustify-vision ")


def test_listing_imports_no_backbone_library() -> None:
    code = (
        "import sys\n"
        "from robustify.registry import CLASSIFIERS, DENOISERS\n"
        "assert CLASSIFIERS.names() and DENOISERS.names()\n"
        "print(*sys.modules.keys() & {'timm', 'open_clip', 'transformers', 'diffusers', 'torchvision'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", CLASSIFIERS.known)
def test_the_hints_name_plugins_of_this_repository(name: str) -> None:
    projects = [tomllib.loads(p.read_text())["project"] for p in PLUGINS.glob("*/pyproject.toml")]
    declared = {p["name"]: p["entry-points"].get(CLASSIFIERS.group, {}) for p in projects}
    assert name in declared[CLASSIFIERS.known[name]]


LOADS = """
from robustify.errors import InputError, UnreachableError

def load(name, /):
    if name in ("ball", "red-ball"):
        raise UnreachableError(f"no network for {name}")
    raise InputError(f"no toy {name}")

def names(pattern="*", /):
    return ["ball", "kite", "small/boat"]
"""


@pytest.mark.parametrize(
    ("reference", "hint"),
    [
        ("good:kit", "no toy kit\n  Did you mean 'good:kite'?"),
        ("good:small/boot", "no toy small/boot\n  Did you mean 'good:small/boat'?"),
        ("good:kite", "no toy kite"),
        ("good:zebra", "no toy zebra"),
        ("good:local-dir:kite", "no toy local-dir:kite"),
        ("good:red-ball", "no network for red-ball"),
    ],
)
def test_a_model_that_a_source_does_not_have_gets_the_nearest_it_lists(
    toys: Sources[str], install: Install, reference: str, hint: str
) -> None:
    install("toy-good", "good", "toy_good", LOADS)
    with pytest.raises(InputError, match=f"^{re.escape(hint)}$"):
        toys.load(reference)


@pytest.mark.parametrize(("bare", "hint"), [("kit", "good:kite"), ("small/boat", "good:small/boat"), ("zebra", None)])
def test_a_name_without_its_source_gets_the_reference_that_is_meant(
    toys: Sources[str], install: Install, bare: str, hint: str | None
) -> None:
    install("toy-bad", "bad", "toy_bad", "raise RuntimeError")
    install("toy-good", "good", "toy_good", LOADS)
    ending = f"got '{bare}'" + (f"\n  Did you mean '{hint}'?" if hint else "")
    with pytest.raises(InputError, match=f"or a folder; {re.escape(ending)}$"):
        toys.load(bare)


def test_models_of_ours_that_are_nearly_named() -> None:
    for registry, given, meant in (
        (CLASSIFIERS, "timm:resnet18.a1_in2k", "timm:resnet18.a1_in1k"),
        (CLASSIFIERS, "resnet18.a1_in1k", "timm:resnet18.a1_in1k"),
        (CLASSIFIERS, "open_clip:ViT-B-32/openaj", "open_clip:ViT-B-32/openai"),
        (CLASSIFIERS, "zoo:tim", "zoo:timm"),
        (DENOISERS, "ddpn", "zoo:ddpm"),
        (DENOISERS, "zoo:dpm", "zoo:ddpm"),
    ):
        with pytest.raises(InputError, match=f"Did you mean '{re.escape(meant)}'"):
            registry.load(given)
