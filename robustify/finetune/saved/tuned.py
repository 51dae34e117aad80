"""Tuned classifiers on disk: what training changed, and which classifier it belongs to."""

import copy
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from robustify.classifiers import ImageClassifier
from robustify.denoisers import Denoiser
from robustify.errors import InputError, RunError
from robustify.finetune.recipe import Recipe
from robustify.finetune.saved.adapter import load_adapter, save_adapter
from robustify.finetune.saved.weights import restore_trained, trained_state
from robustify.finetune.train.folder import ADAPTER, WEIGHTS, is_training_run, read_config
from robustify.folders import disk, write_whole
from robustify.smoothing.fingerprint import classifier_fingerprint


def save_tuned(folder: Path, classifier: ImageClassifier, recipe: Recipe) -> None:
    """Writes what was trained: an adapter as peft reads it, or `weights.safetensors`.

    Arguments:
        folder: Folder of the training run.
        classifier: Trained, adapters not yet merged.
        recipe: How it was trained.

    Raises:
        RunError: If the folder cannot be written.
    """
    if recipe.lora is not None:
        save_adapter(classifier, folder / ADAPTER, base=classifier.name)
        return
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in trained_state(classifier.network).items()}
    with disk(folder, "Steps up to the last checkpoint"):
        write_whole(folder / WEIGHTS, save(state))


def tuned_for(folder: Path, denoiser: Denoiser, sigma: float) -> str | None:
    """The difference of denoiser or sigma to those of a training run, in words; None without one, or without a run.

    Raises:
        RunError: If the run is of another version of robustify.
    """
    if not is_training_run(folder):
        return None
    config = read_config(folder)
    here = f"{denoiser.name}: {denoiser.describe(sigma)}"
    if (config["sigma"], config["denoiser"]) == (sigma, here):
        return None
    return (
        f"{str(folder)!r} was tuned at sigma = {config['sigma']:g} behind {config['denoiser']}; this model has "
        f"sigma = {sigma:g} behind {here}. Certificates still hold; their radii may be small."
    )


def load_tuned(folder: Path, base: ImageClassifier) -> ImageClassifier:
    """The tuned classifier, without adapters and in evaluation mode; `base` is left as it is.

    Arguments:
        folder: Folder of a training run that is done.
        base: The classifier that was tuned.

    Raises:
        InputError: If the folder holds no tuned classifier, or one of another base.
        ModelError: If merging the adapters moved the logits by more than rounding.
        RunError: If the run is of another version of robustify.
    """
    if not is_training_run(folder):
        raise InputError(f"expected the folder of a training run, with tune.json; got {str(folder)!r}")
    config = read_config(folder)
    if (found := classifier_fingerprint(base)) != config["classifier_sha256"]:
        raise InputError(
            f"{str(folder)!r} tuned {config['classifier']!r} with weights {config['classifier_sha256'][:12]}…; "
            f"{base.name!r} has {found[:12]}….\n  Load the classifier that was tuned."
        )
    tuned = copy.deepcopy(base)
    denoiser = config["denoiser"].split(": ")[0]
    behind = "" if denoiser == "none" else f" behind {denoiser}"
    tuned.name = f"{base.name} tuned with {config['objective']['name']} at sigma = {config['sigma']:g}{behind}"
    if (folder / ADAPTER).is_dir():
        load_adapter(tuned, folder / ADAPTER)
    elif (folder / WEIGHTS).is_file():
        _load_weights(tuned, folder / WEIGHTS)
    else:
        raise InputError(f"the training run in {str(folder)!r} is not done; run it again and it continues")
    tuned.requires_grad_(False)
    tuned.eval()
    return tuned


def _load_weights(classifier: ImageClassifier, file: Path) -> None:
    try:
        restore_trained(classifier.network, load_file(file))
    except (OSError, SafetensorError, RunError) as error:
        raise InputError(f"cannot read the tuned weights in {str(file)!r}: {error}") from error
