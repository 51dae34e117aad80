"""Families of certificates, by one without noise and without chance: it proves that its pieces suppose neither."""

import pytest

from robustify.certificates.certificate import Provenance, conclude
from robustify.certificates.family import CERTIFICATES, Family, Plan, Subject, read_plan
from robustify.certificates.gaussian import Gaussian
from robustify.certificates.question import Question
from robustify.contract import InputContract, Numerics
from robustify.errors import InputError, RunError, UnknownPluginError
from tests.toys_family import Agree, AgreePlan


def provenance(plan: Plan) -> Provenance:
    contract = InputContract(1, 8, 8)
    return Provenance(plan, 7, True, "grid", contract, "c", "d", Numerics("float32"), 64)


def test_a_family_without_noise_and_chance_gives_certificates_that_print() -> None:
    plan = Agree().plan(Question(radius=0.5), Subject(InputContract(1, 8, 8), 2, lambda view: view.sigma))
    assert (plan.scale, plan.needs_truth, plan.note, plan.remark) == (0.0, False, "", "")
    texts = []
    for votes in ((0, 2), (1, 1)):
        query = plan.query(2)
        (ask,) = query.ask()
        query.tell(ask, votes)
        certificate = conclude(query, sample="0", provenance=provenance(plan), labels=("cat", "dog"))
        assert (certificate.votes, certificate.n, certificate.draws, certificate.selection) == (votes, 2, 2, ())
        texts.append(str(certificate))
    assert texts == [
        "dog: no ℓ2 change below 0.500 of its 1×8×8 pixels in [0, 1] after resize and crop changes the smoothed "
        "prediction (without chance, n = 2)",
        "abstains: no label is certain enough within 0.5 (without chance, n = 2)",
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
