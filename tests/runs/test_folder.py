"""Run folders: read without torch, of this version and of 0.1, and never mixed."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robustify import Settings, SmoothedClassifier, certify_dataset
from robustify.contract import InputContract, Numerics
from robustify.data import Sample
from robustify.errors import RunError
from robustify.folders import write_once, write_whole
from robustify.report.html import write_report
from robustify.report.numbers import Chapter
from robustify.report.pictures import picture
from robustify.runs import version1
from robustify.runs.folder import read_run
from robustify.verify.claims import verify_run
from robustify.verify.replay import replay

VERSION_1 = Path(__file__).parent / "version1"
"""Runs over five images that robustify 0.1 made, one of each shape of tallies."""

READING = (
    "robustify.runs.folder",
    "robustify.runs.status",
    "robustify.runs.statements",
    "robustify.runs.metrics",
    "robustify.runs.ledger",
    "robustify.verify.claims",
    "robustify.verify.gaussian_family",
)


@pytest.fixture(params=["adaptive", "leader", "known"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a run of robustify 0.1."""
    return Path(shutil.copytree(VERSION_1 / request.param, tmp_path / "old"))


def imported(code: str) -> str:
    """What a new process prints after the code, and whether it has imported torch."""
    told = f"{code}\nimport sys\nprint('torch' in sys.modules)"
    return subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout


def test_reading_and_verifying_a_run_needs_no_torch() -> None:
    assert imported(f"import {', '.join(READING)}") == "False\n"
    code = (
        "from robustify.runs.folder import read_run\n"
        "from robustify.verify.claims import verify_run\n"
        f"run = read_run({str(VERSION_1 / 'adaptive')!r})\n"
        "print(str(run).splitlines()[0].partition(';')[0], verify_run(run))"
    )
    assert imported(code) == "5 of 5 images, 1,760 draws []\nFalse\n"


def test_the_status_command_needs_no_torch() -> None:
    code = (
        "import contextlib, sys\n"
        "from robustify.cli.__main__ import main\n"
        f"sys.argv = ['robustify', 'status', {str(VERSION_1 / 'leader')!r}]\n"
        "with contextlib.suppress(SystemExit):\n"
        "    main()"
    )
    told = imported(code)
    assert told.startswith("5 of 5 images, 684 draws; ")
    assert told.endswith("\nFalse\n")


@pytest.mark.parametrize("folder", [VERSION_1 / "leader", VERSION_1.with_name("format2")])
def test_the_status_command_imports_no_library_of_tables_models_or_reports(folder: Path) -> None:
    """Nor does it read Parquet by pyarrow's datasets, which import pandas."""
    code = (
        "import contextlib, sys\n"
        "from robustify.cli.__main__ import main\n"
        f"sys.argv = ['robustify', 'status', {str(folder)!r}]\n"
        "with contextlib.suppress(SystemExit):\n"
        "    main()\n"
        "heavy = {'pandas', 'pyarrow.dataset', 'torch', 'matplotlib', 'jinja2', 'PIL', 'mpmath', 'tqdm'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    told = imported(code)
    assert told.startswith("5 of 5 images, ")
    assert told.endswith("\n[]\nFalse\n")


def test_a_run_of_version_1_is_read_as_data(old: Path) -> None:
    run = read_run(old)
    assert run.finished
    assert (run.contract, run.numerics) == (InputContract(1, 4, 4), Numerics("float32"))
    assert (run.config["denoiser"]["name"], run.config["denoiser"]["description"]) == ("none", "plain smoothing")
    assert run.config["classifier"]["name"] == "Sequential"
    assert (run.labels, run.seed, run.fresh, run.soundness) == (("0", "1", "2"), 3, False, "grid")
    assert [row.sample for row in run.rows] == [f"{i:02d}.png" for i in range(5)]
    for row in run.rows:
        claim = run.plan.certify_votes(row.tallies)
        assert (row.label, row.bounds) == (claim.label, claim.bounds)
        assert row.radius == pytest.approx(claim.radius, rel=1e-11)  # rounded down by another amount


def test_a_run_of_version_1_is_shown_and_verified(old: Path, tmp_path: Path) -> None:
    run = read_run(old)
    assert str(run).startswith("5 of 5 images, ")
    assert verify_run(run) == []
    best = max(run.rows, key=lambda row: row.radius)
    larger = [replace(row, radius=1.01 * row.radius) if row is best else row for row in run.rows]
    assert [problem.field for problem in verify_run(replace(run, rows=larger))] == ["radius"]
    plan = {**run.config["plan"], "slack": 0.0}
    assert verify_run(replace(run, config={**run.config, "plan": plan}))[0].field == "slack"
    write_report(tmp_path / "report.html", [Chapter("old", run)], title="old")
    assert "<td>plan.sigma</td><td>0.25</td>" in (tmp_path / "report.html").read_text()


def test_rows_of_version_1_are_never_drawn_again(old: Path, model: SmoothedClassifier, samples: list[Sample]) -> None:
    told = "made by robustify 0.1, whose seeds gave other noise: its rows cannot be drawn again"
    before = {file: file.read_bytes() for file in old.iterdir()}
    for settings in (Settings(n_max=300, seed=3), Settings(n_max=300)):
        with pytest.raises(RunError, match=told):
            certify_dataset(model, samples[:5], old, settings)
    run = read_run(old)
    with pytest.raises(RunError, match=told):
        replay(model, samples, run)
    with pytest.raises(RunError, match=told):
        picture(model, samples[0], run.rows[0], run)
    assert {file: file.read_bytes() for file in old.iterdir()} == before


def test_numerics_of_version_1_are_taken_from_its_words(old: Path) -> None:
    stored = json.loads((old / "run.json").read_text())
    (old / "run.json").write_text(json.dumps({**stored, "dtype": "float32, bfloat16 autocast, compiled"}))
    assert read_run(old).numerics == Numerics("float32", "bfloat16", compiled=True)


def test_the_slack_of_version_1_is_that_of_its_own_noise() -> None:
    """As robustify 0.1 computed it."""
    assert version1.total_variation(0.25, 16) == pytest.approx(9.43216300324147e-12, rel=1e-12)
    assert version1.total_variation(0.5, 3 * 224 * 224) == pytest.approx(1.7668205645811754e-07, rel=1e-12)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": 4}, r"has format 4; expected 3: use another robustify version"),
        ({"plan": {"rule": "fixed"}}, r"run\.json' describes no possible run: .*family 'gaussian'"),
        ({"plan": {"rule": "guess"}}, "describes no possible run"),
    ],
)
def test_what_cannot_be_understood_is_refused(
    model: SmoothedClassifier, samples: list[Sample], out: Path, changed: dict[str, object], message: str
) -> None:
    run = certify_dataset(model, samples[:2], out, Settings(n=100))
    (out / "run.json").write_text(json.dumps({**run.config, **changed}))
    with pytest.raises(RunError, match=message):
        print(read_run(out))


@pytest.mark.parametrize("missing", ["family", "plan", "contract", "seed"])
def test_what_is_missing_is_named(model: SmoothedClassifier, samples: list[Sample], out: Path, missing: str) -> None:
    run = certify_dataset(model, samples[:1], out, Settings(n=100))
    (out / "run.json").write_text(json.dumps({k: v for k, v in run.config.items() if k != missing}))
    with pytest.raises(RunError, match=f"it lacks {missing}$"):
        read_run(out)


def test_rows_that_cannot_be_read_are_named(model: SmoothedClassifier, samples: list[Sample], out: Path) -> None:
    certify_dataset(model, samples[:1], out, Settings(n=100))
    for content in (b"PAR1 half a row", (VERSION_1 / "leader" / "rows.parquet").read_bytes()):
        (out / "rows.parquet").write_bytes(content)
        with pytest.raises(RunError, match=r"cannot read rows from .*rows\.parquet(.|\n)*Delete it to run its images"):
            read_run(out)


def test_a_file_is_written_once_by_whoever_is_first(tmp_path: Path) -> None:
    file = tmp_path / "file"
    assert write_once(file, b"first")
    assert not write_once(file, b"second")
    assert file.read_bytes() == b"first"
    write_whole(file, b"third")
    assert [f.read_bytes() for f in tmp_path.iterdir()] == [b"third"]


@pytest.mark.parametrize("part", ["contract", "numerics"])
def test_a_part_of_another_form_is_refused(
    model: SmoothedClassifier, samples: list[Sample], out: Path, part: str
) -> None:
    run = certify_dataset(model, samples[:2], out, Settings(n=100))
    (out / "run.json").write_text(json.dumps({**run.config, part: {"sides": 3}}))
    with pytest.raises(RunError, match=rf"run\.json' describes no possible run: its {part} is \{{'sides': 3\}}"):
        getattr(read_run(out), part)


@pytest.mark.parametrize(("name", "value"), [("seed", "7"), ("soundness", "float"), ("sigma", 9.0), ("n", 1)])
def test_a_row_of_version_1_that_differs_from_its_run_is_named(tmp_path: Path, name: str, value: object) -> None:
    folder = tmp_path / "run"
    shutil.copytree(VERSION_1 / "adaptive", folder)
    table = pq.read_table(folder / "rows.parquet")
    changed = [{**row, name: value} if i == 1 else row for i, row in enumerate(table.to_pylist())]
    pq.write_table(pa.Table.from_pylist(changed, schema=table.schema), folder / "rows.parquet")
    with pytest.raises(RunError, match=f"has another {name} than run.json"):
        read_run(folder)
