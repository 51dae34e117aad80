"""Certified accuracy over radii, as a figure."""

from collections.abc import Mapping, Sequence
from io import StringIO

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from robustify.certificates.bounds import lower_bound, upper_bound
from robustify.runs.metrics import certified_accuracy
from robustify.runs.rows import Row

COLOURS = ("#0b6e99", "#c2571a", "#3d7a37", "#7b4b94")
BAND = 0.05
"""Chance that a band misses the accuracy on images like these."""


def curve_svg(curves: Mapping[str, Sequence[Row]], baselines: Mapping[str, Sequence[Row]]) -> str:
    """An SVG figure of certified accuracy over radii, one curve per run.

    The baseline of the same name is dashed; bands are 95 % intervals for the finite test set.
    """
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "robustify", "font.family": "sans-serif"}):
        figure = Figure(figsize=(7.2, 3.6), layout="constrained")
        axes = figure.add_subplot()
        radii = np.linspace(0, _end([*curves.values(), *baselines.values()]), 241)
        for colour, (name, rows) in zip(COLOURS * len(curves), curves.items(), strict=False):
            accuracy = [certified_accuracy(rows, r) for r in radii]
            low, high = zip(*(_band(round(a * len(rows)), len(rows)) for a in accuracy), strict=True)
            axes.fill_between(radii, low, high, color=colour, alpha=0.12, linewidth=0)
            axes.plot(radii, accuracy, color=colour, linewidth=2, label=name)
            if name in baselines:
                below = [certified_accuracy(baselines[name], r) for r in radii]
                axes.plot(radii, below, color=colour, linewidth=1.4, linestyle="--", label=f"{name}, no denoiser")
        axes.set(
            xlabel="ℓ2 radius, in [0, 1] pixels",
            ylabel="certified accuracy",
            ylim=(0, 1),
            xlim=(0, radii[-1]),
        )
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
        stream = StringIO()
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})
    svg = stream.getvalue()
    return svg[svg.index("<svg") :]


def _end(runs: Sequence[Sequence[Row]]) -> float:
    largest = max((row.radius for rows in runs for row in rows if row.correct), default=0.0)
    return 1.05 * largest or 1.0


def _band(correct: int, images: int) -> tuple[float, float]:
    return lower_bound(correct, images, alpha=BAND / 2), upper_bound(correct, images, alpha=BAND / 2)
