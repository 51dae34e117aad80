import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from safetensors.numpy import save_file

from robustify.data import Sample, open_samples
from robustify.data.sources import check_samples, class_indices
from robustify.errors import InputError

LABELS = ("T-shirt", "ankle boot", "bag")


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PILImage.fromarray(np.zeros((4, 4), np.uint8)).save(path)


def test_class_folders_are_matched_by_name(tmp_path: Path) -> None:
    for name in ("bag/b.png", "bag/a.png", "Ankle_Boot/deep/c.jpg", "t-shirt/d.png"):
        save(tmp_path / name)
    (tmp_path / "bag" / "notes.txt").write_text("not an image")
    found = [(s.id, s.label) for s in open_samples(tmp_path, LABELS)]
    assert found == [("Ankle_Boot/deep/c.jpg", 1), ("bag/a.png", 2), ("bag/b.png", 2), ("t-shirt/d.png", 0)]


def test_class_folders_may_be_indices(tmp_path: Path) -> None:
    save(tmp_path / "0" / "a.png")
    save(tmp_path / "2" / "a.png")
    assert [s.label for s in open_samples(tmp_path, LABELS)] == [0, 2]


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    assert [(s.id, s.label) for s in open_samples(str(tmp_path), LABELS)] == [("a.png", None)]


@pytest.mark.parametrize("folder", ["cat", "3"])
def test_unknown_class_folders_are_refused(tmp_path: Path, folder: str) -> None:
    save(tmp_path / folder / "a.png")
    with pytest.raises(InputError, match=f"'{folder}' is not a class of the model, such as 'T-shirt'"):
        open_samples(tmp_path, LABELS)


def test_the_folder_that_does_not_fit_is_named(tmp_path: Path) -> None:
    save(tmp_path / "1" / "a.png")
    save(tmp_path / "12" / "a.png")
    with pytest.raises(InputError, match="the folder '12' is not a class"):
        open_samples(tmp_path, LABELS)


def test_ambiguous_class_names_are_refused() -> None:
    with pytest.raises(InputError, match="more than one class is called 'crane'"):
        class_indices(["crane"], ["crane", "Crane", "maillot"])


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_array_files(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a{suffix}"
    arrays = {"images": np.arange(32, dtype=np.uint8).reshape(2, 4, 4), "labels": np.array([2, 0])}
    np.savez(file, **arrays) if suffix == ".npz" else save_file(arrays, file)
    first, second = open_samples(file, LABELS)
    assert (first.id, first.label, second.id, second.label) == ("0", 2, "1", 0)
    assert np.array_equal(np.asarray(second.image), arrays["images"][1])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pixels": np.zeros((1, 4, 4))}, "array named 'images'"),
        ({"images": np.zeros((0, 4, 4))}, "N > 0"),
        ({"images": np.zeros((2, 4, 4)), "labels": np.array([0])}, "2 integer labels"),
        ({"images": np.zeros((1, 4, 4)), "labels": np.array([0.5])}, "integer labels"),
        ({"images": np.zeros((1, 4, 4)), "labels": np.array([3])}, "labels from 0 to 2"),
        ({"images": np.zeros((1, 4, 4)), "labels": np.array([-1])}, "labels from 0 to 2"),
    ],
)
def test_bad_array_files_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=message):
        open_samples(tmp_path / "a.npz", LABELS)


def test_broken_missing_and_empty_places_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.npz").write_bytes(b"PK nothing")
    (tmp_path / "pickled.npz").write_bytes(b"")
    np.savez(tmp_path / "pickled.npz", images=np.array([{}], dtype=object))
    (tmp_path / "empty").mkdir()
    for name in ("broken.npz", "pickled.npz"):
        with pytest.raises(InputError, match="reading it failed"):
            open_samples(tmp_path / name, LABELS)
    with pytest.raises(InputError, match="found none"):
        open_samples(tmp_path / "empty", LABELS)
    with pytest.raises(InputError, match=r"there is no file or folder '.*missing'"):
        open_samples(tmp_path / "missing", LABELS)
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(InputError, match=r"expected images, a folder of them or a \.npz or \.safetensors file; got"):
        open_samples(tmp_path / "notes.txt", LABELS)


def test_the_folder_that_does_not_fit_is_named_not_its_neighbour() -> None:
    with pytest.raises(InputError, match="the folder 'cats' is not a class"):
        class_indices(["7", "cats"], [str(name) for name in ("shirt", "bag", *range(100, 108))])


@pytest.mark.parametrize("name", ["photo.jpg", "PHOTO.JPEG", "scan.tif"])
def test_one_picture_is_a_data_set(tmp_path: Path, name: str) -> None:
    save(tmp_path / name)
    assert open_samples(tmp_path / name, LABELS) == [Sample(name, tmp_path / name, None)]


def test_hidden_files_and_folders_are_no_data(tmp_path: Path) -> None:
    hidden = ("._a.png", ".DS_Store.png", ".ipynb_checkpoints/a.png", "bag/._b.png", "bag/.ipynb_checkpoints/b.png")
    data = tmp_path / ".cache" / "photos"  # what is above the folder that is asked for does not matter
    for name in ("bag/b.png", *hidden):
        save(data / name)
    assert [s.id for s in open_samples(data, LABELS)] == ["bag/b.png"]
    (data / "bag" / "b.png").unlink()
    with pytest.raises(InputError, match=r"expected images in .*; found none that are not hidden"):
        open_samples(data, LABELS)


def test_unknown_folders_may_be_put_together_where_no_truth_is_needed(tmp_path: Path) -> None:
    save(tmp_path / "holiday" / "a.png")
    with pytest.raises(InputError, match=r"(?s)'holiday' is not a class.*the truth is unknown"):
        open_samples(tmp_path, LABELS)
    assert [(s.id, s.label) for s in open_samples(tmp_path / "holiday", LABELS)] == [("a.png", None)]


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    strange = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    try:
        os.rename(tmp_path / "a.png", strange)
    except OSError:
        pytest.skip("the file system takes UTF-8 only")
    for data in (tmp_path, Path(strange)):
        with pytest.raises(InputError, match=r"the name 'caf\\udce9\.png' .* UTF-8.*\n.*[Rr]ename"):
            open_samples(data, LABELS)


IMAGES = [np.zeros((4, 4), np.uint8)] * 3


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (np.stack(IMAGES), r"expected a list of samples, .*; got ndarray\.\n.*Sample\("),
        (torch.zeros(3, 1, 4, 4), r"expected a list of samples, .*; got Tensor\.\n.*Sample\("),
        (torch.zeros(0), "expected a list of samples, .*; got Tensor"),
        ((sample for sample in [Sample("a", IMAGES[0], None)]), "expected a list of samples, .*; got generator"),
        ("photos", r"expected a list of samples, .*; got the path 'photos'\.\n.*open_samples"),
        (Path("photos"), "expected a list of samples, .*; got the path 'photos'"),
        (IMAGES, "expected a list of samples, .*; got a list with a ndarray at 0"),
        ([Sample("a", IMAGES[0], None), "b.png"], "got a list with a str at 1"),
        ([], "expected at least one image; got none"),
        (
            [Sample(name, IMAGES[0], None) for name in ("a", "b", "c", "b", "a")],
            r"5 samples have 3 names; 'b' is that of 1 and 3\.\n.*name of its own",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_list_of_samples_is_refused(samples: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_samples(samples)


def test_lists_of_samples_pass() -> None:
    check_samples([Sample("a", IMAGES[0], None), Sample("b", IMAGES[0], 1)])
    check_samples((Sample("a", IMAGES[0], None),))
