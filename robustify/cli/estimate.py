"""`robustify estimate MODEL DATA`: what `certify` with the same options would cost."""

from robustify.cli.build import build, check_exists
from robustify.cli.options import Data, Every, Ledger, Model
from robustify.model_options import ModelOptions
from robustify.smoothing.settings import Settings


def estimate(
    model: Model,
    data: Data,
    options: ModelOptions,
    settings: Settings,
    ledger: Ledger = None,
    every: Every = 1,
) -> None:
    """Estimate draws, time, memory and disk of a run before it starts; takes the options of certify.

    Reads all images, draws a few batches of the first and keeps nothing; a --ledger is read and not charged.

    Example: robustify estimate zoo:timm photos/ --denoiser zoo:ddpm --sigma 0.5 --n 100000
    """
    check_exists(data)
    from robustify.data import open_samples
    from robustify.runs.estimate import estimate as measure

    smoothed = build(model, options)
    samples = open_samples(data, smoothed.labels)[::every]
    print(measure(smoothed, samples, settings, ledger=ledger))
