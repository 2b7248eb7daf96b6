"""Pretrain a small BERT with masked language modelling.

Example:
    python train_mlm.py --data toy --output models/toy_mlm
"""

from __future__ import annotations

from collections.abc import Sequence

from minibert.cli import parse_options, run
from minibert.config import MLMOptions


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, then do it."""
    options = parse_options(MLMOptions, arguments, str(__doc__))
    from minibert.tasks.mlm import pretrain  # torch loads only now: --help does not need it

    pretrain(options)


if __name__ == "__main__":
    run(main)
