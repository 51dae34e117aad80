"""A folder that holds a saved model is a reference by itself: its files tell which library wrote it."""

import json
import shutil
from pathlib import Path

import pytest

from robustify import robustify
from robustify.errors import InputError
from robustify.model_folders import reference_of
from robustify.registry import CLASSIFIERS, DENOISERS, Sources
from robustify.zoo import HELD_OUT

ZOO = HELD_OUT.parent
KINDS = {"timm": "timm:local-dir:", "transformers": "hf:", "open_clip": "open_clip:local-dir:", "ddpm": "diffusers:"}


def sources(folder: Path) -> Sources[object]:
    return DENOISERS if folder.name == "ddpm" else CLASSIFIERS  # type: ignore[return-value]


@pytest.mark.parametrize("name", KINDS)
def test_bare_folder_is_loaded_by_its_library(name: str) -> None:
    found = sources(ZOO / name).load(str(ZOO / name))
    assert found.name == f"{KINDS[name]}{ZOO / name}"  # type: ignore[attr-defined]


@pytest.mark.parametrize("place", ["{name}", "./{name}", "{name}/", "~/{name}"])
@pytest.mark.parametrize("name", KINDS)
def test_folder_may_be_relative_or_at_home(name: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ZOO)
    monkeypatch.setenv("HOME", str(ZOO))
    given = place.format(name=name)
    path = ZOO / name if given.startswith("~") else Path(given)
    kind = "denoiser" if name == "ddpm" else "classifier"
    assert reference_of(path, kind) == f"{KINDS[name]}{path}"
    assert sources(ZOO / name).load(given).name == f"{KINDS[name]}{path}"  # type: ignore[attr-defined]


def test_both_in_the_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ZOO)
    for place in (str, Path):
        model = robustify(place("./transformers"), denoiser=place("ddpm"))
        assert (model.classifier.name, model.denoiser.name) == ("hf:transformers", "diffusers:ddpm")


def test_source_comes_before_a_folder_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ZOO / "timm", tmp_path / "zoo:transformers")
    monkeypatch.chdir(tmp_path)
    assert CLASSIFIERS.load("zoo:transformers").name == "zoo:transformers"


def test_folder_whose_name_has_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ZOO / "timm", tmp_path / "my:model")
    monkeypatch.chdir(tmp_path)
    assert CLASSIFIERS.load("my:model").name == "timm:local-dir:my:model"


def test_clip_of_both_libraries_is_open_clips(tmp_path: Path) -> None:
    """Repositories of CLIP often hold files of transformers too, which has no zero-shot classifier for us."""
    for file, content in {"open_clip_config.json": {}, "config.json": {"model_type": "clip"}}.items():
        (tmp_path / file).write_text(json.dumps(content))
    assert reference_of(tmp_path, "classifier") == f"open_clip:local-dir:{tmp_path}"


def test_timm_inside_transformers_is_transformers(tmp_path: Path) -> None:
    config = {"architecture": "resnet18", "model_type": "timm_wrapper", "architectures": ["TimmWrapper"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert reference_of(tmp_path, "classifier") == f"hf:{tmp_path}"


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("classifier", "ddpm", r"'.*ddpm' holds a diffusers pipeline, which is a denoiser.\n  Give it as the denoiser"),
        ("denoiser", "timm", "'.*timm' holds a timm model, which is a classifier"),
        ("denoiser", "transformers", "holds a transformers model, which is a classifier"),
        ("denoiser", "open_clip", "holds an open_clip model, which is a classifier"),
    ],
)
def test_the_other_kind_is_refused_by_name(kind: str, name: str, text: str) -> None:
    with pytest.raises(InputError, match=text):
        reference_of(ZOO / name, kind)


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"adapter_config.json": "{}", "adapter_model.safetensors": ""}, r"holds an adapter of peft.*\n.*`tuned`"),
        ({"tune.json": "{}"}, r"holds a training run of robustify.*\n.*`tuned`"),
        ({"run.json": "{}"}, "holds a certification run of robustify"),
        ({"config.json": '{"_class_name": "UNet2DModel"}'}, r"holds one part of a diffusers pipeline \(UNet2DModel\)"),
        ({"scheduler_config.json": "{}"}, "holds one part of a diffusers pipeline"),
        ({"config.json": '{"layers": 3}'}, "holds a config.json that is neither transformers' nor timm's"),
        ({"config.json": "{"}, "holds a config.json that cannot be read"),
        ({"config.json": "[1]"}, "holds a config.json that cannot be read"),
        ({}, "holds nothing"),
        ({"model.safetensors": "", "a.txt": ""}, r"holds a.txt, model.safetensors\.\n"),
        ({f"{i:02}.png": "" for i in range(30)}, r"holds 00.png, 01.png, 02.png, … \(30 in all\)\.\n"),
    ],
)
@pytest.mark.parametrize("kind", ["classifier", "denoiser"])
def test_anything_else_is_refused_with_what_there_is(
    kind: str, files: dict[str, str], text: str, tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=f"expected the folder of a saved {kind}; '{tmp_path}' {text}"):
        reference_of(tmp_path, kind)


@pytest.mark.parametrize("given", ["./nowhere", "/nowhere/at/all", "~/nowhere", "../nowhere"])
def test_missing_folder(given: str) -> None:
    for registry in (CLASSIFIERS, DENOISERS):
        with pytest.raises(InputError, match=f"there is no folder '{given}'"):
            registry.load(given)


def test_file_instead_of_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.touch()
    with pytest.raises(InputError, match=f"expected the folder of a saved classifier; '{file}' is a file"):
        CLASSIFIERS.load(str(file))
