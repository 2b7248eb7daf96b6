"""What the heads look at in a sentence: a panel for each, with the tokens on both axes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minibert.plots import canvas

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TOKEN = 0.17  # inches for each, which its name at 8 points just needs
SMALLEST, LARGEST = 1.6, 40.0  # inches: of a panel, of the whole figure


def plot_attention(tokens: Sequence[str], maps: NDArray[np.float32], path: Path, layers: Sequence[int] = ()) -> None:
    """Draw all heads of some layers; arguments as in `draw_attention`."""
    figure = draw_attention(tokens, maps, layers)
    if figure is not None:
        canvas.save(figure, path)


def draw_attention(
    tokens: Sequence[str], maps: NDArray[np.float32], layers: Sequence[int] = (), heads: Sequence[int] = ()
) -> Any:
    """A figure with a panel for each of some layers and heads: a row looks, a column is looked at.

    Each layer has a row of panels, and one alone has several, of at most four. Shades go from 0 to the largest
    probability in the figure, as the bar beside them says.

    Args:
        tokens, maps: T tokens and (L, H, T, T), as `TrainedModel.attention` gives them.
        layers, heads: which of them, from 0; empty: all. In the titles they are counted from 1.
    Returns:
        the figure, or None, said in one line, without matplotlib.
    """
    layers, heads = layers or range(maps.shape[0]), heads or range(maps.shape[1])
    panels = [(layer, head) for layer in layers for head in heads]
    columns = len(heads) if len(layers) > 1 else max(n for n in (1, 2, 3, 4) if len(heads) % n == 0)
    rows = len(panels) // columns
    panel, name = max(SMALLEST, TOKEN * len(tokens)), 0.07 * max(map(len, tokens))
    width, height = (panel + 0.1) * columns + name + 0.7, (panel + 0.3) * rows + name
    scale = min(1, LARGEST / max(width, height))
    figure = canvas.new_figure(width * scale, height * scale)
    if figure is None:
        return None
    figure.set_layout_engine("compressed")  # panels are square, and stay close together
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    most = max(float(maps[layer, head].max()) for layer, head in panels)
    for axes, (layer, head) in zip(grid.flat, panels, strict=True):
        image = axes.imshow(maps[layer, head], cmap=canvas.SHADES, vmin=0, vmax=most)
        axes.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=9 * scale)
        axes.tick_params(length=0, labelsize=8 * scale)
        axes.tick_params(axis="x", labelrotation=90)
        axes.spines[:].set_color("#BBBBBB")
    grid[0, 0].set_xticks(range(len(tokens)), tokens)  # panels share their axes
    grid[0, 0].set_yticks(range(len(tokens)), tokens)
    bar = figure.colorbar(image, ax=grid, fraction=0.1, aspect=20 * rows, pad=0.02)
    bar.ax.tick_params(labelsize=8 * scale, length=0)
    bar.outline.set_visible(False)
    return figure
