"""What a run would cost, and that nothing is spent on knowing it."""

import ast
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import robustify
from robustify import Settings, SmoothedClassifier, certify_dataset
from robustify.data import Sample
from robustify.errors import InputError, RunError
from robustify.runs.estimate import estimate
from robustify.runs.memory import PeakMemory
from robustify.runs.store import RowStore

SETTINGS = Settings(n=40, n0=10, batch=20, alpha=0.06)


def test_draws_and_alpha_are_those_of_the_run(
    model: SmoothedClassifier, samples: list[Sample], out: Path, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    for family_wise in (False, True):
        settings = replace(SETTINGS, family_wise=family_wise)
        for attempt in (1, 2):
            place = ledger / str(family_wise)
            told = estimate(model, samples, settings, ledger=place)
            run = certify_dataset(model, samples, out / f"{family_wise}{attempt}", settings, ledger=place)
            assert (told.attempt, told.alpha) == (run.config["attempt"], run.plan.alpha)
            assert told.draws == sum(row.draws for row in run.rows) == 600
    plain = estimate(model, samples, replace(SETTINGS, family_wise=True))
    assert (plain.attempt, plain.alpha) == (None, 0.06 / 12)


def test_nothing_is_charged(model: SmoothedClassifier, samples: list[Sample], tmp_path: Path) -> None:
    assert estimate(model, samples, SETTINGS, ledger=tmp_path / "ledger").attempt == 1
    assert not list(tmp_path.iterdir())


def test_a_run_that_could_not_start_is_refused(
    model: SmoothedClassifier, samples: list[Sample], out: Path, tmp_path: Path
) -> None:
    few = replace(SETTINGS, n=6)
    certify_dataset(model, samples, out, few, ledger=tmp_path / "ledger")
    with pytest.raises(InputError, match=r"n = 6 draws can never certify at alpha = 0\.00911"):
        estimate(model, samples, few, ledger=tmp_path / "ledger")
    with pytest.raises(RunError, match=r"Ask with alpha = 0\.06 an image"):
        estimate(model, samples, replace(SETTINGS, alpha=0.05), ledger=tmp_path / "ledger")
    with pytest.raises(InputError, match="at least one image"):
        estimate(model, [], SETTINGS)


def test_images_that_cannot_be_used_are_named_and_left_out(
    model: SmoothedClassifier, samples: list[Sample], tmp_path: Path
) -> None:
    broken = Sample("broken.png", np.zeros((2, 2), dtype=np.uint8), 0)
    told = estimate(model, [broken, *samples], SETTINGS, ledger=tmp_path / "ledger")
    assert (told.images, told.attempt, told.draws) == (13, 1, 600)
    assert str(told).startswith("images: 13, of which 1 cannot be used\n")
    assert "\nleft out broken.png: expected an image of shape" in str(told)
    with pytest.raises(
        InputError, match=r"none of the 1 images could be used; broken\.png: expected an image of shape"
    ):
        estimate(model, [broken], SETTINGS)
    many = estimate(model, [*samples, *(replace(broken, id=str(i)) for i in range(11))], SETTINGS)
    assert str(many).count("\nleft out ") == 10
    assert str(many).endswith("\n…and so on")


@pytest.mark.parametrize(
    "settings",
    [
        Settings(n=1_000),
        Settings(radius=[0.05, 0.1], n_max=500),
        Settings(radius=0.1, n_max=500, n0=0),
        Settings(radius=0.1, n_max=500, known_label=True),
    ],
)
def test_the_size_on_disk_is_about_that_of_the_rows(
    model: SmoothedClassifier, samples: list[Sample], out: Path, settings: Settings
) -> None:
    told = estimate(model, samples, settings).output / len(samples)
    store = RowStore(out)
    for row in certify_dataset(model, samples, out, settings).rows:
        store.add(row)
    sizes = [file.stat().st_size for file in (out / "rows").iterdir()]
    assert 0.7 < told / (sum(sizes) / len(sizes)) < 1.4


def test_the_peak_of_memory_counts_what_is_gone_again() -> None:
    with PeakMemory(torch.device("cpu")) as used:
        before = used.bytes
        block = torch.ones(2**27)  # half a GiB
        time.sleep(0.1)
        del block
    assert 0.4 * 2**30 < used.bytes - before < 0.9 * 2**30
    assert before > 2**25  # Python and torch


def test_the_package_imports_nothing_that_windows_lacks() -> None:
    lacking = {"resource", "fcntl", "pwd", "grp", "termios", "tty", "pty", "posix", "syslog"}
    for file in Path(robustify.__file__).parent.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        imported = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
        imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not imported & lacking, file
        # `rename` replaces a file on POSIX and fails on Windows; `replace` is the same everywhere
        moves = [n.func.attr for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
        assert "rename" not in moves, file
        assert "read_text()" not in file.read_text(encoding="utf-8"), f"{file}: name the encoding"
