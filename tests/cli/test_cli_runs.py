"""The commands about runs as a user types them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as PILImage
from safetensors.torch import load_file

from robustify.zoo import HELD_OUT
from robustify.zoo.fashion_mnist import CLASSES

Command = Callable[..., Any]
"""Runs a command line; answers with status, stdout and stderr."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Class folders with six pictures."""
    arrays = load_file(HELD_OUT)
    for i in range(6):
        place = tmp_path / "photos" / CLASSES[arrays["labels"][i]].replace(" ", "_")
        place.mkdir(parents=True, exist_ok=True)
        PILImage.fromarray(arrays["images"][i, 0].numpy()).save(place / f"{i}.png")
    return tmp_path / "photos"


@pytest.fixture
def certified(photos: Path, tmp_path: Path, robustify: Command) -> Path:
    """A tiny run."""
    found = robustify("certify", "zoo:timm", photos, "--n", 40, "--n0", 20, "--sigma", 0.1, "--out", "run")
    assert found.status == 0, found.stderr
    return tmp_path / "run"


def test_a_run_is_verified_and_repeated(certified: Path, photos: Path, robustify: Command) -> None:
    plain = robustify("verify", certified)
    assert (plain.status, plain.stdout) == (0, "6 rows: unchanged; arithmetic verified\n")
    again = robustify("verify", certified, "--model", "zoo:timm", "--data", photos, "--sample", 3)
    conclusion = "6 rows: unchanged; arithmetic verified; 3 recomputed from their seeds: all match\n"
    assert (again.status, again.stdout) == (0, conclusion)
    other = robustify("verify", certified, "--model", "zoo:transformers", "--data", photos)
    assert other.status == 2
    assert "not the model of the run" in other.stderr
    for half in (("--model", "zoo:timm"), ("--data", photos), ("--denoiser", "zoo:ddpm")):
        refused = robustify("verify", certified, *half)
        assert refused.status == 2
        assert "both --model and --data" in refused.stderr
    nowhere = robustify("verify", certified, "--model", "zoo:timm", "--data", "nowhere")
    assert (nowhere.status, nowhere.stderr) == (2, "error: there is no file or folder 'nowhere'\n")


def test_a_changed_row_is_named(certified: Path, photos: Path, robustify: Command) -> None:
    table = pq.read_table(certified / "rows.parquet")
    rows = table.to_pylist()
    kept = next(row for row in rows if row["radius"] > 0)
    kept["radius"] *= 1.001
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), certified / "rows.parquet")
    found = robustify("verify", certified)
    assert (found.status, found.stdout) == (1, "6 rows: changed in 1; arithmetic wrong in 1\n")
    assert f"{kept['sample']}: radius is {kept['radius']}; expected at most" in found.stderr
    kept["radius"] /= 1.001
    kept["pixels"] = "0" * 64
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), certified / "rows.parquet")
    found = robustify("verify", certified)
    assert (found.status, found.stdout) == (1, "6 rows: changed in 1; arithmetic verified\n")
    assert f"{kept['sample']}: digest is {kept['digest']}; expected " in found.stderr
    found = robustify("verify", certified, "--model", "zoo:timm", "--data", photos, "--sample", 6)
    assert found.status == 1
    assert found.stdout.endswith("6 recomputed from their seeds: 1 rows differ\n")
    assert f"{kept['sample']}: pixels is 000" in found.stderr


def test_what_an_old_or_unfinished_run_lacks_is_said(certified: Path, robustify: Command) -> None:
    old = Path(__file__).parents[1] / "runs" / "format2"
    found = robustify("verify", old)
    assert (found.status, found.stdout.splitlines()[0]) == (0, "5 rows: arithmetic verified")
    assert found.stdout.splitlines()[1].startswith("Runs of format 2 have no digests: ")
    (certified / "rows").mkdir()
    (certified / "rows.parquet").rename(certified / "rows" / "all.parquet")
    found = robustify("verify", certified)
    assert (found.status, found.stdout.splitlines()[0]) == (0, "6 rows: unchanged; arithmetic verified")
    assert found.stdout.splitlines()[1].startswith("The run is not finished: ")


def test_status_during_and_after_a_run(certified: Path, robustify: Command) -> None:
    after = robustify("status", certified)
    assert after.status == 0, after.stderr
    for part in (
        "6 of 6 images, 360 draws; ",
        "finished",
        "certified accuracy at radius 0.1: ",
        "95 % interval",
        "mean radius: ",
        "abstained: ",
        "false certificates: at most 0.006 expected, at most 1 with 99.9 % confidence",
    ):
        assert part in after.stdout
    table = pq.read_table(certified / "rows.parquet")
    (certified / "rows.parquet").unlink()
    nothing = robustify("status", certified)
    assert nothing.stdout == "0 of 6 images, 0 draws; 0 s spent\nabstained: 0\ncertificates: none yet\n"
    (certified / "rows").mkdir(exist_ok=True)
    for i in range(2):
        pq.write_table(table.slice(i, 1), certified / "rows" / f"{i}.parquet")
    during = robustify("status", certified)
    assert "2 of 6 images, 120 draws; " in during.stdout
    assert " left\n" in during.stdout
    config = json.loads((certified / "run.json").read_text())
    (certified / "run.json").write_text(json.dumps({**config, "samples": 2}))
    assert "finished" not in robustify("status", certified).stdout


def test_a_run_of_known_labels_shares_alpha_and_is_charged(photos: Path, tmp_path: Path, robustify: Command) -> None:
    options = ("--radius", 0.05, "--n-max", 300, "--sigma", 0.1, "--known-label", "--family-wise", "--alpha", 0.06)
    for attempt in (1, 2):
        command = ("certify", "zoo:timm", photos, *options, "--ledger", "ledger", "--out", f"run{attempt}")
        found = robustify(*command)
        assert found.status == 0, found.stderr
        assert "certified accuracy at radius 0.05: " in found.stdout
        config = json.loads((tmp_path / f"run{attempt}" / "run.json").read_text())
        assert (config["plan"]["rule"], config["plan"]["n0"], config["attempt"]) == ("known label", 0, attempt)
        assert (config["family_alpha"], config["attempts_alpha"]) == (0.06, 0.01)
    told = robustify("status", "run2").stdout
    for part in (
        "certified accuracy at radius 0.05: ",
        "Only the true label was tested",
        "That any certificate of the 6 images is false has a chance of at most 0.06.",
        "Attempt 2: ",
    ):
        assert part in told
        assert part in (tmp_path / "run2" / "report.html").read_text() or part.startswith("certified")
    assert robustify("verify", "run2", "--model", "zoo:timm", "--data", photos, "--sample", 2).status == 0
    charged = {file: file.read_bytes() for file in (tmp_path / "ledger").iterdir()}
    for ledger, alpha in (((), "0.01 an image"), (("--ledger", "ledger"), "0.000675475 an image, as attempt 3")):
        priced = robustify("estimate", "zoo:timm", photos, *options, *ledger)
        assert f"images: 6\nalpha: {alpha}\ndraws: at most 1,800" in priced.stdout
    assert {file: file.read_bytes() for file in (tmp_path / "ledger").iterdir()} == charged
    leader = robustify("certify", "zoo:timm", photos, "--n0", 0, "--out", "run3")
    assert leader.status == 2
    assert "n0 to be a whole number of at least 1; got 0" in leader.stderr


def test_no_run_is_one_clear_message(tmp_path: Path, robustify: Command) -> None:
    (tmp_path / "empty").mkdir()
    for command in ("status", "verify"):
        found = robustify(command, "nowhere")
        assert (found.status, found.stderr) == (2, "error: there is no file or folder 'nowhere'\n")
        found = robustify(command, "empty")
        assert found.status == 2
        assert "holds no certification run" in found.stderr


def test_estimate_tells_the_cost_and_writes_nothing(photos: Path, tmp_path: Path, robustify: Command) -> None:
    before = sorted(tmp_path.rglob("*"))
    exact = robustify("estimate", "zoo:timm", photos, "--n", 100, "--n0", 20, "--batch", 32)
    assert exact.status == 0, exact.stderr
    assert "images: 6\nalpha: 0.001 an image\ndraws: 720, in batches of 32\ntime: " in exact.stdout
    assert "peak memory: " in exact.stdout
    most = robustify("estimate", "zoo:timm", photos, "--n-max", 1_000, "--every", 2)
    assert "images: 3\nalpha: 0.001 an image\ndraws: at most 3,300, in batches of 64\ntime: at most " in most.stdout
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "x.png").write_bytes(b"\x89PNG")
    broken = robustify("estimate", "zoo:timm", tmp_path / "empty")
    assert broken.status == 2
    assert "cannot read an image" in broken.stderr
