"""Whether a model is the one that made a run."""

from collections.abc import Mapping
from dataclasses import asdict

from robustify.certificates.views import levels_of
from robustify.errors import RunError
from robustify.runs.config import another_network, differences
from robustify.runs.folder import Run
from robustify.smoothing import SmoothedClassifier
from robustify.smoothing.changing import changed_by_a_pass
from robustify.smoothing.fingerprint import classifier_fingerprint, denoiser_fingerprint


def check_same_model(model: SmoothedClassifier, run: Run) -> None:
    """Refuses a model that is not the one of the run.

    Raises:
        RunError: With each difference.
    """
    config, levels = run.config, levels_of(run.plan.views)
    stored = {
        "sigma": levels,
        **{name: config[name] for name in ("classifier", "denoiser", "family", "contract", "numerics", "labels")},
    }
    classifier = {"name": model.classifier.name, "sha256": classifier_fingerprint(model.classifier)}
    denoiser = {
        "name": model.denoiser.name,
        "description": "; ".join(dict.fromkeys(map(model.denoiser.describe, levels))),
        "sha256": denoiser_fingerprint(model.denoiser, levels),
    }
    found = {
        "classifier": _unless_same(stored["classifier"], classifier),
        "denoiser": _unless_same(stored["denoiser"], denoiser),
        "sigma": model.family.levels,
        "family": model.family.name,
        "contract": asdict(model.contract),
        "numerics": asdict(model.numerics),
        "labels": list(model.labels),
    }
    if lines := differences(stored, found):
        if another_network(lines):
            lines += changed_by_a_pass(model.pipeline, model.sigma, run.rows[0].batch if run.rows else 1)
        told = "\n".join([*lines, "  Give the classifier, the denoiser and the options that the run was made with."])
        raise RunError(f"this is not the model of the run, so its rows cannot be repeated:\n{told}")


def _unless_same(stored: Mapping[str, str], found: Mapping[str, str]) -> Mapping[str, str]:
    """What was found; what is stored where the hash is the same, as a model may be read from elsewhere."""
    return stored if stored["sha256"] == found["sha256"] else found
