"""How a classifier becomes a smoothed one, as options of Python and of the command line alike."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

from robustify.errors import InputError
from robustify.options import check_flags


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What is put before a classifier, and how it computes.

    Arguments:
        denoiser: A reference such as "diffusers:google/ddpm-cifar10-32" or "zoo:ddpm", or the folder of a saved
            pipeline; in Python also a diffusers pipeline, a pair (network, scheduler) or a `Denoiser`. Without one:
            plain smoothing.
        tuned: Folder of a finished training run of this classifier, whose result is used.
        sigma: Standard deviation of the noise, in [0, 1] pixels: more proves larger radii at less accuracy. 0.25 where
            nothing says otherwise. Several, on the command line with commas between, make a cascade.
        mix: Weight, above 1/2 and at most 1, of the smoothed classifier in a mixture with the classifier alone, which
            answers instead of abstaining.
        certificate: Another family of certificates, by name, with settings after a colon: "name:setting=value,…"; in
            Python also an object.
        precision: "float32", or "bfloat16" or "float16" by autocast: faster where the hardware has it, and another
            base classifier.
        compiled: Fuse the networks by torch.compile: a minute or so to start, faster after; again another base
            classifier.
        device: Where to compute, such as "cuda:1"; a model that is given moves there. Without it, the command line
            takes a GPU where there is one, and Python leaves a model where it is and loads a reference on the CPU.
        classes: Names of the classes that a zero-shot model chooses from, or of a model's classes that have none. On
            the command line with commas between, or a text file with one a line.
        gray: Make colour pictures gray for a model of gray ones, which refuses them otherwise. Arrays and tensors are
            taken as they are.
        templates: Prompts around the names, for zero-shot models: "openai", "simple", or in Python a list of format
            strings.
    """

    denoiser: Any = None
    tuned: str | PathLike[str] | None = None
    sigma: float | Collection[float] | None = None
    mix: float | None = None
    certificate: Any = None
    precision: str = "float32"
    compiled: bool = False
    device: Any = None
    classes: Sequence[str] | None = None
    gray: bool = False
    templates: str | Sequence[str] = "openai"

    def __post_init__(self) -> None:
        check_flags(compiled=self.compiled, gray=self.gray)
        if isinstance(self.classes, str):
            raise InputError(
                f"expected classes= to be a list of names; got the text {self.classes!r}.\n"
                f"  Did you mean [{self.classes!r}]?"
            )
