"""Pictures: what is easier to look at than to read.

    python -m minibert.plots attention --model models/sbert_nli_small --text "A man is playing a guitar."

Each is drawn from numbers that are printed or returned elsewhere as well, so nothing is lost without matplotlib, which
is an extra (`pip install -e ".[plots]"`): one line says that there is no picture, and a run goes on.

All are meant for print and for colour-blind readers: see `canvas`.
"""

from minibert.plots.answers import plot_confusion, plot_reliability
from minibert.plots.attention import draw_attention, plot_attention
from minibert.plots.embeddings import plot_embeddings
from minibert.plots.training import plot_training

__all__ = [
    "draw_attention",
    "plot_attention",
    "plot_confusion",
    "plot_embeddings",
    "plot_reliability",
    "plot_training",
]
