"""Fashion-MNIST, read from its idx files and zero-padded from 28×28 to 32×32.

Zero padding keeps ℓ2 norms, so radii can be compared with figures published for 28×28.

References:
    Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms,
    Xiao, Rasul, Vollgraf, 2017, https://arxiv.org/abs/1708.07747
"""

import gzip
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from robustify.errors import InputError

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Folder into which Debian's package `dataset-fashion-mnist` puts the files."""

CLASSES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)

_PREFIX = {"train": "train", "test": "t10k"}


def _read_idx(path: Path) -> Tensor:
    """Reads one gzipped idx file of unsigned bytes: two zeros, type 8, rank, sizes, data."""
    raw = bytearray(gzip.decompress(path.read_bytes()))
    if raw[:3] != b"\x00\x00\x08":
        raise InputError(f"expected an idx file of unsigned bytes; {path} starts with {raw[:4].hex()}")
    rank = raw[3]
    shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank)]
    return torch.frombuffer(raw, dtype=torch.uint8, offset=4 + 4 * rank).reshape(shape)


def read(split: Literal["train", "test"], folder: Path = DEBIAN_FOLDER) -> tuple[Tensor, Tensor]:
    """Reads the images of a split, uint8 of shape (N, 1, 32, 32), and their labels, int64 of shape (N).

    Raises:
        InputError: If the folder lacks the files.
    """
    prefix = _PREFIX[split]
    images_file = folder / f"{prefix}-images-idx3-ubyte.gz"
    labels_file = folder / f"{prefix}-labels-idx1-ubyte.gz"
    if not (images_file.exists() and labels_file.exists()):
        raise InputError(
            f"expected {images_file.name} and {labels_file.name} in {folder}; found neither or only one.\n"
            "  On Debian or Ubuntu: apt-get install dataset-fashion-mnist"
        )
    images = F.pad(_read_idx(images_file).unsqueeze(1), (2, 2, 2, 2))
    return images, _read_idx(labels_file).long()
