"""Whether a model is the one that made a run."""

from dataclasses import asdict

from robustify.certificates.views import levels_of
from robustify.errors import RunError
from robustify.runs.config import differences
from robustify.runs.folder import Run
from robustify.smoothing import SmoothedClassifier
from robustify.smoothing.fingerprint import classifier_fingerprint, denoiser_fingerprint


def check_same_model(model: SmoothedClassifier, run: Run) -> None:
    """Refuses a model that is not the one of the run.

    Raises:
        RunError: With each difference.
    """
    config, levels = run.config, levels_of(run.plan.views)
    stored = {
        "classifier.sha256": config["classifier"]["sha256"],
        "denoiser.sha256": config["denoiser"]["sha256"],
        "levels": levels,
        **{name: config[name] for name in ("family", "contract", "numerics", "labels")},
    }
    found = {
        "classifier.sha256": classifier_fingerprint(model.classifier),
        "denoiser.sha256": denoiser_fingerprint(model.denoiser, levels),
        "levels": model.family.levels,
        "family": model.family.name,
        "contract": asdict(model.contract),
        "numerics": asdict(model.numerics),
        "labels": list(model.labels),
    }
    if lines := differences(stored, found):
        raise RunError("this is not the model of the run, so its rows cannot be repeated:\n" + "\n".join(lines))
