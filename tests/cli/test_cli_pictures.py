"""Photographs as people have them, from the command line: one file, a flat folder, in colour, turned."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import ExifTags
from PIL import Image as PILImage
from safetensors.torch import load_file

from robustify import Settings
from robustify import robustify as make
from robustify.errors import InputError
from robustify.zoo import HELD_OUT

Command = Callable[..., Any]
QUICK = ("--n", 20, "--n0", 20)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A colour photograph, for models of gray pictures."""
    gray = load_file(HELD_OUT)["images"][0, 0].numpy()
    tinted = np.stack([gray, gray // 2, 255 - gray], axis=-1)
    PILImage.fromarray(tinted).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """A folder of gray photographs without class folders, one of them turned, and what a Mac leaves in it."""
    folder = tmp_path / "flat"
    folder.mkdir()
    images = load_file(HELD_OUT)["images"]
    for i in range(2):
        PILImage.fromarray(images[i, 0].numpy()).save(folder / f"{i}.png")
    exif = PILImage.Exif()
    exif[ExifTags.Base.Orientation] = 3
    PILImage.fromarray(images[0, 0].numpy()[::-1, ::-1].copy()).save(folder / "turned.png", exif=exif)
    (folder / "._0.png").write_bytes(b"\0\5\x16\7")
    return folder


def test_a_flat_folder_is_certified_without_truth(flat: Path, tmp_path: Path, robustify: Command) -> None:
    found = robustify("certify", "zoo:timm", flat, *QUICK)
    assert found.status == 0, found.stderr
    assert "certified accuracy" not in found.stdout
    rows = {row["sample"]: row for row in pq.read_table(tmp_path / "run" / "rows.parquet").to_pylist()}
    assert sorted(rows) == ["0.png", "1.png", "turned.png"]
    assert {row["truth"] for row in rows.values()} == {None}
    assert rows["turned.png"]["pixels"] == rows["0.png"]["pixels"] != rows["1.png"]["pixels"]
    known = robustify("certify", "zoo:timm", flat, "--radius", 0.1, "--known-label", "--out", "other")
    assert known.status == 2
    assert "3 of 3 have none, 0.png being the first" in known.stderr


def test_one_photograph_is_certified(flat: Path, tmp_path: Path, robustify: Command) -> None:
    found = robustify("certify", "zoo:timm", flat / "1.png", *QUICK)
    assert found.status == 0, found.stderr
    assert [row["sample"] for row in pq.read_table(tmp_path / "run" / "rows.parquet").to_pylist()] == ["1.png"]
    assert robustify("estimate", "zoo:timm", flat / "1.png", *QUICK).status == 0


def test_colours_are_refused_until_gray_is_asked_for(photo: Path, tmp_path: Path, robustify: Command) -> None:
    for command in (("certify", "zoo:timm", photo, *QUICK), ("predict", "zoo:timm", photo, "--n", 20)):
        refused = robustify(*command)
        assert refused.status == 2
        assert "To discard the colours, say so: --gray on the command line, 'gray=True' in Python." in refused.stderr
        wanted = robustify(*command, "--gray", *(["--out", "gray"] if command[0] == "certify" else []))
        assert wanted.status == 0, wanted.stderr
    assert json.loads((tmp_path / "gray" / "run.json").read_text())["pictures"] == {
        "orientation": "exif",
        "transparency": "white",
        "gray": True,
    }
    again = robustify("certify", "zoo:timm", photo, *QUICK, "--out", "gray")
    assert again.status == 2
    assert "pictures.gray: there true, now false" in again.stderr


def test_rows_are_repeated_with_the_rules_of_the_run(photo: Path, robustify: Command) -> None:
    assert robustify("certify", "zoo:timm", photo, *QUICK, "--gray").status == 0
    found = robustify("verify", "run", "--model", "zoo:timm", "--data", photo)
    assert (found.status, "all match" in found.stdout) == (0, True), found.stderr


def test_a_model_of_colours_makes_nothing_gray() -> None:
    with pytest.raises(InputError, match="gray=True is for models of gray pictures; leave it out: zoo:open_clip works"):
        make("zoo:open_clip", classes=["a", "b"], gray=True)


def test_making_gray_changes_no_classifier_given(photo: Path) -> None:
    plain = make("zoo:timm").classifier
    gray = make(plain, gray=True)
    assert gray.prepare(photo).shape == (1, 32, 32)
    with pytest.raises(InputError, match="expected a gray picture"):
        make(plain).prepare(photo)
    assert gray.provenance(Settings(n=100)).classifier == make(plain).provenance(Settings(n=100)).classifier
