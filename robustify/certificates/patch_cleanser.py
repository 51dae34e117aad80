r"""PatchCleanser: certificates against patches of any content and place, without noise and without chance.

A set of masks is such that one of them covers the patch wherever it is (`robustify.certificates.masks`). The classifier
sees the image under each mask, and under each union of two. Prediction: where the single masks agree, their class.
Otherwise the class of the first mask that disagrees with the majority and keeps its class under every second mask; the
majority's where there is none.

**Certificate**: all unions of two masks, and all single ones, give one class y. Proof: let mask m cover the patch. The
patched image under m and any other mask is the clean one under them, so its class is y. If all single masks agree on
the patched image, they agree with m, on y. A mask that answers another class does not keep it under m as second mask.
And if the majority is not for y, then m disagrees with it, and keeps y. Two patches: the same with unions of two masks
in the place of masks.

A draw whose lead rounding could decide has no class. It agrees with nothing, so nothing is certified; of prediction see
`robustify.certificates.cleansing`.

References:
    PatchCleanser: Certifiably Robust Defense against Adversarial Patches for Any Image Classifier, Xiang, Mahloujifar,
    Mittal, 2022, https://arxiv.org/abs/2108.09135
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, final

from robustify.certificates.cleansing import CleansingPoll
from robustify.certificates.family import Claim, Family, Look, Plan, Subject, Tally, refuse_truth
from robustify.certificates.masks import Masking
from robustify.certificates.patches import AXIS, Patch, check_about_patches, shapes_of
from robustify.certificates.queries import ESTIMATION, Ask
from robustify.certificates.question import Question
from robustify.certificates.radii import check_count, included, leading_class, strongest_rival
from robustify.certificates.stored import settings_of
from robustify.certificates.views import UNDENOISED, View
from robustify.contract import InputContract
from robustify.errors import InputError

MASKS = 6
"""Masks of an axis, where nothing says otherwise."""


@final
@dataclass
class MaskedQuery:
    """The masks of the first round; then, where all agree, all unions of two.

    Arguments:
        masking: The masks.
        classes: Number of classes.
    """

    masking: Masking
    classes: int
    votes: list[int] = field(init=False)
    looks: list[Look] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.votes = [0] * self.classes

    def ask(self) -> Sequence[Ask]:
        """All draws of a round; none where masks disagree."""
        told = self.looks[-1].n if self.looks else 0
        due = (self.masking.draws if told else self.masking.first) - told
        return (Ask(0, ESTIMATION, due),) if due and max(self.votes) == told else ()

    def tell(self, ask: Ask, votes: Sequence[int]) -> None:
        """Takes the votes of a round."""
        self.votes = [a + b for a, b in zip(self.votes, votes, strict=True)]
        n = ask.draws + (self.looks[-1].n if self.looks else 0)
        rival = strongest_rival(self.votes, self._label, n=n)
        self.looks.append(Look(n, self.votes[self._label], rival))

    @property
    def _label(self) -> int:
        """The leading class; that of the first round stays ahead, as all of its masks agreed where others follow."""
        return leading_class(self.votes)

    @property
    def tallies(self) -> tuple[Tally, ...]:
        """All votes, and how many there were after each round."""
        if not self.looks:
            return ()
        return (Tally(0, ESTIMATION, self.looks[-1].n, tuple(self.votes), self._label, tuple(self.looks)),)


@final
@dataclass(frozen=True)
class MaskingPlan(Plan):
    """Whether all unions of two masks give one class, yes or no.

    Arguments:
        masking: The masks.
    """

    family = "patch-cleanser"
    rule = "two masks"
    alpha = 0.0
    norm = None
    axis = AXIS
    remark = (
        "An image whose single masks disagree has no certificate, and counts as abstained; predict, which may then ask "
        "for further masks, answers it."
    )

    masking: Masking

    @property
    def views(self) -> tuple[View, ...]:
        return (View(0.0, UNDENOISED, self.masking),)

    @property
    def most_draws(self) -> int:
        return self.masking.draws

    @property
    def radii(self) -> tuple[float, ...]:
        return (float(self.masking.patches),)

    @property
    def ceiling(self) -> float:
        return included(self.masking.patches)

    def statement(self, radius: str, where: str) -> str:
        del radius
        if self.masking.patches == 1:
            return f"no patch within {self.masking} pixels of its {where} changes the prediction"
        return f"no two patches, each within {self.masking} pixels of its {where}, change the prediction"

    def changes(self, size: str) -> str:
        return f"change of the pixels by patches, their number {size}, each within {self.masking} pixels"

    def query(self, classes: int, truth: int | None = None) -> MaskedQuery:
        refuse_truth(self, truth)
        return MaskedQuery(self.masking, classes)

    def certify_votes(self, tallies: Sequence[Tally]) -> Claim:
        (tally,) = tallies
        if tally.draws == self.most_draws == max(tally.votes):
            return Claim(leading_class(tally.votes), self.ceiling, ())
        first = tally.looks[0]
        return Claim(None, 0.0, (), uncertified=tally.label if first.label == first.n else None)

    def stored(self) -> dict[str, Any]:
        return {"rule": self.rule, **asdict(self.masking)}

    def __str__(self) -> str:
        m = self.masking
        return f"{m.first:,} masks against {m.patches} of {m}, {m.draws:,} copies with their unions"


@final
@dataclass(frozen=True)
class PatchCleanser(Family):
    """Certificates that no patch of a size changes the prediction, for any classifier; no noise, no chance.

    Arguments:
        patch: The largest patch: a share of the image's area, as a square whose side is rounded up; (height, width) in
            pixels, for all patches inside; or several such shapes, for patches inside any of them.
        masks: Masks of each axis, at least 2 for a square patch: more take quadratically more draws of each axis, and
            hide less of the image, so that more is certified. 6 where neither this nor `stride` is given.
        stride: Pixels from a mask to the next, instead of their number.
        patches: Number of patches at the same time, 1 or 2; two take far more draws.

    Raises:
        InputError: If a setting is out of range, or masks and stride are both given.
    """

    name = "patch-cleanser"
    checker = "robustify.verify.patch_family:problems"
    bases = (UNDENOISED,)
    levels = ()

    patch: Patch
    masks: int | None = None
    stride: int | None = None
    patches: int = 1

    def __post_init__(self) -> None:
        if self.masks is not None and self.stride is not None:
            raise InputError(f"give masks or stride, not both; got masks={self.masks} and stride={self.stride}")
        number: Any = self._masks if self.stride is None else self.stride
        check_count("masks" if self.stride is None else "stride", number)
        check_count("patches", self.patches, most=2)
        shapes_of(self.patch, InputContract(1, 1, 1))  # raises

    @property
    def _masks(self) -> int | None:
        return MASKS if self.masks is None and self.stride is None else self.masks

    def masking(self, contract: InputContract, fill: tuple[float, ...]) -> Masking:
        """The masks for images of a size.

        Arguments:
            contract: The space of the images.
            fill: Colour of the masks, in [0, 1] pixels, one number per channel.

        Raises:
            InputError: If patches or masks do not fit the image; see `Masking`.
        """
        shapes = shapes_of(self.patch, contract)
        return Masking(contract.height, contract.width, shapes, self._masks, self.stride, self.patches, fill)

    def plan(self, question: Question, subject: Subject) -> MaskingPlan:
        check_about_patches(question, self.name, self.patches)
        return MaskingPlan(self.masking(subject.contract, subject.mean))

    def poll(self, n: int, alpha: float, subject: Subject) -> CleansingPoll:
        """PatchCleanser's prediction; neither the number of draws nor a chance matters to it."""
        del n, alpha
        plan = MaskingPlan(self.masking(subject.contract, subject.mean))
        (view,) = plan.views
        return CleansingPoll((view,), plan.masking)

    def __str__(self) -> str:
        size = f"stride = {self.stride}" if self._masks is None else f"masks = {self._masks}"
        return f"patch = {self.patch}, {size}, patches = {self.patches}"

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> MaskingPlan:
        settings = settings_of(stored, MaskingPlan.rule, Masking)
        settings["shapes"] = tuple((height, width) for height, width in settings["shapes"])
        settings["fill"] = tuple(map(float, settings["fill"]))
        return MaskingPlan(Masking(**settings))
