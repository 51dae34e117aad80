"""Certified accuracy over radii, as a figure."""

from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from robustify.certificates.bounds import lower_bound, upper_bound
from robustify.certificates.family import Plan
from robustify.format import floor
from robustify.runs.metrics import certified_accuracy
from robustify.runs.rows import Row

COLOURS = ("#0b6e99", "#c2571a", "#3d7a37", "#7b4b94")
BAND = 0.05
"""Chance that a band misses the accuracy on images like these."""

MOST_TICKS = 12


def curve_svg(
    curves: Mapping[str, Sequence[Row]], baselines: Mapping[str, Sequence[Row]], plans: Sequence[Plan]
) -> str:
    """An SVG figure of certified accuracy over radii, one curve of steps per run.

    The baseline of the same name is dashed; bands are 95 % intervals for the finite test set; a dotted line is the
    largest radius that the draws can prove.

    Arguments:
        curves: Rows of each run, at least one of them labelled, by name.
        baselines: Rows of the same images without a denoiser, by the same names.
        plans: What the runs asked, at least one.
    """
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "robustify", "font.family": "sans-serif"}):
        figure = Figure(figsize=(7.2, 3.8), layout="constrained")
        axes = figure.add_subplot()
        end = _end([*curves.values(), *baselines.values()], plans)
        for colour, (name, rows) in zip(COLOURS * len(curves), curves.items(), strict=False):
            _draw(axes, rows, end, color=colour, linewidth=2, label=name)
            _draw_band(axes, rows, min(end, *(plan.ceiling for plan in plans)), colour)
            if name in baselines:
                label = f"{name}, no denoiser"
                _draw(axes, baselines[name], end, color=colour, linewidth=1.4, linestyle="--", label=label)
        _draw_ceilings(axes, plans)
        _set_axes(axes, end, plans[0])
        figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=9)
        stream = StringIO()
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})
    svg = stream.getvalue()
    return svg[svg.index("<svg") :]


def steps(rows: Sequence[Row], end: float) -> tuple[list[float], list[float]]:
    """The curve of certified accuracy as steps: edges, from 0 to `end`, and the share of images between them.

    Arguments:
        rows: Rows of labelled images, at least one.
        end: A radius at least as large as any of the rows.
    """
    radii = {row.radius for row in rows if row.correct and 0 < row.radius < end}
    edges = [0.0, *sorted(radii)]
    return [*edges, end], [certified_accuracy(rows, edge) for edge in edges]


def ticks(sigma: float, end: float) -> list[float]:
    """Radii from 0 to `end` that are multiples of a quarter of sigma; of a half, or of sigma, where that is many."""
    step = sigma / 4
    while end / step >= MOST_TICKS:
        step *= 2
    return [i * step for i in range(int(end / step) + 1)]


def _draw(axes: Any, rows: Sequence[Row], end: float, **style: Any) -> None:  # noqa: ANN401 - matplotlib has no types
    edges, values = steps(rows, end)
    axes.stairs(values, edges, baseline=None, **style)


def _draw_band(axes: Any, rows: Sequence[Row], end: float, colour: str) -> None:  # noqa: ANN401
    edges, values = steps(rows, end)
    bands = [_band(round(value * len(rows)), len(rows)) for value in values]
    low, high = zip(*bands, bands[-1], strict=True)
    axes.fill_between(edges, low, high, step="post", color=colour, alpha=0.12, linewidth=0)


def _draw_ceilings(axes: Any, plans: Sequence[Plan]) -> None:  # noqa: ANN401
    """A dotted line at the largest radius of each plan that has one, and its name above."""
    ceilings = {str(plan): plan.ceiling for plan in plans if plan.ceiling < float("inf") and not plan.radii}
    for height, (name, ceiling) in enumerate(ceilings.items()):
        axes.axvline(ceiling, color="#66737b", linewidth=1.2, linestyle=":")
        told = f"{name} proves at most {floor(ceiling):.3f}"
        place = {"xytext": (0, 4 + 12 * height), "textcoords": "offset points", "xycoords": ("data", "axes fraction")}
        axes.annotate(told, (ceiling, 1), ha="right", fontsize=8, color="#66737b", **place)


def _set_axes(axes: Any, end: float, plan: Plan) -> None:  # noqa: ANN401
    axes.set(xlabel=plan.axis, ylabel="certified accuracy", ylim=(0, 1), xlim=(0, end))
    if plan.scale:
        axes.set_xticks(found := ticks(plan.scale, end), [f"{r:g}" for r in found])
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _end(runs: Sequence[Sequence[Row]], plans: Sequence[Plan]) -> float:
    """End of the axis: a little beyond what can be proven, or else beyond what was."""
    provable = [plan.ceiling for plan in plans if plan.ceiling < float("inf")]
    largest = [row.radius for rows in runs for row in rows if row.correct]
    return 1.03 * max([*provable, *largest], default=0.0) or 1.0


def _band(correct: int, images: int) -> tuple[float, float]:
    return lower_bound(correct, images, alpha=BAND / 2), upper_bound(correct, images, alpha=BAND / 2)
