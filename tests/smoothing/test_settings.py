import pytest

from robustify import Settings
from robustify.certificates import Gaussian
from robustify.certificates.decisions import DecisionPlan, KnownLabelPlan, LeaderPlan
from robustify.certificates.family import Subject
from robustify.contract import InputContract
from robustify.errors import InputError
from robustify.smoothing.places import probes_in_first

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
    found = Gaussian(0.5).plan(settings, Subject(CONTRACT, 2, lambda view: settings.slack(view.sigma, CONTRACT)))
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


def test_a_batch_for_few_draws_has_room_for_all_of_them_beside_the_probes() -> None:
    for draws in range(1, 400):
        batch = Settings(n=100_000, batch=10**6).batch_for(draws)
        assert batch - probes_in_first(batch) >= draws
        assert batch - draws == min(8, -(-draws // 31))
    assert Settings(batch=64).batch_for(1_000) == 64
    assert [probes_in_first(batch) for batch in (1, 2, 31, 32, 64, 300, 1_000)] == [0, 1, 1, 1, 2, 8, 8]
