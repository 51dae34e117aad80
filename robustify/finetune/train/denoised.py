"""Denoised copies on disk: the denoiser is fixed, so a copy denoised once can serve many epochs."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor

from robustify.bars import bar
from robustify.data.examples import Examples
from robustify.errors import InputError
from robustify.finetune.seeds import normal
from robustify.folders import disk
from robustify.smoothing import SmoothedClassifier


@final
class DenoisedCopies:
    """`copies` denoised copies of each image in half precision, filled once; an interrupted filling continues.

    Arguments:
        folder: Made where missing.
        rows: Number of images.
        copies: Number of copies of each image.
        shape: Shape of one image, (channels, height, width).

    Raises:
        InputError: If the disk has no room for them.
    """

    def __init__(self, folder: Path, rows: int, copies: int, shape: tuple[int, int, int]) -> None:
        self.copies = copies
        self._folder = folder
        self._rows = rows
        file = folder / "denoised.npy"
        done = folder / "denoised.done.npy"
        if not done.is_file():
            need = 2 * rows * copies * int(np.prod(shape))
            folder.mkdir(parents=True, exist_ok=True)
            if need > (free := shutil.disk_usage(folder).free):
                raise InputError(
                    f"{copies} denoised copies of {rows:,} images need {need / 2**30:.1f} GiB; "
                    f"{str(folder)!r} has {free / 2**30:.1f} GiB free.\n  Use fewer copies, or cache=0."
                )
            with disk(folder, "Files written before"):
                _new(file, (rows, copies, *shape), np.float16)
                _new(done, (rows,), np.uint8)  # last: where it exists, all the room is taken
        self._pixels = np.lib.format.open_memmap(file, mode="r+")
        self._done = np.lib.format.open_memmap(done, mode="r+")

    @torch.inference_mode()
    def fill(self, model: SmoothedClassifier, examples: Examples, *, seed: int, batch: int, quiet: bool) -> None:
        """Denoises the copies that are missing, by the noise of `seed`, about `batch` at a time."""
        missing = np.flatnonzero(self._done == 0).tolist()
        each = max(1, batch // self.copies)
        with bar("denoise", self._rows, "image", done=self._rows - len(missing), hide=quiet) as shown:
            for first in range(0, len(missing), each):
                rows = missing[first : first + each]
                clean = examples.__getitems__(rows).pixels.to(model.classifier.device)
                noise = normal(seed, rows, range(self.copies), clean.shape[1:]).to(clean.device)
                noisy = (clean + model.sigma * noise).flatten(0, 1)
                pixels = model.denoise(noisy).view(self.copies, *clean.shape)
                with disk(self._folder, "Copies written before"):
                    self._pixels[rows] = pixels.transpose(0, 1).half().cpu().numpy()
                    self._done[rows] = 1
                shown.update(len(rows))

    def read(self, rows: Sequence[int], copies: Sequence[int]) -> Tensor:
        """The copies of these numbers of each row, float32 of shape (copies, rows, channels, height, width)."""
        picked = self._pixels[list(rows)][:, list(copies)]
        return torch.from_numpy(np.ascontiguousarray(picked)).float().transpose(0, 1)


def _new(file: Path, shape: tuple[int, ...], dtype: type) -> None:
    """Makes a file of zeros and takes its room on the disk.

    Without room, writing to a file that is mapped into memory would kill the process.
    """
    beside = file.with_name(f".{file.name}")
    np.lib.format.open_memmap(beside, mode="w+", dtype=dtype, shape=shape).flush()
    try:
        if hasattr(os, "posix_fallocate"):
            with beside.open("r+b") as stream:
                os.posix_fallocate(stream.fileno(), 0, beside.stat().st_size)
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
