"""Images to certify from pictures, folders and array files, decoded when needed; ids are the same in every run."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import final

import numpy as np
from PIL import Image as PILImage
from safetensors.numpy import load_file

from robustify.errors import InputError
from robustify.smoothing.inputs import OneImage

ARRAY_SUFFIXES = (".npz", ".safetensors")


@final
@dataclass(frozen=True)
class Sample:
    """One image to certify.

    Arguments:
        id: Name of the image in every run: its path inside the folder, or its row in the array.
        image: Path of the image, or its pixels.
        label: Index of its true class; None where it is unknown.

    Raises:
        InputError: If the name is no text that files of the run can hold.
    """

    id: str
    image: OneImage
    label: int | None

    def __post_init__(self) -> None:
        if not isinstance(self.id, str):
            raise InputError(f"expected the name of a sample to be a str; got {self.id!r}")
        try:
            self.id.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"the name {self.id!r} holds bytes that are not UTF-8, which the files of a run cannot hold.\n"
                "  Rename the file, or the folder that it is in."
            ) from error


def open_samples(data: str | PathLike[str], labels: Sequence[str]) -> list[Sample]:
    """The samples of a folder of class folders, a flat folder of images, one picture, or an array file.

    Hidden files and folders, whose names start with a dot, are left out. Images outside class folders have no label.
    Array files are `.npz` or `.safetensors` with `images`, (N, H, W), (N, H, W, C) or (N, C, H, W), and optionally
    `labels`, N class indices.

    Arguments:
        data: Path of the folder or file.
        labels: The classifier's class names. Class folders are named by class, or by class index.

    Raises:
        InputError: If there is no such data, or its classes are not the classifier's.
    """
    data = Path(data)
    if data.is_dir():
        return _from_folder(data, labels)
    if not data.exists():
        raise InputError(f"there is no file or folder {str(data)!r}")
    if data.suffix in ARRAY_SUFFIXES:
        return _from_arrays(data, labels)
    if _is_picture(data):
        return [Sample(data.name, data, None)]
    raise InputError(f"expected images, a folder of them or a {' or '.join(ARRAY_SUFFIXES)} file; got {str(data)!r}")


def check_samples(samples: object) -> None:
    """Refuses what is no list of samples with a name each.

    Raises:
        InputError: If it is something else, empty, or a name occurs twice, so that rows would be mistaken.
    """
    if isinstance(samples, str | PathLike):
        raise _no_samples(f"the path {str(samples)!r}")
    if not isinstance(samples, Sequence):
        raise _no_samples(type(samples).__name__)
    if not samples:
        raise InputError("expected at least one image; got none")
    for row, sample in enumerate(samples):
        if not isinstance(sample, Sample):
            raise _no_samples(f"a {type(samples).__name__} with a {type(sample).__name__} at {row}")
    _check_names([sample.id for sample in samples])


def _no_samples(got: str) -> InputError:
    return InputError(
        f"expected a list of samples, which name their images; got {got}.\n"
        "  robustify.data.open_samples(path, model.labels) reads files; Sample(name, image, label) makes one."
    )


def _check_names(names: Sequence[str]) -> None:
    """Raises `InputError`, with the first name that occurs again, if any."""
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        if first.setdefault(name, row) != row:
            raise InputError(
                f"{len(names)} samples have {len(set(names))} names; {name!r} is that of {first[name]} and {row}.\n"
                "  Give each a name of its own: one row is kept for each name."
            )


def _is_picture(file: Path) -> bool:
    return file.is_file() and file.suffix.lower() in PILImage.registered_extensions()


def _from_folder(folder: Path, labels: Sequence[str]) -> list[Sample]:
    found = (p for p in folder.rglob("*") if not any(part.startswith(".") for part in p.relative_to(folder).parts))
    files = sorted(filter(_is_picture, found))
    if not files:
        raise InputError(f"expected images in {str(folder)!r}; found none that are not hidden")
    names = sorted({p.relative_to(folder).parts[0] for p in files if p.parent != folder})
    index = class_indices(names, labels) if names else {}
    return [
        Sample(
            id=p.relative_to(folder).as_posix(),
            image=p,
            label=index[p.relative_to(folder).parts[0]] if p.parent != folder else None,
        )
        for p in files
    ]


def class_indices(names: Sequence[str], labels: Sequence[str]) -> dict[str, int]:
    """The class index of each folder name, which is a class name (case, `_` and `-` do not matter) or a class index.

    Raises:
        InputError: If a name is neither, or the name of two classes.
    """
    plain = [_plain(label) for label in labels]
    if all(_plain(name) in plain for name in names):
        doubles = [name for name in names if plain.count(_plain(name)) > 1]
        if doubles:
            raise InputError(f"more than one class is called {doubles[0]!r}; name the folders by class index")
        return {name: plain.index(_plain(name)) for name in names}
    if all(name.isdecimal() and int(name) < len(labels) for name in names):
        return {name: int(name) for name in names}
    if all(name.isdecimal() for name in names):
        unknown = next(name for name in names if int(name) >= len(labels))
    else:
        strange = [name for name in names if _plain(name) not in plain]
        unknown = next((name for name in strange if not name.isdecimal()), strange[0])
    raise InputError(
        f"the folder {unknown!r} is not a class of the model, such as {', '.join(map(repr, labels[:3]))}.\n"
        f"  Name class folders after the model's {len(labels)} classes, or by class index from 0.\n"
        "  Without class folders, all images in one folder, the truth is unknown."
    )


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", " ").replace("-", " ")


def _from_arrays(file: Path, labels: Sequence[str]) -> list[Sample]:
    arrays = _read_arrays(file)
    if "images" not in arrays:
        raise InputError(f"expected an array named 'images' in {file.name}; got {', '.join(arrays) or 'nothing'}")
    images = arrays["images"]
    truth = arrays.get("labels")
    if images.ndim not in (3, 4) or len(images) == 0:
        raise InputError(f"expected images of shape (N, …) with N > 0; got {images.shape} in {file.name}")
    if truth is None:
        return [Sample(str(i), image, None) for i, image in enumerate(images)]
    if truth.shape != (len(images),) or truth.dtype.kind not in "ui":
        raise InputError(
            f"expected {len(images)} integer labels in {file.name}; got {truth.dtype} of shape {truth.shape}"
        )
    if truth.min() < 0 or truth.max() >= len(labels):
        raise InputError(f"expected labels from 0 to {len(labels) - 1}; {file.name} has {truth.min()} to {truth.max()}")
    return [Sample(str(i), image, int(y)) for i, (image, y) in enumerate(zip(images, truth, strict=True))]


def _read_arrays(file: Path) -> dict[str, np.ndarray]:
    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # two libraries raise many kinds for a file that is not usable
        raise InputError(
            f"expected {str(file)!r} to be a complete {file.suffix} file of plain arrays; reading it failed "
            f"({type(error).__name__}).\n  Write it again with numpy.savez(…, images=…, labels=…) or safetensors."
        ) from error
