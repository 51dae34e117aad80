"""Metrics of rows: certified accuracy over radii, the average certified radius, the rate of abstention."""

from collections.abc import Sequence

from robustify.runs.rows import Row


def certified_accuracy(rows: Sequence[Row], radius: float) -> float:
    """Share of images whose true label is certified against every change of ℓ2 norm up to `radius`.

    Raises:
        ValueError: If there are no rows.
    """
    return sum(row.correct and row.radius > radius for row in rows) / len(rows)


def average_certified_radius(rows: Sequence[Row]) -> float:
    """Mean certified radius; wrong labels and abstentions count as 0.

    A few easy images raise it much; read it beside the curve.

    References:
        MACER: Attack-free and Scalable Robust Training via Maximizing Certified Radius, Zhai et al., 2020,
        https://arxiv.org/abs/2001.02378
    """
    return sum(row.radius for row in rows if row.correct) / len(rows)


def abstention_rate(rows: Sequence[Row]) -> float:
    """Share of images at which nothing is answered."""
    return sum(row.answer is None for row in rows) / len(rows)


def answer_accuracy(rows: Sequence[Row]) -> float:
    """Share of images at which the true label is answered, certified or not."""
    return sum(row.answer is not None and row.answer == row.truth for row in rows) / len(rows)
