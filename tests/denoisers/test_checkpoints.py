"""Files of checkpoints are read whole or refused with what is wrong, before anything is written."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel
from safetensors.torch import save_file

from robustify.denoisers.convert.checkpoints import Family, build, convert, read_checkpoint
from robustify.denoisers.convert.layout import (
    map_state_dict,
)
from robustify.errors import InputError
from tests.toys_openai import TINY, Weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_views_of_one_storage_are_written_as_float32(dtype: torch.dtype, tiny: Weights, tmp_path: Path) -> None:
    """Mixed-precision training may save slices of one flat tensor; safetensors refuses any that overlap."""
    flat = torch.cat([value.flatten() for value in tiny.values()]).to(dtype)
    pieces = flat.split([value.numel() for value in tiny.values()])
    state = {key: piece.view(tiny[key].shape) for key, piece in zip(tiny, pieces, strict=True)}
    build(state, Family("tiny.pt", TINY, {})).save_pretrained(tmp_path)
    network = UNet2DModel.from_pretrained(tmp_path, subfolder="unet")
    assert network.dtype == torch.float32
    assert torch.equal(network.conv_in.weight, state["input_blocks.0.0.weight"].float())


def test_both_file_formats_are_read(tiny: Weights, tmp_path: Path) -> None:
    torch.save(dict(tiny), tmp_path / "a.pt")
    save_file(dict(tiny), tmp_path / "a.safetensors")
    for path in (tmp_path / "a.pt", tmp_path / "a.safetensors"):
        read = read_checkpoint(path)
        assert read.keys() == tiny.keys()
        assert all(torch.equal(read[key], tiny[key]) for key in tiny)


def test_a_missing_key_is_named(tiny: Weights) -> None:
    state = {key: value for key, value in tiny.items() if key != "time_embed.2.bias"}
    with pytest.raises(InputError, match=r"expected the \d+ keys .*\n  missing keys: 1 \(time_embed\.2\.bias\)$"):
        map_state_dict(state, TINY)


def test_an_unexpected_key_is_named(tiny: Weights) -> None:
    """Class-conditional checkpoints differ from ours by one key."""
    with pytest.raises(InputError, match=r"unexpected keys: 1 \(label_emb\.weight\)"):
        map_state_dict({**tiny, "label_emb.weight": torch.zeros(10, 128)}, TINY)


def test_another_width_is_named_with_the_first_shapes(tiny: Weights) -> None:
    problem = r"another shape: \d+ \(.*weight: got \(32, 3, 3, 3\), expected \(64, 3, 3, 3\), .*, \.\.\.\)"
    with pytest.raises(InputError, match=problem):
        map_state_dict(tiny, replace(TINY, channels=64, head_channels=64))


def test_the_checkpoint_of_the_other_family_is_refused_by_name(tmp_path: Path) -> None:
    state = {"time_embed.0.weight": torch.zeros(512, 128)}
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"other\.pt is not 256x256_diffusion_uncond\.pt, .*'guided-diffusion'"):
        convert("guided-diffusion", tmp_path / "other.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unknown_family_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no family named 'edm'.*'guided-diffusion' for .*'improved-diffusion'"):
        convert("edm", tmp_path / "a.pt", tmp_path / "out")


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a checkpoint file; .*missing\.pt is not a file"):
        convert("guided-diffusion", tmp_path / "missing.pt", tmp_path / "out")


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>404</html>", bytes(range(256))])
def test_an_unreadable_checkpoint_is_refused(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"broken.{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"broken\.{suffix} is damaged, incomplete"):
        read_checkpoint(path)


def test_a_checkpoint_that_was_cut_short_is_refused(tiny: Weights, tmp_path: Path) -> None:
    torch.save(dict(tiny), tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:100_000])
    with pytest.raises(InputError, match=r"cut\.pt is damaged, incomplete"):
        read_checkpoint(tmp_path / "cut.pt")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([torch.zeros(1)], "holds a list"),
        ({"model": {"a": torch.zeros(1)}, "step": 3}, "other values under: model, step"),
        ({0: torch.zeros(1)}, "other values under: 0"),
        ({"a": Path("code may hide in pickled objects")}, "holds more than tensors"),
    ],
)
def test_anything_but_named_tensors_is_refused(content: object, problem: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(InputError, match=problem):
        read_checkpoint(tmp_path / "odd.pt")


def test_a_folder_in_use_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / "file").touch()
    for out in (used, used / "file"):
        with pytest.raises(InputError, match="expected a new or empty folder"):
            convert("guided-diffusion", tmp_path / "missing.pt", out)
