"""What all pictures share: their colours, an empty figure, and the way to a file.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; shades go from white to dark blue, which keeps
its order in grey print. Where colours tell groups apart, shapes do, too.

Source: Okabe and Ito 2008, "Color universal design", https://jfly.uni-koeln.de/color/.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minibert.files import write_file

BLUE, ORANGE, GREEN, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#777777"
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", SKY, "#000000")  # without yellow, too pale for dots
SHAPES = ("o", "^", "s", "D", "v", "P", "X", "*")
SHADES = "Blues"


def new_figure(width: float, height: float) -> Any:
    """An empty figure of some inches, or None, said in one line, without matplotlib."""
    try:
        from matplotlib.figure import Figure  # an extra; and slow to import
    except ImportError:
        print('(no picture: matplotlib is not installed; pip install -e ".[plots]")')
        return None
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Any, path: Path) -> None:
    """Write a figure as a PNG, whole or not at all, and say where it is."""
    write_file(path, lambda partial: figure.savefig(partial, dpi=150, format="png"))
    print(f"{'drawn':<11} {path}")


def open_axes(axes: Any) -> None:
    """Leave out the lines at the top and on the right, which measure nothing."""
    axes.spines[["top", "right"]].set_visible(False)
