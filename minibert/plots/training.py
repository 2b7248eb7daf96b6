"""How a run went: loss, accuracy and learning rate over its steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minibert.files import read_records
from minibert.plots import canvas
from minibert.plots.canvas import BLUE, GREEN, GREY, ORANGE


def plot_training(folder: Path, path: Path | None = None) -> None:
    """Draw a run's metrics.jsonl.

    Held-out figures stand at the epochs' ends; the dotted line is the baseline: the unigram guesser or the majority. If
    training has more than one loss, the one drawn is that which validation has, too.

    Args:
        folder: the run's.
        path: where to; None is training.png in the folder.
    """
    records = read_records(folder / "metrics.jsonl")
    by_kind: dict[str, list[dict[str, Any]]] = {"start": [], "train": [], "validation": []}
    for record in records:
        by_kind.setdefault(record["kind"], []).append(record)
    start = by_kind["start"][0] if by_kind["start"] else {}
    figure = canvas.new_figure(10, 3.2)
    if figure is None:
        return
    loss, accuracy, rate = figure.subplots(1, 3)
    comparable = "cross_entropy" if any("cross_entropy" in record for record in by_kind["train"]) else "loss"
    for axes, name, of_training, baselines in (
        (loss, "loss", comparable, ("unigram_loss",)),
        (accuracy, "accuracy", "accuracy", ("unigram_accuracy", "majority_accuracy")),
    ):
        _line(axes, by_kind["train"], of_training, "training", BLUE, "-")
        held_out = next(
            (key for record in by_kind["validation"][:1] for key in record if key.endswith(f"_{name}")), None
        )
        if held_out:
            _line(axes, by_kind["validation"], held_out, held_out.replace("_", " "), ORANGE, "o-")
        for baseline in baselines:
            if baseline in start:
                label = f"{baseline.split('_')[0]} guesser"
                axes.axhline(start[baseline], color=GREY, linestyle=":", label=label)
        axes.set(xlabel="step", title=name)
        if axes.lines:
            axes.legend(frameon=False, fontsize=8)
    _line(rate, by_kind["train"], "learning_rate", "learning rate", GREEN, "-")
    rate.set(xlabel="step", title="learning rate")
    rate.set_ylim(bottom=0)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    for axes in figure.axes:
        canvas.open_axes(axes)
    canvas.save(figure, path or folder / "training.png")


def _line(axes: Any, records: list[dict[str, Any]], name: str, label: str, colour: str, style: str) -> None:
    points = [(record["step"], record[name]) for record in records if name in record]
    if points:
        axes.plot(*zip(*points, strict=True), style, color=colour, label=label, markersize=4, linewidth=1.5)
