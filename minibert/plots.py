"""Draw one picture of a run or of a model; evaluate.py draws its own.

    training    loss, accuracy and learning rate of a run
    attention   what every head attends to in a sentence

Example:
    python -m minibert.plots attention --text "A dog barks."

Each has its own flags: python -m minibert.plots attention --help
"""

# All pictures are meant for print and for colour-blind readers, and say which model and data they are of. torch and
# matplotlib (an extra, `plots`) are slow to import, so they wait until something is drawn.

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

from minibert.cli import Parser, parse_options, run
from minibert.config import LABELS
from minibert.errors import UserError, install
from minibert.files import read_json, read_records, write_file
from minibert.options import METRICS, OPTIONS, Options, limit, option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Okabe and Ito's colours, which colour-blind readers can tell apart, without yellow, which is too pale for dots; shades
# keep their order in grey print. Source: Okabe and Ito 2008, "Color universal design", https://jfly.uni-koeln.de/color/.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
SHADES = "Blues"
# Lines at the top and on the right measure nothing.
LOOK = {"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "legend.fontsize": 8}

MATRIX = "confusion_matrix.png"
TOKEN = 0.17  # inches for each, just enough for its name at 8 points
SMALLEST, LARGEST = 1.6, 40.0  # inches: of a panel, of the whole figure
LONGEST = 32  # characters of a name
FEW = 50  # a line of fewer points has each of them marked: a single point makes no line

# Searched in this order for what matplotlib's own fonts lack; those that are not installed are skipped.
FONTS = (
    "Noto Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Microsoft YaHei",
    "SimHei", "Hiragino Sans GB", "Malgun Gothic", "Nirmala UI", "Arial Unicode MS", "Noto Emoji", "Segoe UI Emoji",
)  # fmt: skip


class NoPicture(UserError):
    """There is no matplotlib, or no place to draw to."""


def need_matplotlib() -> Any:
    """matplotlib, or `NoPicture` is raised."""
    # A notebook tells the programs that it starts to draw into it. Where they can't, matplotlib won't load.
    backend = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib.figure
        import matplotlib.style
    except ImportError as error:
        raise NoPicture(f"a picture needs matplotlib: {install('plots')}") from error
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = backend
    return matplotlib


@contextmanager
def optional() -> Iterator[None]:
    """For a picture that nobody has asked for: where it can't be drawn, a line says so."""
    try:
        yield
    except NoPicture as missing:
        print(f"(no picture: {missing})")


_LOCK = RLock()  # matplotlib's settings are the whole process's, and the page draws in threads


@contextmanager
def style() -> Iterator[None]:
    """The defaults of matplotlib and `LOOK`, whatever a matplotlibrc says (of LaTeX, say), except for the fonts."""
    matplotlib = need_matplotlib()
    with _LOCK, matplotlib.style.context(["default", {"font.family": fonts()[0], **LOOK}]):
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


def legible(text: str, most: int = LONGEST) -> str:
    """Somebody's text for a picture: drawn letter for letter, never as mathematics, and cut in the middle if long.

    Characters that no font has, or that are invisible, are drawn as escapes, so that names can be told apart.
    """
    spaced = (" " if unicodedata.category(letter) == "Zs" else letter for letter in text)
    known = fonts()[1]
    shown = "".join(c if c.isprintable() and ord(c) in known else ascii(c)[1:-1] for c in spaced)
    if len(shown) > most:
        shown = f"{shown[: most * 2 // 3]}…{shown[-most // 3 + 1 :]}"
    return shown.replace("$", r"\$")


def new_figure(width: float, height: float, title: Sequence[str] = ()) -> Any:
    """An empty figure, its size in inches, below the lines that say what it shows."""
    figure = need_matplotlib().figure.Figure(figsize=(width, height), layout="constrained")
    if title:
        figure.suptitle("\n".join(legible(line, int(width * 13)) for line in title), fontsize=9)  # 13 letters an inch
    return figure


def check_picture(path: Path) -> str:
    """The format that a picture's name asks for; without an ending, PNG. Call it before any work.

    Raises:
        UserError: there is no matplotlib; the name has another ending, or is a folder's.
    """
    need_matplotlib()
    ending = path.suffix[1:].lower() or "png"
    if ending not in ("png", "svg", "pdf"):
        raise UserError(f"{path}: a picture ends with .png, .svg or .pdf")
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is a {'folder' if path.is_dir() else 'device or a pipe'}: give the picture a name")
    return ending


@style()
def save(figure: Any, path: Path) -> None:
    """Write a figure, whole or not at all, and say where it is; errors as in `check_picture`."""
    from minibert.progress import heading  # which loads tqdm

    kind = check_picture(path)
    write_file(path, lambda partial: figure.savefig(partial, dpi=150, format=kind))
    heading("drawn", str(path))


@style()
def draw_training(records: Sequence[dict[str, Any]], title: Sequence[str] = ()) -> Any:
    """Draw the records of a run's metrics.jsonl over its steps.

    Held-out figures stand at the epochs' ends; the dotted line is the baseline: the unigram guesser or the majority. If
    training has several losses, the one that validation has too is drawn.

    Raises:
        KeyError, TypeError, ValueError: the records are not those of a run.
    """
    first = {record["kind"]: record for record in reversed(records)}  # the first of each kind
    start, held_out = first.get("start", {}), first.get("validation", {})
    figure = new_figure(10, 3.4, title)
    panels = dict(zip(("loss", "accuracy", "learning rate"), figure.subplots(1, 3), strict=True))

    def line(axes: Any, kind: str, name: str, **look: str) -> None:
        drawn = [record for record in records if record["kind"] == kind and name in record]
        mark = "o" if kind == "validation" else "." if len(drawn) < FEW else ""
        steps, values = ([float(record[key]) for record in drawn] for key in ("step", name))
        if drawn:
            axes.plot(steps, values, f"{mark}-", markersize=4, **look)

    comparable = "cross_entropy" if any("cross_entropy" in record for record in records) else "loss"
    for name, trained in (("loss", comparable), ("accuracy", "accuracy")):
        axes = panels[name]
        line(axes, "train", trained, color=BLUE, label="training")
        for key in [key for key in held_out if key.endswith(f"_{name}")][:1]:
            line(axes, "validation", key, color=ORANGE, label=legible(key.replace("_", " ")))
        for guesser in [guesser for guesser in ("unigram", "majority") if f"{guesser}_{name}" in start]:
            value = float(start[f"{guesser}_{name}"])
            axes.axhline(value, color=GREY, linestyle=":", label=f"{guesser} guesser")
        if axes.lines:
            axes.legend()
    line(panels["learning rate"], "train", "learning_rate", color=GREEN)
    panels["learning rate"].set_ylim(bottom=0)
    panels["learning rate"].ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    for name, axes in panels.items():
        axes.set(xlabel="step", title=name)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


@style()
def draw_answers(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.floating],
    title: Sequence[str] = (),
    names: Sequence[str] = LABELS,
) -> Any:
    """A classifier's answers: which labels it takes for which, and how often it is right at each confidence.

    On the left, a row is a true label, a column a predicted one, and shades are shares of the row. On the right, a
    point below the diagonal is overconfident, one above it too modest; the bars are how many answers there are.

    Args:
        labels: (pairs,) the true ones, as places in `names`.
        probabilities: (pairs, labels), rows of sum 1.
        title, names: what the picture shows, and what the labels are called.
    Source: Guo et al. 2017, "On calibration of modern neural networks", figure 1 (the right one).
    """
    from sklearn.calibration import CalibrationDisplay
    from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

    from minibert.metrics import BINS, calibration_error

    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wanted, right = max(4, 1.3 * len(names)), 4.6  # inches of the matrix, and beside it
    side = min(wanted, LARGEST - right)
    points = 10 * side / wanted  # of its texts
    figure = new_figure(side + right, side + 0.6, title)
    layout = {"height_ratios": (3, 1), "width_ratios": (side, 4)}
    matrix, share, bars = figure.subplot_mosaic([["matrix", "share"], ["matrix", "bars"]], **layout).values()

    counts = confusion_matrix(labels, predicted, labels=range(len(names)))
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    display = ConfusionMatrixDisplay(shares, display_labels=[legible(name) for name in names])
    display.plot(ax=matrix, cmap=SHADES, colorbar=False, im_kw={"vmin": 0, "vmax": 1})
    for text, count, part in zip(display.text_.flat, counts.flat, shares.flat, strict=True):
        text.set(text=f"{count:,}\n{part:.0%}", color="white" if part > 0.5 else "black", fontsize=points)
    matrix.set(xlabel="predicted", ylabel="true")
    matrix.tick_params(labelsize=points)
    matrix.set_yticks(range(len(names)), matrix.get_yticklabels(), rotation=90, va="center")

    look = {"name": "This classifier", "color": BLUE, "marker": "o", "markersize": 4, "clip_on": False}
    CalibrationDisplay.from_predictions(predicted == labels, confidence, n_bins=BINS, ax=share, **look)
    share.set(xlim=(0, 1), ylim=(0, 1), xlabel="", ylabel="share of right answers")
    share.set_title(f"calibration error {calibration_error(labels, probabilities):.3f}", fontsize=9)
    share.legend(loc="upper left")
    bars.hist(confidence, bins=BINS, range=(0, 1), edgecolor="white", color=GREY)
    bars.set(xlim=(0, 1), xlabel="probability of the answer given", ylabel="answers")
    bars.yaxis.set_major_formatter("{x:,.0f}")
    return figure


@style()
def draw_attention(
    tokens: Sequence[str],
    maps: NDArray[np.float32],
    layers: Sequence[int] = (),
    heads: Sequence[int] = (),
    title: Sequence[str] = (),
) -> Any:
    """A panel for each of some layers and heads, in which rows attend to columns; each layer is a row of panels.

    A single layer has rows of at most four panels. Shades go from 0 to the largest probability in the figure.

    Args:
        tokens, maps: T tokens and (L, H, T, T), as `TrainedModel.attention` gives them.
        layers, heads: which of them, from 0; empty: all. In the panels' titles they are counted from 1.
        title: what the picture shows.
    """
    layers, heads = layers or range(maps.shape[0]), heads or range(maps.shape[1])
    names = [legible(token) for token in tokens]
    panels = [(layer, head) for layer in layers for head in heads]
    columns = len(heads) if len(layers) > 1 else max(n for n in (1, 2, 3, 4) if len(heads) % n == 0)
    rows = len(panels) // columns
    panel, name = max(SMALLEST, TOKEN * len(names)), 0.07 * max(map(len, names))
    width, height = (panel + 0.1) * columns + name + 0.7, (panel + 0.3) * rows + name + 0.2 * len(title)
    scale = min(1, LARGEST / max(width, height))
    figure = new_figure(width * scale, height * scale, title)
    figure.set_layout_engine("compressed")  # panels are square, and stay close together
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    highest = max(float(maps[layer, head].max()) for layer, head in panels)
    for axes, (layer, head) in zip(grid.flat, panels, strict=True):
        image = axes.imshow(maps[layer, head], cmap=SHADES, vmin=0, vmax=highest)
        axes.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=9 * scale)
        axes.tick_params(length=0, labelsize=8 * scale)
        axes.tick_params(axis="x", labelrotation=90)
        axes.spines[:].set(color="#BBBBBB", visible=True)
    grid[0, 0].set_xticks(range(len(names)), names)  # panels share their axes
    grid[0, 0].set_yticks(range(len(names)), names)
    bar = figure.colorbar(image, ax=grid, fraction=0.1, aspect=20 * rows, pad=0.02)
    bar.ax.tick_params(labelsize=8 * scale, length=0)
    bar.outline.set_visible(False)
    return figure


def draw_run(folder: Path) -> Any:
    """`draw_training` of what is in a run's folder.

    Raises:
        UserError: it has no metrics.jsonl, or a damaged one.
    """
    metrics, options = folder / METRICS, folder / OPTIONS
    if not metrics.is_file():
        raise UserError(f"there is no {metrics}: --run is a folder that train_mlm.py or train_nli.py has written")
    try:
        data = [f"trained on {read_json(options, '')['data']}"] if options.exists() else []
        return draw_training(read_records(metrics), [folder.resolve().name, *data])
    except UserError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{metrics} is damaged: {error}") from error


@optional()
def plot_training(folder: Path) -> None:
    """What a training draws at its end, if there is matplotlib: its training.png."""
    save(draw_run(folder), folder / "training.png")


@optional()
def plot_answers(figure: str, model: Path, *given: Any) -> None:
    """What evaluate.py draws, if there is matplotlib: `draw_answers` of what is given, by default beside the model."""
    path = Path(figure) if figure else _beside(model)
    save(draw_answers(*given), path)


def _beside(model: Path) -> Path:
    """The picture's path: in the model's folder; beside a zip of it; or here, if it is a name on the Hub."""
    path = model / MATRIX
    if not model.is_dir():
        path = (model.parent if model.exists() else Path()) / f"{model.name.removesuffix('.zip')}_{MATRIX}"
    if not os.access(path.parent, os.W_OK):  # somebody else's model, say
        raise NoPicture(f"{path.parent} can't be written to; --figure names another place")
    return path


@dataclass(frozen=True, kw_only=True)
class TrainingPicture(Options):
    """Loss, accuracy and learning rate over a run's steps."""

    run: str = option("models/bert_mlm_small", "most used", "folder of a run of train_mlm.py or train_nli.py")
    output: str = option("training.png", "most used", "where the picture goes")

    def figure(self) -> Any:
        """Errors as in `draw_run`."""
        return draw_run(Path(self.run))


@dataclass(frozen=True, kw_only=True)
class AttentionPicture(Options):
    """What every head attends to in a sentence, with the tokens on both axes."""

    model: str = option("models/sbert_nli_small", "most used", "folder, zip or name of a model")
    text: str = option("A man is playing a guitar on stage.", "most used", "the sentence")
    layer: int = limit(0, "model", "which layer, from 1; 0: all of them, a row each")
    output: str = option("attention.png", "most used", "where the picture goes")

    def figure(self) -> Any:
        """Raises UserError: the model can't be read or does not have this layer, or the text is empty."""
        from minibert.hub import from_pretrained

        model = from_pretrained(self.model)
        for note in model.read(self.text, "--text")[1]:
            print(note)
        tokens, maps = model.attention(self.text)
        if self.layer > len(maps):
            raise UserError(f"--layer {self.layer}: {self.model} has {len(maps)}")
        return draw_attention(tokens, maps, [self.layer - 1] if self.layer else (), title=[self.model])


PICTURES: dict[str, type[Any]] = {"training": TrainingPicture, "attention": AttentionPicture}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the picture's name, then its options, then draw it; errors as in `check_picture` and a `figure()`."""
    program = "python -m minibert.plots"
    parser = Parser(f"{program} PICTURE", str(__doc__))
    parser.add_argument("picture", choices=PICTURES, metavar="PICTURE", help="the name of one of these")
    words = sys.argv[1:] if arguments is None else arguments
    given = parser.parse_args(words[:1])
    kind = PICTURES[given.picture]
    picture = parse_options(kind, words[1:], str(kind.__doc__), program=f"{program} {given.picture}")
    check_picture(Path(picture.output))
    save(picture.figure(), Path(picture.output))


if __name__ == "__main__":
    run(main)
