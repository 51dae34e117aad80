"""What is told of a run from its small files: while it lasts, after it, and without torch."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from robustify.data import Examples
from robustify.errors import RunError
from robustify.finetune import load_tuned, tune, tuned_for
from robustify.finetune.objectives import Stability
from robustify.finetune.train.folder import is_training_run
from robustify.finetune.train.progress import progress
from tests.finetune.train.toys import RECIPE, interrupted
from tests.toys import MakeModel, Stripes


@pytest.mark.usefixtures("checkpoint_each_step")
def test_progress_is_that_of_the_last_checkpoint(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    model = make_model()
    examples, other = Examples(model, *stripes), Examples(model, stripes[0][:5], stripes[1][:5])
    interrupted(model, examples, RECIPE, tmp_path / "run", 9, validation=other)
    assert is_training_run(tmp_path / "run")
    lines = progress(tmp_path / "run").splitlines()
    assert lines[0].endswith("with Gaussian at sigma = 0.25: full fine-tuning")
    assert lines[1] == "6 of 12 steps, not done: the same command continues"
    assert lines[4].startswith("validation, after epoch 1: noisy accuracy ")
    result = tune(model, examples, RECIPE, out=tmp_path / "run", validation=other, quiet=True)
    lines = progress(tmp_path / "run").splitlines()
    assert lines[1] == "12 of 12 steps, done"
    assert lines[2] == f"loss: {result.history[-1]['loss']:.4g}"
    assert lines[3] == f"noisy accuracy: {result.history[-1]['noisy_accuracy']:.4g}"
    last = result.validation[-1]
    noisy, all_draws = last["noisy_accuracy"], last["all_draws_accuracy"]
    assert lines[4] == f"validation, after epoch 2: noisy accuracy {noisy:.1%}, all-draws accuracy {all_draws:.1%}"
    worst = [
        f"copies not classified as their label, last epoch: {s:.1%} of {n}" for n, s in result.hallucination.items()
    ]
    assert lines[5:] == worst


def test_progress_before_the_first_checkpoint_and_without_labels(
    make_model: MakeModel, stripes: Stripes, tmp_path: Path
) -> None:
    model = make_model()
    unlabelled, recipe = Examples(model, stripes[0]), replace(RECIPE, objective=Stability(), epochs=1)
    tune(model, unlabelled, recipe, out=tmp_path / "run", quiet=True)
    assert [line.split(":")[0] for line in progress(tmp_path / "run").splitlines()[1:]] == [
        "6 of 6 steps, done",
        "loss",
    ]
    (tmp_path / "run" / "progress.json").unlink()
    (tmp_path / "run" / "weights.safetensors").unlink()
    assert progress(tmp_path / "run").splitlines()[1:] == ["0 of 6 steps, not done: the same command continues"]
    (tmp_path / "run" / "progress.json").write_text("{")
    with pytest.raises(RunError, match=r"cannot read .*progress\.json"):
        progress(tmp_path / "run")


def test_folders_of_version_0_1_are_refused(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    model = make_model()
    examples = Examples(model, *stripes)
    tune(model, examples, RECIPE, out=tmp_path / "run", quiet=True)
    config = json.loads((tmp_path / "run" / "tune.json").read_text())
    assert config.pop("format") == 2
    (tmp_path / "run" / "tune.json").write_text(json.dumps(config))
    for read in (
        lambda: tune(model, examples, RECIPE, out=tmp_path / "run", quiet=True),
        lambda: load_tuned(tmp_path / "run", model.classifier),
        lambda: tuned_for(tmp_path / "run", model.denoiser, model.sigma),
        lambda: progress(tmp_path / "run"),
    ):
        with pytest.raises(RunError, match=r"of format 1, of another version of robustify; this one reads format 2"):
            read()


def test_progress_is_read_without_torch(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    model = make_model()
    tune(model, Examples(model, *stripes), RECIPE, out=tmp_path / "run", quiet=True)
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from robustify.finetune.train.folder import is_training_run\n"
        "from robustify.finetune.train.progress import progress\n"
        "assert is_training_run(Path('run'))\nprint(progress(Path('run')))\n"
        "assert not {'torch', 'numpy', 'pyarrow', 'accelerate'} & sys.modules.keys()\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert found.returncode == 0, found.stderr
    assert "12 of 12 steps, done" in found.stdout
