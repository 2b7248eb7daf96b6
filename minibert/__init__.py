"""minibert: a BERT whose mathematics, 700 lines, you can read in an evening.

Read the scripts first, then bert, masking and sbert, then pretraining, finetuning and training; the rest when you need
it, fast last. README has the whole tree.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minibert.inference import TrainedModel

__version__ = "0.3.0.dev0"
__all__ = ["from_pretrained"]


def from_pretrained(name: str | Path) -> TrainedModel:
    """Load a BERT from a folder or the Hugging Face Hub; see `minibert.hub.loading.from_pretrained`."""
    from minibert.hub import from_pretrained as load  # torch loads only now: `--help` does not need it

    return load(name)
