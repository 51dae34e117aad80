"""Interrupted in any way, a run loses no row and continues to the same ones."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from robustify import Settings, SmoothedClassifier
from robustify.data import Sample
from robustify.errors import RunError
from robustify.runs.begun import BegunStore
from robustify.runs.certify import certify_dataset
from robustify.runs.digests import row_digest
from robustify.runs.folder import read_run
from robustify.runs.rows import Row, row_bytes
from robustify.runs.store import RowStore
from robustify.smoothing import engine
from robustify.smoothing.rounds import Begun
from robustify.verify.integrity import changes

N = 100


def without_time(rows: list[Row]) -> list[Row]:
    return [replace(row, seconds=0.0, digest=None) for row in rows]


def test_an_interrupted_run_continues_to_the_same_rows(
    model: SmoothedClassifier, samples: list[Sample], out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = certify_dataset(model, samples, tmp_path / "whole", Settings(n=N, seed=3))
    add = RowStore.add

    def interrupted(store: RowStore, row: Row) -> None:
        if len(list((out / "rows").glob("*.parquet"))) == 4:
            raise KeyboardInterrupt
        add(store, row)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RowStore, "add", interrupted)
        with pytest.raises(
            KeyboardInterrupt, match=r"^4 of 12 images are kept, (\d+) draws of others are lost$"
        ) as told:
            certify_dataset(model, samples, out, Settings(n=N, seed=3))
    lost = int(str(told.value).split()[6])
    assert N + 100 <= lost < 4 * (N + 100)  # all of the fifth, which was complete, and a batch of 64 at most of others
    assert "continues" not in capsys.readouterr().err
    asked: list[object] = []
    prepare = SmoothedClassifier.prepare

    def watched(self: SmoothedClassifier, image: Any, soundness: str = "grid") -> object:  # noqa: ANN401
        asked.append(image)
        return prepare(self, image, soundness)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SmoothedClassifier, "prepare", watched)
        continued = certify_dataset(model, samples, out, Settings(n=N, seed=3, batch=37))
    assert "continues: 4 of 12 images are there\n" in capsys.readouterr().err
    assert len(asked) == len(samples) - 4
    same = [replace(row, batch=64) for row in without_time(continued.rows)]
    assert same == without_time(whole.rows)


def test_an_image_that_two_processes_certified_alike_does_not_spoil_a_run(
    model: SmoothedClassifier, samples: list[Sample], out: Path
) -> None:
    """The second of two processes on one folder leaves a row behind that differs in its time alone."""
    run = certify_dataset(model, samples, out, Settings(n=N, seed=3))
    late = replace(run.rows[3], seconds=99.0)
    RowStore(out).add(replace(late, digest=row_digest(late, str(run.digest))))
    assert RowStore(out).rows() == list(run.rows)
    RowStore(out).add(replace(late, radius=9.0))
    with pytest.raises(RunError, match="different rows"):
        RowStore(out).rows()


def test_rows_that_are_missing_beside_a_left_over_row_are_named(
    model: SmoothedClassifier, samples: list[Sample], out: Path
) -> None:
    run = certify_dataset(model, samples, out, Settings(n=N, seed=3))
    (out / "rows.parquet").write_bytes(row_bytes(run.rows[:3]))
    RowStore(out).add(run.rows[3])
    named = [problem for problem in changes(read_run(out)) if problem.field == "rows"]
    assert len(named) == 1


def interrupted_after(n: int, patch: pytest.MonkeyPatch) -> None:
    """Interrupts while draws are kept for the n-th time; they are kept after every batch."""
    times = 0
    write = BegunStore.write

    def counting(store: BegunStore, pixels: Mapping[str, str], begun: Mapping[str, Begun]) -> None:
        nonlocal times
        times += 1
        if times == n:
            raise KeyboardInterrupt
        write(store, pixels, begun)

    patch.setattr(engine, "KEEP_AFTER", 0.0)
    patch.setattr(BegunStore, "write", counting)


def test_draws_within_an_image_survive_an_interruption(
    model: SmoothedClassifier, samples: list[Sample], out: Path, tmp_path: Path
) -> None:
    settings = Settings(n=600, seed=3)
    whole = certify_dataset(model, samples[:2], tmp_path / "whole", settings)
    with pytest.MonkeyPatch.context() as patch:
        interrupted_after(8, patch)
        with pytest.raises(KeyboardInterrupt, match=r"^0 of 2 images are kept, 63 draws of others are lost$"):
            certify_dataset(model, samples[:2], out, settings)
    assert len(list((out / "begun").glob("*.json"))) == 1
    passes: list[object] = []
    handle = model.pipeline.register_forward_hook(lambda *_: passes.append(None))
    continued = certify_dataset(model, samples[:2], out, settings)
    handle.remove()
    assert len(passes) <= -(-(1_400 - 7 * 62) // 63) + 1
    assert without_time(continued.rows) == without_time(whole.rows)
    assert not (out / "begun").exists()


def test_draws_of_another_batch_or_picture_are_drawn_again(
    model: SmoothedClassifier, samples: list[Sample], out: Path, tmp_path: Path
) -> None:
    whole = certify_dataset(model, samples[:1], tmp_path / "whole", Settings(n=600, seed=3, batch=37))
    with pytest.MonkeyPatch.context() as patch:
        interrupted_after(4, patch)
        with pytest.raises(KeyboardInterrupt):
            certify_dataset(model, samples[:1], out, Settings(n=600, seed=3))
    continued = certify_dataset(model, samples[:1], out, Settings(n=600, seed=3, batch=37))
    assert without_time(continued.rows) == without_time(whole.rows)


@pytest.mark.parametrize(
    "change", [(" 60,", " 59,"), ('"batch": 64', '"batch": 65'), ('"', "'")], ids=["vote", "batch", "quotes"]
)
def test_kept_draws_that_were_changed_are_refused(
    change: tuple[str, str], model: SmoothedClassifier, samples: list[Sample], out: Path
) -> None:
    settings = Settings(n=600, n0=62, seed=3)
    with pytest.MonkeyPatch.context() as patch:
        interrupted_after(4, patch)
        with pytest.raises(KeyboardInterrupt):
            certify_dataset(model, samples[:1], out, settings)
    (file,) = (out / "begun").glob("*.json")
    before = file.read_text()
    changed = before.replace(*change)
    assert changed != before
    file.write_text(changed)
    with pytest.raises(RunError, match=r"cannot go on with the draws in .*\n  Delete it"):
        certify_dataset(model, samples[:1], out, settings)


SCRIPT = """
import random, resource, sys
import numpy as np, torch
from pathlib import Path
from torch import nn
from robustify import Preprocessing, Settings, robustify
from robustify.data import Sample
from robustify.errors import RunError
from robustify.errors import RunError
from robustify.runs.certify import certify_dataset
torch.manual_seed(0)
network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
model = robustify(network, preprocessing=Preprocessing((0.5,), (0.5,), (4, 4)), sigma=0.25)
images = np.random.default_rng(0).integers(0, 256, (40, 4, 4), dtype=np.uint8)
samples = [Sample(f"{i:02d}.png", image, i % 3) for i, image in enumerate(images)]
if sys.argv[2] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    long = random.Random(0).randbytes(40_000).hex()  # a row that no file of 20,000 bytes can hold
    samples = [Sample(s.id + long if i == 5 else s.id, s.image, s.label) for i, s in enumerate(samples)]
try:
    certify_dataset(model, samples, Path(sys.argv[1]), Settings(n=int(sys.argv[3]), seed=3))
except RunError as error:
    print(error)
    sys.exit(7)
"""


def script(out: Path, mode: str, n: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-c", SCRIPT, str(out), mode, str(n)]
    return subprocess.Popen(arguments, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def finish(process: subprocess.Popen[str]) -> int:
    process.communicate(timeout=120)
    return process.returncode


def test_a_full_disk_loses_no_finished_row(out: Path) -> None:
    process = script(out, "full", N)
    message, _ = process.communicate(timeout=120)
    assert process.returncode == 7
    assert "Rows written before are safe; see to that" in message
    assert len(list((out / "rows").glob("*.parquet"))) == 5


@pytest.mark.slow
def test_killed_at_any_moment_it_continues_to_the_same_rows(out: Path, tmp_path: Path) -> None:
    assert finish(script(tmp_path / "whole", "run", 2_000)) == 0
    process = script(out, "run", 2_000)
    deadline = time.monotonic() + 120
    while len(list(out.glob("rows/*.parquet"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    finish(process)
    before = len(list(out.glob("rows/*.parquet")))
    assert finish(script(out, "run", 2_000)) == 0
    whole, continued = (
        pq.read_table(p / "rows.parquet").drop_columns(["seconds", "digest"]) for p in (tmp_path / "whole", out)
    )
    assert 3 <= before < 40
    assert continued.equals(whole)
    assert json.loads((out / "run.json").read_text())["seed"] == "3"
