"""What does a step of fine-tuning cost? `python examples/benchmarks/tuning.py`

Processor time per image of a step (forward, attack, backward, optimizer) of each objective that works on denoised
copies, made before, against a plain fine-tuning step (cross-entropy of one clean image) of the same classifier: medians
of interleaved rounds, one thread. And what LoRA trains and stores. Writes `tuning.json`.
"""

import json
import tempfile
import time
from copy import deepcopy
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from torch.nn.functional import cross_entropy

from robustify import Lora, SmoothedClassifier, robustify
from robustify.finetune.adapt.lora import Adaptation, adapt, train_mode
from robustify.finetune.defaults import objective_at
from robustify.finetune.objectives import Batch, Objective
from robustify.finetune.saved.adapter import save_adapter
from robustify.zoo import fashion_mnist

OBJECTIVES = ("gaussian", "stability", "consistency", "macer", "cat-rs", "ft-cadis")


def step_seconds(model: SmoothedClassifier, objective: Objective | None, batch: Batch, how: Any) -> float:  # noqa: ANN401
    """Processor time of one step; of the plain one where there is no objective."""
    student = deepcopy(model)
    adapt(student.classifier, how)
    train_mode(student.classifier.network)
    learning = [p for p in student.classifier.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-4)
    started = time.process_time()
    if objective is None and batch.labels is not None:
        loss = cross_entropy(student.classifier(batch.pixels), batch.labels)
    elif objective is not None:
        loss = objective(student, batch).loss
    else:
        raise ValueError("a plain step learns from labels")
    torch.autograd.backward(loss)
    optimizer.step()
    return time.process_time() - started


def adapter(model: SmoothedClassifier, how: Lora) -> tuple[Adaptation, int]:
    """What LoRA trains, and the bytes of its file."""
    student = deepcopy(model)
    found = adapt(student.classifier, how)
    with tempfile.TemporaryDirectory() as folder:
        save_adapter(student.classifier, Path(folder) / "adapter", base=model.classifier.name)
        return found, (Path(folder) / "adapter" / "adapter_model.safetensors").stat().st_size


def main(
    images: Annotated[int, typer.Option(help="Of a batch.")] = 32,
    rounds: Annotated[int, typer.Option(help="The median counts.")] = 5,
) -> None:
    """Prints and writes the table."""
    torch.set_num_threads(1)
    table: list[dict[str, Any]] = []
    for name in ("zoo:timm", "zoo:transformers"):
        model = robustify(name, denoiser="zoo:ddpm", sigma=0.5)
        found, stored = adapter(model, Lora())
        table.append(
            {
                "classifier": name,
                "lora_trainable": found.trainable,
                "parameters": found.total,
                "lora_bytes": stored,
                "weights_bytes": 4 * sum(p.numel() for p in model.classifier.parameters()),
            }
        )
        print(table[-1])
        pixels, labels = fashion_mnist.read("train")
        clean, truth = pixels[:images].float() / 255, labels[:images]
        cells: dict[tuple[str, str], tuple[Objective | None, Batch, Any]] = {}
        for how, adapted in (("full", "full"), ("lora", Lora())):
            batch = Batch(clean, truth, torch.zeros(1, *clean.shape), torch.arange(images))
            cells["plain", how] = (None, batch, adapted)
            for objective_name in OBJECTIVES:
                objective = objective_at(objective_name, model.sigma)
                noise = model.sigma * torch.randn(objective.draws, *clean.shape)
                batch = Batch(clean, truth, noise, torch.arange(images), epoch=20.0)
                denoised = batch.copies(model)
                cells[objective_name, how] = (
                    objective,
                    Batch(clean, truth, noise, batch.rows, 20.0, denoised),
                    adapted,
                )
        seconds: dict[tuple[str, str], list[float]] = {key: [] for key in cells}
        for _ in range(rounds):
            for key, cell in cells.items():
                seconds[key].append(step_seconds(model, *cell))
        plain = median(seconds["plain", "full"])
        for (objective_name, how), found_seconds in seconds.items():
            table.append(
                {
                    "classifier": name,
                    "objective": objective_name,
                    "adapt": how,
                    "milliseconds_per_image": round(1000 * median(found_seconds) / images, 3),
                    "against_plain_full_step": round(median(found_seconds) / plain, 2),
                }
            )
            print(table[-1], flush=True)
    Path(__file__).with_suffix(".json").write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
