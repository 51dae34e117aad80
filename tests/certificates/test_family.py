"""A family without noise and without chance, written as an outsider would: two fixed changes that must agree."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import pytest

from robustify.certificates.certificate import Provenance, conclude
from robustify.certificates.family import CERTIFICATES, Claim, Family, Plan, Tally, View, read_plan
from robustify.certificates.gaussian import Gaussian
from robustify.certificates.queries import ESTIMATION, Ask, CertifyingQuery
from robustify.certificates.question import Question
from robustify.contract import InputContract, Numerics
from robustify.errors import InputError, RunError, UnknownPluginError


@final
@dataclass
class AgreeQuery:
    classes: int
    votes: tuple[int, ...] = field(init=False, default=())

    def ask(self) -> Ask | None:
        return None if self.votes else Ask(0, ESTIMATION, 2)

    def tell(self, ask: Ask, votes: Sequence[int]) -> None:
        del ask
        self.votes = tuple(votes)

    @property
    def tallies(self) -> tuple[Tally, ...]:
        return (Tally(0, ESTIMATION, 2, self.votes),) if self.votes else ()


@final
@dataclass(frozen=True)
class AgreePlan(Plan):
    family = "agree"
    rule = "both"
    alpha = 0.0
    exact = True

    radius: float

    @property
    def views(self) -> tuple[View, ...]:
        return (View(0.0, "changed"),)

    @property
    def most_draws(self) -> int:
        return 2

    @property
    def radii(self) -> tuple[float, ...]:
        return (self.radius,)

    def query(self, classes: int, truth: int | None = None) -> CertifyingQuery:
        del truth
        return AgreeQuery(classes)

    def certify_votes(self, tallies: Sequence[Tally]) -> Claim:
        votes = tallies[0].votes
        return Claim(votes.index(2), self.radius, ()) if 2 in votes else Claim(None, 0.0, ())

    def stored(self) -> dict[str, Any]:
        return {"radius": self.radius}

    def __str__(self) -> str:
        return "both changes"


@final
@dataclass(frozen=True)
class Agree(Family):
    name = "agree"
    checker = "robustify_agree:problems"

    @property
    def views(self) -> tuple[View, ...]:
        return (View(0.0, "changed"),)

    def plan(self, question: Question, slack: Callable[[View], float]) -> AgreePlan:
        del slack
        return AgreePlan(*question.radii)

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> AgreePlan:
        return AgreePlan(stored["radius"])


def provenance(plan: Plan) -> Provenance:
    contract = InputContract(1, 8, 8)
    return Provenance(plan, 7, True, "grid", contract, "c", "d", Numerics("float32"), 64)


def test_a_family_without_noise_and_chance_gives_certificates_that_print() -> None:
    plan = Agree().plan(Question(radius=0.5), lambda view: view.sigma)
    assert (plan.scale, plan.needs_truth, plan.note, plan.remark) == (0.0, False, "", "")
    texts = []
    for votes in ((0, 2), (1, 1)):
        query = plan.query(2)
        ask = query.ask()
        assert ask is not None
        query.tell(ask, votes)
        certificate = conclude(query, sample="0", provenance=provenance(plan), labels=("cat", "dog"))
        assert (certificate.votes, certificate.n, certificate.draws, certificate.selection) == (votes, 2, 2, ())
        texts.append(str(certificate))
    assert texts == [
        "dog: no ℓ2 change below 0.500 (pixels in [0, 1]) changes the smoothed prediction (100 % confidence, n = 2)",
        "abstains: no label is certain enough within 0.5 (100 % confidence, n = 2)",
    ]


def test_families_are_found_by_name() -> None:
    assert CERTIFICATES.find("gaussian") is Gaussian
    with pytest.raises(UnknownPluginError, match=r"no certificate family named 'gausian'(.|\n)*mean 'gaussian'"):
        CERTIFICATES.find("gausian")
    with pytest.raises(UnknownPluginError):
        read_plan("nothing", {})


@pytest.mark.parametrize("entry", [Gaussian(0.5), AgreePlan, "gaussian"])
def test_what_is_no_family_is_not_registered(entry: type[Family]) -> None:
    with pytest.raises(InputError, match="expected a subclass of Family"):
        CERTIFICATES.register("other", entry)


def test_the_plan_of_a_registered_family_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CERTIFICATES._ready, "agree", Agree)
    assert read_plan("agree", {"radius": 0.5}) == AgreePlan(0.5)
    with pytest.raises(RunError, match="stored plan of the certificate family 'agree'"):
        read_plan("agree", {})
