"""Views made ready to draw from: their noise laws, and base functions that were found to be fixed functions."""

import logging
import warnings
from collections.abc import Hashable, Sequence
from typing import final

from robustify.certificates.family import PIPELINE, View
from robustify.errors import InputError
from robustify.smoothing.bases import Base, Channel
from robustify.smoothing.checks.fixed_function import FixedFunction
from robustify.smoothing.checks.probes import Probes
from robustify.smoothing.checks.state import state
from robustify.smoothing.checks.watch import Watch
from robustify.smoothing.noise import noise_law
from robustify.smoothing.numerics import rounding_of
from robustify.smoothing.pipeline import PRECISIONS, Pipeline
from robustify.smoothing.speed import slower_precision

_LOG = logging.getLogger("robustify")


@final
class Channels:
    """Opens the views of a plan on one pipeline.

    Each base function is checked before a run: whether it is one fixed function of each image, and by how much a vote
    must be ahead to count. The evidence is kept, and grows, until the model, the batch or the noise levels change.

    Arguments:
        pipeline: The base function of all views so far.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._checked: tuple[Hashable, FixedFunction] | None = None

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
        fixed = self._check(sigmas, batch)
        base = Base(self._pipeline, fixed.margin, Watch(fixed), mixes=len(sigmas) > 1)
        return [Channel(law, base) for law in laws]

    def _check(self, sigmas: tuple[float, ...], batch: int) -> FixedFunction:
        """Evidence that the pipeline is one fixed function; begun anew where the model or the batch changed."""
        p = self._pipeline
        key = (batch, sigmas, p.numerics, state(p.classifier, p.denoiser))
        if self._checked is None or self._checked[0] != key or self._checked[1].refused:
            if told := slower_precision(p, sigmas[0], batch):
                warnings.warn(told, stacklevel=2)
            _LOG.info("checking that the model is one fixed function of each image …")
            lower = None if p.precision == "float32" else PRECISIONS[p.precision]
            probes = Probes.make(p, p.contract.shape, sigmas=sigmas, batch=batch, device=p.device)
            rounding = rounding_of(p.classifier, p.denoiser, lower=lower)
            self._checked = key, FixedFunction(probes, rounding=rounding)
        return self._checked[1]

    def forget(self) -> None:
        """Makes the next opening check anew."""
        self._checked = None
