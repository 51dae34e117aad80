"""How far a training run is."""

import json
import math
from pathlib import Path

from robustify.finetune.train.folder import RunFolder
from robustify.finetune.train.history import History


def progress(folder: Path) -> str:
    """Steps done, the last numbers, and the classes recognised least, from the files of a run.

    Raises:
        RunError: If the checkpoint cannot be read.
    """
    config = json.loads((folder / "tune.json").read_text())
    steps = config["epochs"] * math.ceil(config["images"] / config["batch"])
    state = RunFolder(folder, config).load()
    done = state["step"] if state is not None else 0
    finished = (folder / "adapter").is_dir() or (folder / "weights.safetensors").is_file()
    lines = [
        f"training of {config['classifier']} with {config['objective']['name']} at sigma = {config['sigma']:g}",
        f"{done:,} of {steps:,} steps, {'done' if finished else 'not done: the same command continues'}",
    ]
    if state is not None:
        history = History((), every=1)
        history.restore(state["history"])
        lines += [
            f"{name}: {history.rows[-1][name]:.4g}"
            for name in ("loss", "hit")
            if history.rows[-1:] and name in history.rows[-1]
        ]
        lines += [
            f"held out, after epoch {row['epoch']}: hit {row['hit']:.1%}, steady {row['steady']:.1%}"
            for row in history.held_out[-1:]
        ]
        worst = list(history.hallucination().items())[:3]
        lines += [f"not recognised, last epoch: {share:.1%} {name}" for name, share in worst]
    return "\n".join(lines)
