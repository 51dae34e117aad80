"""`robustify tune` as a user types it."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from robustify.zoo import HELD_OUT

Command = Callable[..., Any]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Sixteen images with labels."""
    arrays = load_file(HELD_OUT)
    np.savez(tmp_path / "data.npz", images=arrays["images"][:16].numpy(), labels=arrays["labels"][:16].numpy())
    return tmp_path / "data.npz"


def test_a_tuned_classifier_is_certified(data: Path, tmp_path: Path, robustify: Command) -> None:
    model = ("--denoiser", "zoo:ddpm", "--sigma", 0.5)
    short = ("--epochs", 1, "--batch", 8, "--cache", 4, "--validation", data, "--out", "tuned")
    found = robustify("tune", "zoo:timm", data, *model, *short)
    assert found.status == 0, found.stderr
    work = "steps: 2; noisy images: 16 × 1 epochs × 4 draws = 64; denoised first: 64\n"
    assert found.stdout.index(work) < found.stdout.index("objective            name=FTCADIS")
    assert "LoRA of rank 4" in found.stdout
    assert "copies not classified as their label, last epoch:" in found.stdout
    assert "noisy accuracy on validation images: " in found.stdout
    files = ("history.parquet", "classes.parquet", "training.svg", "tune.json")
    for name in ("adapter/adapter_model.safetensors", *files):
        assert (tmp_path / "tuned" / name).is_file()
    told = robustify("status", "tuned").stdout
    assert told.startswith("training of zoo:timm with FTCADIS at sigma = 0.5: LoRA of rank 4, alpha 4, on ")
    assert "; in full: fc\n2 of 2 steps, done\nloss: " in told
    assert "copies not classified as their label, last epoch: " in told
    assert "validation, after epoch 1: noisy accuracy " in told
    other = robustify("tune", "zoo:timm", data, *model, "--epochs", 2, *short[2:])
    assert other.status == 2
    assert "epochs: there 1, now 2" in other.stderr
    draws = ("--n", 40, "--n0", 20, "--every", 8, "--out", "run")
    found = robustify("certify", "zoo:timm", data, *model, "--tuned", "tuned", *draws)
    assert found.status == 0, found.stderr
    assert "zoo:timm tuned with FTCADIS at sigma = 0.5 behind zoo:ddpm" in found.stdout
    base = ("verify", "run", "--model", "zoo:timm", "--data", data, "--denoiser", "zoo:ddpm")
    assert robustify(*base, "--tuned", "tuned").status == 0
    assert robustify(*base).status == 2


def test_soft_labels_come_from_a_run_over_the_same_images(data: Path, tmp_path: Path, robustify: Command) -> None:
    found = robustify("certify", "zoo:timm", data, "--n", 30, "--n0", 10, "--seed", 1, "--out", "teacher")
    assert found.status == 0, found.stderr
    learn = ("tune", "zoo:timm", data, "--targets", "teacher", "--epochs", 1, "--batch", 8, "--adapt", "head")
    found = robustify(*learn, "--objective", "cat-rs", "--out", "tuned")
    assert found.status == 0, found.stderr
    rows = pq.read_table(tmp_path / "teacher" / "rows.parquet").to_pylist()
    votes = {row["sample"]: row["tallies"][-1]["votes"] for row in rows}
    counts = np.array([votes[str(i)] for i in range(16)], dtype=np.float64)
    shares = counts / counts.sum(axis=1, keepdims=True)  # a draw within rounding of a tie has no vote
    described = json.loads((tmp_path / "tuned" / "tune.json").read_text())["objective"]["targets"]
    assert described == {"shape": [16, 10], "sha256": sha256(shares.data).hexdigest()}
    found = robustify(*learn, "--out", "other")
    assert found.status == 2
    assert "no setting named 'targets'" in found.stderr


def test_what_cannot_be_tuned_is_said_at_once(data: Path, tmp_path: Path, robustify: Command) -> None:
    for arguments, said in [
        (("zoo:timm", "nowhere"), "there is no file or folder 'nowhere'"),
        (("zoo:timm", data, "--validation", "nowhere"), "there is no file or folder 'nowhere'"),
        (("zoo:timm", data, "--objective", "ft-cadi"), "Did you mean 'ft-cadis'"),
        (("zoo:timm", data, "--adapt", "some"), "expected --adapt to be one of lora, full, head"),
        (("zoo:timm", data, "--epochs", 0), "expected --epochs to be a whole number of at least 1"),
        (("zoo:timm", data, "--workers", -1), "Invalid value for '--workers'"),
    ]:
        found = robustify("tune", *arguments, "--out", "tuned")
        assert found.status == 2
        assert said in found.stderr
        assert not (tmp_path / "tuned").exists()
