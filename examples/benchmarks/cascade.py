"""What do three levels of noise bring over one? `python examples/benchmarks/cascade.py`

Votes of the zoo's timm classifier behind the zoo's denoiser are in `cascade_votes.npz`: for each held-out image and
sigma, `n0` draws that chose a label and `n` that tested it. `--draw` draws them again (the run folders continue).
From the same counts, at the same alpha for each image: certified accuracy and average certified radius (ACR) of each
level alone and of cascades over all three, for several thresholds p0. "majority" is the classical certificate, which
bounds the label's probability alone; "argmax" lets the lowest level always answer. Then again from 10,000 imagined
draws a level, replayed from each image's observed vote shares. Writes `cascade.json` and `cascade.svg`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
import typer
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray

from robustify import Settings, certify_dataset, robustify
from robustify.certificates.cascade import Cascade
from robustify.certificates.cascade_level import CascadeLevel, Counts
from robustify.certificates.cascade_plans import CascadePlan
from robustify.certificates.family import Claim, Look, Subject, Tally
from robustify.certificates.plans import FixedPlan
from robustify.certificates.queries import ESTIMATION, SELECTION
from robustify.certificates.question import Question
from robustify.certificates.radii import leading_class, strongest_rival
from robustify.contract import InputContract
from robustify.data import open_samples
from robustify.zoo import HELD_OUT

HERE = Path(__file__)
VOTES = HERE.with_name("cascade_votes.npz")
SIGMAS = (1.0, 0.5, 0.25)
THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7)
RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
ALPHA, N0, N = 0.001, 32, 200
MANY = 100, 10_000
"""Draws that are imagined to choose a label and to test it."""

SHOWN = ("sigma 1", "sigma 0.5", "sigma 0.25", "cascade, p0 0.5", "cascade, p0 0.6", "cascade, p0 0.65, argmax")
"""Curves of the figure."""

Found: TypeAlias = list[tuple[Claim, int]]
"""The claim and the number of draws of each image."""


def draw(out: Path, every: int) -> None:
    """Draws the votes of all levels, one run a level, and keeps the counts."""
    counts: dict[str, Any] = {}
    for sigma in SIGMAS:
        model = robustify("zoo:timm", denoiser="zoo:ddpm", sigma=sigma)
        samples = open_samples(HELD_OUT, model.labels)[::every]
        settings = Settings(n=N, n0=N0, alpha=ALPHA, seed=20_261_300 + round(100 * sigma))
        run = certify_dataset(model, samples, out / f"{sigma}", settings, title=f"sigma {sigma}")
        rows = {row.sample: row for row in run.rows}
        counts[f"votes_{sigma}"] = np.array([rows[sample.id].votes for sample in samples], np.int16)
        counts[f"selection_{sigma}"] = np.array([rows[sample.id].selection for sample in samples], np.int16)
        counts["truth"] = np.array([sample.label for sample in samples], np.int16)
    np.savez_compressed(VOTES, **counts)


@dataclass(frozen=True)
class Votes:
    """Votes of all images at all levels.

    Arguments:
        counts: Arrays `truth`, shape (images), and `selection_<sigma>` and `votes_<sigma>`, shape (images, classes).
        n0: Draws that chose a label.
        n: Draws that tested it.
    """

    counts: Mapping[str, NDArray[np.int16]]
    n0: int = N0
    n: int = N

    @property
    def truth(self) -> list[int]:
        """True labels."""
        labels: list[int] = self.counts["truth"].tolist()
        return labels

    def tallies(self, image: int) -> list[Tally]:
        """What was counted at all levels, from the highest on."""
        found = []
        for view, sigma in enumerate(SIGMAS):
            chosen, votes = (tuple(self.counts[f"{name}_{sigma}"][image].tolist()) for name in ("selection", "votes"))
            label = leading_class(chosen)
            look = Look(self.n, votes[label], strongest_rival(votes, label, n=self.n))
            found += [Tally(view, SELECTION, self.n0, chosen), Tally(view, ESTIMATION, self.n, votes, label, (look,))]
        return found

    def replayed(self, n0: int, n: int) -> "Votes":
        """Imagined votes of other numbers of draws, with each image's observed shares."""
        generator, counts = np.random.default_rng(0), {"truth": self.counts["truth"]}
        for sigma in SIGMAS:
            drawn = self.counts[f"votes_{sigma}"] + self.counts[f"selection_{sigma}"]
            failed = self.n0 + self.n - drawn.sum(axis=1, keepdims=True)
            shares = np.hstack([drawn, failed]) / (self.n0 + self.n)
            for name, number in (("selection", n0), ("votes", n)):
                counts[f"{name}_{sigma}"] = generator.multinomial(number, shares)[:, :-1].astype(np.int16)
        return Votes(counts, n0, n)


def alone(votes: Votes, view: int) -> Found:
    """Claims of one level alone."""
    plan = FixedPlan(SIGMAS[view], ALPHA, votes.n0, votes.n)
    tallies = [votes.tallies(i)[2 * view : 2 * view + 2] for i in range(len(votes.truth))]
    return [(plan.certify_votes(of_image), votes.n0 + votes.n) for of_image in tallies]


def majority(votes: Votes) -> Found:
    """Claims of the highest level alone where the label is only known to beat all others together."""
    level, found = CascadeLevel(SIGMAS[0], 0.5, ALPHA, 0.0), []
    for image in range(len(votes.truth)):
        look = votes.tallies(image)[1]
        bound = level.bound(Counts(*look.looks[0]))
        radius = level.answering(bound)
        found.append((Claim(look.label if radius > 0 else None, radius, (bound,)), votes.n0 + votes.n))
    return found


def cascaded(votes: Votes, p0: float, otherwise: str) -> Found:
    """Claims of the cascade, which stops where no other draw could enlarge the radius."""
    subject = Subject(InputContract(1, 32, 32), 10, lambda _: 0.0)
    plan = Cascade(SIGMAS, p0=p0, otherwise=otherwise).plan(Question(n=votes.n, n0=votes.n0, alpha=ALPHA), subject)
    return [_stopped(plan, votes.tallies(i)) for i in range(len(votes.truth))]


def _stopped(plan: CascadePlan, everything: Sequence[Tally]) -> tuple[Claim, int]:
    done = 0
    while asks := plan.asks(everything[:done]):
        done += len(asks)
    return plan.certify_votes(everything[:done]), sum(tally.draws for tally in everything[:done])


def compared(votes: Votes) -> dict[str, Found]:
    """Claims of every level alone and of every cascade."""
    singles = {f"sigma {sigma:g}": alone(votes, view) for view, sigma in enumerate(SIGMAS)}
    singles["sigma 1, majority"] = majority(votes)
    return singles | {
        f"cascade, p0 {p0:g}{', argmax' if otherwise == 'argmax' else ''}": cascaded(votes, p0, otherwise)
        for otherwise in ("abstain", "argmax")
        for p0 in THRESHOLDS
    }


def told(found: Found, truth: Sequence[int]) -> dict[str, float]:
    """Certified accuracy at each radius, ACR, abstentions and mean draws."""
    radii = radii_of(found, truth)
    return {
        **{f"at {radius:g}": round(float(np.mean(radii > radius)), 4) for radius in RADII},
        "acr": round(float(radii.mean()), 4),
        "abstains": round(float(np.mean([claim.label is None for claim, _ in found])), 4),
        "draws": round(float(np.mean([draws for _, draws in found])), 1),
    }


def radii_of(found: Found, truth: Sequence[int]) -> NDArray[np.float64]:
    """Certified radii; 0 where the label is wrong or missing."""
    return np.array([claim.radius * (claim.label == label) for (claim, _), label in zip(found, truth, strict=True)])


def plot(curves: Mapping[str, NDArray[np.float64]]) -> None:
    """Draws certified accuracy over radii."""
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "robustify", "font.family": "sans-serif"}):
        figure = Figure(figsize=(7.2, 3.8), layout="constrained")
        axes = figure.add_subplot(xlabel="ℓ2 radius, in [0, 1] pixels", ylabel="certified accuracy", ylim=(0, 1))
        grid = np.linspace(0, 1.8, 361)
        for name, radii in curves.items():
            style = {"linestyle": "-" if "cascade" in name else "--", "linewidth": 2 if "cascade" in name else 1.4}
            axes.plot(grid, [np.mean(radii > r) for r in grid], label=name, **style)  # type: ignore[arg-type]
        axes.legend(frameon=False, fontsize=9)
        figure.savefig(HERE.with_suffix(".svg"), metadata={"Date": None})


def main(
    draw_again: Annotated[bool, typer.Option("--draw", help="Draw the votes again.")] = False,
    every: Annotated[int, typer.Option(help="With --draw: take every k-th of the 500 held-out images.")] = 1,
    out: Annotated[Path, typer.Option(help="With --draw: folder of the runs; continues.")] = Path("run-cascade"),
) -> None:
    """Reads or draws the votes; prints and writes the table and the figure."""
    if draw_again:
        draw(out, every)
    real = Votes(dict(np.load(VOTES)))
    result: dict[str, Any] = {"images": len(real.truth), "alpha": ALPHA, "n0": N0, "n": N}
    for title, votes in (("drawn", real), ("replayed", real.replayed(*MANY))):
        found = compared(votes)
        result[title] = {name: told(claims, votes.truth) for name, claims in found.items()}
        print(f"{title}: {len(votes.truth)} images, {votes.n:,} draws a level")
        for name, line in result[title].items():
            print(f"{name:24}", *(f"{key} {value:.3f}" for key, value in line.items()), sep="  ")
        if votes is real:
            plot({name: radii_of(claims, votes.truth) for name, claims in found.items() if name in SHOWN})
    HERE.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
