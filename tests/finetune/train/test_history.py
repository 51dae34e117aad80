"""The history of a run, and the warnings drawn from it."""

import torch

from robustify.finetune.train.history import LEAST_IMAGES, PATIENCE, History


def test_a_collapsing_run_is_noticed_once() -> None:
    history = History(("a", "b"), every=10)
    warnings = [
        history.add({"loss": 1.0, "hit": hit}, step=i, epoch=0.0, rate=0.1, images=4)
        for i, hit in enumerate([0.8] * PATIENCE + [0.2] * (PATIENCE - 1))
    ]
    said = [w for w in warnings if w]
    assert len(said) == 1
    assert warnings.index(said[0]) == PATIENCE + PATIENCE * 2 // 3  # once the mean is below .4
    assert "the run may be collapsing" in said[0]
    assert "80% at best before" in said[0]


def test_a_class_that_is_given_up_is_named() -> None:
    history = History(("cat", "dog", "fox"), every=1)

    def epoch(number: int, cat: float, dog: float, fox: float) -> str | None:
        history.add_hits(torch.tensor([20 * cat, 19 * dog, 20 * fox]), torch.tensor([20.0, 19.0, 20.0]))
        return history.end_epoch(number)

    assert epoch(1, 0.8, 0.9, 0.5) is None
    assert epoch(2, 0.4, 0.1, 0.1) is None  # half and no less; too few dogs; foxes were never better than chance
    assert "giving up 1 of its classes" in (said := epoch(3, 0.39, 0.1, 0.1) or "")
    assert "fell for 'cat' 80% to 39%" in said
    assert epoch(4, 0.1, 0.1, 0.1) is None  # said once


def test_history_means_weigh_by_images() -> None:
    rows: list[dict[str, float]] = []
    history = History(("a",), every=2, log=rows.append)
    history.add({"loss": 1.0}, step=0, epoch=0.0, rate=0.1, images=3)
    history.add({"loss": 3.0}, step=1, epoch=0.5, rate=0.2, images=1)
    assert rows == history.rows == [{"step": 1, "epoch": 0.5, "learning_rate": 0.2, "images": 4, "loss": 1.5}]


def test_worse_means_worse_by_every_measure() -> None:
    history = History(("a",), every=1)
    history.add_held_out({"hit": 0.8, "steady": 0.5}, 0)
    history.add_held_out({"hit": 0.7, "steady": 0.5}, 1)
    assert history.worse() is None
    history.add_held_out({"hit": 0.8, "steady": 0.4}, 2)
    assert history.worse() is None
    history.add_held_out({"hit": 0.79, "steady": 0.4}, 3)
    assert "80.0% of the noisy copies of held-out images were recognised before it, 79.0% after" in (
        history.worse() or ""
    )


def test_a_run_that_collapses_at_its_first_step_is_noticed() -> None:
    def said(first_images: int) -> list[str]:
        history, hits = History(("a", "b"), every=1), [0.9] + [0.1] * PATIENCE
        steps = enumerate(hits)
        found = [
            history.add({"loss": 1.0, "hit": hit}, step=i, epoch=0.0, rate=0.1, images=first_images) for i, hit in steps
        ]
        return [warning for warning in found if warning]

    assert len(said(LEAST_IMAGES)) == 1
    assert said(LEAST_IMAGES - 1) == []  # too few to tell
