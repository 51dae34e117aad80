"""The commands as a user types them; in this process, so that libraries are imported once."""

import json
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image as PILImage
from safetensors.torch import load_file

from robustify.runs.rows import RowStore
from robustify.zoo import HELD_OUT
from robustify.zoo.fashion_mnist import CLASSES

Command = Callable[..., Any]
"""Runs a command line; answers with status, stdout and stderr."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with six pictures."""
    folder = tmp_path_factory.mktemp("photos")
    arrays = load_file(HELD_OUT)
    for i in range(6):
        place = folder / CLASSES[arrays["labels"][i]].replace(" ", "_")
        place.mkdir(exist_ok=True)
        PILImage.fromarray(arrays["images"][i, 0].numpy()).save(place / f"{i}.png")
    return folder


def test_certify_writes_rows_and_a_report_and_continues(photos: Path, tmp_path: Path, robustify: Command) -> None:
    command = ("certify", "zoo:timm", photos, "--denoiser", "zoo:ddpm", "--n", 40, "--n0", 20, "--out", "run")
    first = robustify(*command)
    assert first.status == 0, first.stderr
    assert "certified accuracy at radius 0:" in first.stdout
    assert re.search(r"^abstained: \d of 6$", first.stdout, re.MULTILINE)
    assert "sigma = 0.25" in first.stdout
    rows = pq.read_table(tmp_path / "run" / "rows.parquet").to_pylist()
    assert len(rows) == 6
    assert "data:image/png" in (tmp_path / "run" / "report.html").read_text()
    again = robustify(*command)
    assert again.status == 0
    assert pq.read_table(tmp_path / "run" / "rows.parquet").to_pylist() == rows
    changed = robustify(*command, "--sigma", 0.5)
    assert changed.status == 2
    assert "holds another run" in changed.stderr
    assert "sigma: there 0.25, now 0.5" in changed.stderr


def test_an_unreadable_image_is_named_and_the_exit_status_tells(
    photos: Path, tmp_path: Path, robustify: Command
) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for picture in photos.rglob("*.png"):
        (flat / picture.name).write_bytes(picture.read_bytes())
    (flat / "broken.png").write_bytes(b"\x89PNG")
    found = robustify("certify", "zoo:timm", flat, "--n", 20, "--n0", 20)
    assert found.status == 1
    assert "broken.png: cannot read an image" in found.stderr
    assert pq.read_table(tmp_path / "run" / "rows.parquet").num_rows == 6
    predicted = robustify("predict", "zoo:timm", flat / "0.png", flat / "broken.png", "--n", 50)
    assert predicted.status == 1
    assert "0.png: " in predicted.stdout


def test_zero_shot_from_the_command_line(photos: Path, tmp_path: Path, robustify: Command) -> None:
    picture = next(photos.rglob("*.png"))
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    for classes in ("classes.txt", ",".join(CLASSES)):
        found = robustify("predict", "zoo:open_clip", picture, "--classes", classes, "--n", 20)
        assert found.status == 0, found.stderr
    missing = robustify("predict", "zoo:open_clip", picture)
    assert missing.status == 2
    assert "zero-shot model" in missing.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("certify", "tim:x", "."), "Did you mean 'timm'"),
        (("certify", "zoo:nothing", "."), "the zoo has no classifier 'nothing'"),
        (("certify", "zoo:timm", "missing"), "there is no file or folder 'missing'"),
        (("certify", "zoo:timm", ".", "--sigma", 0), "sigma > 0"),
        (("certify", "zoo:timm", ".", "--n", 5), "Use n >= 11"),
        (("certify", "hf:/nowhere", "."), "there is no folder '/nowhere'"),
        (("certify", "zoo:timm", ".", "--denoiser", "diffusers:/nowhere"), "there is no folder '/nowhere'"),
        (("predict", "timm:local-dir:/nowhere", "x.png"), "expected a timm folder"),
        (("predict", "zoo:timm", "x.png", "--soundness", "gird"), "expected soundness 'grid' or 'float'; got 'gird'"),
        (("predict", "zoo:open_clip", "x.png", "--classes", "x" * 300 + ",b"), "none of the 1 images could be used"),
        (("estimate", "zoo:timm", "missing"), "there is no file or folder 'missing'"),
        (("estimate", "zoo:timm", HELD_OUT, "--radius", 5), "can never certify radius 5"),
        (("denoisers", "convert", "nothing", "x.pt", "out"), "improved-diffusion"),
        (("plugins", "nothing"), "no classifier source named 'nothing'"),
    ],
)
def test_mistakes_are_one_clear_message(
    arguments: tuple[object, ...], message: str, tmp_path: Path, robustify: Command
) -> None:
    found = robustify(*arguments)
    assert found.status == 2
    assert message in found.stderr
    assert not list(tmp_path.iterdir())


def test_plugins_lists_sources_and_what_they_offer(tmp_path: Path, robustify: Command) -> None:
    listed = robustify("plugins").stdout
    assert ["classifier source", "timm"] in [line.split("  ")[:1] + line.split()[2:3] for line in listed.splitlines()]
    assert any(line.split()[:2] == ["objective", "ft-cadis"] for line in listed.splitlines())
    assert "robustify-vision" in listed
    assert robustify("plugins", "zoo").stdout.split() == [
        "zoo:open_clip",
        "zoo:timm",
        "zoo:transformers",
        "zoo:ddpm",
    ]
    assert "timm:resnet50.a1_in1k" in robustify("plugins", "timm", "--pattern", "resnet50.*").stdout
    nothing = robustify("plugins", "zoo", "--pattern", "z*")
    assert (nothing.status, nothing.stdout) == (0, "")
    assert "zoo lists no name that fits 'z*'" in nothing.stderr


@pytest.mark.parametrize("module", ["robustify", "robustify.cli"])
def test_modules_run_the_same_command(module: str) -> None:
    command = [sys.executable, "-m", module, "certify"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "Usage: robustify certify [OPTIONS]" in found.stderr
    assert "Traceback" not in found.stderr


def test_an_error_is_one_message() -> None:
    command = [sys.executable, "-m", "robustify", "plugins", "nothing"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert found.stderr.startswith("error: no classifier source named 'nothing'")
    assert "Traceback" not in found.stderr


def test_a_warning_is_one_line(robustify: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    robustify("status", "nowhere")
    assert warnings.formatwarning("tuned elsewhere", UserWarning, "options.py", 73) == "warning: tuned elsewhere\n"


def test_decisions_from_the_command_line(photos: Path, tmp_path: Path, robustify: Command) -> None:
    found = robustify("certify", "zoo:timm", photos, "--radius", 0.1, "--radius", 0.2, "--n-max", 100, "--n0", 20)
    assert found.status == 0, found.stderr
    assert "certified accuracy at radius 0.1:" in found.stdout
    assert "certified accuracy at radius 0.2:" in found.stdout
    rows = pq.read_table(tmp_path / "run" / "rows.parquet").to_pylist()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["plan"]["rule"] == "decision"
    assert {row["radius"] for row in rows} <= {0.0, 0.1 * (1 + 1e-9), 0.2 * (1 + 1e-9)}
    refused = robustify("certify", "zoo:timm", photos, "--radius", 0.1, "--n", 100, "--out", "other")
    assert refused.status == 2
    assert "not both" in refused.stderr
    assert not (tmp_path / "other").exists()


def test_when_no_image_can_be_used_nothing_is_reported(tmp_path: Path, robustify: Command) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"nothing")
    certified = robustify("certify", "zoo:timm", tmp_path / "bad", "--n", 20)
    assert certified.status == 2
    assert "none of the 1 images could be used" in certified.stderr
    assert not (tmp_path / "run" / "report.html").exists()
    assert robustify("predict", "zoo:timm", tmp_path / "bad" / "a.png").status == 2


def test_an_interrupted_command_says_how_to_go_on(
    photos: Path, robustify: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(RowStore, "add", interrupt)
    found = robustify("certify", "zoo:timm", photos, "--n", 20)
    assert found.status == 130
    assert "run the same command again to continue" in found.stderr
