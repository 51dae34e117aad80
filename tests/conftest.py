"""What several test files share: pictures with texture, networks whose every weight matters, a tiny CLIP."""

import json
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image as PILImage
from safetensors.torch import save_file
from torch import nn

from robustify import SmoothedClassifier
from robustify.data import Sample
from tests import toys
from tests.toys import Awaken, MakePicture, Tokenize
from tests.toys_plugins import GROUP, SOURCE, Install

settings.register_profile("deterministic", derandomize=True, deadline=None)
settings.load_profile("deterministic")


CLIP_CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {
        "context_length": 64,
        "vocab_size": 259,
        "hf_tokenizer_name": "bytes",  # any name: open_clip then reads the tokenizer from the folder
        "width": 32,
        "heads": 2,
        "layers": 1,
        "pool_type": "last",
    },
}
CLIP_PREPROCESSING = {
    "mean": [0.2, 0.45, 0.7],
    "std": [0.15, 0.25, 0.4],
    "interpolation": "bicubic",
    "resize_mode": "longest",
    "fill_color": 90,
}


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    """In every test, whatever ran before it."""
    torch.manual_seed(0)


def _picture(width: int = 97, height: int = 61, mode: str = "RGB", seed: int = 0) -> PILImage.Image:
    bands = len(PILImage.new(mode, (1, 1)).getbands())
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, bands), dtype=np.uint8)
    return PILImage.fromarray(noise.squeeze(-1) if bands == 1 else noise, mode)


def _awaken(network: nn.Module) -> nn.Module:
    """Random values for all weights and statistics: initial zeros and ones would hide mistakes."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.ndim == 0 or not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim > 1:
                tensor.copy_(noise * tensor[0].numel() ** -0.5)
            elif name.endswith("running_var"):
                tensor.copy_(0.5 + noise.abs())
            else:
                tensor.copy_(0.3 * noise + (1 if name.endswith("weight") else 0))
    return network.eval()


@pytest.fixture(scope="session")
def picture() -> MakePicture:
    """A picture of noise: the least change of crop, interpolation or channel order changes its pixels."""
    return _picture


@pytest.fixture(scope="session")
def awaken() -> Awaken:
    """Gives a network random weights and puts it into evaluation mode."""
    return _awaken


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP as open_clip saves models, `open_clip:local-dir:<this>`; it reads texts byte by byte."""
    import open_clip
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("clip")
    save_file(_awaken(open_clip.CLIP(**deepcopy(CLIP_CONFIG))).state_dict(), folder / "open_clip_model.safetensors")
    text = json.dumps({"model_cfg": CLIP_CONFIG, "preprocess_cfg": CLIP_PREPROCESSING})
    (folder / "open_clip_config.json").write_text(text)
    tokens = ["<pad>", "<start>", "<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 2)]
    )
    special = {"pad_token": "<pad>", "bos_token": "<start>", "eos_token": "<end>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return folder


@pytest.fixture
def clip_model(clip_folder: Path) -> nn.Module:
    """The tiny CLIP in evaluation mode, fresh for each test."""
    import open_clip

    return open_clip.create_model(f"local-dir:{clip_folder}").eval()


@pytest.fixture(scope="session")
def clip_tokenizer(clip_folder: Path) -> Tokenize:
    """The tiny CLIP's own."""
    import open_clip

    return open_clip.get_tokenizer(f"local-dir:{clip_folder}")


@pytest.fixture(scope="session")
def make_model() -> toys.MakeModel:
    """Builds the same model each time it is called with the same arguments."""
    return toys.striped_model


@pytest.fixture(scope="session")
def stripes() -> toys.Stripes:
    """44 striped images and their labels."""
    return toys.stripes()


@pytest.fixture
def model() -> SmoothedClassifier:
    """A linear classifier of 1×4×4 pixels with 3 classes."""
    return toys.linear_model()


@pytest.fixture
def samples() -> list[Sample]:
    """Twelve images for it."""
    return toys.twelve_samples()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A run folder that does not exist yet."""
    return tmp_path / "run"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a distribution with one module and one entry point on `sys.path`, as pip would."""
    installed: list[str] = []

    def install(
        distribution: str, name: str, module: str, code: str = SOURCE, *, group: str = GROUP, attribute: str = ""
    ) -> None:
        folder = tmp_path / distribution
        info = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (folder / f"{module}.py").write_text(code)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}{attribute}\n")
        monkeypatch.syspath_prepend(folder)
        installed.append(module)

    yield install
    for module in installed:
        sys.modules.pop(module, None)
