r"""Cascades over several levels of noise: the highest level that is sure enough answers.

The answer of a cascade with levels :math:`\sigma_1 > \dots > \sigma_K` and threshold :math:`p_0 \ge 1/2` is the class
that exceeds :math:`p_0` at the first level where one does. Let :math:`r_k` be the radius within which level k fires
with class A, and :math:`s_j` that within which level j fires with no other class. Below
:math:`\min(r_k, \min_{j<k} s_j)`, no level before k answers anything but A, and level k answers A if it is reached. So

.. math:: R = \max_k \min(r_k, \min_{j < k} s_j)

is certified, and levels that are not sure do no harm. A chain, which is one k, tests the class that separate draws at
level k chose.

**Chance of error.** A chain is a minimum of radii: it is too large only if the one bound that belongs to the smallest
true radius is wrong. So each of its bounds may be wrong with the chance that the whole chain may. The K chains share
alpha, whose share for each is alpha / K. Which levels are drawn from, and how often, may depend on the draws that chose
labels and on the draws of other levels.

The published procedure certifies only the first level that fires, and abstains where a level before it is not settled;
that gives smaller radii, and its split of alpha is not proven.

References:
    Multi-scale Diffusion Denoised Smoothing, Jeong, Shin, 2023, https://arxiv.org/abs/2310.16779
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, final

from robustify.certificates.bounds import is_number
from robustify.certificates.cascade_plans import OTHERWISE, PLANS, CascadePlan, levels_of_cascade, views_of_cascade
from robustify.certificates.cascade_poll import CascadePoll
from robustify.certificates.family import Family, Subject
from robustify.certificates.gaussian import check_sigma
from robustify.certificates.question import Question
from robustify.certificates.stored import rule_of, settings_of
from robustify.certificates.views import ALONE, PIPELINE, View
from robustify.errors import InputError


@final
@dataclass(frozen=True)
class Cascade(Family):
    """Certificates of an ℓ2 radius from several levels of noise: the highest that is sure enough answers.

    `n` and `n0` are numbers of draws at each level that is needed; levels are drawn from the highest on, until no other
    could enlarge the radius.

    Arguments:
        sigmas: Standard deviations of the noise, in [0, 1] pixels: two or more different ones, in any order.
        p0: Probability, from 1/2 up to but not 1, that a class must exceed at a level. A higher one leaves more images
            to lower levels: more are answered right, fewer at a large radius.
        otherwise: Answer where no level is sure: "abstain"; "argmax", the leading class of the lowest level, also if it
            does not exceed `p0`; or "clean", the class of the classifier alone, without denoiser, noise and
            certificate.

    Raises:
        InputError: If a setting is out of range.
    """

    name = "cascade"
    checker = "robustify.verify.cascade_family:problems"
    bases = (PIPELINE, ALONE)

    sigmas: Collection[float]
    p0: float = 0.5
    otherwise: str = "abstain"

    def __post_init__(self) -> None:
        if isinstance(self.sigmas, str) or not isinstance(self.sigmas, tuple | list):
            raise InputError(f"expected sigmas to be several standard deviations of noise; got {self.sigmas!r}")
        for sigma in self.sigmas:
            check_sigma(sigma)
        if len(set(self.sigmas)) < max(2, len(self.sigmas)):
            raise InputError(
                f"expected a cascade of two or more different sigmas; got {self.sigmas!r}.\n"
                "  One level alone needs no cascade: give it as one number, sigma="
            )
        if not (is_number(self.p0) and 1 / 2 <= self.p0 < 1):
            raise InputError(f"expected p0, the threshold of a cascade, from 0.5 up to but not 1; got {self.p0!r}")
        if not isinstance(self.otherwise, str) or self.otherwise not in OTHERWISE:
            raise InputError(f"expected otherwise to be {', '.join(OTHERWISE)}; got {self.otherwise!r}")

    @property
    def levels(self) -> tuple[float, ...]:
        return tuple(sorted(map(float, self.sigmas), reverse=True))

    def plan(self, question: Question, subject: Subject) -> CascadePlan:
        question.check_largest("a cascade")
        kind, n = ("adaptive", question.n_max) if question.n is None else ("fixed", question.n)
        slack = tuple(subject.slack(View(sigma)) for sigma in self.levels)
        return PLANS[kind](self.levels, self.p0, self.otherwise, question.alpha, question.n0, n, slack)

    def poll(self, n: int, alpha: float, subject: Subject) -> CascadePoll:
        """What `predict` asks: `n` draws at each level until one fires, or may fire."""
        slack = tuple(subject.slack(View(sigma)) for sigma in self.levels)
        levels = levels_of_cascade(self.levels, self.p0, self.otherwise, alpha, slack)
        views = views_of_cascade(self.levels, self.otherwise)
        return CascadePoll(views, n * len(levels) + (len(views) - len(levels)), alpha, n, levels)

    def __str__(self) -> str:
        levels = ", ".join(f"{sigma:g}" for sigma in self.levels)
        return f"sigma = {levels}, the first with a class above {self.p0:g}"

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> CascadePlan:
        rule = rule_of(stored, PLANS)
        settings, kind = settings_of(stored, rule, PLANS[rule]), PLANS[rule]
        settings |= {name: tuple(map(float, settings[name])) for name in ("sigmas", "slack")}
        family = cls(settings["sigmas"], settings["p0"], settings["otherwise"])  # raises where it is no cascade
        if family.levels != settings["sigmas"]:
            raise InputError(f"expected the sigmas of a cascade to decrease; got {settings['sigmas']}")
        return kind(**settings)
