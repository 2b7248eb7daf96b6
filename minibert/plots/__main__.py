"""Draw one picture of a run or of a model.

    training     loss, accuracy and learning rate over a run's steps
    confusion    which labels a classifier takes for which
    reliability  how often it is right when it is so sure
    attention    what every head looks at in a sentence
    embeddings   sentences' vectors in two dimensions, by topic

Example:
    python -m minibert.plots attention --model models/sbert_nli_small --text "A man is playing a guitar."

Each has its own flags: python -m minibert.plots attention --help
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from minibert.cli import parse_options, run
from minibert.plots import options

PROGRAM = "python -m minibert.plots"

PICTURES: dict[str, type[Any]] = {
    "training": options.TrainingPicture,
    "confusion": options.ConfusionPicture,
    "reliability": options.ReliabilityPicture,
    "attention": options.AttentionPicture,
    "embeddings": options.EmbeddingsPicture,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the picture's name, then its options, then draw it."""
    parser = argparse.ArgumentParser(
        PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("picture", choices=PICTURES, metavar="PICTURE")
    parser.add_argument("flags", nargs=argparse.REMAINDER, help="that picture's own")
    given = parser.parse_args(arguments)
    kind = PICTURES[given.picture]
    wanted = parse_options(kind, given.flags, str(kind.__doc__), program=f"{PROGRAM} {given.picture}")
    from minibert.tasks import pictures  # torch loads only now: --help does not need it

    getattr(pictures, given.picture)(wanted)


if __name__ == "__main__":
    run(main)
