"""Where sentences lie: their vectors seen from the side from which they are furthest apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minibert.plots import canvas

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def plot_embeddings(vectors: NDArray[np.float32], topics: Sequence[str], path: Path) -> None:
    """Draw vectors as dots in two dimensions, coloured and shaped by topic.

    The two dimensions are the principal components: the directions in which the vectors vary most. No random number is
    drawn (the decomposition is exact, its signs are settled), so equal vectors give equal pictures. The axes say
    which share of the variance each shows: what two dots do not share in it, they may still share in the rest.

    Args:
        vectors: (sentences, D), at least two sentences and two numbers.
        topics: one for each sentence; they have the colours and shapes of the order in which they are met.
    """
    figure = canvas.new_figure(6.4, 4.6)
    if figure is None:
        return
    from sklearn.decomposition import PCA  # slow to import

    projection = PCA(n_components=2, svd_solver="full")
    places = projection.fit_transform(vectors)  # (sentences, 2)
    axes = figure.subplots()
    for index, topic in enumerate(dict.fromkeys(topics)):
        rows = [row for row, other in enumerate(topics) if other == topic]
        colour, shape = (table[index % len(table)] for table in (canvas.COLOURS, canvas.SHAPES))
        axes.scatter(*places[rows].T, s=26, c=colour, marker=shape, linewidths=0.4, edgecolors="white", label=topic)
    for name, share in zip("xy", projection.explained_variance_ratio_, strict=True):
        axes.set(**{f"{name}label": f"{share:.0%} of the variance"})
    axes.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    canvas.open_axes(axes)
    canvas.save(figure, path)
