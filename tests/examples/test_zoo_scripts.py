"""The scripts that train the zoo start, and write what the others read."""

import gzip
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

SCRIPTS = Path(__file__).parents[2] / "examples" / "zoo"


@pytest.mark.slow
def test_every_trainer_can_be_imported() -> None:
    names = sorted(file.stem for file in SCRIPTS.glob("train_*.py"))
    assert names == ["train_denoiser", "train_open_clip", "train_timm", "train_transformers"]
    code = f"import train, {', '.join(names)}; print([callable(m.train) for m in ({', '.join(names)})])"
    found = subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[True, True, True, True]"


def test_held_out_images_are_written(tmp_path: Path) -> None:
    size, count = (28).to_bytes(4, "big"), 40
    images = b"\x00\x00\x08\x03" + count.to_bytes(4, "big") + 2 * size + bytes(i % 251 for i in range(count * 784))
    labels = b"\x00\x00\x08\x01" + count.to_bytes(4, "big") + bytes(i % 10 for i in range(count))
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    command = [sys.executable, str(SCRIPTS / "train.py"), "images", "--data", str(tmp_path), "--out", str(tmp_path)]
    subprocess.run(command, capture_output=True, check=True)
    written = load_file(tmp_path / "held_out.safetensors")
    assert written["images"].shape == (2, 1, 32, 32)
    assert written["labels"].tolist() == [0, 0]
