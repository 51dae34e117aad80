"""Several processes, by a real launch."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from robustify.data import Examples
from robustify.finetune import load_tuned, tune
from tests.finetune.train.toys import RECIPE, weights
from tests.toys import MakeModel, Stripes


def test_two_processes_do_what_one_does(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    """A real `torchrun`; without batch statistics and dropout only the order of summation differs.

    On the CPU `accelerate launch` starts one process, however many it is asked for.
    """
    torch.save({"images": stripes[0], "labels": stripes[1]}, tmp_path / "data.pt")
    script = tmp_path / "train.py"
    script.write_text(
        "import sys, torch\n"
        "from accelerate import PartialState\n"
        "from dataclasses import replace\n"
        "from pathlib import Path\n"
        "from robustify.data import Examples\n"
        "from robustify.finetune import tune\n"
        "from tests.toys import striped_model as _model\n"
        "from tests.finetune.train.toys import RECIPE\n"
        "torch.set_num_threads(1)\n"
        "assert PartialState(cpu=True).num_processes == 2\n"
        "data = torch.load(sys.argv[1] + '/data.pt')\n"
        "model = _model()\n"
        "out = Path(sys.argv[1]) / 'two'\n"
        "examples = Examples(model, data['images'], data['labels'])\n"
        "other = Examples(model, data['images'][:7], data['labels'][:7])\n"
        "recipe = replace(RECIPE, optimizer='sgd', clip=None, cache=4)  # steps as long as the gradient\n"
        "tune(model, examples, recipe, out=out, validation=other, quiet=True)\n"
    )
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    root = Path(__file__).parents[3]
    subprocess.run(
        [sys.executable, *launch, str(script), str(tmp_path)],
        check=True,
        capture_output=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        timeout=120,
    )
    model = make_model()
    examples, other = Examples(model, *stripes), Examples(model, stripes[0][:7], stripes[1][:7])
    recipe = replace(RECIPE, optimizer="sgd", clip=None, cache=4)
    one = tune(model, examples, recipe, out=tmp_path / "one", validation=other, quiet=True)
    two = load_tuned(tmp_path / "two", model.classifier)
    for a, b in zip(weights(one.model).values(), two.network.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    rows = pq.read_table(tmp_path / "two" / "history.parquet").to_pylist()
    assert [row["images"] for row in rows] == [row["images"] for row in one.history]
    assert [row["noisy_accuracy"] for row in rows] == pytest.approx([row["noisy_accuracy"] for row in one.history])
    assert pq.read_table(tmp_path / "two" / "validation.parquet").to_pylist() == one.validation
    assert json.loads((tmp_path / "two" / "tune.json").read_text())["images"] == 44
