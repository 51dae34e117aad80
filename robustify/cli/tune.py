"""`robustify tune MODEL DATA`: a classifier learns to read what its denoiser makes of noise."""

from pathlib import Path
from typing import Annotated, Any

import typer

from robustify.cli.options import Classes, Denoiser, Model, Precision, Sigma, Templates, build, check_exists, resumable


def tune(
    model: Model,
    data: Annotated[Path, typer.Argument(help="Folder of class folders, or .npz / .safetensors with images, labels.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; the same command continues it.")],
    objective: Annotated[
        str,
        typer.Option(help="An objective (see `robustify plugins`), or a published recipe: 'ft-cadis/cifar10-vit-b16'."),
    ] = "ft-cadis",
    denoiser: Denoiser = None,
    sigma: Sigma = 0.25,
    adapt: Annotated[str | None, typer.Option(help="'lora', 'full' or 'head', instead of the recipe's.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images per step, instead of the recipe's.")] = None,
    micro_batch: Annotated[int | None, typer.Option(help="Images per forward pass: less memory.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Instead of the recipe's.")] = None,
    cache: Annotated[int | None, typer.Option(help="Denoised copies kept of each image; 0 keeps none.")] = None,
    precision: Precision = "float32",
    seed: Annotated[int | None, typer.Option(help="Of order, noise and dropout; 0 without.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that decode images.")] = 0,
    classes: Classes = None,
    templates: Templates = "openai",
) -> None:
    """Fine-tune a classifier behind its denoiser, with LoRA where it fits; certify it with --tuned afterwards.

    Prints the recipe and what is trained, before it starts. Writes the adapter (as peft reads it) or the weights, the
    history and a picture. Under `accelerate launch -m robustify.cli` all processes share the work.
    """
    from robustify.data import training_examples
    from robustify.finetune import find_recipe
    from robustify.finetune import tune as train
    from robustify.finetune.presets import changed

    check_exists(data)
    smoothed = build(model, denoiser=denoiser, sigma=sigma, precision=precision, classes=classes, templates=templates)
    print(smoothed)
    examples = training_examples(smoothed, data)
    wanted: dict[str, Any] = {
        "adapt": adapt,
        "epochs": epochs,
        "batch": batch,
        "micro_batch": micro_batch,
        "learning_rate": learning_rate,
        "cache": cache,
        "seed": seed,
    }
    recipe = find_recipe(objective, smoothed, len(examples))
    recipe = changed(recipe, {key: value for key, value in wanted.items() if value is not None})
    with resumable("steps up to the last checkpoint"):
        result = train(smoothed, examples, recipe, out, workers=workers)
    for name, share in sorted(result.hallucination.items(), key=lambda item: item[1], reverse=True)[:10]:
        print(f"hallucinated, last epoch: {share:6.1%}  {name}")
    print(
        f"history: {out / 'history.parquet'}\npicture: {out / 'training.svg'}\nnext: robustify certify … --tuned {out}"
    )
