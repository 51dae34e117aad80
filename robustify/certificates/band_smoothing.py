r"""Band smoothing: certificates against a patch by a vote of bands, without noise and without chance.

Also known as derandomized smoothing. The classifier sees each band of the image in turn, with the mean colour around
it, and the class with most votes wins; of several, the first. A patch changes only the votes of bands that keep a
pixel of it, at most Δ wherever it is (`robustify.certificates.bands`).

**Certificate**: label A, with :math:`n_A` votes, holds if :math:`n_A - 2Δ \geq n_c + f + [c < A]` for every other
class c, where f draws failed. Proof: each vote that a patch changes brings A and c closer by 2 at most. At equal votes
the class of smaller index wins, so A needs one vote more than those before it. It is not enough to look at one
runner-up: of several with equal votes, one may come before A.

**Rounding**: a draw fails where its lead is so small that rounding could decide it. It may be any class's vote, so all
are counted for each rival. Prediction abstains where they would decide.

References:
    (De)Randomized Smoothing for Certifiable Defense against Patch Attacks, Levine, Feizi, 2020,
    https://arxiv.org/abs/2002.10733
    Certified Patch Robustness via Smoothed Vision Transformers, Salman, Jain, Wong, Madry, 2022,
    https://arxiv.org/abs/2110.07719
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, final

from robustify.certificates.bands import Bands, check_kept
from robustify.certificates.family import Claim, Family, Plan, Subject, Tally, refuse_truth
from robustify.certificates.patches import AXIS, check_about_patches, shapes_of
from robustify.certificates.prediction import Poll, Prediction
from robustify.certificates.queries import ESTIMATION, Ask, PredictQuery
from robustify.certificates.question import Question
from robustify.certificates.radii import check_count, included, leading_class
from robustify.certificates.stored import settings_of
from robustify.certificates.views import UNDENOISED, View
from robustify.contract import InputContract
from robustify.errors import InputError
from robustify.options import check_flags

DROPPING = "robustify.smoothing.tokens:dropping"
"""The base function that leaves out tokens of a vision transformer; settings follow its name."""


def clear_lead(votes: Sequence[int], draws: int) -> int:
    """Votes by which the leading class is ahead, whatever the draws that failed vote; negative where it may not be.

    That is, of a class after it: the difference of their votes. A class before it wins at equal votes, so one less.

    Arguments:
        votes: One count per class; draws that failed are missing from the sum.
        draws: Number of draws.
    """
    label, failed = leading_class(votes), draws - sum(votes)
    rivals = (count + (other < label) for other, count in enumerate(votes) if other != label)
    return votes[label] - failed - max(rivals)


@final
@dataclass
class BandQuery:
    """All bands, at once.

    Arguments:
        bands: What each draw keeps.
        classes: Number of classes.
    """

    bands: Bands
    classes: int
    votes: tuple[int, ...] = field(init=False, default=())

    def ask(self) -> Sequence[Ask]:
        """All draws; nothing once their votes are known."""
        return () if self.votes else (Ask(0, ESTIMATION, self.bands.draws),)

    def tell(self, ask: Ask, votes: Sequence[int]) -> None:
        """Keeps the votes."""
        del ask
        self.votes = tuple(votes)

    @property
    def tallies(self) -> tuple[Tally, ...]:
        """The votes, and the class that leads."""
        if not self.votes:
            return ()
        return (Tally(0, ESTIMATION, self.bands.draws, self.votes, leading_class(self.votes)),)


@final
@dataclass(frozen=True)
class BandPlan(Plan):
    """Whether no patch of a size can change which class most bands vote for, yes or no.

    Arguments:
        bands: What each draw keeps.
        patch: Height and width of the patch in pixels; it covers all shapes inside.

    Raises:
        InputError: If the patch is no part of the image, or touches so many bands that nothing could be certified.
    """

    family = "band-smoothing"
    rule = "vote"
    alpha = 0.0
    exact = True
    norm = None
    axis = AXIS

    bands: Bands
    patch: tuple[int, int]

    def __post_init__(self) -> None:
        for side, most in zip(self.patch, (self.bands.height, self.bands.width), strict=True):
            check_count("the side of a patch, in pixels,", side, most=most)
        if self.most_draws <= 2 * self.touched:
            raise InputError(
                f"a patch of {self._size} pixels touches {self.touched:,} of {self.most_draws:,}: nothing could be "
                "certified, even if all agree.\n  Use narrower bands, a smaller stride or a smaller patch."
            )

    @property
    def touched(self) -> int:
        """The largest number of draws whose votes a patch can change."""
        return self.bands.touched(self.patch)

    @property
    def _size(self) -> str:
        return "×".join(map(str, self.patch))

    @property
    def views(self) -> tuple[View, ...]:
        b = self.bands
        return (View(0.0, f"{DROPPING}:{b.keep}:{b.band}:{b.stride}" if b.drop_tokens else UNDENOISED, b),)

    @property
    def most_draws(self) -> int:
        return self.bands.draws

    @property
    def radii(self) -> tuple[float, ...]:
        return (1.0,)

    @property
    def ceiling(self) -> float:
        return included(1)

    def statement(self, radius: str, where: str) -> str:
        del radius
        return f"no single patch within {self._size} pixels of its {where} changes the vote of its bands"

    def changes(self, size: str) -> str:
        return f"change of the pixels by patches, their number {size}, each within {self._size} pixels"

    def query(self, classes: int, truth: int | None = None) -> BandQuery:
        refuse_truth(self, truth)
        return BandQuery(self.bands, classes)

    def certify_votes(self, tallies: Sequence[Tally]) -> Claim:
        (tally,) = tallies
        label, lead = leading_class(tally.votes), clear_lead(tally.votes, tally.draws)
        if lead >= 2 * self.touched:
            return Claim(label, self.ceiling, ())
        return Claim(None, 0.0, (), uncertified=label if lead >= 0 else None)

    def stored(self) -> dict[str, Any]:
        return {"rule": self.rule, "patch": self.patch, **asdict(self.bands)}

    def __str__(self) -> str:
        return f"{self.bands}, against a patch of {self._size} pixels, which touches {self.touched:,}"


@final
@dataclass(frozen=True)
class BandPoll(Poll):
    """The vote of the bands.

    Arguments:
        views: The view of bands.
        n: Number of bands.
    """

    views: tuple[View, ...]
    n: int

    def query(self, classes: int) -> PredictQuery:
        return PredictQuery(classes, self.n)

    def answer(self, query: PredictQuery, labels: Sequence[str]) -> Prediction:
        label = leading_class(query.votes) if clear_lead(query.votes, self.n) >= 0 else None
        return Prediction(
            label=label,
            name=None if label is None else labels[label],
            p_value=float(label is None),
            votes=tuple(query.votes),
            n=self.n,
            alpha=0.0,
        )


@final
@dataclass(frozen=True)
class BandSmoothing(Family):
    """Certificates that no patch of a size changes the vote of bands, for any classifier; no noise, no chance.

    Arguments:
        patch: The largest patch: a share of the image's area, as a square whose side is rounded up; or (height, width)
            in pixels, for all patches inside.
        band: Columns or rows of a band, or both of a block: wider ones show more, and a patch touches more of them.
            Published: 4 columns at 32 pixels, 19 at 224.
        keep: What a draw keeps of an image: "columns", "rows" or "blocks".
        stride: Pixels from a band to the next: more take fewer draws.
        drop_tokens: Whether a vision transformer of timm leaves out the tokens that show nothing of a band. Several
            times as fast; this is another base function, with its own certificates.

    Raises:
        InputError: If a setting is out of range.
    """

    name = "band-smoothing"
    checker = "robustify.verify.band_family:problems"
    levels = ()

    patch: float | tuple[int, int]
    band: int
    keep: str = "columns"
    stride: int = 1
    drop_tokens: bool = False

    def __post_init__(self) -> None:
        check_kept(self.keep)
        check_count("band", self.band)
        check_count("stride", self.stride)
        check_flags(drop_tokens=self.drop_tokens)
        self._shape(InputContract(1, 1, 1))  # raises

    @property
    def bases(self) -> tuple[str, ...]:
        """The base function that views of this family use."""
        return (f"{DROPPING}:{self.keep}:{self.band}:{self.stride}" if self.drop_tokens else UNDENOISED,)

    def _shape(self, contract: InputContract) -> tuple[int, int]:
        """Height and width of the patch in images of a size."""
        (shape, *others) = shapes_of(self.patch, contract)
        if others:
            raise InputError(f"{self.name} takes a single shape of patches, not several; got {self.patch}")
        return shape

    def _plan(self, subject: Subject) -> BandPlan:
        c = subject.contract
        bands = Bands(c.height, c.width, self.keep, self.band, self.stride, subject.mean, self.drop_tokens)
        return BandPlan(bands, self._shape(c))

    def plan(self, question: Question, subject: Subject) -> BandPlan:
        check_about_patches(question, self.name, 1)
        return self._plan(subject)

    def poll(self, n: int, alpha: float, subject: Subject) -> BandPoll:
        """The vote of all bands; neither the number of draws nor a chance matters to it."""
        del n, alpha
        plan = self._plan(subject)
        return BandPoll(plan.views, plan.most_draws)

    def __str__(self) -> str:
        dropped = ", tokens dropped" if self.drop_tokens else ""
        return f"patch = {self.patch}, band = {self.band}, keep = {self.keep}, stride = {self.stride}{dropped}"

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> BandPlan:
        height, width = stored["patch"]
        settings = settings_of({key: value for key, value in stored.items() if key != "patch"}, BandPlan.rule, Bands)
        settings["fill"] = tuple(map(float, settings["fill"]))
        cls((height, width), settings["band"], settings["keep"], settings["stride"], settings["drop_tokens"])  # raises
        return BandPlan(Bands(**settings), (height, width))
