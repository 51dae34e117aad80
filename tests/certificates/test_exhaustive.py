"""Certificates by exhaustion: brute force on small images, what is asked, stored, told, verified and refused."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from robustify import Settings, SmoothedClassifier
from robustify.certificates.exhaustive import ExhaustiveFamily, ExhaustivePlan, RingsQuery, Transforms
from robustify.certificates.family import Claim, Look, Subject, Tally, read_plan
from robustify.certificates.grid import Grid
from robustify.certificates.queries import ESTIMATION, Ask
from robustify.certificates.question import Question
from robustify.certificates.translation import Translation
from robustify.contract import InputContract
from robustify.data import Sample
from robustify.errors import InputError, RunError
from robustify.runs.certify import certify_dataset
from robustify.runs.folder import Run, read_run
from robustify.smoothing.laws import as_pixels
from robustify.smoothing.transforms import counter_example, transformed
from robustify.testing import check_certificate
from robustify.verify.claims import verify_row, verify_run
from robustify.verify.exhaustive_family import totals_of
from tests.toys_transforms import Linear, random_bytes, smooth

SUBJECT = Subject(InputContract(1, 4, 4), 2, lambda view: 0.0)
FAMILIES: list[ExhaustiveFamily] = [
    Translation(2),
    Translation(1, "cyclic"),
    Grid(1, 2, 1, 0.5, "mean"),
    Grid(0, 16, 4),
    Grid(2, 0),
]


def brute(image: np.ndarray, weight: np.ndarray, offset: float, family: Any, size: int) -> bool:  # noqa: ANN401
    """Whether all transforms up to a size give the class of the image itself, by numpy alone."""

    def label(pixels: np.ndarray) -> bool:
        return bool(pixels.ravel() / 255 @ weight + offset > 0)

    shift = min(size, family.shift)
    steps = range(-getattr(family, "brightness", 0), getattr(family, "brightness", 0) + 1, getattr(family, "step", 1))
    steps = [k for k in steps if abs(k) <= size * getattr(family, "step", 1)]
    both = range(-shift, shift + 1)
    for down, right, k in product(both, both, steps):
        if family.fill == "cyclic":
            moved = np.roll(image, (down, right), (0, 1))
        else:
            padded = np.pad(image, 4)
            moved = padded[4 - down : 8 - down, 4 - right : 8 - right]
        if label(np.clip(moved.astype(int) + k, 0, 255)) != label(image):
            return False
    return True


@pytest.mark.parametrize("family", [Translation(3), Translation(2, "cyclic"), Grid(1, 12, 4), Grid(0, 16, 2)], ids=str)
def test_the_radius_is_that_of_brute_force(family: Any) -> None:  # noqa: ANN401
    found = set()
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(16, generator=generator)
        offset = 0.6 * float(torch.randn(1, generator=generator))
        image = random_bytes(seed)
        certificate = smooth(Linear(weight, offset), family).certify(image, seed=1)
        numbers = image[0].numpy(), weight.numpy().astype(float), offset
        rings = len(family.made(SUBJECT).radii)
        expected = next((s for s in range(rings) if not brute(*numbers, family, s + 1)), rings)
        assert round(certificate.radius, 6) == expected
        assert (certificate.label is not None) == (expected > 0)
        itself = int(float(image.flatten() / 255 @ weight) + offset > 0)
        assert certificate.answer == itself
        found.add(expected)
    assert len(found) > 1


def test_prediction_is_the_class_of_the_image_itself() -> None:
    model = smooth(Linear(torch.ones(16), -8.0), Translation(1))
    image = torch.full((1, 4, 4), 160, dtype=torch.uint8)  # a shifted one is darker than the border
    certificate, prediction = model.certify(image), model.predict(image)
    assert (certificate.label, certificate.uncertified, prediction.label) == (None, 1, 1)
    assert (prediction.votes, prediction.n, prediction.alpha, prediction.p_value) == ((0, 1), 1, 0.0, 0.0)
    tied = smooth(Linear(torch.zeros(16), 0.0), Translation(1))
    assert (tied.predict(image).label, tied.predict(image).p_value) == (None, 1.0)


@pytest.mark.parametrize("soundness", ["grid", "float"])
def test_what_is_not_certified_has_a_counter_example_one_ring_beyond(soundness: str) -> None:
    family, found = Grid(1, 8, 4, 0.25, "mean"), set()
    transforms = family.made(SUBJECT).transforms
    for seed in range(8):
        torch.manual_seed(seed)
        model = smooth(Linear(torch.randn(16), 0.3), family)
        image = model.prepare(random_bytes(seed), soundness)
        radius = round(model.certify(random_bytes(seed), soundness=soundness).radius)  # type: ignore[union-attr]
        example = counter_example(model.pipeline, image, transforms, batch=7)
        ring = next((s for s, ring in enumerate(transforms.rings) if example in ring), len(transforms.rings))
        assert ring == radius + 1
        found.add(radius)
        if example is not None:
            both = torch.stack([as_pixels(image), as_pixels(transformed(image, example, "mean"))])
            assert len(model.pipeline(both, 0.0).argmax(dim=1).unique()) == 2
    assert len(found) > 1


def asked(query: RingsQuery, *votes: list[int]) -> list[int]:
    """Numbers of draws that a query asks for, given these votes."""
    found = []
    for told in votes:
        (ask,) = query.ask()
        found.append(ask.draws)
        query.tell(ask, told)
    return [*found, *(ask.draws for ask in query.ask())]


def test_no_further_ring_is_tried_once_one_disagrees() -> None:
    assert asked(RingsQuery((1, 9, 25), 2), [0, 1], [0, 8], [0, 16]) == [1, 8, 16]
    assert asked(RingsQuery((1, 9, 25), 2), [0, 1], [1, 7]) == [1, 8]
    assert asked(RingsQuery((1, 9, 25), 2), [0, 1], [0, 7]) == [1, 8]  # one failed
    assert asked(RingsQuery((1, 9, 25), 2), [0, 0]) == [1]
    assert RingsQuery((1, 9), 2).tallies == ()


def test_what_votes_prove() -> None:
    plan = Translation(2).made(SUBJECT)

    def claim(*votes: list[int]) -> Claim:
        query = plan.query(2)
        asked(query, *votes)
        return plan.certify_votes(query.tallies)

    assert claim([0, 1], [0, 8], [0, 16]) == Claim(1, math.nextafter(2, 3), ())
    assert claim([0, 1], [0, 8], [1, 15]) == Claim(1, math.nextafter(1, 2), ())
    assert claim([0, 1], [0, 8], [0, 15]) == Claim(1, math.nextafter(1, 2), ())
    assert claim([0, 1], [8, 0]) == Claim(None, 0.0, (), uncertified=1)
    assert claim([0, 0]) == Claim(None, 0.0, ())
    assert (plan.radii, plan.ceiling, plan.most_draws) == ((1.0, 2.0), math.nextafter(2, 3), 25)


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_plans_are_read_as_they_were_stored(family: ExhaustiveFamily) -> None:
    plan = family.plan(Question(), SUBJECT)
    stored = json.loads(json.dumps(plan.stored()))
    assert read_plan(family.name, stored) == plan
    assert list(plan.transforms.totals) == totals_of(stored)
    for wrong in ({"rule": "some"}, {"shift": -1}, {"fill": "pink"}, {"mix": 1}):
        with pytest.raises(RunError, match="cannot read the stored plan"):
            read_plan(family.name, stored | wrong)


@pytest.mark.parametrize(
    ("family", "told"),
    [
        (Translation(2), "no shift of its 1×4×4 pixels by up to 1 whole pixels along each axis, where black comes in"),
        (Grid(0, 16, 4), "brightness by multiples of 4/255 up to 4/255 (then clipped) of its 1×4×4 pixels changes"),
        (
            Grid(2, 8, 8, 1.0, "mean"),
            "turns by quarters of a degree up to 0.25°, shifts by whole pixels up to 1 (the image's mean colour comes",
        ),
    ],
    ids=str,
)
def test_statements_name_what_was_tried(family: ExhaustiveFamily, told: str) -> None:
    plan = family.made(SUBJECT)
    assert told in plan.statement("1.000", "1×4×4 pixels")
    assert "up to r" in plan.changes("up to r")
    assert "of the listed transforms alone" in plan.remark


WRONG: list[tuple[type[ExhaustiveFamily], dict[str, Any], str]] = [
    (Translation, {"shift": 0}, "expected shift to be a whole number"),
    (Translation, {"shift": 4}, "from 1 to 3; got 4"),
    (Translation, {"fill": "pink"}, "expected fill to be black, mean, cyclic"),
    (Grid, {"shift": 4}, "from 0 to 3; got 4"),
    (Grid, {"brightness": 7, "step": 2}, "a multiple of step = 2; got 7"),
    (Grid, {"brightness": 256, "step": 1}, "expected brightness to be a whole number from 0 to 255"),
    (Grid, {"step": 0}, "expected step"),
    (Grid, {"rotation": 0.3}, r"a multiple of 0\.25 from 0 to 180 degrees; got 0\.3"),
    (Grid, {"rotation": 181.0}, "from 0 to 180"),
    (Grid, {"rotation": 1.0, "fill": "cyclic"}, "cannot be filled cyclically"),
    (Grid, {"shift": 0, "brightness": 0}, "nothing to try"),
]


@pytest.mark.parametrize(("kind", "settings", "told"), WRONG)
def test_settings_out_of_range_are_refused(kind: type[ExhaustiveFamily], settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        kind(**settings).plan(Question(), SUBJECT)


@pytest.mark.parametrize("question", [Question(n=100), Question(radius=1.0), Question(radius=1.0, known_label=True)])
def test_questions_that_enumeration_cannot_answer_are_refused(question: Question) -> None:
    with pytest.raises(InputError, match=r"try every transform of their own settings; leave out (n=100|radius=1\.0)"):
        Translation(1).plan(question, SUBJECT)
    with pytest.raises(InputError, match="chooses the label itself"):
        Translation(1).made(SUBJECT).query(2, truth=0)


class Sometimes(Linear):
    """Fails where the first pixel is black."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x[:, :, 0, 0] == 0, torch.nan, 1.0) * super().forward(x)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run with images that are certified up to 2, up to 1, answered, and not answered."""
    model: SmoothedClassifier = smooth(Sometimes(torch.ones(16), -8.0), Translation(2, "cyclic"))
    bright = torch.full((1, 4, 4), 200, dtype=torch.uint8)
    near, black = bright.clone(), bright.clone()
    far = bright.clone()
    near[0, 1, 1], far[0, 2, 2], black[0, 0, 0] = 0, 0, 0
    samples = [Sample(name, image, 1) for name, image in zip("bnfk", (bright, near, far, black), strict=True)]
    certify_dataset(model, samples, tmp_path / "run", Settings(seed=1))
    return read_run(tmp_path / "run")


def test_draws_that_fail_agree_with_nothing(run: Run) -> None:
    rows = {row.sample: row for row in run.rows}
    assert {name: round(row.radius) for name, row in rows.items()} == {"b": 2, "n": 0, "f": 1, "k": 0}
    assert {name: row.answer for name, row in rows.items()} == {"b": 1, "n": 1, "f": 1, "k": None}
    assert {name: row.draws for name, row in rows.items()} == {"b": 25, "n": 9, "f": 25, "k": 1}
    assert verify_run(run) == []
    assert "certified accuracy at radius 2: 25" in str(run)
    assert "none, because the proof leaves nothing to chance" in str(run)


def test_whatever_was_changed_is_found(run: Run) -> None:
    rows = {row.sample: row for row in run.rows}
    assert isinstance(run.plan, ExhaustivePlan)

    def fields(name: str, **changes: Any) -> set[str]:  # noqa: ANN401
        return {problem.field for problem in verify_row(replace(rows[name], **changes), run.plan, run)}

    def tally(name: str, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
        return {"tallies": (rows[name].tallies[0]._replace(**changes),)}

    assert fields("f", radius=2.0) == {"radius"}
    assert fields("f", radius=0.5) == {"radius"}
    assert fields("f", label=0) == {"label"}
    assert fields("n", label=1, radius=1.0, uncertified=None) == {"label", "radius", "uncertified"}
    assert fields("k", uncertified=1) == {"uncertified"}
    assert fields("b", **tally("b", votes=(0, 24))) == {"looks"}
    assert fields("f", **tally("f", looks=rows["b"].looks)) == {"looks"}
    assert fields("b", **tally("b", looks=rows["b"].looks[1:])) == {"looks"}
    stopped = Tally(0, ESTIMATION, 9, (0, 9), 1, rows["b"].looks[:2])
    assert fields("b", radius=math.nextafter(1, 2), tallies=(stopped,)) == {"looks"}
    jumped = (Look(1, 1, 0), Look(9, 8, 1), Look(25, 24, 1))
    assert fields("f", **tally("f", votes=(0, 24), looks=jumped)) == {"looks"}
    assert fields("k", **tally("k", draws=2)) == {"votes"}
    other = replace(run.plan, transforms=Transforms(3, "cyclic"))  # type: ignore[type-var]
    assert {p.field for p in verify_row(rows["b"], other, run)} == {"looks"}


def test_asks_go_on_where_the_ring_before_ended() -> None:
    assert RingsQuery((1, 9), 2).ask() == (Ask(0, ESTIMATION, 1),)


def test_the_arithmetic_imports_no_torch() -> None:
    modules = "robustify.certificates.grid, robustify.certificates.translation, robustify.verify.exhaustive_family"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize("family", [Translation(2), Grid(1, 8, 8, 0.25)], ids=lambda family: family.name)
def test_the_families_live_through_runs(family: ExhaustiveFamily) -> None:
    check_certificate(family, Question(), [])
