"""The history of a run, and the warnings drawn from it."""

import torch

from robustify.finetune.train.collector import Collector
from robustify.finetune.train.watch import LEAST_IMAGES, PATIENCE, worse_than_before


def test_a_collapsing_run_is_noticed_once() -> None:
    collector = Collector(("a", "b"), every=10)
    warnings = [
        collector.add_step({"loss": 1.0, "noisy_accuracy": share}, step=i, epoch=0.0, rate=0.1, images=4)
        for i, share in enumerate([0.8] * PATIENCE + [0.2] * (PATIENCE - 1))
    ]
    said = [w for w in warnings if w]
    assert len(said) == 1
    assert warnings.index(said[0]) == PATIENCE + PATIENCE * 2 // 3  # once the mean is below .4
    assert "the run may be collapsing" in said[0]
    assert "80% at best before" in said[0]


def test_a_class_that_is_given_up_is_named() -> None:
    collector = Collector(("cat", "dog", "fox"), every=1)

    def epoch(number: int, cat: float, dog: float, fox: float) -> str | None:
        collector.add_classes(torch.tensor([20 * cat, 19 * dog, 20 * fox]), torch.tensor([20.0, 19.0, 20.0]))
        return collector.end_epoch(number)

    assert epoch(1, 0.8, 0.9, 0.5) is None
    assert epoch(2, 0.4, 0.1, 0.1) is None  # half and no less; too few dogs; foxes were never better than chance
    assert "giving up 1 of its classes" in (said := epoch(3, 0.39, 0.1, 0.1) or "")
    assert "fell for 'cat' 80% to 39%" in said
    assert epoch(4, 0.1, 0.1, 0.1) is None  # said once


def test_history_means_weigh_by_images() -> None:
    rows: list[dict[str, float]] = []
    collector = Collector(("a",), every=2, log=rows.append)
    collector.add_step({"loss": 1.0}, step=0, epoch=0.0, rate=0.1, images=3)
    collector.add_step({"loss": 3.0}, step=1, epoch=0.5, rate=0.2, images=1)
    assert (
        rows
        == collector.history.training
        == [{"step": 1, "epoch": 0.5, "learning_rate": 0.2, "images": 4, "loss": 1.5}]
    )


def test_worse_means_worse_by_every_measure() -> None:
    collector = Collector(("a",), every=1)
    collector.add_validation({"noisy_accuracy": 0.8, "all_draws_accuracy": 0.5}, 0)
    collector.add_validation({"noisy_accuracy": 0.7, "all_draws_accuracy": 0.5}, 1)
    assert worse_than_before(collector.history.validation) is None
    collector.add_validation({"noisy_accuracy": 0.8, "all_draws_accuracy": 0.4}, 2)
    assert worse_than_before(collector.history.validation) is None
    collector.add_validation({"noisy_accuracy": 0.79, "all_draws_accuracy": 0.4}, 3)
    assert "noisy accuracy on validation images was 80.0% before it, 79.0% after" in (
        worse_than_before(collector.history.validation) or ""
    )


def test_a_run_that_collapses_at_its_first_step_is_noticed() -> None:
    def said(images: int) -> list[str]:
        collector = Collector(("a", "b"), every=1)
        metrics = [{"loss": 1.0, "noisy_accuracy": share} for share in [0.9] + [0.1] * PATIENCE]
        found = [collector.add_step(m, step=i, epoch=0.0, rate=0.1, images=images) for i, m in enumerate(metrics)]
        return [warning for warning in found if warning]

    assert len(said(LEAST_IMAGES)) == 1
    assert said(LEAST_IMAGES - 1) == []  # too few to tell
