from dataclasses import replace
from pathlib import Path

import pytest
import torch

from robustify import Settings, SmoothedClassifier
from robustify.data import Sample
from robustify.errors import InputError, RunError
from robustify.finetune.objectives import CATRS
from robustify.runs.certify import certify_dataset
from robustify.runs.rows import Row, row_bytes
from robustify.runs.soft_labels import soft_labels


def test_shares_of_votes_come_in_the_order_of_the_images(
    model: SmoothedClassifier, samples: list[Sample], out: Path
) -> None:
    rows = {row.sample: row for row in certify_dataset(model, samples, out, Settings(n=100)).rows}
    order = [samples[i] for i in (7, 2, 11)]
    found = soft_labels(out, model, order)
    assert found.shape == (3, 3)
    for share, sample in zip(found, order, strict=True):
        votes = torch.tensor(rows[sample.id].votes)
        assert torch.equal(share, votes / votes.sum().double())
    assert CATRS(targets=found.float()).targets is not None


def test_draws_that_failed_are_no_share(model: SmoothedClassifier, samples: list[Sample], out: Path) -> None:
    row = certify_dataset(model, samples[:1], out, Settings(n=100)).rows[0]
    (out / "rows.parquet").write_bytes(row_bytes([_voted(row, (30, 10, 0))]))
    assert soft_labels(out, model, samples[:1]).tolist() == [[0.75, 0.25, 0.0]]
    (out / "rows.parquet").write_bytes(row_bytes([_voted(row, (0, 0, 0))]))
    with pytest.raises(InputError, match=r"all draws of '00.png' failed"):
        soft_labels(out, model, samples[:1])


def test_a_run_of_something_else_is_refused(model: SmoothedClassifier, samples: list[Sample], out: Path) -> None:
    with pytest.raises(RunError, match="holds no certification run"):
        soft_labels(out, model, samples)
    certify_dataset(model, samples[:5], out, Settings(n=100))
    with pytest.raises(InputError, match=r"lacks 7 of 12 images, '05.png' being the first"):
        soft_labels(out, model, samples)
    swapped = replace(samples[1], image=samples[2].image)
    with pytest.raises(InputError, match=r"'01.png' is another image"):
        soft_labels(out, model, [samples[0], swapped])
    model.classifier.labels = ("a", "b", "c")
    with pytest.raises(InputError, match="other classes"):
        soft_labels(out, model, samples[:5])


def _voted(row: Row, votes: tuple[int, ...]) -> Row:
    """The row with other votes of the draws that tested the label."""
    return replace(row, tallies=(*row.tallies[:-1], row.tallies[-1]._replace(votes=votes)))
