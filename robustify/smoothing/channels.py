"""Views made ready to draw from: their noise laws, and base functions that were found to be fixed functions."""

import logging
import pkgutil
import warnings
from collections.abc import Hashable, Sequence
from typing import final

from robustify.certificates.views import PIPELINE, View
from robustify.errors import InputError
from robustify.smoothing.bases import Base, Channel
from robustify.smoothing.checks.fixed_function import FixedFunction
from robustify.smoothing.checks.probes import Answer, Probes
from robustify.smoothing.checks.state import state
from robustify.smoothing.checks.watch import Watch
from robustify.smoothing.laws import law_of
from robustify.smoothing.numerics import rounding_of
from robustify.smoothing.pipeline import PRECISIONS, Pipeline
from robustify.smoothing.speed import slower_precision

_LOG = logging.getLogger("robustify")


@final
class Channels:
    """Opens the views of a plan on base functions that are made from one pipeline.

    Each base function is checked before a run: whether it is one fixed function of each image, and by how much a vote
    must be ahead to count. The evidence is kept, and grows, until the model, the batch or the noise levels change.

    Arguments:
        pipeline: Denoise, then classify: the base function of most views.
        bases: Names of the base functions of views, as `View` describes them.

    Raises:
        InputError: If the pipeline does not fit a base function.
    """

    def __init__(self, pipeline: Pipeline, bases: Sequence[str] = (PIPELINE,)) -> None:
        self._pipeline = pipeline
        self._functions = {name: _function(name, pipeline) for name in bases}
        self._checked: dict[str, tuple[Hashable, FixedFunction]] = {}

    def open(self, views: Sequence[View], soundness: str, batch: int) -> list[Channel]:
        """One channel a view.

        Raises:
            InputError: If a view names an unknown base function.
            ModelError: If a base function is no fixed function of each image.
        """
        if unknown := next((view.base for view in views if view.base not in self._functions), None):
            raise InputError(f"expected views of a base function of {', '.join(self._functions)}; got {unknown!r}")
        laws = [law_of(view, soundness) for view in views]
        bases = {name: self._base(name, views, batch) for name in dict.fromkeys(view.base for view in views)}
        return [Channel(law, bases[view.base]) for law, view in zip(laws, views, strict=True)]

    def _base(self, name: str, views: Sequence[View], batch: int) -> Base:
        """A base function that was checked at the noise levels of its views."""
        sigmas = tuple(dict.fromkeys(view.sigma for view in views if view.base == name))
        fixed = self._check(name, sigmas, batch)
        return Base(self._functions[name], fixed.margin, Watch(fixed), mixes=len(sigmas) > 1)

    def _check(self, name: str, sigmas: tuple[float, ...], batch: int) -> FixedFunction:
        """Evidence that a base function is a fixed one; begun anew where the model or the batch changed."""
        p = self._pipeline
        pipelines = [p] if p.before is None else [p, p.before]
        parts = [part for each in pipelines for part in (each.classifier, each.denoiser)]
        key = (batch, sigmas, tuple(each.numerics for each in pipelines), state(*parts))
        if name not in self._checked or self._checked[name][0] != key or self._checked[name][1].refused:
            if name == PIPELINE and (told := slower_precision(p, sigmas[0], batch)):
                warnings.warn(told, stacklevel=2)
            _LOG.info("checking that the model is one fixed function of each image …")
            function = self._functions[name]
            probes = Probes.make(function, p.contract.shape, sigmas=sigmas, batch=batch, device=p.device)
            rounding = max(map(_rounding, pipelines))
            self._checked[name] = key, FixedFunction(probes, rounding=rounding)
        return self._checked[name][1]

    def forget(self) -> None:
        """Makes the next opening check anew."""
        self._checked.clear()


def _rounding(pipeline: Pipeline) -> float:
    """Relative rounding of the coarsest arithmetic of a pipeline."""
    lower = None if pipeline.precision == "float32" else PRECISIONS[pipeline.precision]
    return rounding_of(pipeline.classifier, pipeline.denoiser, lower=lower)


def _function(name: str, pipeline: Pipeline) -> Answer:
    """The base function of this name."""
    if name == PIPELINE:
        return pipeline
    module, function, *settings = name.split(":")
    made: Answer = pkgutil.resolve_name(f"{module}:{function}")(pipeline, *settings)
    return made
