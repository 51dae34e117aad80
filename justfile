# Recipes for working on robustify; `just` lists them. The environment is the one that the README's commands make.

python := ".venv/bin/python"
export OMP_NUM_THREADS := "1"

# List the recipes.
default:
    @just --list

# Make the environment.
install:
    python3 -m venv .venv
    {{python}} -m pip install -e ".[test]" -e "./plugins/efficientnet-lite[test]" -e "./plugins/top-k[test]"

# The quick tests, on all cores.
test *options:
    {{python}} -m pytest -n logical -m "not slow" {{options}}

# The slow tests.
slow *options:
    {{python}} -m pytest -n logical -m slow {{options}}

# Style and format.
lint:
    .venv/bin/ruff check .
    .venv/bin/ruff format --check .

# Types of package, examples and plugins.
types:
    .venv/bin/mypy

# Does the suite notice lies? Some with `just mutants --only NAME …`.
mutants *options:
    {{python}} tests/mutants/run.py {{options}}

# One benchmark, such as `just bench engine`, with all threads.
bench name *options:
    env -u OMP_NUM_THREADS {{python}} examples/benchmarks/{{name}}.py {{options}}

# Train the zoo again, or a part of it.
zoo target="all":
    env -u OMP_NUM_THREADS {{python}} examples/zoo/train.py {{target}}

# The lowest declared versions, and one certification with them.
floors:
    .ci/floors
