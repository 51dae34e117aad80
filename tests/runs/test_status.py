"""What a run says at a moment, in words."""

from dataclasses import replace

import pytest

from robustify.runs.status import Status

STATUS = Status(
    done=4,
    total=6,
    finished=False,
    draws=400,
    accuracies=(),
    mean_radius=None,
    abstained=1,
    uncertified=0,
    right=0.5,
    seconds=2.0,
    left=1.0,
    alpha=0.25,
)


def test_false_certificates_are_no_more_than_there_are() -> None:
    assert "false certificates: at most 1 expected, at most 3 with 99.9 % confidence" in str(STATUS)
    one = replace(STATUS, abstained=3)
    assert "at most 1 with 99.9 % confidence" in str(one)


@pytest.mark.parametrize("done", [0, 4])
@pytest.mark.parametrize(("finished", "told"), [(False, "certificates: none yet"), (True, "certificates: none")])
def test_without_a_certificate_none_can_be_false(done: int, finished: bool, told: str) -> None:
    none = replace(STATUS, done=done, abstained=done, finished=finished, remarks=("Only the true label was tested.",))
    assert str(none).splitlines()[-2:] == [told, "Only the true label was tested."]
    assert "false" not in str(none)


def test_answers_without_a_certificate_are_told_with_the_right_ones() -> None:
    assert "answered without" not in str(STATUS)
    told = str(replace(STATUS, uncertified=2, right=0.75))
    assert "answered without a certificate: 2; right answers, certified or not: 75.0 %" in told
    assert "answered without a certificate: 2\n" in str(replace(STATUS, uncertified=2, right=None))
    assert "at most 1 with 99.9 % confidence" in told
