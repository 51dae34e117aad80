"""What to learn from: every kind of data, and what is wrong with some."""

import multiprocessing
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags
from PIL import Image as PILImage
from torch import Tensor
from torch.utils.data import Dataset

from robustify import robustify
from robustify.data import Examples, training_examples
from robustify.errors import InputError
from robustify.finetune.train.augment import augment
from robustify.finetune.train.batches import Batches
from tests.finetune.train.toys import RECIPE
from tests.toys import MakeModel, Stripes


class Pairs(Dataset[Any]):
    """As torchvision's data sets are."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        if row >= len(self):
            raise IndexError(row)
        return self.images[row].float() / 255, int(self.labels[row])


def test_masked_pixels_are_refused(make_model: MakeModel, stripes: Stripes) -> None:
    images, labels = stripes
    masked = np.ma.masked_greater(images.numpy(), 200)
    for data in (masked, list(masked)):
        with pytest.raises(InputError, match=r"expected an array whose pixels all count; [\d,]+ are masked"):
            Examples(make_model(), data, labels).__getitems__(list(range(44)))


def test_all_kinds_of_data_are_the_same_examples(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    model = make_model()
    images, labels = stripes
    np.savez(tmp_path / "data.npz", images=images.numpy(), labels=labels.numpy())
    for i in (0, 1, 2):
        (tmp_path / "folder" / str(i)).mkdir(parents=True)
    for i, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        PILImage.fromarray(image[0].numpy()).save(tmp_path / "folder" / str(label) / f"{i:03}.png")
    kinds = [
        (images, labels),
        (images.float() / 255, labels.tolist()),
        (list(images.numpy()), labels.numpy()),
        Pairs(images, labels),
        str(tmp_path / "data.npz"),
    ]
    for data in kinds:
        minibatch = training_examples(model, data).__getitems__([5, 0])
        torch.testing.assert_close(minibatch.pixels, images[[5, 0]].float() / 255)
        assert minibatch.labels is not None
        assert minibatch.labels.tolist() == [2, 0]
        assert minibatch.rows == [5, 0]
    folder = training_examples(model, tmp_path / "folder")
    first = folder.__getitems__([0, 1, 43])
    torch.testing.assert_close(first.pixels, images[[0, 3, 41]].float() / 255)
    assert first.labels is not None
    assert first.labels.tolist() == [0, 0, 2]


def test_gray_images_need_no_axis_for_it(make_model: MakeModel, stripes: Stripes) -> None:
    images, labels = stripes
    flat, usual = (Examples(make_model(), x, labels).__getitems__([5, 3]) for x in (images[:, 0].numpy(), images))
    assert torch.equal(flat.pixels, usual.pixels)


def test_data_without_labels(make_model: MakeModel, stripes: Stripes) -> None:
    assert Examples(make_model(), stripes[0]).__getitems__([1]).labels is None
    assert Examples(make_model(), stripes[0], [None] * 44).labels is None


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (np.zeros((0, 1, 6, 6), np.uint8), None, "expected images to learn from; got none"),
        (np.zeros((4, 1, 5, 6), np.uint8), None, r"expected images of shape \(N, 1, 6, 6\); got \(4, 1, 5, 6\)"),
        (np.zeros((4, 1, 6, 6), np.uint8), [0, 1, 2], "expected one label for each of the 4 images; got 3"),
        (np.zeros((4, 1, 6, 6), np.uint8), [0, 1, 2, 3], r"labels from 0 to 2, .* got 0 to 3, first 3 at row 3"),
        (np.zeros((4, 1, 6, 6), np.uint8), [0, -1, 2, 0], r"labels from 0 to 2, .* got -1 to 2, first -1 at row 1"),
        (np.zeros((4, 1, 6, 6), np.uint8), [0.0, 1.0, 2.0, 0.0], "expected 4 class indices; got float64"),
        (np.zeros((4, 1, 6, 6), np.uint8), [0, None, 2, 0], "1 of 4 images have no label"),
        ("data.npz", None, r"expected images; got the path 'data.npz'.\n.*training_examples\(model, path\)"),
    ],
)
def test_unusable_data_is_refused_at_once(
    make_model: MakeModel, images: np.ndarray, labels: list[int | None] | None, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        Examples(make_model(), images, labels)


def test_pixels_out_of_range_name_their_row(make_model: MakeModel) -> None:
    pixels = torch.zeros(3, 1, 6, 6)
    pixels[2] = 7.0
    with pytest.raises(InputError, match=r"image 2 of the training data cannot be used: expected pixels in \[0, 1\]"):
        Examples(make_model(), pixels, [0, 1, 2]).__getitems__([2])


def test_augmentations_belong_to_row_and_epoch() -> None:
    pixels = torch.rand(64, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    rows = list(range(64))
    assert augment(pixels, rows, "none", seed=0, epoch=0) is pixels
    mirrored = augment(pixels, rows, "mirror", seed=0, epoch=0)
    flipped = [torch.equal(a, b.flip(-1)) for a, b in zip(mirrored, pixels, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(mirrored, pixels, strict=True)]
    assert all(a != b for a, b in zip(flipped, kept, strict=True))
    assert 16 < sum(flipped) < 48
    cropped = augment(pixels, rows, "crop", seed=0, epoch=0)
    shifts = set()
    for image, original, flip in zip(cropped, pixels, flipped, strict=True):
        source = torch.nn.functional.pad(original.flip(-1) if flip else original, (2,) * 4)
        found = [(i, j) for i in range(5) for j in range(5) if torch.equal(image, source[:, i : i + 16, j : j + 16])]
        assert len(found) == 1
        shifts.update(found)
    assert {i for i, _ in shifts} == {j for _, j in shifts} == set(range(5))
    again = augment(pixels.flip(0), rows[::-1], "crop", seed=0, epoch=0)
    assert torch.equal(again.flip(0), cropped)
    assert not torch.equal(augment(pixels, rows, "crop", seed=0, epoch=1), cropped)


def test_every_pixel_of_an_array_is_looked_at_at_once(make_model: MakeModel) -> None:
    for value in (1.5, -0.1, float("nan")):
        pixels = torch.zeros(3, 1, 6, 6)
        pixels[1, 0, 2, 3] = value
        with pytest.raises(InputError, match="image 1 of the training data cannot be used"):
            Examples(make_model(), pixels, [0, 1, 2])


def test_labels_are_what_the_data_set_gives(make_model: MakeModel, stripes: Stripes) -> None:
    data = Pairs(*stripes)
    data.targets = stripes[1].tolist()
    assert Examples(make_model(), data).labels.tolist() == stripes[1].tolist()
    data.target_transform = lambda label: 2 - label
    data.labels = 2 - stripes[1]
    assert Examples(make_model(), data).labels.tolist() == (2 - stripes[1]).tolist()
    data.target_transform = None  # a data set may change them in its own way
    assert Examples(make_model(), data).labels.tolist() == (2 - stripes[1]).tolist()


def test_data_is_known_by_all_its_pixels_or_by_some_images(make_model: MakeModel, stripes: Stripes) -> None:
    model, (images, labels) = make_model(), stripes
    other = images.clone()
    other[20] = 255 - other[20]
    assert Examples(model, images, labels).fingerprint() == Examples(model, images.clone(), labels).fingerprint()
    assert Examples(model, images, labels).fingerprint() != Examples(model, other, labels).fingerprint()
    assert Examples(model, images, labels).fingerprint() != Examples(model, images, labels.flip(0)).fingerprint()
    assert Examples(model, Pairs(images, labels)).fingerprint() != Examples(model, Pairs(other, labels)).fingerprint()


def test_a_data_set_that_changes_its_images_is_known_by_its_labels(make_model: MakeModel, stripes: Stripes) -> None:
    class Flipping(Pairs):
        def __getitem__(self, row: int) -> tuple[Tensor, int]:
            self.seen = not getattr(self, "seen", False)
            image, label = super().__getitem__(row)
            return image if self.seen else image.flip(-1), label

    first, second = (Examples(make_model(), Flipping(*stripes)).fingerprint() for _ in range(2))
    assert first == second
    assert first != Examples(make_model(), Flipping(stripes[0], stripes[1].flip(0))).fingerprint()


@pytest.mark.parametrize("source", ["timm", "transformers"])
def test_examples_carry_no_model_to_other_processes(source: str) -> None:
    """What they need of one is its preprocessing: some hundred bytes; the model would be 11 MB."""
    images = [np.full((32, 32), i, np.uint8) for i in range(3)]
    examples = Examples(robustify(f"zoo:{source}", denoiser="zoo:ddpm"), images, [0, 1, 2])
    pickled = pickle.dumps(examples)
    assert len(pickled) < sum(image.nbytes for image in images) + 8_000
    sent, here = (e.__getitems__([2, 0]) for e in (pickle.loads(pickled), examples))
    assert torch.equal(sent.pixels, here.pixels)
    assert sent.labels.tolist() == here.labels.tolist() == [2, 0]
    assert pickle.loads(pickled).fingerprint() == examples.fingerprint()


@pytest.fixture
def spawned() -> Iterator[None]:
    """Processes start as on macOS and Windows: without what their parent has in memory."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.usefixtures("spawned")
def test_spawned_processes_decode_the_same_images(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    files = [tmp_path / f"{i}.png" for i in range(5)]
    for image, file in zip(stripes[0], files, strict=False):
        PILImage.fromarray(image[0].numpy()).save(file)
    model = make_model()
    model.classifier.network.of_this_process = lambda: 0  # no other process can have it
    examples = Examples(model, files, stripes[1][:5])
    batches = Batches(examples, replace(RECIPE, batch=3, epochs=1), sigma=0.25)
    here, there = (list(replace(batches, workers=workers).load(0)) for workers in (0, 1))
    assert [batch.rows for batch in there] == [batch.rows for batch in here]
    assert sorted(row for batch in there for row in batch.rows) == list(range(5))
    for a, b in zip(here, there, strict=True):
        assert torch.equal(a.pixels, b.pixels)
        assert torch.equal(a.labels, b.labels)


class Pictures(Dataset[Any]):
    """As torchvision's and Hugging Face's data sets give pictures."""

    def __init__(self, pictures: list[PILImage.Image]) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, row: int) -> tuple[PILImage.Image, int]:
        return self.pictures[row], 0


def test_pictures_are_read_by_one_rule_wherever_they_come_from(make_model: MakeModel, tmp_path: Path) -> None:
    """Turned upright, and white where transparent."""
    stored = np.random.default_rng(0).integers(0, 256, (6, 6, 2), dtype=np.uint8)
    picture, exif = PILImage.fromarray(stored, "LA"), PILImage.Exif()
    exif[ExifTags.Base.Orientation] = 3
    (tmp_path / "0").mkdir()
    picture.save(tmp_path / "0" / "a.png", exif=exif)
    file = tmp_path / "0" / "a.png"
    opacity = stored[..., 1] / 255
    seen = (stored[..., 0] * opacity + 255 * (1 - opacity))[::-1, ::-1]
    with PILImage.open(file) as opened:
        for data in (tmp_path, file, ([file], [0]), ([opened], [0]), Pictures([opened])):
            (pixels,) = training_examples(make_model(), data).__getitems__([0]).pixels
            np.testing.assert_allclose(255 * pixels[0].numpy(), seen, rtol=0, atol=0.51)
