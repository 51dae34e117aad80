"""Saved adapters load in plain peft, and no write loses what was there."""

import shutil
import warnings
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn

from robustify.classifiers import ImageClassifier, Preprocessing
from robustify.classifiers.open_clip import OpenCLIP
from robustify.errors import InputError, ModelError, RunError
from robustify.finetune.adapt.lora import adapt
from robustify.finetune.adapt.lora_layers import core
from robustify.finetune.saved.adapter import FILES, load_adapter, save_adapter
from tests.finetune.adapt.toys import CLIP, HALF, ZOO, Make, learn, logits, pixels, timm_network
from tests.toys import Tokenize


def network_input(classifier: ImageClassifier) -> Tensor:
    """What the network is fed, in the memory format in which it is."""
    normalised = classifier.preprocessing.network_input(pixels(classifier, 7))
    return normalised.contiguous(memory_format=classifier.memory_format)


@pytest.mark.parametrize("name", ["timm ViT", "timm ResNet", "transformers ViT", "transformers Swin", CLIP, *ZOO])
def test_plain_peft_gives_the_same_logits(name: str, make: Make, tmp_path: Path) -> None:
    classifier = make(name)
    base, again = deepcopy(core(classifier.network)), deepcopy(classifier)
    adapt(classifier)
    learn(classifier, steps=4)
    save_adapter(classifier, tmp_path / "adapter", base="org/base")
    before = logits(classifier)
    with warnings.catch_warnings(category=FutureWarning, action="ignore"):  # peft's use of transformers
        plain = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert plain.peft_config["default"].base_model_name_or_path == "org/base"
    with torch.no_grad():
        output = plain(network_input(classifier))
    torch.testing.assert_close(getattr(output, "logits", output), before, rtol=1e-6, atol=1e-6)
    load_adapter(again, tmp_path / "adapter")
    torch.testing.assert_close(logits(again), before, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        output = plain.merge_and_unload()(network_input(classifier))
    torch.testing.assert_close(logits(again), getattr(output, "logits", output), rtol=0, atol=0)
    assert not any(p.requires_grad or m.training for m in again.modules() for p in m.parameters())


def test_the_file_fits_the_whole_open_clip_model_and_leaves_its_text_tower(
    clip_model: nn.Module, clip_tokenizer: Tokenize, tmp_path: Path
) -> None:
    whole = deepcopy(clip_model)
    classifier = OpenCLIP(clip_model, clip_tokenizer).classifier(["cat", "dog"], "simple")
    adapt(classifier)
    learn(classifier, steps=4)
    save_adapter(classifier, tmp_path / "adapter", base="org/clip")
    plain = PeftModel.from_pretrained(whole, tmp_path / "adapter").eval()
    homes = {n.partition(".lora_")[0] for n, _ in plain.named_parameters() if ".lora_" in n}
    assert all(".visual." in home for home in homes)
    images = classifier.preprocessing.network_input(pixels(classifier))
    with torch.no_grad():
        torch.testing.assert_close(plain.base_model.model.encode_image(images), classifier.network.visual(images))


@pytest.mark.parametrize("fails", ["save_file", "replace"])
def test_failed_write_leaves_the_older_adapter(
    fails: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier, folder = make("timm ViT"), tmp_path / "adapter"
    adapt(classifier)
    save_adapter(classifier, folder, base="first")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    replace = Path.replace

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    def replace_once(self: Path, target: Path) -> Path:
        return full() if self.name == "new" else replace(self, target)  # type: ignore[return-value]

    with monkeypatch.context() as patch:
        if fails == "replace":
            patch.setattr(Path, "replace", replace_once)
        else:
            patch.setattr("safetensors.torch.save_file", full)
        with pytest.raises(RunError, match="No space left"):
            save_adapter(classifier, folder, base="second")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["adapter"]
    save_adapter(classifier, folder, base="second")
    assert '"second"' in (folder / FILES[0]).read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["adapter"]


def test_other_files_are_not_replaced(make: Make, tmp_path: Path) -> None:
    classifier = make("timm ViT")
    adapt(classifier)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RunError, match="holds more than an adapter"):
        save_adapter(classifier, tmp_path, base="base")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_nothing_to_save(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no adapters to save"):
        save_adapter(make("timm ViT"), tmp_path / "adapter", base="base")


def test_loading_checks_folder_and_fit(make: Make, tmp_path: Path) -> None:
    classifier, folder = make("timm ViT"), tmp_path / "adapter"
    with pytest.raises(InputError, match=r"lacks adapter_config\.json"):
        load_adapter(classifier, tmp_path)
    adapt(classifier)
    save_adapter(classifier, folder, base="base")
    with pytest.raises(ModelError, match="has adapters already"):
        load_adapter(classifier, folder)
    with pytest.raises(InputError, match="does not fit timm Swin"):
        load_adapter(make("timm Swin"), folder)
    shallow = ImageClassifier(
        timm_network("test_vit", img_size=32, depth=5).eval(), Preprocessing(HALF, HALF, (32, 32)), name="shallow"
    )
    with pytest.raises(InputError, match=r"(?s)does not fit shallow.*blocks\.5.*load it anew"):
        load_adapter(shallow, folder)
    shutil.copy(folder / FILES[0], folder / FILES[1])
    with pytest.raises(InputError, match="does not fit timm ViT"):
        load_adapter(make("timm ViT"), folder)


def test_an_adapter_that_does_not_merge_exactly_is_refused(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft.tuners.lora import Linear

    classifier = make("timm ViT")
    adapt(classifier)
    learn(classifier, steps=4)
    save_adapter(classifier, tmp_path / "adapter", base="timm ViT")
    whole = Linear.get_delta_weight
    monkeypatch.setattr(Linear, "get_delta_weight", lambda self, name: 1.01 * whole(self, name))
    with pytest.raises(ModelError, match=r"merging the adapters moved the logits of timm ViT"):
        load_adapter(make("timm ViT"), tmp_path / "adapter")
