import pytest

from robustify import Settings
from robustify.certificates import Gaussian
from robustify.certificates.decisions import DecisionPlan, KnownLabelPlan, LeaderPlan
from robustify.contract import InputContract
from robustify.errors import InputError

CONTRACT = InputContract(1, 8, 8)


@pytest.mark.parametrize(
    ("settings", "plan", "n0"),
    [
        (Settings(radius=0.1), DecisionPlan, 100),
        (Settings(radius=0.1, n0=0), LeaderPlan, 0),
        (Settings(radius=0.1, known_label=True), KnownLabelPlan, 0),
        (Settings(radius=0.1, n0=0, known_label=True), KnownLabelPlan, 0),
    ],
)
def test_who_chooses_the_label_is_part_of_the_plan(settings: Settings, plan: type, n0: int) -> None:
    found = Gaussian(0.5).plan(settings, lambda view: settings.slack(view.sigma, CONTRACT))
    assert type(found) is plan
    assert (found.n0, found.n, found.alpha) == (n0, 10_000, 0.001)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"n0": 0}, "n0 to be a whole number of at least 1; got 0"),
        ({"n": 100, "n0": 0}, "n0 to be a whole number of at least 1; got 0"),
        ({"radius": 0.1, "n0": -1}, "n0 to be a whole number of at least 0; got -1"),
        ({"known_label": True}, "give the radius"),
        ({"n": 100, "known_label": True}, "give the radius"),
    ],
)
def test_questions_that_need_a_radius_are_refused_without(settings: dict[str, object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        Settings(**settings)  # type: ignore[arg-type]


def test_a_family_shares_its_alpha() -> None:
    assert Settings(alpha=0.05, family_wise=True).over(500).alpha == 0.05 / 500
    assert Settings(alpha=0.05).over(500).alpha == 0.05
    with pytest.raises(InputError, match="can never certify"):
        Settings(n=20, alpha=0.05, family_wise=True).over(1_000_000)
