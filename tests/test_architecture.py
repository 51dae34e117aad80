"""The look, kept by a test rather than by goodwill."""

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import robustify

PACKAGE = Path(robustify.__file__).parent
ROOT = Path(__file__).parents[1]
LAYERS = [
    {"errors", "lazy", "options", "model_options", "types", "contract", "format", "bars", "folders", "licences"}
    | {"registry", "model_folders", "downloads", "default_dtype"},
    {"certificates"},
    {"classifiers"},
    {"denoisers"},
    {"smoothing"},
    {"data"},
    {"finetune", "runs"},
    {"verify", "report"},
    {"zoo"},
    {"api", "testing"},
    {"cli"},
    {"__main__"},
]
"""The rooms, lowest first; a file imports from its own room and from those below."""

FILES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")
TESTS = sorted(p for folder in ("tests", "plugins") for p in (ROOT / folder).rglob("*.py"))
HEAVY = ("timm", "open_clip", "transformers", "diffusers", "peft", "torchvision")


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def layer_of(room: str) -> int:
    return next(i for i, rooms in enumerate(LAYERS) if room in rooms)


def internal_imports(file: Path) -> set[str]:
    """Rooms that a file imports from when it runs; imports for type checkers alone do not count."""
    tree = ast.parse(file.read_text())
    for_types = {n for i in ast.walk(tree) if isinstance(i, ast.If) and _is_for_types(i) for n in ast.walk(i)}
    modules = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module and n not in for_types]
    return {m.split(".")[1] for m in modules if m.startswith("robustify.")}


def _is_for_types(node: ast.If) -> bool:
    return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards(file: Path) -> None:
    room = room_of(file)
    for used in internal_imports(file) - {room}:
        assert layer_of(used) < layer_of(room) or layer_of(used) == layer_of(room) == 0, f"{room} imports {used}"


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_public_thing_is_documented(file: Path) -> None:
    tree = ast.parse(file.read_text())
    assert ast.get_docstring(tree), file
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{file}: {node.name}"


def test_the_public_names_are_few_and_all_exist() -> None:
    assert len(robustify.__all__) <= 20
    assert all(getattr(robustify, name) is not None for name in robustify.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        robustify.nothing  # noqa: B018


def test_importing_everything_public_imports_no_backbone_library() -> None:
    touch = "import robustify, sys; [getattr(robustify, n) for n in robustify.__all__]"
    code = f"{touch}; print([m for m in {HEAVY} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_command_line_answers_before_torch_is_imported() -> None:
    code = "import robustify.cli.__main__, sys; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_no_pickled_weights_are_shipped_and_the_zoo_is_small() -> None:
    files = [p for p in (PACKAGE / "zoo").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert not [p for p in files if p.suffix in (".pt", ".pth", ".bin", ".pkl", ".ckpt")]
    assert sum(p.stat().st_size for p in files) < 20 * 2**20


def test_what_reads_numbers_imports_no_torch() -> None:
    """Certificates, the reading of runs and the arithmetic of verify import neither torch nor the Hub's client."""
    modules = [
        *(f"certificates.{file.stem}" for file in (PACKAGE / "certificates").glob("[a-z]*.py")),
        *("errors", "contract", "format", "bars", "folders", "licences", "options", "registry", "smoothing.settings"),
        *(f"runs.{name}" for name in ("folder", "rows", "status", "statements", "metrics")),
        *(f"verify.{name}" for name in ("claims", "arithmetic")),
        *(f"verify.{file.stem}" for file in (PACKAGE / "verify").glob("*_family.py")),
    ]
    imports = "; ".join(f"import robustify.{module}" for module in modules)
    code = f"import sys; {imports}; print({{'torch', 'huggingface_hub'}} & sys.modules.keys())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


@pytest.mark.parametrize("file", [*FILES, *TESTS], ids=lambda p: str(p.relative_to(p.parents[-3])))
def test_docstrings_name_their_subject(file: Path) -> None:
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(file.read_text())):
        text = ast.get_docstring(node) if isinstance(node, kinds) else None
        bare = (text or "").startswith(("Of ", "By ", "For ", "From ", "At ", "With "))
        assert not bare, f"{getattr(node, 'name', file)}: {text}"


def test_files_and_functions_stay_small() -> None:
    lines = sorted(len(file.read_text().splitlines()) for file in FILES)
    assert statistics.median(lines) <= 110
    assert lines[-1] <= 320
    assert max(len(file.read_text().splitlines()) for file in TESTS) <= 320
    functions = sorted(
        node.end_lineno - node.lineno + 1
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None
    )
    assert functions[int(0.9 * len(functions))] <= 20


def test_no_module_imports_itself_in_a_circle() -> None:
    """Imports at the top of a module, followed as far as they go."""
    names = {".".join(("robustify", *file.relative_to(PACKAGE).with_suffix("").parts)): file for file in FILES}
    arrows = {name.removesuffix(".__init__"): _imported_at_the_top(file) for name, file in names.items()}
    done: set[str] = set()

    def follow(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " imports ".join((*path, name))
        if name in arrows and name not in done:
            for other in arrows[name]:
                follow(other, (*path, name))
            done.add(name)

    for name in arrows:
        follow(name, ())


def _imported_at_the_top(file: Path) -> set[str]:
    body = ast.parse(file.read_text()).body
    return {node.module for node in body if isinstance(node, ast.ImportFrom) and node.module} - {"robustify"}
