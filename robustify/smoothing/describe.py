"""A smoothed classifier in a few lines: where noise is added, by what it is removed, and how it computes."""

from robustify.certificates.family import Family
from robustify.denoisers import Identity
from robustify.smoothing.pipeline import Pipeline


def described(pipeline: Pipeline, family: Family) -> str:
    """What is certified, one aspect a line."""
    classifier = pipeline.classifier
    lines = {
        "noise": f"{family}, added to {pipeline.contract}; never clipped" if family.levels else "none",
        "proof": f"{family.name} certificates" if family.levels else f"{family.name} certificates, {family}",
        "denoiser": _denoising(pipeline, family),
        "classifier": f"{classifier.name}, {len(classifier.labels)} classes",
        "inside": str(classifier.preprocessing),
        "dtype": f"{pipeline.numerics}; on {pipeline.device}",
        "licences": _licences(pipeline),
    }
    if pipeline.contract.channels < classifier.preprocessing.channels:
        lines["colour"] = "none: images are gray, and repeated to RGB for the classifier"
    return "SmoothedClassifier\n" + "\n".join(f"  {key:<10} {value}" for key, value in lines.items())


def _denoising(pipeline: Pipeline, family: Family) -> str:
    denoiser = pipeline.denoiser
    if pipeline.classifier.noise_conditioned:
        return f"{denoiser.name}: the classifier denoises by itself, told the noise level"
    at_levels = "; ".join(dict.fromkeys(map(denoiser.describe, family.levels)))
    return f"{denoiser.name}: {at_levels}" if at_levels else denoiser.name


def _licences(pipeline: Pipeline) -> str:
    parts = {"classifier": pipeline.classifier.licence}
    if not isinstance(pipeline.denoiser, Identity):
        parts["denoiser"] = pipeline.denoiser.licence
    return ", ".join(f"{part} {licence or 'unknown'}" for part, licence in parts.items())
