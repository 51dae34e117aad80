"""Denoisers from folders and from memory."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler
from torch import Tensor, nn

from robustify.denoisers import Identity
from robustify.denoisers.diffusion import DiffusionDenoiser, load, names
from robustify.denoisers.wrap import wrap
from robustify.errors import InputError, ModelError


class TestLoad:
    def test_folder(self, folder: Path, network: nn.Module, noisy: Tensor) -> None:
        denoiser = load(str(folder))
        scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
        expected = DiffusionDenoiser(network, scheduler)(noisy, 0.25)
        torch.testing.assert_close(denoiser(noisy, 0.25), expected)
        assert denoiser.name == f"diffusers:{folder}"
        assert (denoiser.channels, denoiser.size, denoiser.licence) == (3, (8, 8), None)
        assert not any(module.training for module in denoiser.modules())

    def test_licence_is_the_model_cards(self, folder: Path, tmp_path: Path) -> None:
        copy = shutil.copytree(folder, tmp_path / "copy")
        (copy / "README.md").write_text("---\nlicense: mit\n---\n")
        assert load(str(copy)).licence == "mit"

    @pytest.mark.parametrize(
        "missing", ["model_index.json", "unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"]
    )
    def test_folder_that_lacks_a_file(self, missing: str, folder: Path, tmp_path: Path) -> None:
        copy = shutil.copytree(folder, tmp_path / "copy")
        (copy / missing).unlink()
        with pytest.raises(InputError, match=f"{copy}.*{Path(missing).stem}|{Path(missing).stem}.*{copy}"):
            load(str(copy))

    def test_folder_with_damaged_weights(self, folder: Path, tmp_path: Path) -> None:
        copy = shutil.copytree(folder, tmp_path / "copy")
        weights = copy / "unet/diffusion_pytorch_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:100])
        with pytest.raises(InputError, match="diffusers cannot load a pipeline"):
            load(str(copy))

    def test_folder_of_an_unknown_pipeline(self, folder: Path, tmp_path: Path) -> None:
        copy = shutil.copytree(folder, tmp_path / "copy")
        index = json.loads((copy / "model_index.json").read_text())
        (copy / "model_index.json").write_text(json.dumps({**index, "_class_name": "NoSuchPipeline"}))
        with pytest.raises(InputError, match=r"diffusers cannot load a pipeline.*NoSuchPipeline"):
            load(str(copy))

    def test_latent_pipeline_is_refused_before_its_weights_are_read(self, folder: Path, tmp_path: Path) -> None:
        """A name on the Hub is refused before gigabytes are downloaded."""
        index = json.loads((folder / "model_index.json").read_text())
        index |= {"vae": ["diffusers", "AutoencoderKL"], "feature_extractor": [None, None], "force_zeros": True}
        (tmp_path / "model_index.json").write_text(json.dumps(index))
        with pytest.raises(ModelError, match=r"DDPMPipeline has scheduler, unet, vae$"):
            load(str(tmp_path))

    def test_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="there is no folder"):
            load(str(tmp_path / "nowhere"))

    def test_lists_no_names(self) -> None:
        assert names() == names("*") == []


class TestWrap:
    def test_pair(self, network: nn.Module) -> None:
        denoiser = wrap((network, DDIMScheduler(prediction_type="sample")))
        assert isinstance(denoiser, DiffusionDenoiser)
        assert (denoiser.network, denoiser.prediction, denoiser.name) == (network, "sample", "UNet2DModel")

    def test_pipeline(self, network: nn.Module) -> None:
        denoiser = wrap(DDPMPipeline(unet=network, scheduler=DDPMScheduler()))
        assert isinstance(denoiser, DiffusionDenoiser)
        assert (denoiser.network, denoiser.name) == (network, "DDPMPipeline")

    def test_denoiser_as_it_is(self) -> None:
        denoiser = Identity()
        assert wrap(denoiser) is denoiser

    @pytest.mark.parametrize(
        "given", [nn.Identity(), (nn.Identity(),), (1, 2, 3), None, 0.25], ids=lambda given: type(given).__name__
    )
    def test_anything_else_is_refused(self, given: object) -> None:
        with pytest.raises(InputError, match=rf"\(network, scheduler\); got {type(given).__name__}"):
            wrap(given)
