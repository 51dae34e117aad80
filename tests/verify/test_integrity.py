"""Whatever is changed in the folder of a run is refused when it is read, or named when it is verified."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robustify import Settings, SmoothedClassifier
from robustify.data import Sample
from robustify.errors import PluginError, RunError
from robustify.runs.certify import certify_dataset
from robustify.runs.digests import row_digest
from robustify.runs.ending import ENDING
from robustify.runs.folder import read_run
from robustify.runs.rows import FIELDS, SCHEMA, Row, row_bytes
from robustify.verify.claims import verify_claims, verify_run
from robustify.verify.integrity import changes, missing_evidence

FORMAT_2 = Path(__file__).parents[1] / "runs" / "format2"
"""A run over five images that robustify made before rows had digests."""

Json: TypeAlias = Any
Step: TypeAlias = str | int


@pytest.fixture
def folder(model: SmoothedClassifier, samples: list[Sample], out: Path) -> Path:
    """The folder of a genuine run over four images, one of which cannot be used."""
    broken = Sample("broken", np.full((4, 4), np.nan), 1)
    unlabelled = [*samples[:2], broken, replace(samples[3], label=None)]
    certify_dataset(model, unlabelled, out, Settings(radius=[0.05, 0.1], n_max=300, family_wise=True))
    return out


def found(folder: Path) -> set[str]:
    """Where something is wrong in the folder; "refused" where it cannot be read."""
    try:
        return {problem.sample for problem in verify_run(read_run(folder))}
    except (RunError, PluginError):
        return {"refused"}


def leaves(content: Json, path: tuple[Step, ...] = ()) -> Iterator[tuple[Step, ...]]:
    """The path of each value, and of each list and object, in what JSON can hold."""
    if path:
        yield path
    if isinstance(content, dict | list):
        for step in content if isinstance(content, dict) else range(len(content)):
            yield from leaves(content[step], (*path, step))


def at(content: Json, path: tuple[Step, ...]) -> Json:
    for step in path:
        content = content[step]
    return content


def changed(content: Json, path: tuple[Step, ...], value: Json) -> Json:
    """A copy in which one value is another."""
    copy = json.loads(json.dumps(content))
    at(copy, path[:-1])[path[-1]] = value
    return copy


def others(value: Json) -> list[Json]:
    """Other values of the same type, and none."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1, -value - 1, None]
    if isinstance(value, float):
        return [value * (1 + 1e-15) + 1e-300, value / 2 + 1, -1.0 - value, float("nan"), None]
    if isinstance(value, str):
        return [value + "0", value[1:] + "0", "", None]
    if isinstance(value, list):
        return [value[1:], [*value, *value[:1]], None] if value else [None]
    return [0, 1] if value is None else [None]


def write_rows(folder: Path, records: list[Json]) -> None:
    pq.write_table(pa.Table.from_pylist(records, schema=SCHEMA), folder / "rows.parquet")


def test_a_genuine_run_is_as_it_was_written(folder: Path) -> None:
    run = read_run(folder)
    assert verify_run(run) == missing_evidence(run) == []
    assert run.ending is not None
    assert [(u.sample, u.truth) for u in run.ending.unusable] == [("broken", 1)]
    assert len(run.rows) + len(run.ending.unusable) == run.samples


def test_every_change_of_every_column_of_a_row_is_found(folder: Path) -> None:
    records = pq.read_table(folder / "rows.parquet").to_pylist()
    visited = set[Step]()
    for i, record in ((0, records[0]), (2, records[2])):  # the last has no true class
        for path in leaves(record):
            visited.add(path[0])
            for value in others(at(record, path)):
                if json.dumps(value) == json.dumps(at(record, path)):
                    continue
                write_rows(folder, [*records[:i], changed(record, path, value), *records[i + 1 :]])
                assert found(folder), (record["sample"], path, value)
    assert visited == set(FIELDS) == set(SCHEMA.names)


def test_a_changed_truth_name_or_hash_is_told_by_the_digest_alone(folder: Path) -> None:
    """Nothing else in the row depends on them."""
    run = read_run(folder)
    for column, value in (("truth", 2), ("pixels", "0" * 64), ("batch", 17), ("seconds", 1e9), ("sample", "other")):
        row = replace(run.rows[0], **{column: value})
        wrong = replace(run, rows=[row, *run.rows[1:]])
        assert verify_claims(wrong) == []
        assert (row.sample, "digest") in {(p.sample, p.field) for p in changes(wrong)}


def without(records: list[Json]) -> list[Json]:
    return records[1:]


def with_a_copy(records: list[Json]) -> list[Json]:
    return [*records, records[0]]


def with_a_renamed_copy(records: list[Json]) -> list[Json]:
    return [*records, {**records[0], "sample": "another"}]


def instead_of_another(records: list[Json]) -> list[Json]:
    return [records[0], {**records[0], "sample": records[1]["sample"]}, *records[2:]]


def with_swapped(*columns: str) -> Callable[[list[Json]], list[Json]]:
    def swapped(records: list[Json]) -> list[Json]:
        first, second, *rest = records
        moved = {column: second[column] for column in columns}, {column: first[column] for column in columns}
        return [{**first, **moved[0]}, {**second, **moved[1]}, *rest]

    return swapped


@pytest.mark.parametrize(
    "change",
    [
        without,
        with_a_copy,
        with_a_renamed_copy,
        instead_of_another,
        with_swapped("sample"),
        with_swapped("sample", "digest"),
        with_swapped("truth"),
        with_swapped("pixels"),
        lambda _: [],
    ],
)
def test_rows_that_are_missing_copied_or_swapped_are_found(
    folder: Path, change: Callable[[list[Json]], list[Json]]
) -> None:
    records = pq.read_table(folder / "rows.parquet").to_pylist()
    assert len(records) == 3
    write_rows(folder, change(records))
    assert found(folder)


def test_the_order_of_rows_does_not_matter(folder: Path) -> None:
    write_rows(folder, pq.read_table(folder / "rows.parquet").to_pylist()[::-1])
    assert found(folder) == set()


def test_a_row_of_another_run_is_found(
    folder: Path, model: SmoothedClassifier, samples: list[Sample], tmp_path: Path
) -> None:
    """One that asked the same of the same images, with another seed."""
    settings = Settings(radius=[0.05, 0.1], n_max=300, alpha=0.001 / 4)
    other = certify_dataset(model, samples[:2], tmp_path / "other", settings)
    run = read_run(folder)
    assert other.plan == run.plan
    mixed = replace(run, rows=[other.rows[0], *run.rows[1:]])
    assert verify_claims(mixed) == []
    assert other.rows[0].sample in {problem.sample for problem in changes(mixed)}


@pytest.mark.parametrize("file", ["run.json", ENDING])
def test_every_change_of_every_value_beside_the_rows_is_found(folder: Path, file: str) -> None:
    content = json.loads((folder / file).read_text())
    visited = set[Step]()
    for path in leaves(content):
        visited.add(path[0])
        value, key = at(content, path), at(content, path[:-1])
        kinds = [*others(value), "text", 0, -1, 2, 1.5, True, [], {}, float("nan")]
        for other in kinds:
            if json.dumps(other) != json.dumps(value):
                (folder / file).write_text(json.dumps(changed(content, path, other)))
                assert found(folder), (path, other)
        if isinstance(key, dict):
            lacking = json.loads(json.dumps(content))
            del at(lacking, path[:-1])[path[-1]]
            (folder / file).write_text(json.dumps(lacking))
            assert found(folder), f"{path} is missing"
    assert visited == content.keys()


def test_a_file_that_is_missing_is_found(folder: Path) -> None:
    for name in ("run.json", "rows.parquet", ENDING):
        copy = Path(shutil.copytree(folder, folder.with_name(f"without {name}")))
        (copy / name).unlink()
        if name == "rows.parquet":  # then nothing is finished, and nothing is claimed
            with pytest.raises(RunError, match="no rows yet"):
                verify_run(read_run(copy))
        else:
            assert found(copy)


def test_a_column_that_is_missing_is_found(folder: Path) -> None:
    table = pq.read_table(folder / "rows.parquet")
    for name in set(SCHEMA.names) - {"uncertified"}:  # a column that is not there is empty, as this one is
        pq.write_table(table.drop_columns([name]), folder / "rows.parquet")
        assert found(folder), name


CHANGED = (7, 0.75, "other", ())
"""A value of each type of column."""


def test_every_column_is_part_of_a_rows_digest(folder: Path) -> None:
    row = read_run(folder).rows[0]
    for field in fields(Row):
        if field.name != "digest":
            value = getattr(row, field.name)
            other = replace(row, **{field.name: next(v for v in CHANGED if type(v) is type(value) or value is None)})
            assert row_digest(other, "key") != row_digest(row, "key"), field.name
    assert row_digest(row, "other key") != row_digest(row, "key")


def test_while_a_run_lasts_each_row_is_checked_and_it_is_said_what_cannot_be(folder: Path) -> None:
    run = read_run(folder)
    (folder / ENDING).unlink()
    (folder / "rows.parquet").unlink()
    (folder / "rows").mkdir()
    for i, row in enumerate(run.rows[:2]):
        (folder / "rows" / f"{i}.parquet").write_bytes(row_bytes([row]))
    assert found(folder) == set()
    told = "The run is not finished: of 2 images without a row, whether they had one does not show."
    assert missing_evidence(read_run(folder)) == [told]
    (folder / "rows" / "1.parquet").write_bytes(row_bytes([replace(run.rows[1], truth=2)]))
    assert found(folder) == {run.rows[1].sample}
    (folder / "rows" / "2.parquet").write_bytes(row_bytes([run.rows[1]]))
    with pytest.raises(RunError, match=r"hold different rows of '01\.png': one was changed"):
        read_run(folder)


def test_a_changed_run_is_not_continued(model: SmoothedClassifier, samples: list[Sample], out: Path) -> None:
    run = certify_dataset(model, samples[:4], out, Settings(n=100))
    genuine = (out / "run.json").read_bytes()
    (out / "run.json").write_text(json.dumps({**json.loads(genuine), "seed": "7"}))
    with pytest.raises(RunError, match=r"run\.json' was changed after it was written"):
        certify_dataset(model, samples[:4], out, Settings(n=100))
    (out / "run.json").write_bytes(genuine)
    (out / "rows.parquet").write_bytes(row_bytes([replace(run.rows[0], truth=2), *run.rows[1:]]))
    with pytest.raises(
        RunError, match=r"1 of 4 rows in .* were changed after they were written, that of '00\.png' first"
    ):
        certify_dataset(model, samples[:4], out, Settings(n=100))
    (out / "rows.parquet").write_bytes(row_bytes(run.rows[1:]))
    again = certify_dataset(model, samples[:4], out, Settings(n=100))  # a lost row is drawn again
    assert [row.tallies for row in again.rows] == [row.tallies for row in run.rows]
    assert verify_run(read_run(out)) == []


def test_a_run_of_format_2_is_read_and_verified_and_what_it_lacks_is_said(
    model: SmoothedClassifier, samples: list[Sample]
) -> None:
    run = read_run(FORMAT_2)
    assert (run.config["format"], run.digest, run.ending, run.finished) == (2, None, None, True)
    assert len(run.rows) == 5
    assert all(row.digest is None for row in run.rows)
    assert verify_run(run) == []
    assert missing_evidence(run)[0].startswith("Runs of format 2 have no digests: changed true classes, names, hashes")
    before = {file: file.read_bytes() for file in FORMAT_2.iterdir()}
    with pytest.raises(RunError, match="has format 2, whose rows have no digests: it cannot be continued"):
        certify_dataset(model, samples[:5], FORMAT_2, Settings(radius=[0.05, 0.1], n_max=300, seed=3))
    assert {file: file.read_bytes() for file in FORMAT_2.iterdir()} == before


def test_a_run_that_is_said_to_be_of_format_2_is_refused_or_named(folder: Path) -> None:
    """Its rows have digests, which nothing of that format has."""
    config = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**config, "format": 2}))
    assert found(folder)
    del config["digest"]
    (folder / "run.json").write_text(json.dumps({**config, "format": 2}))
    assert found(folder)
