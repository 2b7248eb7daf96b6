"""Report how well a trained classifier does, or ask it about one pair.

Example:
    python evaluate.py --data toy --model models/toy_nli
"""

from __future__ import annotations

from collections.abc import Sequence

from minibert.cli import parse_options, run
from minibert.config import EvaluateOptions


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, then do it."""
    options = parse_options(EvaluateOptions, arguments, str(__doc__))
    from minibert.tasks.evaluate import evaluate  # torch loads only now: --help does not need it

    evaluate(options)


if __name__ == "__main__":
    run(main)
