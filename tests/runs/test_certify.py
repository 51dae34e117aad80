import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from robustify import Settings, SmoothedClassifier, bars
from robustify.certificates import Brightness
from robustify.certificates.family import Bound, Look, Tally
from robustify.certificates.queries import ESTIMATION, SELECTION
from robustify.certificates.radii import gaussian_radius, runner_up_bounds
from robustify.data import Sample
from robustify.denoisers import Identity
from robustify.errors import InputError, RunError
from robustify.runs.certify import certify_dataset
from robustify.runs.folder import read_run
from robustify.runs.metrics import abstention_rate, average_certified_radius, certified_accuracy
from robustify.runs.rows import Row
from robustify.runs.status import status
from robustify.verify.replay import replay
from tests.toys import Shrink

N = 100


def without_time(rows: list[Row]) -> list[Row]:
    return [replace(row, seconds=0.0, digest=None) for row in rows]


@pytest.mark.parametrize(
    "settings", [Settings(n=N, seed=3), Settings(radius=[0.1, 0.2], n_max=500, seed=3), Settings(n_max=500, seed=3)]
)
def test_rows_hold_what_certificates_hold(
    model: SmoothedClassifier, samples: list[Sample], out: Path, settings: Settings
) -> None:
    run = certify_dataset(model, samples, out, settings)
    images = [(s.id, model.prepare(s.image)) for s in samples]
    certificates = {c.sample: c for c in model.certificates(images, model.provenance(settings))}
    assert run.plan == model.plan(settings)
    for sample, row in zip(samples, run.rows, strict=True):
        c = certificates[sample.id]
        assert (row.sample, row.truth, row.label, row.radius) == (sample.id, sample.label, c.label, c.radius)
        assert (row.bounds, row.tallies, row.batch) == (c.bounds, c.tallies, c.provenance.batch)
        assert (row.votes, row.selection, row.looks, row.draws) == (c.votes, c.selection, c.looks, c.draws)
        assert run.plan.certify_votes(row.tallies) == (c.label, c.radius, c.bounds, c.uncertified)


def test_rows_survive_the_disk(model: SmoothedClassifier, samples: list[Sample], out: Path) -> None:
    unlabelled = [replace(samples[0], label=None), *samples[1:]]
    run = certify_dataset(model, unlabelled, out, Settings(radius=[0.1, 0.2], n_max=500))
    assert (run.rows[0].truth, run.rows[0].tallies[0].label) == (None, None)
    assert any(row.label is None for row in run.rows)
    again = read_run(out)
    assert (again.rows, again.config, again.finished) == (run.rows, run.config, True)
    assert all(type(look) is Look for row in again.rows for tally in row.tallies for look in tally.looks)


def test_what_was_run_is_kept_as_data(model: SmoothedClassifier, samples: list[Sample], out: Path) -> None:
    run = certify_dataset(model, samples, out, Settings(n=N, seed=2**128 - 1))
    stored = json.loads((out / "run.json").read_text())
    assert stored["format"] == 3
    assert (stored["family"], stored["plan"]) == ("gaussian", model.plan(Settings(n=N)).stored())
    assert stored["contract"] == {"channels": 1, "height": 4, "width": 4}
    numerics = {"weights": "float32", "precision": "float32", "compiled": False, "products": "ieee"}
    assert stored["numerics"] == numerics
    assert (stored["denoiser"]["name"], stored["denoiser"]["description"]) == ("none", "plain smoothing")
    assert (run.contract, run.numerics, run.labels) == (model.contract, model.numerics, model.labels)
    assert (run.seed, run.fresh, run.soundness, run.samples) == (2**128 - 1, False, "grid", 12)


def test_parquet_rows_recompute_to_the_radius(model: SmoothedClassifier, samples: list[Sample], out: Path) -> None:
    certify_dataset(model, samples, out, Settings(n=N, soundness="float"))
    records = pq.read_table(out / "rows.parquet").to_pylist()
    assert len(records) == len(samples)
    assert not (out / "rows").exists()
    for r in records:
        selection, tested = r["tallies"]
        guess = selection["votes"].index(max(selection["votes"]))
        bounds = runner_up_bounds(tested["votes"], guess, n=tested["draws"], alpha=0.001)
        assert r["radius"] == gaussian_radius(*bounds, sigma=0.25)


def test_a_fresh_run_continues_with_its_own_seed(model: SmoothedClassifier, samples: list[Sample], out: Path) -> None:
    first = certify_dataset(model, samples, out, Settings(n=N))
    (out / "rows.parquet").unlink()
    again = certify_dataset(model, samples, out, Settings(n=N))
    assert without_time(first.rows) == without_time(again.rows)
    assert again.config["fresh"] is True


def test_a_run_says_what_status_says(model: SmoothedClassifier, samples: list[Sample], out: Path) -> None:
    run = certify_dataset(model, samples, str(out), Settings(n=N))  # names of folders do as well as paths
    assert str(run) == str(status(read_run(out)))
    assert f"{len(samples)} of {len(samples)} images" in str(run)
    assert len(repr(run)) < 200  # no rows


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n": N + 1}, "n: there 100, now 101"),
        ({"alpha": 0.01}, "alpha: there 0.001, now 0.01"),
        ({"seed": 4}, 'seed: there "3", now "4"'),
        ({"n": None, "radius": 0.1}, 'rule: there "fixed", now "decision"'),
        ({"soundness": "float"}, 'soundness: there "grid", now "float"'),
    ],
)
def test_another_configuration_is_refused_with_the_difference(
    model: SmoothedClassifier, samples: list[Sample], out: Path, changed: dict[str, Any], message: str
) -> None:
    certify_dataset(model, samples, out, Settings(n=N, seed=3))
    before = (out / "rows.parquet").read_bytes()
    with pytest.raises(RunError, match=message):
        certify_dataset(model, samples, out, Settings(**{"n": N, "seed": 3, **changed}))
    assert (out / "rows.parquet").read_bytes() == before


def test_other_samples_are_another_run(model: SmoothedClassifier, samples: list[Sample], out: Path) -> None:
    certify_dataset(model, samples, out, Settings(n=N))
    with pytest.raises(RunError, match="samples: there 12, now 11"):
        certify_dataset(model, samples[1:], out, Settings(n=N))


def test_a_difference_leaves_out_what_follows_from_it(
    model: SmoothedClassifier, samples: list[Sample], out: Path
) -> None:
    certify_dataset(model, samples, out, Settings(n=N, seed=3))
    louder = SmoothedClassifier(model.classifier, model.denoiser, sigma=0.5)
    with pytest.raises(RunError) as caught:
        certify_dataset(louder, samples, out, Settings(n=N, seed=3))
    assert str(caught.value).splitlines()[1:] == ["  plan.sigma: there 0.25, now 0.5", "  Choose another folder."]
    shrinking = SmoothedClassifier(model.classifier, Shrink(), sigma=0.25)
    with pytest.raises(RunError) as caught:
        certify_dataset(shrinking, samples, out, Settings(n=N, seed=3))
    assert str(caught.value).splitlines()[1:-1] == ['  denoiser.name: there "none", now "shrink"']


def test_an_attribute_that_counts_calls_is_named(model: SmoothedClassifier, samples: list[Sample], out: Path) -> None:
    shrinking = SmoothedClassifier(model.classifier, Shrink(), sigma=0.25)
    run = certify_dataset(shrinking, samples, out, Settings(n=N, seed=3))
    calls = shrinking.denoiser.calls
    told = r"  the denoiser has other weights.*\n  denoiser.calls changes whenever the model computes: {} -> {}\n"
    with pytest.raises(RunError, match=told.format(calls, calls + 1)):
        certify_dataset(shrinking, samples, out, Settings(n=N, seed=3))
    with pytest.raises(RunError, match=told.format(calls + 1, calls + 2)):
        replay(shrinking, samples, run)
    shrinking.denoiser.calls = 0
    assert certify_dataset(shrinking, samples, out, Settings(n=N, seed=3)).rows == run.rows


def test_a_folder_with_other_files_is_refused(model: SmoothedClassifier, samples: list[Sample], out: Path) -> None:
    out.mkdir()
    (out / "thesis.tex").write_text("precious")
    with pytest.raises(RunError, match="no certification run"):
        certify_dataset(model, samples, out, Settings(n=N))
    assert [p.name for p in out.iterdir()] == ["thesis.tex"]


def test_unusable_images_are_named_and_the_rest_certified(
    model: SmoothedClassifier, samples: list[Sample], out: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n")
    bad = [Sample("broken.png", broken, 0), Sample("nan", np.full((4, 4), np.nan), 1)]
    run = certify_dataset(model, [*bad, *samples], out, Settings(n=N))
    assert len(run.rows) == len(samples)
    assert "cannot read an image" in run.unreadable["broken.png"]
    assert "finite" in run.unreadable["nan"]


def test_a_run_in_which_no_image_was_usable_leaves_its_folder_free(
    model: SmoothedClassifier, samples: list[Sample], out: Path
) -> None:
    bad = [Sample(name, np.full((4, 4), np.nan), 0) for name in ("one", "two")]
    with pytest.raises(InputError, match="none of the 2 images could be used; one: expected finite pixels"):
        certify_dataset(model, bad, out, Settings(n=N))
    assert certify_dataset(model, samples, out, Settings(radius=0.1)).finished


def test_a_finished_run_asks_the_model_nothing(model: SmoothedClassifier, samples: list[Sample], out: Path) -> None:
    """Also where an image that cannot be used is tried again."""
    samples = [*samples, Sample("broken.png", np.zeros((2, 2), dtype=np.uint8), 0)]
    rows = certify_dataset(model, samples, out, Settings(n=N)).rows
    model.forget_checks()
    model.pipeline.register_forward_pre_hook(lambda *_: pytest.fail("the model was asked"))
    assert certify_dataset(model, samples, out, Settings(n=N)).rows == rows


def test_unusable_images_are_kept_and_tried_again(model: SmoothedClassifier, samples: list[Sample], out: Path) -> None:
    bad = replace(samples[1], image=np.full((4, 4), np.nan))
    told = {bad.id: "expected finite pixels; got NaN or infinity"}
    first = certify_dataset(model, [samples[0], bad, *samples[2:]], out, Settings(n=N, seed=3))
    assert first.unreadable == read_run(out).unreadable == told
    mended = certify_dataset(model, samples, out, Settings(n=N, seed=3))
    assert (len(mended.rows), mended.unreadable, read_run(out).unreadable) == (12, {}, {})


def test_what_is_no_sample_is_refused(tmp_path: Path) -> None:
    """In a process whose types nobody checks, as users have it."""
    code = (
        "import json, torch; from robustify import *; from robustify.data import Sample\n"
        "from robustify.runs.estimate import estimate\n"
        "model = robustify(torch.nn.Flatten().eval(), preprocessing=Preprocessing((0.5,), (0.5,), (1, 2)))\n"
        "image = torch.zeros(1, 1, 2)\n"
        "given = ['photos', torch.zeros(3, 1, 1, 2), torch.zeros(3, 1, 1, 2).numpy(), [image], []]\n"
        "calls = [lambda samples=samples: certify_dataset(model, samples, 'run') for samples in given]\n"
        "calls += [lambda samples=samples: estimate(model, samples, Settings()) for samples in given]\n"
        "calls += [lambda: Sample(7, image, None)]\n"
        "for call in calls:\n"
        "    try: call()\n"
        "    except Exception as error: print(json.dumps([type(error).__name__, str(error)]))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    assert {kind for kind, _ in found} == {"InputError"}
    got = [text.splitlines()[0].rpartition("; got ")[2] for _, text in found]
    kinds = ["the path 'photos'.", "Tensor.", "ndarray.", "a list with a Tensor at 0.", "none"]
    assert got == [*kinds, *kinds, "7"]
    assert not (tmp_path / "run").exists()


def test_two_samples_of_one_name_are_refused(model: SmoothedClassifier, samples: list[Sample], out: Path) -> None:
    """Only one row of a name is kept."""
    with pytest.raises(InputError, match=r"13 samples have 12 names; '03\.png' is that of 3 and 12"):
        certify_dataset(model, [*samples, replace(samples[5], id="03.png")], out, Settings(n=N))
    assert not out.exists()


def test_a_finished_run_shows_the_draws_that_it_took(
    model: SmoothedClassifier,
    samples: list[Sample],
    out: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bars, "hidden", lambda: False)
    run = certify_dataset(model, samples, out, Settings(radius=0.1, n_max=500, seed=3))
    drawn = sum(row.draws for row in run.rows)
    assert drawn < 600 * len(samples)
    shown = f"{drawn / 1000:.2f}k/{drawn / 1000:.2f}k "
    assert shown in capfd.readouterr().err
    certify_dataset(model, samples, out, Settings(radius=0.1, n_max=500, seed=3))
    assert shown in capfd.readouterr().err


def test_nothing_to_certify_is_refused(model: SmoothedClassifier, out: Path) -> None:
    with pytest.raises(InputError, match="at least one image"):
        certify_dataset(model, [], out)
    assert not out.exists()


def test_half_written_files_do_not_count(model: SmoothedClassifier, samples: list[Sample], out: Path) -> None:
    certify_dataset(model, samples, out, Settings(n=N))
    (out / "rows").mkdir()
    (out / "rows" / ".half.parquet.123").write_bytes(b"PAR1 half a row")
    assert len(certify_dataset(model, samples, out, Settings(n=N)).rows) == len(samples)


def row(*, truth: int | None, label: int | None, radius: float) -> Row:
    tallies = (Tally(0, SELECTION, 1, (1,)), Tally(0, ESTIMATION, 1, (1,), 0, (Look(1, 1, 0),)))
    claim = {"truth": truth, "label": label, "radius": radius, "bounds": (Bound(0.9, 0.1),)}
    return Row(sample="a", **claim, tallies=tallies, batch=64, pixels="p", seconds=1.0)


def test_certified_accuracy_counts_right_labels_beyond_the_radius() -> None:
    rows = [
        row(truth=0, label=0, radius=1.0),
        row(truth=0, label=0, radius=0.5),
        row(truth=0, label=1, radius=2.0),
        row(truth=0, label=None, radius=0.0),
    ]
    assert [certified_accuracy(rows, r) for r in (0.0, 0.49, 0.5, 0.99, 1.0)] == [0.5, 0.5, 0.25, 0.25, 0.0]
    assert average_certified_radius(rows) == pytest.approx(1.5 / 4)
    assert abstention_rate(rows) == 0.25


def test_noise_that_cannot_be_drawn_claims_no_folder(
    model: SmoothedClassifier, samples: list[Sample], out: Path
) -> None:
    wide = SmoothedClassifier(model.classifier, Identity(), family=Brightness(20.0))
    with pytest.raises(InputError, match="expected 0 < sigma < 14"):
        certify_dataset(wide, samples, out, Settings(n=100))
    assert not out.exists()
