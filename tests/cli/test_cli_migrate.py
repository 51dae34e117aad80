"""`robustify migrate` on the shipped classifier."""

from pathlib import Path

import pytest

from robustify import Settings, certify_dataset, robustify
from robustify.certificates.family import CERTIFICATES
from robustify.certificates.migrated import Migrated
from robustify.cli.migrate import migrate
from robustify.data import open_samples
from robustify.errors import InputError, RunError
from robustify.model_options import ModelOptions
from robustify.runs.folder import read_run
from robustify.verify.claims import verify_run
from robustify.zoo import HELD_OUT

if Migrated.name not in CERTIFICATES.names():
    CERTIFICATES.register(Migrated.name, Migrated)


@pytest.mark.slow
def test_a_run_is_migrated_to_another_precision_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = robustify("zoo:timm", sigma=0.25)
    samples = open_samples(HELD_OUT, model.labels)[:2]
    certify_dataset(model, samples, tmp_path / "old", Settings(n=100, n0=20, seed=1))
    options = ModelOptions(device="cpu", precision="bfloat16")
    migrate(tmp_path / "old", "zoo:timm", HELD_OUT, options, None, 40, tmp_path / "new")
    run = read_run(tmp_path / "new")
    assert verify_run(run) == []
    assert (len(run.rows), run.config["plan"]["shared"]) == (2, 40)
    assert (tmp_path / "new" / "report.html").is_file()
    told = capsys.readouterr().out
    assert "before the change" in told
    with pytest.raises(InputError, match="expected a changed model"):
        migrate(tmp_path / "old", "zoo:timm", HELD_OUT, ModelOptions(device="cpu"), None, 40, tmp_path / "same")
    certify_dataset(model, samples, tmp_path / "adaptive", Settings(n_max=100, n0=20, seed=1))
    with pytest.raises(RunError, match="Expected a classical run"):
        migrate(tmp_path / "adaptive", "zoo:timm", HELD_OUT, options, None, None, tmp_path / "newer")
