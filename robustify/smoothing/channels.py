"""Views made ready to draw from: their noise laws, and base functions that were found to be fixed functions."""

import logging
import warnings
from collections.abc import Hashable, Sequence
from typing import final

from robustify.certificates.family import PIPELINE, View
from robustify.errors import InputError
from robustify.smoothing.checks.fixed_function import Margin, probe, rounding_of, state
from robustify.smoothing.engine import Base, Channel
from robustify.smoothing.noise import noise_law
from robustify.smoothing.pipeline import PRECISIONS, Pipeline
from robustify.smoothing.speed import slower_precision

_LOG = logging.getLogger("robustify")


@final
class Channels:
    """Opens the views of a plan on one pipeline.

    Each base function is probed before a run: whether it is one fixed function of each image, and by how much a vote
    must be ahead to count. What was found is kept until the model, the batch or the noise levels change.

    Arguments:
        pipeline: The base function of all views so far.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._probed: tuple[Hashable, Margin] | None = None

    def open(self, views: Sequence[View], soundness: str, batch: int) -> list[Channel]:
        """One channel a view.

        Raises:
            InputError: If a view names an unknown base function.
            ModelError: If a base function is no fixed function of each image.
        """
        if unknown := next((view.base for view in views if view.base != PIPELINE), None):
            raise InputError(f"expected views of the base function {PIPELINE!r}; got {unknown!r}")
        sigmas = tuple(dict.fromkeys(view.sigma for view in views))
        laws = [noise_law(soundness, view.sigma) for view in views]
        base = Base(self._pipeline, self._margin(sigmas, batch), mixes=len(sigmas) > 1)
        return [Channel(law, base) for law in laws]

    def _margin(self, sigmas: tuple[float, ...], batch: int) -> Margin:
        """The lead that a vote needs to count; probed again where the model or the batch changed."""
        p = self._pipeline
        key = (batch, sigmas, p.precision, state(p.classifier, p.denoiser))
        if self._probed is None or self._probed[0] != key:
            if told := slower_precision(p, sigmas[0], batch):
                warnings.warn(told, stacklevel=2)
            _LOG.info("checking that the model is one fixed function of each image …")
            lower = None if p.precision == "float32" else PRECISIONS[p.precision]
            found = probe(
                p,
                p.contract.shape,
                sigmas=sigmas,
                batch=batch,
                rounding=rounding_of(p.classifier, p.denoiser, lower=lower),
                device=p.device,
            )
            self._probed = key, found
        return self._probed[1]

    def forget(self) -> None:
        """Makes the next opening probe anew."""
        self._probed = None
