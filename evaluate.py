"""Report how well a trained classifier does, ask it about one pair, or compare vectors' cosines with people's scores.

Example:
    python evaluate.py --data toy
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minibert.cli import parse_options, run
from minibert.errors import RESULT, all_of, painted
from minibert.options import EvaluateOptions, listed

SOME = 1_000  # sentences of each side that are looked at for unknown words

if TYPE_CHECKING:
    import torch

    from minibert.data.pairs import Pairs
    from minibert.inference import Predictions


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
    from minibert.run import check_written

    check_written(options)
    if options.figure:
        check_picture(Path(options.figure))
    answer = ask if options.premise is not None else compare if options.similarity else report
    answer(options, pick_device(options.device))


def report(options: EvaluateOptions, device: torch.device) -> None:
    """Model, pairs, report; and the files that keep it."""
    import numpy as np

    from minibert.card import was_trained_on
    from minibert.data.pairs import Reading, load_all_pairs, load_pairs
    from minibert.hub import load_classifier
    from minibert.metrics import figures, report_text
    from minibert.plots import plot_answers
    from minibert.progress import warning

    # Model: the encoder with its classifier.
    path = Path(options.model)
    model = load_classifier(path).to(device)

    # Pairs: those with a label, sampled as in the notebook; for --predictions all of them, in their order.
    reading = Reading(listed(options.columns), model.labels, options.model)
    if options.predictions:
        pairs = load_all_pairs(options.data, options.split, reading)
    else:
        pairs = load_pairs(options.data, options.split, max_pairs=options.max_pairs, seed=options.seed, reading=reading)
    answers = model.predict(pairs.premises, pairs.hypotheses, options.batch_size)

    # Report: on the pairs that have a label.
    labelled = np.flatnonzero(pairs.labels >= 0)
    if not len(labelled):
        why = "no column of labels is named" if len(listed(options.columns)) == 2 else "no pair has a label"
        print(f"{pairs.source}: {why}, so there is no report{' for --json' if options.json else ''}")
        write_answers(answers, pairs, options)
        return
    labels, predictions = pairs.labels[labelled], answers[labelled]
    result = figures(labels, predictions)
    if was_trained_on(path, pairs.files):
        print(warning(f"{path} was trained on {options.data} itself, so this is no test of it"), end="\n\n")
    if model.known_share(*pairs.premises[:SOME], *pairs.hypotheses[:SOME]) < 1 / 2:
        print(warning(f"most words of {options.data} are unknown to {path}: its answers mean little"), end="\n\n")
    control = " (hypothesis only: a control, trained and evaluated on emptied premises)" * model.hypothesis_only
    accuracy = f"accuracy {result['accuracy']:.4f}"
    text = report_text(result).replace(accuracy, painted(accuracy, RESULT, sys.stdout))
    print(f"{path} on the {options.split} split of {pairs.source}{control}\n\n{text}", flush=True)

    # What is kept: answers, picture and record.
    title = [str(path), f"{options.split} split of {options.data}, {len(labels):,} pairs"]
    picture = partial(plot_answers, options.figure, path, labels, predictions.probabilities, title, model.labels)
    keep(options, options.data, result, partial(write_answers, answers, pairs, options), picture)


def compare(options: EvaluateOptions, device: torch.device) -> None:
    """How well any sentence encoder's cosines agree with people's scores."""
    from minibert.data.pairs import load_scored_pairs
    from minibert.hub import from_pretrained
    from minibert.metrics import similarity, similarity_text

    model = from_pretrained(options.model).to(device)
    pairs = load_scored_pairs(options.similarity, options.split, listed(options.columns))
    result = similarity(model, pairs, options.batch_size)
    print(f"{options.model} on the {options.split} split of {pairs.source}\n\n{similarity_text(result)}", flush=True)
    keep(options, options.similarity, result)


def ask(options: EvaluateOptions, device: torch.device) -> None:
    """Print the probabilities for one pair, and warn on standard error of unknown or truncated text."""
    from minibert.hub import load_classifier
    from minibert.progress import warning

    model = load_classifier(options.model).to(device)
    pair = {"--premise": options.premise or "", "--hypothesis": options.hypothesis or ""}
    for note in [note for name, text in pair.items() for note in model.read(text, name)[1]]:
        print(warning(note, sys.stderr), file=sys.stderr)
    answer = model.predict([pair["--premise"]], [pair["--hypothesis"]])
    width, probabilities = max(13, *map(len, answer.names)), answer.probabilities[0]
    for label, probability in zip(answer.names, probabilities, strict=True):
        line = f"{label:<{width}} {probability:.4f}"
        print(painted(line, RESULT, sys.stdout) if probability == max(probabilities) else line)


def write_answers(answers: Predictions, pairs: Pairs, options: EvaluateOptions) -> None:
    """Write --predictions, if they are asked for, and say so."""
    if options.predictions:
        answers.write_csv(Path(options.predictions), pairs.labels, listed(options.columns))
        missing = f"; {pairs.left_out:,} rows lack a sentence, and are left out" if pairs.left_out else ""
        print(f"{len(pairs):,} answers are in {options.predictions}{missing}")


def keep(options: EvaluateOptions, data: str, result: dict[str, Any], *actions: Callable[[], object]) -> None:
    """Write the record of an evaluation, where --json says and beside the card, after other actions; if one fails,
    the others are still done.
    """
    from minibert.card import add_evaluation
    from minibert.files import write_json

    path, date = Path(options.model), time.strftime("%Y-%m-%d")
    record = {"model": str(path), "data": data, "split": options.split, "date": date, **result}
    records = [lambda: write_json(Path(options.json), record)] if options.json else []
    all_of(*actions, *records, lambda: add_evaluation(path, record))


if __name__ == "__main__":
    run(main)
