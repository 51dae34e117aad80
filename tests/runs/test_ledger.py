"""Attempts are charged before they are made, and cost what keeps all of them together within alpha."""

import json
import math
from bisect import bisect_left
from pathlib import Path

import pytest
from scipy.stats import binom

from robustify import Settings, SmoothedClassifier
from robustify.certificates.bounds import lower_bound
from robustify.data import Sample
from robustify.errors import InputError, RunError
from robustify.runs.certify import certify_dataset
from robustify.runs.folder import read_run
from robustify.runs.ledger import Attempt, Ledger
from robustify.verify.claims import verify_run

SETTINGS = Settings(n=100, alpha=0.01)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """One without charges."""
    return Ledger(tmp_path / "ledger")


def error(alpha: float) -> float:
    """The exact chance that one test at p = 1/2 from 1,000 draws errs."""
    least = bisect_left(range(1_001), True, key=lambda k: lower_bound(k, 1_000, alpha=alpha) > 0.5)
    return float(binom.sf(least - 1, 1_000, 0.5))


def test_all_attempts_together_stay_within_alpha(ledger: Ledger) -> None:
    charged = [ledger.charge("m", ["x"], 0.01).alpha for _ in range(100)]
    assert charged[0] == pytest.approx(0.01 * 6 / math.pi**2)
    some = 1 - math.prod(1 - error(alpha) for alpha in charged)
    assert 0.008 < some <= 0.01
    assert 1 - (1 - error(0.01)) ** 100 > 0.5  # without a ledger; .63 if each erred as often as it may
    assert sum(Attempt(i, 0.01).alpha for i in range(1, 5_000)) <= 0.01


def test_attempts_count_by_image_and_model_and_never_repeat(ledger: Ledger) -> None:
    numbers = [ledger.charge("m", images, 0.01).number for images in (["a"], ["a", "b"], ["b"], ["c"], ["a", "c"])]
    assert numbers == [1, 2, 3, 1, 3]
    assert ledger.charge("other", ["a"], 0.01).number == 1
    assert ledger.attempts("m", ["b"], 0.01) == 3
    assert ledger.attempts("m", ["new"], 0.5) == 0


def test_another_alpha_for_the_same_image_is_refused(ledger: Ledger) -> None:
    ledger.charge("m", ["a"], 0.01)
    with pytest.raises(RunError, match=r"share alpha = 0\.01 by the ledger(.|\n)*got 0\.1"):
        ledger.charge("m", ["a", "b"], 0.1)
    assert ledger.charge("m", ["b"], 0.1).number == 1


def test_a_lost_or_broken_charge_is_noticed(ledger: Ledger) -> None:
    for _ in range(3):
        ledger.charge("m", ["a"], 0.01)
    (ledger.folder / "000002.json").write_text("{")
    with pytest.raises(RunError, match=r"cannot read .*000002"):
        ledger.attempts("m", ["a"], 0.01)
    (ledger.folder / "000001.json").unlink()
    with pytest.raises(RunError, match=r"lacks 000001\.json"):
        ledger.charge("m", ["a"], 0.01)


def test_a_charge_that_another_process_takes_is_taken_anew(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between reading and writing, somebody else charges the same image."""
    add, raced = Ledger._add, []

    def slow(self: Ledger, content: bytes, position: int) -> bool:
        if not raced:
            raced.append(add(self, content, position))
        return add(self, content, position)

    monkeypatch.setattr(Ledger, "_add", slow)
    assert ledger.charge("m", ["a"], 0.01).number == 2
    assert [json.loads(f.read_text())["attempt"] for f in sorted(ledger.folder.glob("*.json"))] == [1, 2]
    assert not list(ledger.folder.glob(".*"))


def test_a_new_folder_is_a_new_attempt_and_a_continued_run_is_none(
    model: SmoothedClassifier, samples: list[Sample], tmp_path: Path
) -> None:
    folder = tmp_path / "ledger"
    for number in (1, 2):
        out = tmp_path / str(number)
        run = certify_dataset(model, samples[:3], out, SETTINGS, ledger=folder)
        assert (run.config["attempt"], run.config["attempts_alpha"]) == (number, 0.01)
        assert run.plan.alpha == Attempt(number, 0.01).alpha
        (out / "rows.parquet").unlink()
        again = certify_dataset(model, samples[:3], out, SETTINGS, ledger=folder)
        assert [row.votes for row in again.rows] == [row.votes for row in run.rows]
        assert verify_run(read_run(out)) == []
    assert len(list(folder.glob("*.json"))) == 2
    assert certify_dataset(model, samples[3:5], tmp_path / "3", SETTINGS, ledger=folder).config["attempt"] == 1
    renamed = [Sample("renamed", samples[0].image, 0)]
    assert certify_dataset(model, renamed, tmp_path / "4", SETTINGS, ledger=folder).config["attempt"] == 3


def test_a_run_cannot_change_its_ledger(model: SmoothedClassifier, samples: list[Sample], tmp_path: Path) -> None:
    certify_dataset(model, samples[:1], tmp_path / "a", SETTINGS, ledger=tmp_path / "ledger")
    with pytest.raises(RunError, match="attempt: there 1, now null"):
        certify_dataset(model, samples[:1], tmp_path / "a", SETTINGS)
    certify_dataset(model, samples[:1], tmp_path / "b", SETTINGS)
    for out, used in (("b", "ledger"), ("a", "another")):
        with pytest.raises(RunError, match="was not charged to the ledger"):
            certify_dataset(model, samples[:1], tmp_path / out, SETTINGS, ledger=tmp_path / used)
    assert len(list((tmp_path / "ledger").glob("*.json"))) == 1


def test_what_can_never_certify_is_not_charged(
    model: SmoothedClassifier, samples: list[Sample], tmp_path: Path
) -> None:
    few = Settings(n=8, alpha=0.01)
    with pytest.raises(InputError, match="can never certify"):
        certify_dataset(model, samples[:1], tmp_path / "a", few, ledger=tmp_path / "ledger")
    assert not (tmp_path / "ledger").exists()


def test_attempts_of_a_family_share_its_alpha(model: SmoothedClassifier, samples: list[Sample], tmp_path: Path) -> None:
    settings = Settings(n=100, alpha=0.01, family_wise=True)
    run = certify_dataset(model, samples[:4], tmp_path / "a", settings, ledger=tmp_path / "ledger")
    assert (run.config["family_alpha"], run.config["attempts_alpha"]) == (0.01, 0.0025)
    assert run.plan.alpha == Attempt(1, 0.0025).alpha
    assert verify_run(read_run(tmp_path / "a")) == []
