"""What a classifier's answers are worth: which labels it takes for which, and how far to believe its probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minibert.config import LABELS
from minibert.plots import canvas
from minibert.plots.canvas import GREY, SKY

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def plot_confusion(matrix: Sequence[Sequence[int]], path: Path) -> None:
    """Draw a (3, 3) confusion matrix: rows are true labels, columns predicted ones, shades are shares of the row."""
    figure = canvas.new_figure(4.6, 4)
    if figure is None:
        return
    axes = figure.subplots()
    shares = [[count / max(1, sum(row)) for count in row] for row in matrix]
    axes.imshow(shares, cmap=canvas.SHADES, vmin=0, vmax=1)
    places = range(len(LABELS))
    axes.set_xticks(places, LABELS)
    axes.set_yticks(places, LABELS, rotation=90, va="center")
    axes.set(xlabel="predicted", ylabel="true")
    for row in places:
        for column in places:
            colour = "white" if shares[row][column] > 0.5 else "black"
            text = f"{matrix[row][column]:,}\n{shares[row][column]:.0%}"
            axes.text(column, row, text, ha="center", va="center", color=colour)
    canvas.open_axes(axes)
    canvas.save(figure, path)


def plot_reliability(counts: NDArray[np.int64], accuracy: NDArray[np.float64], error: float, path: Path) -> None:
    """Draw how often answers are right that are given with some probability; below, how many answers these are.

    On the diagonal, a probability means what it says. A bar below it is overconfident, one above it too modest.

    Args:
        counts: (bins,) answers in each bin of probability, all of equal width from 0 to 1.
        accuracy: (bins,) the share of them that are right.
        error: the calibration error, as `minibert.evaluation.calibration_error` has it.
        path: where to.
    Source: Guo et al. 2017, "On calibration of modern neural networks", figure 1.
    """
    figure = canvas.new_figure(4.6, 5.2)
    if figure is None:
        return
    right, many = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    width = 1 / len(counts)
    lefts = [width * index for index in range(len(counts))]
    bars = {"width": width, "align": "edge", "edgecolor": "white"}
    right.bar(lefts, accuracy, color=SKY, **bars)
    right.plot([0, 1], [0, 1], "--", color="black", linewidth=1.2, label="as it should be")
    right.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of right answers", title=f"calibration error {error:.3f}")
    right.legend(frameon=False, fontsize=8, loc="upper left", handlelength=1.6, borderpad=0)
    many.bar(lefts, counts, color=GREY, **bars)
    many.set(xlabel="probability of the answer given", ylabel="answers")
    many.yaxis.set_major_formatter("{x:,.0f}")
    for axes in (right, many):
        canvas.open_axes(axes)
    canvas.save(figure, path)
