"""`robustify demo`: two shipped classifiers become certified ones on real images."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustify.cli.build import resumable

if TYPE_CHECKING:
    from robustify.data import Sample
    from robustify.report.numbers import Chapter
    from robustify.runs.folder import Run
    from robustify.smoothing import SmoothedClassifier

MODELS = {"timm classifier": "zoo:timm", "zero-shot CLIP": "zoo:open_clip"}

N0 = 32
"""Draws that choose the label of each image."""


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report; the same command continues it.")] = Path(
        "robustify-demo"
    ),
    images: Annotated[int, typer.Option(help="Held-out Fashion-MNIST images per model.", min=1, max=500)] = 25,
    sigma: Annotated[float, typer.Option(help="Standard deviation of the noise, in [0, 1] pixels.")] = 0.5,
    n: Annotated[int, typer.Option(help="Draws that certify each image.")] = 128,
) -> None:
    """Certify an ordinary classifier and a zero-shot CLIP on held-out images, with and without a denoiser.

    Everything it needs is shipped; nothing is fetched. Ends with a table, a verdict and a report.

    Example: robustify demo --images 25 --out robustify-demo
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything the demo needs is shipped
    print(
        f"Certifying {images} Fashion-MNIST images that no model has seen, under noise of sigma = {sigma:g}.\n"
        f"Models: {', '.join(MODELS.values())}; denoiser: zoo:ddpm; all shipped, nothing is fetched.",
        flush=True,
    )
    from robustify.report.html import meaning, write_report
    from robustify.report.numbers import text_table

    with resumable():
        chapters = [_chapter(title, model, out, images, sigma, n) for title, model in MODELS.items()]
    report = (out / "report.html").resolve()
    write_report(report, chapters, title=f"robustify demo: Fashion-MNIST, sigma = {sigma:g}")
    print(f"\n{text_table(chapters)}\n\n{_verdict(chapters)}\n\n{meaning(chapters[0].run)}\n\nreport: {report}")


def _chapter(title: str, reference: str, out: Path, images: int, sigma: float, n: int) -> "Chapter":
    import torch

    from robustify.api import robustify
    from robustify.data import open_samples
    from robustify.denoisers import Identity
    from robustify.report.clean import clean_accuracy
    from robustify.report.numbers import Chapter
    from robustify.report.pictures import picture, telling
    from robustify.zoo import HELD_OUT
    from robustify.zoo.fashion_mnist import CLASSES

    classes = CLASSES if reference == "zoo:open_clip" else None
    model = robustify(reference, denoiser="zoo:ddpm", sigma=sigma, classes=classes)
    plain = robustify(model.classifier, denoiser=Identity(channels=1), sigma=sigma)
    model.to(memory_format=torch.channels_last)  # a quarter faster on a CPU
    samples = open_samples(HELD_OUT, model.labels)
    samples = samples[:: max(1, len(samples) // images)][:images]
    folder = out / reference.removeprefix("zoo:")
    baseline = _certify(plain, samples, folder / "plain", n, f"{title}, no denoiser")
    run = _certify(model, samples, folder / "denoised", n, title)
    by_id = {sample.id: sample for sample in samples}
    pictures = [picture(model, by_id[row.sample], row, run) for row in telling(run.rows, 6)]
    return Chapter(title, run, baseline, pictures, clean=clean_accuracy(model, samples))


def _certify(model: "SmoothedClassifier", samples: "Sequence[Sample]", folder: Path, n: int, title: str) -> "Run":
    from robustify.runs.certify import certify_dataset
    from robustify.smoothing import Settings

    print(f"\n{title}: {len(samples)} images, {N0} + {n:,} draws each", flush=True)
    return certify_dataset(model, samples, folder, Settings(n=n, n0=N0), title=title)


def _verdict(chapters: "Sequence[Chapter]") -> str:
    """What the denoiser changed, in one sentence, at half of sigma or, where no draws prove that, at 0."""
    from robustify.format import floor
    from robustify.report.numbers import columns
    from robustify.runs.metrics import certified_accuracy

    def share(run: "Run | None") -> str:
        return "–" if run is None else f"{floor(100 * certified_accuracy(run.rows, radius), 1):g} %"

    radius = columns(chapters[0].run.plan)[:2][-1]
    told = [f"{c.name}, no denoiser {share(c.baseline)} → {share(c.run)} with one" for c in chapters]
    return f"Provably right within radius {radius:g}, without further training: {'; '.join(told)}."
