"""`robustify tune MODEL DATA`: a classifier learns to read what its denoiser makes of noise."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustify.cli.build import build, check_exists, resumable
from robustify.cli.options import Model, Out, Without
from robustify.model_options import ModelOptions

if TYPE_CHECKING:
    from robustify.data import Examples
    from robustify.finetune import Recipe
    from robustify.smoothing import SmoothedClassifier

_DEFAULTS = ModelOptions()


def tune(
    model: Model,
    data: Annotated[Path, typer.Argument(help="Folder of class folders, or .npz / .safetensors with images, labels.")],
    out: Out,
    objective: Annotated[
        str,
        typer.Option(help="An objective (see `robustify plugins`), or a published recipe: 'ft-cadis/cifar10-vit-b16'."),
    ] = "ft-cadis",
    options: Annotated[ModelOptions, Without("tuned", "compiled")] = _DEFAULTS,
    adapt: Annotated[str | None, typer.Option(help="'lora', 'full' or 'head', instead of the recipe's.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data, instead of the recipe's.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images per step, instead of the recipe's.")] = None,
    micro_batch: Annotated[int | None, typer.Option(help="Images per forward pass: less memory.")] = None,
    validation: Annotated[
        Path | None, typer.Option(help="Other labelled data, which tells after each epoch how well it goes.")
    ] = None,
    targets: Annotated[
        Path | None,
        typer.Option(
            help="Finished run of `robustify certify` over the same data, whose shares of votes 'cat-rs' learns from; "
            "published: 10,000 draws of a classifier trained by 'gaussian' at sigma = 0.25. Without: its own copies'."
        ),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="At its highest, instead of the recipe's.")] = None,
    cache: Annotated[
        int | None, typer.Option(help="Denoised copies kept of each image, instead of the recipe's; 0 keeps none.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of order, noise and dropout, instead of the recipe's.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that decode images; 0: this one.", min=0)] = 0,
) -> None:
    """Fine-tune a classifier behind its denoiser, with LoRA where it fits; certify it with --tuned afterwards.

    Prints the size of the work, the recipe and what is trained, before it starts. Writes the adapter (as peft reads
    it) or the weights, the history and a picture. Under `accelerate launch -m robustify` (on CPUs `torchrun`) all
    processes share the work.

    Example: robustify tune zoo:timm images.npz --denoiser zoo:ddpm --sigma 0.5 --out tuned
    """
    check_exists(data)
    if validation is not None:
        check_exists(validation)
    from robustify.data import open_samples, training_examples
    from robustify.finetune import changed, find_recipe
    from robustify.finetune import tune as train
    from robustify.runs.soft_labels import soft_labels

    smoothed = build(model, options)
    examples = training_examples(smoothed, data)
    wanted: dict[str, Any] = {
        "adapt": adapt,
        "epochs": epochs,
        "batch": batch,
        "micro_batch": micro_batch,
        "learning_rate": learning_rate,
        "cache": cache,
        "seed": seed,
        "targets": None if targets is None else soft_labels(targets, smoothed, open_samples(data, smoothed.labels)),
    }
    recipe = find_recipe(objective, smoothed, len(examples))
    recipe = changed(recipe, {key: value for key, value in wanted.items() if value is not None})
    print(f"{smoothed}\n{_work(smoothed, examples, recipe)}")
    with resumable():
        train(smoothed, examples, recipe, out=out, validation=validation, workers=workers)
    print(f"next: robustify certify … --tuned {out}")


def _work(model: "SmoothedClassifier", examples: "Examples", recipe: "Recipe") -> str:
    """How much there is to do, in numbers that are certain before it starts."""
    from robustify.finetune.train.batches import Batches

    steps = Batches(examples, recipe, model.sigma).steps
    images, epochs, draws = len(examples), recipe.epochs, recipe.objective.draws
    first = f"; denoised first: {images * recipe.cache:,}" if recipe.cache else ""
    noisy = f"{images:,} × {epochs:,} epochs × {draws:,} draws = {images * epochs * draws:,}"
    return f"steps: {steps:,}; noisy images: {noisy}{first}"
