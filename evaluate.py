"""Report how well a trained classifier does, or ask it about one pair.

Example:
    python evaluate.py --data toy
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minibert.cli import parse_options, run
from minibert.errors import RESULT, UserError, os_error_text, painted
from minibert.options import OPTIONS, EvaluateOptions, listed

if TYPE_CHECKING:
    import torch


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, then report."""
    evaluate(parse_options(EvaluateOptions, arguments, str(__doc__)))


def evaluate(options: EvaluateOptions) -> None:
    """A pair's probabilities, how well vectors agree with people, or the report on a classifier.

    Raises:
        UserError: an option, a path or a file is wrong.
    """
    # torch loads only now: --help does not need it.
    from minibert.device import pick_device
    from minibert.plots import check_picture

    if options.figure:
        check_picture(Path(options.figure))
    device = pick_device(options.device)
    if options.premise is not None and options.hypothesis is not None:
        ask(options, device)
    elif options.similarity:
        report_similarity(options, device)
    else:
        report(options, device)


def report(options: EvaluateOptions, device: torch.device) -> None:
    """Model, pairs, report; and what is kept of it."""
    import numpy as np

    from minibert.card import write_card
    from minibert.data.pairs import Reading, load_all_pairs, load_pairs
    from minibert.files import write_json
    from minibert.hub import load_classifier
    from minibert.metrics import figures, report_text
    from minibert.plots import plot_answers
    from minibert.progress import warning

    if options.predictions and is_part_of(Path(options.predictions), Path(options.data)):
        raise UserError(f"--predictions {options.predictions} is, or lies in, what is to be read: name another file")

    # Model: the encoder with its classifier.
    path = Path(options.model)
    model = load_classifier(path).to(device)

    # Pairs: those with a label, sampled as in the notebook; for --predictions all of them, in their order.
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

    # Report: of the pairs that have a label.
    labelled = np.flatnonzero(pairs.labels >= 0)
    if not len(labelled):
        none = "no column of labels is named" if len(listed(options.columns)) == 2 else "no pair has a label"
        print(f"{pairs.source}: {none}, so there is no report{' for --json' if options.json else ''}")
        write_predictions()
        return
    labels, answers = pairs.labels[labelled], predictions[labelled]
    result = figures(labels, answers)
    if was_trained_on(path, Path(options.data)):
        print(warning(f"{path} was trained on {options.data} itself, so this is no test of it"), end="\n\n")
    control = " (hypothesis only: a control, trained and evaluated on emptied premises)" * model.hypothesis_only
    accuracy = f"accuracy {result['accuracy']:.4f}"
    text = report_text(result).replace(accuracy, painted(accuracy, RESULT, sys.stdout))
    print(f"{path} on the {options.split} split of {pairs.source}{control}\n\n{text}", flush=True)

    # What is kept: all of it that can be written.
    said = {"model": str(path), "data": options.data, "split": options.split, "date": time.strftime("%Y-%m-%d")}
    record = said | result
    beside = path / "confusion_matrix.png" if path.is_dir() else path.with_name(path.stem + "_confusion_matrix.png")
    title = [str(path), f"{options.split} split of {options.data}, {len(labels):,} pairs"]
    all_of(
        write_predictions,
        lambda: write_json(Path(options.json), record) if options.json else None,
        lambda: plot_answers(labels, answers.probabilities, title, Path(options.figure or beside), answers.names),
        lambda: write_card(path, record) if has_card(path) else None,  # a folder of train_nli.py
    )


def ask(options: EvaluateOptions, device: torch.device) -> None:
    """Print the probabilities for one pair."""
    from minibert.hub import load_classifier

    model = load_classifier(options.model).to(device)
    pair = {"premise": options.premise or "", "hypothesis": options.hypothesis or ""}
    for side, sentence in pair.items():
        if not sentence.strip():
            raise UserError(f"--{side} is empty: give it a sentence")
    answer = model.predict([pair["premise"]], [pair["hypothesis"]])
    width, probabilities = max(13, *map(len, answer.names)), answer.probabilities[0]
    for label, probability in zip(answer.names, probabilities, strict=True):
        line = f"{label:<{width}} {probability:.4f}"
        print(painted(line, RESULT, sys.stdout) if probability == max(probabilities) else line)


def report_similarity(options: EvaluateOptions, device: torch.device) -> None:
    """How well any sentence encoder's cosines agree with people's scores."""
    from minibert.card import write_card
    from minibert.data.pairs import load_scored_pairs
    from minibert.files import write_json
    from minibert.hub import from_pretrained
    from minibert.metrics import similarity, similarity_text

    model = from_pretrained(options.model).to(device)
    pairs = load_scored_pairs(options.similarity, options.split, listed(options.columns))
    result = similarity(model, pairs, options.batch_size)
    print(f"{options.model} on the {options.split} split of {pairs.source}\n\n{similarity_text(result)}", flush=True)
    said = {"model": options.model, "data": options.similarity, "split": options.split}
    record, path = said | {"date": time.strftime("%Y-%m-%d")} | result, Path(options.model)
    all_of(
        lambda: write_json(Path(options.json), record) if options.json else None,
        lambda: write_card(path, record) if has_card(path) and (path / OPTIONS).exists() else None,  # not anyone's
    )


def has_card(folder: Path) -> bool:
    """Whether there is a card, which has evaluations, too, and may be written to."""
    from minibert.card import CARD

    return (folder / CARD).exists() and os.access(folder, os.W_OK)


def is_part_of(file: Path, data: Path) -> bool:
    """Whether a file is the data, or would be read as a part of it the next time."""
    if data.is_dir():
        return file.resolve().is_relative_to(data.resolve())
    return data.exists() and file.exists() and file.samefile(data)


def was_trained_on(model: Path, data: Path) -> bool:
    """Whether the run that left a folder read this very file, which says no split."""
    from minibert.files import read_json

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
