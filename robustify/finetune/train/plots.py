"""A training run as a picture: loss and hits over epochs, hallucinations by class."""

from collections.abc import Mapping, Sequence
from io import StringIO

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

CLASSES_SHOWN = 30


def training_svg(
    history: Sequence[Mapping[str, float | int]],
    hallucination: Mapping[str, float],
    held_out: Sequence[Mapping[str, float | int]] = (),
) -> str:
    """Loss and the share of recognised copies over epochs; the share of hallucinated ones, worst classes first."""
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "robustify", "font.family": "sans-serif"}):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        loss, hits, classes = figure.subplots(1, 3)
        epochs = [row["epoch"] for row in history]
        _line(loss, epochs, [row["loss"] for row in history], "loss")
        if all("hit" in row for row in history):
            _line(hits, epochs, [row["hit"] for row in history], "copies recognised")
            hits.set_ylim(0, 1)
        if held_out:
            _points(hits, held_out)
        _bars(classes, hallucination)
        stream = StringIO()
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})
    svg = stream.getvalue()
    return svg[svg.index("<svg") :]


def _line(axes: Axes, epochs: Sequence[float], values: Sequence[float], label: str) -> None:
    axes.plot(epochs, values, color="#0b6e99", linewidth=1.5)
    axes.set(xlabel="epoch", ylabel=label)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _points(axes: Axes, held_out: Sequence[Mapping[str, float | int]]) -> None:
    epochs, shares = [row["epoch"] for row in held_out], [row["hit"] for row in held_out]
    axes.plot(epochs, shares, "o-", color="#c2571a", markersize=4, linewidth=1, label="held out")
    axes.legend(loc="lower right", frameon=False, fontsize=8)


def _bars(axes: Axes, hallucination: Mapping[str, float]) -> None:
    worst = list(hallucination.items())[:CLASSES_SHOWN]
    names, shares = [name for name, _ in worst], [share for _, share in worst]
    axes.barh(range(len(worst)), shares, color="#c2571a")
    axes.set_yticks(range(len(worst)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="copies not recognised, last epoch", xlim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
