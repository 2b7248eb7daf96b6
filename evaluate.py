"""Report how well a trained classifier does, or ask it about one pair.

Example:
    python evaluate.py --data toy --model models/toy_nli
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minibert.cli import parse_options, run
from minibert.errors import UserError, os_error_text
from minibert.options import EvaluateOptions, listed

if TYPE_CHECKING:
    from minibert.inference import TrainedModel


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, then report."""
    evaluate(parse_options(EvaluateOptions, arguments, str(__doc__)))


def evaluate(options: EvaluateOptions) -> None:
    """Model, pairs, report.

    Raises:
        UserError: an option, a path or a file is wrong.
    """
    # torch loads only now: --help does not need it.
    import numpy as np

    from minibert.card import CARD, EVALUATION, write_card
    from minibert.data.pairs import Reading, load_all_pairs, load_pairs
    from minibert.device import pick_device
    from minibert.drawing import need_matplotlib
    from minibert.files import write_json
    from minibert.hub import load_classifier
    from minibert.metrics import figures, report_text
    from minibert.plots import plot_confusion

    if options.figure:
        need_matplotlib()
    if options.predictions and is_part_of(Path(options.predictions), Path(options.data)):
        raise UserError(f"--predictions {options.predictions} is, or lies in, what is to be read: name another file")
    device = pick_device(options.device)
    path = Path(options.model)
    model = load_classifier(path).to(device)
    if options.premise is not None and options.hypothesis is not None:
        ask(model, options.premise, options.hypothesis)
        return

    reading = Reading(listed(options.columns), model.labels, options.model)
    if options.predictions:
        pairs = load_all_pairs(options.data, options.split, reading)
    else:
        pairs = load_pairs(options.data, options.split, max_pairs=options.max_pairs, seed=options.seed, reading=reading)
    predictions = model.predict(pairs.premises, pairs.hypotheses, options.batch_size)

    def write_predictions() -> None:
        if options.predictions:
            predictions.write_csv(Path(options.predictions), pairs.premises, pairs.hypotheses, pairs.labels)
            missing = f"; {pairs.left_out:,} rows lack a sentence, and are left out" if pairs.left_out else ""
            print(f"{len(pairs):,} answers are in {options.predictions}{missing}")

    labelled = np.flatnonzero(pairs.labels >= 0)
    if not len(labelled):
        print(f"no pair of {pairs.source} has a label, so there is no report{' for --json' if options.json else ''}")
        write_predictions()
        return
    result = figures(pairs.labels[labelled], predictions[labelled])
    control = (
        " (hypothesis only: a control, trained and evaluated on emptied premises)" if model.hypothesis_only else ""
    )
    record = {"model": str(path), "data": options.data, "split": options.split, **result}
    default = path / "confusion_matrix.png" if path.is_dir() else path.with_name(path.stem + "_confusion_matrix.png")
    picture = Path(options.figure) if options.figure else default

    def write_record() -> None:
        if options.json:
            write_json(Path(options.json), record)

    def add_to_card() -> None:
        if (path / CARD).exists() and os.access(path, os.W_OK):  # a folder of train_nli.py, whose card has these, too
            write_json(path / EVALUATION, record)
            write_card(path)

    if was_trained_on(path, Path(options.data)):
        print(f"warning: {path} was trained on {options.data} itself, so this is no test of it\n")
    print(f"{path} on the {options.split} split of {pairs.source}{control}\n\n{report_text(result)}", flush=True)
    all_of(
        write_predictions,
        write_record,
        lambda: plot_confusion(result["confusion_matrix"], picture, result["labels"]),
        add_to_card,
    )


def ask(model: TrainedModel, premise: str, hypothesis: str) -> None:
    """Print the probabilities for one pair."""
    for side, sentence in (("premise", premise), ("hypothesis", hypothesis)):
        if not sentence.strip():
            raise UserError(f"--{side} is empty: give it a sentence")
    answer = model.predict([premise], [hypothesis])
    width = max(13, *map(len, answer.names))
    for label, probability in zip(answer.names, answer.probabilities[0], strict=True):
        print(f"{label:<{width}} {probability:.4f}")


def is_part_of(file: Path, data: Path) -> bool:
    """Whether a file is the data, or would be read as a part of it the next time."""
    if data.is_dir():
        return file.resolve().is_relative_to(data.resolve())
    return data.exists() and file.exists() and file.samefile(data)


def was_trained_on(model: Path, data: Path) -> bool:
    """Whether the run that left a folder read this very file, which says no split."""
    from minibert.files import read_json
    from minibert.run import OPTIONS

    if not data.is_file() or not (model / OPTIONS).is_file():
        return False
    trained = Path(str(read_json(model / OPTIONS, "").get("data", "")))
    return trained.is_file() and trained.samefile(data)


def all_of(*actions: Callable[[], object]) -> None:
    """Do each, whether or not another one fails.

    Raises:
        UserError: what has failed, all in one line.
    """
    failures = []
    for action in actions:
        try:
            action()
        except Exception as error:  # of a picture, it may be anything
            text = os_error_text(error) if isinstance(error, OSError) else str(error)
            failures.append(text if isinstance(error, UserError | OSError) else f"{type(error).__name__}: {text}")
    if failures:
        raise UserError("; ".join(failures))


if __name__ == "__main__":
    run(main)
