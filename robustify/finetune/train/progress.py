"""The progress of a training run, as `robustify status` shows it, read from small files alone."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustify.finetune.train.folder import is_done, read_config, read_progress


def progress(folder: Path) -> str:
    """Steps done, the last numbers, and the classes with the lowest noisy accuracy.

    Arguments:
        folder: Folder of a training run, which may still go on.

    Raises:
        RunError: If its files cannot be read, or are of another version of robustify.
    """
    config = read_config(folder)
    found = read_progress(folder)
    steps = config["epochs"] * math.ceil(config["images"] / config["batch"])
    done = 0 if found is None else found["step"]
    what = f"{config['classifier']} with {config['objective']['name']} at sigma = {config['sigma']:g}"
    lines = [
        f"training of {what}: {config['adapts']}",
        f"{done:,} of {steps:,} steps, {'done' if is_done(folder) else 'not done: the same command continues'}",
    ]
    return "\n".join(lines if found is None else [*lines, *_measured(found)])


def _measured(found: Mapping[str, Any]) -> list[str]:
    training, validation = found["training"], found["validation"]
    lines = [
        f"{name.replace('_', ' ')}: {training[name]:.4g}" for name in ("loss", "noisy_accuracy") if name in training
    ]
    if validation is not None:
        lines.append(
            f"validation, after epoch {validation['epoch']}: noisy accuracy {validation['noisy_accuracy']:.1%}, "
            f"all-draws accuracy {validation['all_draws_accuracy']:.1%}"
        )
    return lines + [
        f"copies not classified as their label, last epoch: {share:.1%} of {name}" for name, share in found["worst"]
    ]
