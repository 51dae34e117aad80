"""`robustify demo`: two shipped classifiers become certified ones on real images."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustify.cli.build import resumable
from robustify.cli.options import help_of
from robustify.model_options import ModelOptions

if TYPE_CHECKING:
    from robustify.report.html import Chapter

MODELS = {"timm classifier": "zoo:timm", "zero-shot CLIP": "zoo:open_clip"}


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report; the same command continues it.")] = Path(
        "robustify-demo"
    ),
    images: Annotated[int, typer.Option(help="Held-out Fashion-MNIST images per model.", min=1, max=500)] = 25,
    sigma: Annotated[float, typer.Option(help=help_of(ModelOptions)["sigma"])] = 0.5,
    n: Annotated[int, typer.Option(help="Draws that certify each image.")] = 400,
) -> None:
    """Certify an ordinary classifier and a zero-shot CLIP on held-out images, with and without a denoiser.

    Everything it needs is shipped; nothing is fetched.

    Example: robustify demo --images 25 --out robustify-demo
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything the demo needs is shipped
    from robustify.report.html import meaning, write_report

    with resumable():
        chapters = [_chapter(title, model, out, images, sigma, n) for title, model in MODELS.items()]
    report = (out / "report.html").resolve()
    write_report(report, chapters, title=f"robustify demo: Fashion-MNIST, sigma = {sigma:g}")
    print(f"\nreport: {report}\n{meaning(chapters[0].run)}")


def _chapter(title: str, reference: str, out: Path, images: int, sigma: float, n: int) -> "Chapter":
    import torch

    from robustify.api import robustify
    from robustify.data import open_samples
    from robustify.denoisers import Identity
    from robustify.report.html import Chapter
    from robustify.report.pictures import picture, telling
    from robustify.runs.certify import certify_dataset
    from robustify.smoothing import Settings
    from robustify.zoo import HELD_OUT
    from robustify.zoo.fashion_mnist import CLASSES

    classes = CLASSES if reference == "zoo:open_clip" else None
    model = robustify(reference, denoiser="zoo:ddpm", sigma=sigma, classes=classes)
    plain = robustify(model.classifier, denoiser=Identity(channels=1), sigma=sigma)
    model.to(memory_format=torch.channels_last)  # a quarter faster on a CPU
    print(f"\n{model}")
    samples = open_samples(HELD_OUT, model.labels)
    samples = samples[:: max(1, len(samples) // images)][:images]
    folder = out / reference.removeprefix("zoo:")
    run = certify_dataset(model, samples, folder / "denoised", Settings(n=n), title=title)
    baseline = certify_dataset(plain, samples, folder / "plain", Settings(n=n), title=f"{title}, no denoiser")
    by_id = {sample.id: sample for sample in samples}
    pictures = [picture(model, by_id[row.sample], row, run) for row in telling(run.rows, 6)]
    return Chapter(name=title, run=run, baseline=baseline, pictures=pictures)
