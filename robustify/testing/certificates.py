"""The check of a family of certificates: its plans and queries by simulated votes, its runs by a linear classifier."""

import json
import math
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import final

import numpy as np

from robustify.certificates.family import Claim, Family, Look, Plan, Subject, Tally
from robustify.certificates.queries import ESTIMATION, Ask, CertifyingQuery
from robustify.certificates.question import Question
from robustify.certificates.radii import strongest_rival
from robustify.contract import InputContract
from robustify.errors import InputError, ModelError
from robustify.testing.runs import check_runs
from robustify.testing.shared import require, short

CONTRACT = InputContract(1, 8, 8)
"""The space of the images that plans are made for."""

CLASSES = 3


@final
@dataclass(frozen=True)
class Scenario:
    """A smoothed classifier at one image, as the chances of its votes, and what is true of it.

    Arguments:
        chances: For each view, one chance per class; what is missing to 1 are draws that fail.
        radii: For each class of which something is true, the largest radius that is true for every base function with
            these chances.
    """

    chances: Sequence[Sequence[float]]
    radii: Mapping[int, float]


Votes = Callable[[Ask], list[int]]
"""Votes of the draws that a query asks for, one count per class."""


def check_certificate(
    family: Family, question: Question, scenarios: Sequence[Scenario], *, runs: int = 2_000, first: bool = True
) -> None:
    """Checks that a family proves no more than is true, answers as the engine asks, and lives through a run.

    - Its plan is read back from JSON as it was stored.
    - Queries ask the same until they are told, for no more draws than the plan says, and end.
    - Classes with the same votes prove nothing; votes that all agree prove something, up to the plan's ceiling.
    - A vote more for the label, and one less for a rival, never prove less.
    - In simulated runs of each scenario, stopping as the query does, claims are false no more often than alpha.
    - A run over images of a linear classifier, whose true radii are known, is stored, continued, verified, reported
      and told; claims that are enlarged are found; `predict` and `certify` answer for the same classifier.

    Arguments:
        family: The family, with settings as people use them.
        question: A question with an alpha that is large enough to be seen, such as 0.05, and few draws; as `Settings`
            with soundness="float" for a family of certificates in real arithmetic alone.
        scenarios: Hard cases: where a bound only just holds, the label is nearly tied, or two bounds bind at once.
            Only for families that leave something to chance.
        first: Whether a radius says that the label stays the most frequent class, which the linear classifier tells.
        runs: Number of simulated runs of each scenario; 100,000 tell an error of a tenth of alpha.

    Raises:
        InputError: If the family cannot answer the question, or there are no scenarios though alpha is positive.
        ModelError: With the first thing that is wrong.
    """
    plan = family.plan(question, Subject(CONTRACT, CLASSES, lambda view: 0.0, mean=(0.5,)))
    if plan.alpha and not scenarios:
        raise InputError("expected scenarios, as the family's claims may be false by chance; got none")
    _check_stored(family, plan)
    for scenario in scenarios:
        _check_protocol(plan, _drawn(scenario, np.random.default_rng(0)))
    _check_extremes(plan)
    if plan.alpha:
        for scenario in scenarios:
            _check_coverage(plan, scenario, runs)
    check_runs(family, question, first=first)


def _check_stored(family: Family, plan: Plan) -> None:
    name = f"{family}"
    require(bool(name) and plan.family == family.name, f"{name}: its plan says that its family is {plan.family!r}")
    stored = json.loads(json.dumps(plan.stored()))
    again = family.read(stored)
    require(again == plan, f"{name}: its plan is read back as {short(again)}, but was {short(plan)}")
    require(len(plan.slacks) == len(plan.views), f"{name}: expected a slack for each view; got {plan.slacks}")
    pkgutil.resolve_name(family.checker)


def _check_protocol(plan: Plan, votes: Votes) -> None:
    """Checks a query against what the plan says of draws, and its tallies against what it was told."""
    query, told = plan.query(CLASSES, 0 if plan.needs_truth else None), 0
    require(tuple(query.ask()) == tuple(query.ask()), f"{plan}: two calls of ask() in a row differ")
    for ask in _answered(query, votes):
        told += ask.draws
        require(told <= plan.most_draws, f"{plan}: a query asked for {told} draws; the plan says {plan.most_draws}")
    require(not plan.exact or told == plan.most_draws, f"{plan}: expected {plan.most_draws} draws; a query took {told}")
    counted = sum(tally.draws for tally in query.tallies)
    require(counted == told, f"{plan}: the tallies hold {counted} draws; {told} were told")
    _check_claim(plan, plan.certify_votes(query.tallies))


def _check_claim(plan: Plan, claim: Claim) -> None:
    sound = 0 <= claim.radius < math.inf and (claim.label is None) == (claim.radius == 0)
    require(sound, f"{plan}: expected a finite radius, and a label exactly where it is above 0; got {short(claim)}")
    require(
        claim.radius <= plan.ceiling * (1 + 1e-12),
        f"{plan}: claims a radius of {claim.radius}, above the plan's own ceiling {plan.ceiling}",
    )
    certain = claim.label is None or claim.uncertified is None
    require(certain, f"{plan}: expected no uncertified answer beside a certified one; got {short(claim)}")


def _check_extremes(plan: Plan) -> None:
    """Checks votes that tie, votes that all agree, and single votes more."""
    tied = _claim(plan, lambda ask: [ask.draws // CLASSES] * CLASSES)
    require(tied.radius == 0, f"{plan}: classes with the same votes prove {short(tied)}; expected nothing")
    failed = _claim(plan, lambda ask: [0] * CLASSES)
    require(failed.radius == 0, f"{plan}: draws that all failed prove {short(failed)}; expected nothing")
    agreed = _claim(plan, lambda ask: [ask.draws, 0, 0])
    sure = agreed.label == 0 and agreed.radius > 0
    require(sure, f"{plan}: votes that all agree on class 0 prove {short(agreed)}; expected a radius for it")
    _check_monotone(plan)


def _check_monotone(plan: Plan) -> None:
    """Checks, for tallies that are read once, that a vote of a rival that goes to the label never proves less."""
    for share in (0.6, 0.8, 0.95):
        query = _finished(plan, partial(_split, share=share))
        before = plan.certify_votes(query.tallies)
        for i, tally in enumerate(query.tallies):
            if tally.stage == ESTIMATION and tally.label == 0 and len(tally.looks) <= 1 and tally.votes[1]:
                moved = (*query.tallies[:i], _one_more(tally), *query.tallies[i + 1 :])
                after = plan.certify_votes(moved)
                require(
                    after.radius >= before.radius,
                    f"{plan}: with one vote more for its label it proves {after.radius}, instead of {before.radius}",
                )


def _split(ask: Ask, share: float) -> list[int]:
    first = math.ceil(share * ask.draws)
    return [first, ask.draws - first, 0]


def _one_more(tally: Tally) -> Tally:
    """The tally with a vote of class 1 given to class 0, its label."""
    votes = (tally.votes[0] + 1, tally.votes[1] - 1, *tally.votes[2:])
    look = Look(tally.draws, votes[0], strongest_rival(votes, 0, n=tally.draws))
    return tally._replace(votes=votes, looks=(look,) if tally.looks else ())


def _check_coverage(plan: Plan, scenario: Scenario, runs: int) -> None:
    """Checks how often claims are false when votes are drawn with the scenario's chances."""
    generator = np.random.default_rng(1)
    false = 0
    for _ in range(runs):
        claim = _claim(plan, _drawn(scenario, generator))
        false += claim.label is not None and claim.radius > scenario.radii.get(claim.label, 0.0)
    allowed = plan.alpha + 3 * math.sqrt(plan.alpha * (1 - plan.alpha) / runs)
    require(
        false <= allowed * runs,
        f"{plan}: {false} of {runs} claims about {short(scenario)} were false; alpha = {plan.alpha:g} allows "
        f"{math.floor(allowed * runs)} (three standard errors included)",
    )


def _drawn(scenario: Scenario, generator: np.random.Generator) -> Votes:
    """Votes at random, with the scenario's chances."""
    chances = [np.append(view, max(0.0, 1 - math.fsum(view))) for view in scenario.chances]

    def votes(ask: Ask) -> list[int]:
        found: list[int] = generator.multinomial(ask.draws, chances[ask.view])[:-1].tolist()
        return found

    return votes


def _claim(plan: Plan, votes: Votes) -> Claim:
    """What a query proves that gets these votes."""
    claim = plan.certify_votes(_finished(plan, votes).tallies)
    _check_claim(plan, claim)
    return claim


def _finished(plan: Plan, votes: Votes) -> CertifyingQuery:
    query = plan.query(CLASSES, 0 if plan.needs_truth else None)
    for _ in _answered(query, votes):
        pass
    return query


def _answered(query: CertifyingQuery, votes: Votes) -> Iterator[Ask]:
    """Answers a query to its end; yields each ask that was told."""
    while asks := query.ask():
        for ask in asks:
            if ask.draws < 1:
                raise ModelError(f"expected a query to ask for at least 1 draw; got {ask}")
            query.tell(ask, votes(ask))
            yield ask
