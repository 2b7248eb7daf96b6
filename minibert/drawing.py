"""From numbers to a picture: matplotlib's figures, and how anybody's text gets into one.

All pictures are meant for print and for colour-blind readers. matplotlib is an extra (`pip install -e ".[plots]"`), and
slow to import, so it waits until something is drawn.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

from minibert.config import LABELS
from minibert.errors import UserError, printable
from minibert.files import write_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from minibert.metrics import Reliability

# Okabe and Ito's colours, which colour-blind readers can tell apart, without yellow, which is too pale for dots; shades
# keep their order in grey print. Source: Okabe and Ito 2008, "Color universal design", https://jfly.uni-koeln.de/color/.
BLUE, ORANGE, GREEN, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#777777"
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", SKY, "#000000")
SHAPES = ("o", "^", "s", "D", "v", "P", "X", "*")
SHADES = "Blues"

FORMATS = ("png", "svg", "pdf")
TOKEN = 0.17  # inches for each, which its name at 8 points just needs
SMALLEST, LARGEST = 1.6, 40.0  # inches: of a panel, of the whole figure
LONGEST = 32  # characters of a name
MOST_TOPICS = 20  # with a name, a colour and a shape of their own

# Asked, in this order, for what matplotlib's own fonts lack; those that are not installed are passed over.
FONTS = (
    "Noto Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Microsoft YaHei",
    "SimHei", "Hiragino Sans GB", "Malgun Gothic", "Nirmala UI", "Arial Unicode MS", "Noto Emoji", "Segoe UI Emoji",
)  # fmt: skip


class NoMatplotlib(UserError):
    """There is no matplotlib."""


def need_matplotlib() -> Any:
    """matplotlib, or `NoMatplotlib` is raised."""
    # A notebook tells the programs that it starts to draw into it. Where there is no such thing, matplotlib won't load.
    backend = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib.figure
        import matplotlib.style
    except ImportError as error:
        raise NoMatplotlib('a picture needs matplotlib: pip install -e ".[plots]"') from error
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = backend
    return matplotlib


@contextmanager
def optional() -> Iterator[None]:
    """For a picture that nobody has asked for: without matplotlib, a line says that there is none."""
    try:
        yield
    except NoMatplotlib as missing:
        print(f"(no picture: {missing})")


_LOCK = RLock()  # matplotlib's settings are the whole process's, and the page draws in threads


@contextmanager
def style() -> Iterator[None]:
    """The settings that matplotlib comes with, whatever a matplotlibrc says (of LaTeX, say), but for the fonts."""
    matplotlib = need_matplotlib()
    with _LOCK, matplotlib.style.context(["default", {"font.family": fonts()[0]}]):
        yield


@cache
def fonts() -> tuple[list[str], set[int]]:
    """The names of a picture's fonts, those of a matplotlibrc first, and all characters that they have."""
    from matplotlib import font_manager, rcParams

    installed, names, characters = set(font_manager.get_font_names()), [], set()
    for name in dict.fromkeys([*rcParams["font.sans-serif"], "DejaVu Sans", *FONTS]):
        if name in installed:
            with suppress(OSError, RuntimeError):  # a font that can't be opened
                characters |= set(font_manager.get_font(font_manager.findfont(name)).get_charmap())
                names.append(name)
    return names, characters


def legible(text: str) -> str:
    """Somebody's text as matplotlib is to be given it: to be drawn letter for letter, and never as mathematics.

    Characters that no font has, or that can not be seen, are drawn as escapes, so that names can be told apart.
    """
    characters = fonts()[1]
    spaced = (" " if unicodedata.category(letter) == "Zs" else letter for letter in text)
    shown = "".join(
        letter if letter.isprintable() and ord(letter) in characters else ascii(letter)[1:-1] for letter in spaced
    )
    if len(shown) > LONGEST:
        shown = f"{shown[: LONGEST * 2 // 3]}…{shown[-LONGEST // 3 + 1 :]}"
    return shown.replace("$", r"\$")


def new_figure(width: float, height: float) -> Any:
    """An empty figure of some inches."""
    return need_matplotlib().figure.Figure(figsize=(width, height), layout="constrained")


def open_axes(*several: Any) -> None:
    """Leave out the lines at the top and on the right, which measure nothing."""
    for axes in several:
        axes.spines[["top", "right"]].set_visible(False)


def picture_format(path: Path) -> str:
    """What a picture's name asks for; without an ending, PNG.

    Raises:
        UserError: it is no format of `FORMATS`, or a folder.
    """
    ending = path.suffix[1:].lower() or FORMATS[0]
    if ending not in FORMATS:
        raise UserError(f"{path}: a picture ends with .{', .'.join(FORMATS[:-1])} or .{FORMATS[-1]}")
    if path.is_dir():
        raise UserError(f"{path} is a folder: give the picture a name")
    return ending


@style()
def save(figure: Any, path: Path) -> None:
    """Write a figure, whole or not at all, and say where it is."""
    kind = picture_format(path)
    write_file(path, lambda partial: figure.savefig(partial, dpi=150, format=kind))
    print(f"{'drawn':<11} {printable(str(path))}")


@style()
def draw_training(records: Sequence[dict[str, Any]]) -> Any:
    """The records of a run's metrics.jsonl, over its steps.

    Held-out figures stand at the epochs' ends; the dotted line is the baseline: the unigram guesser or the majority. If
    training has more than one loss, the one drawn is that which validation has, too.

    Raises:
        KeyError, TypeError, ValueError: the records are none of a run's.
    """
    of = {kind: [record for record in records if record["kind"] == kind] for kind in ("start", "train", "validation")}

    def line(axes: Any, kind: str, name: str, label: str, colour: str, mark: str = "-") -> None:
        points = [(float(record["step"]), float(record[name])) for record in of[kind] if name in record]
        if points:
            axes.plot(*zip(*points, strict=True), mark, color=colour, label=label, markersize=4, linewidth=1.5)

    figure = new_figure(10, 3.2)
    panels = dict(zip(("loss", "accuracy", "learning rate"), figure.subplots(1, 3), strict=True))
    comparable = "cross_entropy" if any("cross_entropy" in record for record in of["train"]) else "loss"
    line(panels["loss"], "train", comparable, "training", BLUE)
    line(panels["accuracy"], "train", "accuracy", "training", BLUE)
    for name in ("loss", "accuracy"):
        for key in [key for record in of["validation"][:1] for key in record if key.endswith(f"_{name}")][:1]:
            line(panels[name], "validation", key, legible(key.replace("_", " ")), ORANGE, "o-")
        for guesser in ("unigram", "majority"):
            for value in [record[f"{guesser}_{name}"] for record in of["start"][:1] if f"{guesser}_{name}" in record]:
                panels[name].axhline(float(value), color=GREY, linestyle=":", label=f"{guesser} guesser")
        if panels[name].lines:
            panels[name].legend(frameon=False, fontsize=8)
    line(panels["learning rate"], "train", "learning_rate", "learning rate", GREEN)
    panels["learning rate"].set_ylim(bottom=0)
    panels["learning rate"].ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    for title, axes in panels.items():
        axes.set(xlabel="step", title=title)
    open_axes(*panels.values())
    return figure


@style()
def draw_confusion(matrix: Sequence[Sequence[int]], labels: Sequence[str] = LABELS) -> Any:
    """A (C, C) confusion matrix: rows are true labels, columns predicted ones, shades are shares of the row."""
    import numpy as np
    from sklearn.metrics import ConfusionMatrixDisplay

    shares = np.array([[count / max(1, sum(row)) for count in row] for row in matrix])
    size = max(0, len(labels) - len(LABELS))
    figure = new_figure(4.6 + size, 4 + size)
    axes = figure.subplots()
    display = ConfusionMatrixDisplay(shares, display_labels=labels)
    display.plot(ax=axes, cmap=SHADES, colorbar=False, im_kw={"vmin": 0, "vmax": 1})
    for (row, column), text in np.ndenumerate(display.text_):
        share = shares[row, column]
        text.set(text=f"{matrix[row][column]:,}\n{share:.0%}", color="white" if share > 0.5 else "black")
    axes.set_yticks(range(len(labels)), labels, rotation=90, va="center")
    axes.set(xlabel="predicted", ylabel="true")
    open_axes(axes)
    return figure


@style()
def draw_reliability(bins: Reliability) -> Any:
    """How often answers are right that are given with some probability; below, how many answers these are.

    On the diagonal, a probability means what it says. A point below it is overconfident, one above it too modest.

    Source: Guo et al. 2017, "On calibration of modern neural networks", figure 1.
    """
    from sklearn.calibration import CalibrationDisplay

    figure = new_figure(4.6, 5.2)
    right, many = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    some, width = bins.counts > 0, 1 / len(bins.counts)
    CalibrationDisplay(bins.accuracy[some], bins.confidence[some], None).plot(ax=right, color=BLUE, markersize=4)
    right.set(xlim=(0, 1), ylim=(0, 1), xlabel="", ylabel="share of right answers")
    right.set_title(f"calibration error {bins.error:.3f}")
    right.legend(frameon=False, fontsize=8, loc="upper left")
    lefts = [width * index for index in range(len(bins.counts))]
    many.bar(lefts, bins.counts, width=width, align="edge", edgecolor="white", color=GREY)
    many.set(xlabel="probability of the answer given", ylabel="answers")
    many.yaxis.set_major_formatter("{x:,.0f}")
    open_axes(right, many)
    return figure


@style()
def draw_attention(
    tokens: Sequence[str], maps: NDArray[np.float32], layers: Sequence[int] = (), heads: Sequence[int] = ()
) -> Any:
    """A figure with a panel for each of some layers and heads: a row attends to the columns.

    Each layer has a row of panels, and one alone has several, of at most four. Shades go from 0 to the largest
    probability in the figure, as the bar beside them says.

    Args:
        tokens, maps: T tokens and (L, H, T, T), as `TrainedModel.attention` gives them.
        layers, heads: which of them, from 0; empty: all. In the titles they are counted from 1.
    """
    layers, heads = layers or range(maps.shape[0]), heads or range(maps.shape[1])
    names = [legible(token) for token in tokens]
    panels = [(layer, head) for layer in layers for head in heads]
    columns = len(heads) if len(layers) > 1 else max(n for n in (1, 2, 3, 4) if len(heads) % n == 0)
    rows = len(panels) // columns
    panel, name = max(SMALLEST, TOKEN * len(names)), 0.07 * max(map(len, names))
    width, height = (panel + 0.1) * columns + name + 0.7, (panel + 0.3) * rows + name
    scale = min(1, LARGEST / max(width, height))
    figure = new_figure(width * scale, height * scale)
    figure.set_layout_engine("compressed")  # panels are square, and stay close together
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    most = max(float(maps[layer, head].max()) for layer, head in panels)
    for axes, (layer, head) in zip(grid.flat, panels, strict=True):
        image = axes.imshow(maps[layer, head], cmap=SHADES, vmin=0, vmax=most)
        axes.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=9 * scale)
        axes.tick_params(length=0, labelsize=8 * scale)
        axes.tick_params(axis="x", labelrotation=90)
        axes.spines[:].set_color("#BBBBBB")
    grid[0, 0].set_xticks(range(len(names)), names)  # panels share their axes
    grid[0, 0].set_yticks(range(len(names)), names)
    bar = figure.colorbar(image, ax=grid, fraction=0.1, aspect=20 * rows, pad=0.02)
    bar.ax.tick_params(labelsize=8 * scale, length=0)
    bar.outline.set_visible(False)
    return figure


@style()
def draw_embeddings(vectors: NDArray[np.float32], topics: Sequence[str]) -> Any:
    """Vectors as dots in two dimensions, coloured and shaped by topic.

    The two dimensions are the principal components: the directions in which the vectors vary most. No random number is
    drawn (the decomposition is exact, its signs are settled), so equal vectors give equal pictures. The axes say
    which share of the variance each shows: what two dots do not share in it, they may still share in the rest.

    Args:
        vectors: (sentences, D), at least two sentences and two numbers.
        topics: one for each sentence. The most frequent have a colour and a shape each; the others share one.
    """
    from sklearn.decomposition import PCA

    projection = PCA(n_components=2, svd_solver="full")
    places = projection.fit_transform(vectors)  # (sentences, 2)
    counts = Counter(topics)
    looks: dict[str | None, tuple[str, str, str]] = {
        topic: (legible(topic), COLOURS[index % len(COLOURS)], SHAPES[index % len(SHAPES)])
        for index, (topic, _) in enumerate(counts.most_common(MOST_TOPICS))
    }
    if len(counts) > MOST_TOPICS:
        looks[None] = (f"{len(counts) - MOST_TOPICS:,} other topics", "#BBBBBB", ".")
    figure = new_figure(6.4, 4.6)
    axes, dots = figure.subplots(), []
    for topic, (_, colour, shape) in looks.items():
        rows = [row for row, other in enumerate(topics) if (other if other in looks else None) == topic]
        dots.append(axes.scatter(*places[rows].T, s=26, c=colour, marker=shape, linewidths=0.4, edgecolors="white"))
    for name, share in zip("xy", projection.explained_variance_ratio_, strict=True):
        axes.set(**{f"{name}label": f"{share:.0%} of the variance"})
    axes.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
    legend = figure.legend(dots, ["topic"] * len(dots), loc="outside right upper", frameon=False, fontsize=9)
    for text, (label, _, _) in zip(legend.get_texts(), looks.values(), strict=True):
        text.set_text(label)  # only now: a legend passes over labels that begin with _
    open_axes(axes)
    return figure
