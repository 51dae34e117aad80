"""The commands as a user runs them: in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image as PILImage
from safetensors.torch import load_file

from robustify.zoo import HELD_OUT
from robustify.zoo.fashion_mnist import CLASSES


def robustify(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "robustify.cli", *map(str, arguments)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=300)


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


def test_certify_writes_rows_and_a_report_and_continues(photos: Path, tmp_path: Path) -> None:
    command = ("certify", "zoo:timm", photos, "--denoiser", "zoo:ddpm", "--n", 40, "--n0", 20, "--out", "run")
    first = robustify(*command, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "certified accuracy at radius 0:" in first.stdout
    assert "sigma = 0.25" in first.stdout
    rows = pq.read_table(tmp_path / "run" / "rows.parquet").to_pylist()
    assert len(rows) == 6
    assert "data:image/png" in (tmp_path / "run" / "report.html").read_text()
    again = robustify(*command, cwd=tmp_path)
    assert again.returncode == 0
    assert pq.read_table(tmp_path / "run" / "rows.parquet").to_pylist() == rows
    changed = robustify(*command, "--sigma", 0.5, cwd=tmp_path)
    assert changed.returncode == 2
    assert "holds another run" in changed.stderr
    assert "sigma: there 0.25, now 0.5" in changed.stderr


def test_an_unreadable_image_is_named_and_the_exit_status_tells(photos: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for picture in photos.rglob("*.png"):
        (flat / picture.name).write_bytes(picture.read_bytes())
    (flat / "broken.png").write_bytes(b"\x89PNG")
    found = robustify("certify", "zoo:timm", flat, "--n", 20, "--n0", 20, cwd=tmp_path)
    assert found.returncode == 1
    assert "broken.png: cannot read an image" in found.stderr
    assert pq.read_table(tmp_path / "run" / "rows.parquet").num_rows == 6
    predicted = robustify("predict", "zoo:timm", flat / "0.png", flat / "broken.png", "--n", 50, cwd=tmp_path)
    assert predicted.returncode == 1
    assert "0.png: " in predicted.stdout


def test_zero_shot_from_the_command_line(photos: Path, tmp_path: Path) -> None:
    picture = next(photos.rglob("*.png"))
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    for classes in ("classes.txt", ",".join(CLASSES)):
        found = robustify("predict", "zoo:open_clip", picture, "--classes", classes, "--n", 20, cwd=tmp_path)
        assert found.returncode == 0, found.stderr
    missing = robustify("predict", "zoo:open_clip", picture, cwd=tmp_path)
    assert missing.returncode == 2
    assert "zero-shot model" in missing.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("certify", "tim:x", "."), "Did you mean 'timm'"),
        (("certify", "zoo:nothing", "."), "the zoo has no classifier 'nothing'"),
        (("certify", "zoo:timm", "missing"), "expected a folder of images"),
        (("certify", "zoo:timm", "missing", "--sigma", 0), "sigma > 0"),
        (("predict", "timm:local-dir:/nowhere", "x.png"), "expected a timm folder"),
        (("denoisers", "convert", "nothing", "x.pt", "out"), "improved-diffusion"),
        (("plugins", "nothing"), "no classifier source named 'nothing'"),
    ],
)
def test_mistakes_are_one_clear_message(arguments: tuple[object, ...], message: str, tmp_path: Path) -> None:
    found = robustify(*arguments, cwd=tmp_path)
    assert found.returncode == 2
    assert message in found.stderr
    assert "Traceback" not in found.stderr


def test_plugins_lists_sources_and_what_they_offer(tmp_path: Path) -> None:
    listed = robustify("plugins", cwd=tmp_path).stdout
    assert "classifier timm" in listed
    assert "robustify-vision" in listed
    assert robustify("plugins", "zoo", cwd=tmp_path).stdout.split() == [
        "zoo:open_clip",
        "zoo:timm",
        "zoo:transformers",
        "zoo:ddpm",
    ]
    assert "timm:resnet50.a1_in1k" in robustify("plugins", "timm", "--pattern", "resnet50.*", cwd=tmp_path).stdout


def test_the_demo_leaves_a_report(tmp_path: Path) -> None:
    found = robustify("demo", "--images", 4, "--n", 30, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    report = tmp_path / "robustify-demo" / "report.html"
    assert f"report: {report}" in found.stdout
    html = report.read_text()
    for part in (
        "timm classifier",
        "zero-shot CLIP, no denoiser",
        "<svg",
        "data:image/png",
        "chance at most 0.001",
    ):
        assert part in html
