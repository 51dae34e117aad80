"""Tuned classifiers on disk: what training changed, and of which classifier."""

import copy
import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from robustify.classifiers import ImageClassifier
from robustify.denoisers import Denoiser
from robustify.errors import InputError, RunError
from robustify.finetune.adapt.lora import Lora
from robustify.finetune.adapt.save import load_adapter, save_adapter
from robustify.finetune.train.folder import restore_trained, trained_state
from robustify.folders import disk, write_whole
from robustify.smoothing.fingerprint import classifier_fingerprint


def save_tuned(folder: Path, classifier: ImageClassifier, adapt: Lora | str) -> None:
    """Writes what learned: an adapter as peft reads it, or `weights.safetensors`.

    Arguments:
        folder: Of the training run.
        classifier: Trained, adapters not yet merged.
        adapt: What was trained.

    Raises:
        RunError: If the folder cannot be written.
    """
    if isinstance(adapt, Lora):
        save_adapter(classifier, folder / "adapter", base=classifier.name)
        return
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in trained_state(classifier.network).items()}
    with disk(folder, "Steps up to the last checkpoint"):
        write_whole(folder / "weights.safetensors", save(state))


def tuned_for(folder: Path, denoiser: Denoiser, sigma: float) -> str | None:
    """What differs from how the classifier in `folder` was tuned; None if nothing does, or nothing is there."""
    file = folder / "tune.json"
    if not file.is_file():
        return None
    config = json.loads(file.read_text())
    here = f"{denoiser.name}: {denoiser.describe(sigma)}"
    if (config["sigma"], config["denoiser"]) == (sigma, here):
        return None
    return (
        f"{str(folder)!r} was tuned at sigma = {config['sigma']:g} behind {config['denoiser']}; here it stands at "
        f"sigma = {sigma:g} behind {here}. Certificates hold all the same; their radii may be small."
    )


def load_tuned(folder: Path, base: ImageClassifier) -> ImageClassifier:
    """The tuned classifier, plain and in evaluation mode; `base` is left as it is.

    Arguments:
        folder: Of a training run that is done.
        base: The classifier that was tuned.

    Raises:
        InputError: If the folder holds no tuned classifier, or one of another base.
    """
    file = folder / "tune.json"
    if not file.is_file():
        raise InputError(f"expected the folder of a training run, with tune.json; got {str(folder)!r}")
    config = json.loads(file.read_text())
    if (found := classifier_fingerprint(base)) != config["classifier_sha256"]:
        raise InputError(
            f"{str(folder)!r} tuned {config['classifier']!r} with weights {config['classifier_sha256'][:12]}…; "
            f"{base.name!r} has {found[:12]}….\n  Load the classifier that was tuned."
        )
    tuned = copy.deepcopy(base)
    behind = config["denoiser"].split(": ")[0]
    tuned.name = (
        f"{base.name} tuned with {config['objective']['name']} at sigma = {config['sigma']:g}"
        f"{'' if behind == 'none' else f' behind {behind}'}"
    )
    if (folder / "adapter").is_dir():
        load_adapter(tuned, folder / "adapter")
    elif (weights := folder / "weights.safetensors").is_file():
        _load_weights(tuned, weights)
    else:
        raise InputError(f"the training run in {str(folder)!r} is not done; run it again and it continues")
    tuned.requires_grad_(False)
    tuned.eval()
    return tuned


def _load_weights(classifier: ImageClassifier, file: Path) -> None:
    try:
        state = load_file(file)
        restore_trained(classifier.network, state)
    except (OSError, SafetensorError, RunError) as error:
        raise InputError(f"cannot read the tuned weights in {str(file)!r}: {error}") from error
