"""`robustify estimate MODEL DATA`: what `certify` with the same options would cost."""

from robustify.cli.options import (
    Alpha,
    Batch,
    ChoosingDraws,
    Classes,
    Compiled,
    Data,
    Denoiser,
    Device,
    Draws,
    Every,
    FamilyWise,
    KnownLabel,
    Ledger,
    Model,
    MostDraws,
    Precision,
    Radius,
    Seed,
    Sigma,
    Soundness,
    Templates,
    Tuned,
    build,
    check_exists,
)


def estimate(
    model: Model,
    data: Data,
    denoiser: Denoiser = None,
    tuned: Tuned = None,
    sigma: Sigma = 0.25,
    precision: Precision = "float32",
    compiled: Compiled = False,
    device: Device = None,
    radius: Radius = None,
    n: Draws = None,
    n_max: MostDraws = 10_000,
    n0: ChoosingDraws = 100,
    alpha: Alpha = 0.001,
    soundness: Soundness = "grid",
    batch: Batch = 64,
    seed: Seed = None,
    known_label: KnownLabel = False,
    family_wise: FamilyWise = False,
    ledger: Ledger = None,
    every: Every = 1,
    classes: Classes = None,
    templates: Templates = "openai",
) -> None:
    """Estimate draws, time, memory and disk of a run before it starts; takes the options of certify.

    Draws a few batches of the first image and keeps nothing; a --ledger is read and not charged.

    Example: robustify estimate zoo:timm photos/ --denoiser zoo:ddpm --sigma 0.5 --n 100000
    """
    check_exists(data)
    from robustify.data import open_samples
    from robustify.runs.estimate import estimate as measure
    from robustify.smoothing import Settings

    settings = Settings(
        radius=radius,
        n=n,
        n_max=n_max,
        n0=n0,
        alpha=alpha,
        soundness=soundness,
        batch=batch,
        seed=seed,
        known_label=known_label,
        family_wise=family_wise,
    )
    smoothed = build(
        model,
        denoiser=denoiser,
        sigma=sigma,
        precision=precision,
        classes=classes,
        templates=templates,
        tuned=tuned,
        compiled=compiled,
        device=device,
    )
    samples = open_samples(data, smoothed.labels)[::every]
    print(measure(smoothed, samples, settings, ledger=ledger))
