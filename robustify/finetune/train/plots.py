"""A training run as a picture: loss and noisy accuracy over epochs, and the classes with the lowest."""

from collections.abc import Mapping, Sequence
from io import StringIO

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from robustify.finetune.train.history import History, Row

CLASSES_SHOWN = 30
"""Most classes in the picture."""


def training_svg(history: History) -> str:
    """Loss and noisy accuracy over epochs, in training and validation, and what is left to 1 by class, as SVG."""
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "robustify", "font.family": "sans-serif"}):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        loss, accuracy, classes = figure.subplots(1, 3)
        epochs = [row["epoch"] for row in history.training]
        _line(loss, epochs, [row["loss"] for row in history.training], "loss")
        if all("noisy_accuracy" in row for row in history.training):
            _line(accuracy, epochs, [row["noisy_accuracy"] for row in history.training], "noisy accuracy")
            accuracy.set_ylim(0, 1)
        if history.validation:
            _points(accuracy, history.validation)
        _bars(classes, history.hallucination())
        stream = StringIO()
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})
    svg = stream.getvalue()
    return svg[svg.index("<svg") :]


def _line(axes: Axes, epochs: Sequence[float], values: Sequence[float], label: str) -> None:
    axes.plot(epochs, values, color="#0b6e99", linewidth=1.5)
    axes.set(xlabel="epoch", ylabel=label)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _points(axes: Axes, validation: Sequence[Row]) -> None:
    epochs = [row["epoch"] for row in validation]
    shares = [row["noisy_accuracy"] for row in validation]
    axes.plot(epochs, shares, "o-", color="#c2571a", markersize=4, linewidth=1, label="validation")
    axes.legend(loc="lower right", frameon=False, fontsize=8)


def _bars(axes: Axes, hallucination: Mapping[str, float]) -> None:
    worst = list(hallucination.items())[:CLASSES_SHOWN]
    names = [name for name, _ in worst]
    shares = [share for _, share in worst]
    axes.barh(range(len(worst)), shares, color="#c2571a")
    axes.set_yticks(range(len(worst)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="wrong noisy copies, last epoch", xlim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
