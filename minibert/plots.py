"""Pictures of a run: what is easier to look at than to read.

matplotlib is an extra (`pip install minibert[plots]`). Without it a run says so in one line and goes on: nothing is
lost, since each picture is drawn from numbers that are printed or in metrics.jsonl as well.

Colours are from Okabe and Ito's palette, which colour-blind readers can tell apart.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minibert.config import LABELS
from minibert.files import write_file

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"


def plot_training(folder: Path) -> None:
    """Draw metrics.jsonl as training.png: loss, accuracy and learning rate over the steps.

    Held-out figures stand at the epochs' ends; the dotted line is the baseline: the unigram guesser or the majority.
    """
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    by_kind: dict[str, list[dict[str, Any]]] = {"start": [], "train": [], "validation": []}
    for record in records:
        by_kind.setdefault(record["kind"], []).append(record)
    start = by_kind["start"][0] if by_kind["start"] else {}
    figure = _figure(10, 3.2)
    if figure is None:
        return
    loss, accuracy, rate = figure.subplots(1, 3)
    for axes, name, baselines in (
        (loss, "loss", ("unigram_loss",)),
        (accuracy, "accuracy", ("unigram_accuracy", "majority_accuracy")),
    ):
        _line(axes, by_kind["train"], name, "training", BLUE, "-")
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
    _save(figure, folder / "training.png")


def plot_confusion(matrix: Sequence[Sequence[int]], path: Path) -> None:
    """Draw a (3, 3) confusion matrix: rows are true labels, columns predicted ones, shades are shares of the row."""
    figure = _figure(4.6, 4)
    if figure is None:
        return
    axes = figure.subplots()
    shares = [[count / max(1, sum(row)) for count in row] for row in matrix]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    places = range(len(LABELS))
    axes.set_xticks(places, LABELS)
    axes.set_yticks(places, LABELS, rotation=90, va="center")
    axes.set(xlabel="predicted", ylabel="true")
    for row in places:
        for column in places:
            colour = "white" if shares[row][column] > 0.5 else "black"
            text = f"{matrix[row][column]:,}\n{shares[row][column]:.0%}"
            axes.text(column, row, text, ha="center", va="center", color=colour)
    _save(figure, path)


def _line(axes: Any, records: list[dict[str, Any]], name: str, label: str, colour: str, style: str) -> None:
    points = [(record["step"], record[name]) for record in records if name in record]
    if points:
        axes.plot(*zip(*points, strict=True), style, color=colour, label=label, markersize=4, linewidth=1.5)


def _figure(width: float, height: float) -> Any:
    """An empty figure, or None, said in one line, without matplotlib."""
    try:
        from matplotlib.figure import Figure  # an extra; and slow to import
    except ImportError:
        print('(no picture: matplotlib is not installed; pip install "minibert[plots]")')
        return None
    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    write_file(path, lambda partial: figure.savefig(partial, dpi=150, format="png"))
    print(f"{'drawn':<11} {path}")
