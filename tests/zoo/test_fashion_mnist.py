import gzip
from pathlib import Path

import pytest
import torch

from robustify.errors import InputError
from robustify.zoo.fashion_mnist import read


def write(folder: Path, images: bytes, labels: bytes) -> None:
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))


def test_images_are_padded_with_zeros_and_keep_their_norm(tmp_path: Path) -> None:
    size = (28).to_bytes(4, "big")
    pixels = bytes(i % 251 for i in range(2 * 28 * 28))
    write(
        tmp_path,
        b"\x00\x00\x08\x03" + (2).to_bytes(4, "big") + 2 * size + pixels,
        b"\x00\x00\x08\x01\x00\x00\x00\x02\x07\x03",
    )
    images, labels = read("test", tmp_path)
    assert images.shape == (2, 1, 32, 32)
    assert labels.tolist() == [7, 3]
    assert images[0, 0, 2, 2:6].tolist() == [0, 1, 2, 3]
    assert images.double().norm() == torch.tensor(list(pixels)).double().norm()


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="apt-get install dataset-fashion-mnist"):
        read("train", tmp_path)
    write(tmp_path, b"nothing", b"nothing")
    with pytest.raises(InputError, match="idx file of unsigned bytes"):
        read("test", tmp_path)
