"""The list of mutants fits the source: each original occurs once, and its tests exist."""

import tomllib
from pathlib import Path

import pytest

import robustify

PACKAGE = Path(robustify.__file__).parent
TESTS = Path(__file__).parents[1]
LISTS = sorted(Path(__file__).parent.glob("*.toml"))
MUTANTS = [mutant for file in LISTS for mutant in tomllib.loads(file.read_text())["mutant"]]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m["name"])
def test_each_mutant_changes_one_place(mutant: dict[str, str]) -> None:
    text = (PACKAGE / mutant["file"]).read_text()
    assert text.count(mutant["original"]) == 1
    assert mutant["original"] != mutant["mutated"]
    assert all((TESTS / file).is_file() for file in mutant["tests"])


def test_names_are_unique_and_the_mutants_of_the_specification_are_there() -> None:
    assert len({mutant["name"] for mutant in MUTANTS}) == len(MUTANTS)
    assert sum(mutant.get("art", False) for mutant in MUTANTS) == 13
