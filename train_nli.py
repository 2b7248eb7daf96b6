"""Turn a pretrained encoder into a Siamese classifier of sentence pairs.

Example:
    python train_nli.py --data toy --encoder models/toy_mlm --output models/toy_nli
"""

from __future__ import annotations

from collections.abc import Sequence

from minibert.cli import parse_options, run
from minibert.config import NLIOptions


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, then do it."""
    options = parse_options(NLIOptions, arguments, str(__doc__))
    from minibert.tasks.nli import finetune  # torch loads only now: --help does not need it

    finetune(options)


if __name__ == "__main__":
    run(main)
